package scsi

import "encoding/binary"

// CDB is a command descriptor block (SPC-4 4.3). Its accessors want the length
// that Lookup has checked.
type CDB []byte

// Opcode is the OPERATION CODE, byte 0.
func (c CDB) Opcode() Opcode { return Opcode(c[0]) }

// ServiceAction is the SERVICE ACTION field, byte 1 bits 4 to 0, of the
// commands that have one.
func (c CDB) ServiceAction() uint8 { return c[1] & 0x1F }

// Control is the CONTROL byte, the last one. length is the CDB's length.
func (c CDB) Control(length int) uint8 { return c[length-1] }

// NACA is the bit of CONTROL that asks for auto contingent allegiance.
const NACA uint8 = 0x04

// LBA is the LOGICAL BLOCK ADDRESS field in the place usual for the CDB's
// group (SBC-3 5): 21, 32 or 64 bits.
func (c CDB) LBA() uint64 {
	switch c[0] >> 5 {
	case 0:
		return uint64(c[1]&0x1F)<<16 | uint64(c[2])<<8 | uint64(c[3])
	case 4:
		return binary.BigEndian.Uint64(c[2:])
	default:
		return uint64(binary.BigEndian.Uint32(c[2:]))
	}
}

// Length is the TRANSFER, ALLOCATION or PARAMETER LIST LENGTH field in the
// place usual for the CDB's group. For READ (6) and WRITE (6) see Blocks.
func (c CDB) Length() uint32 {
	switch c[0] >> 5 {
	case 0:
		return uint32(c[4])
	case 1, 2:
		return uint32(binary.BigEndian.Uint16(c[7:]))
	case 4:
		return binary.BigEndian.Uint32(c[10:])
	default:
		return binary.BigEndian.Uint32(c[6:])
	}
}

// Blocks is the number of logical blocks of a medium access command.
func (c CDB) Blocks() uint32 {
	switch c.Opcode() {
	case OpRead6, OpWrite6:
		// SBC-3 5.7: "A TRANSFER LENGTH field set to zero specifies that 256
		// logical blocks shall be read."
		if c[4] == 0 {
			return 256
		}
	case OpCompareAndWrite:
		return uint32(c[13])
	case OpWriteAtomic16:
		return uint32(binary.BigEndian.Uint16(c[12:]))
	}
	return c.Length()
}

// Protect is the RDPROTECT, WRPROTECT or VRPROTECT field, byte 1 bits 7 to 5.
func (c CDB) Protect() uint8 { return c[1] >> 5 }

// FUA is the bit that asks for the medium, not a volatile cache.
func (c CDB) FUA() bool { return c[1]&0x08 != 0 }

// Bytchk is the BYTCHK field of VERIFY and WRITE AND VERIFY, byte 1 bits 2
// and 1.
func (c CDB) Bytchk() uint8 { return c[1] >> 1 & 3 }
