package scsi

import "encoding/binary"

// LUNMax is the greatest logical unit number that EncodeLUN can express.
const LUNMax = 0x3FFF

// DecodeLUN reads the 8-byte LUN field of a command. It accepts single-level
// LUNs by the peripheral device addressing method (00b, bus 0) and by the flat
// space addressing method (01b), SAM-5 4.7.5. ok is false for all others.
func DecodeLUN(field uint64) (lun uint16, ok bool) {
	if field<<16 != 0 {
		return 0, false
	}
	first := uint16(field >> 48)
	switch first >> 14 {
	case 0: // peripheral: the second byte is the LUN, the first the bus
		return first & 0xFF, first>>8 == 0
	case 1: // flat
		return first & LUNMax, true
	}
	return 0, false
}

// EncodeLUN is the 8-byte LUN field of a logical unit: by the peripheral
// device addressing method below 256, flat above.
func EncodeLUN(lun uint16) uint64 {
	if lun < 256 {
		return uint64(lun) << 48
	}
	return uint64(lun&LUNMax|0x4000) << 48
}

// SELECT REPORT field of REPORT LUNS (SPC-4 6.33).
const (
	SelectNonWellKnown uint8 = 0x00
	SelectWellKnown    uint8 = 0x01
	SelectAll          uint8 = 0x02
)

// AppendReportLUNs appends the parameter data of REPORT LUNS.
func AppendReportLUNs(b []byte, luns []uint16) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(8*len(luns)))
	b = append(b, 0, 0, 0, 0)
	for _, l := range luns {
		b = binary.BigEndian.AppendUint64(b, EncodeLUN(l))
	}
	return b
}
