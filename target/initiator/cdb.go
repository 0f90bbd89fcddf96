package initiator

import (
	"encoding/binary"

	"petal/target/scsi"
)

// CDB is a command descriptor block of up to 16 bytes. The builders below set
// the fields that most callers want; the rest is set in place:
//
//	c := Write16(lba, blocks)
//	c[1] |= 0x08 // FUA
//
// They are named after the commands of SPC-4 and SBC-3. Lengths are in bytes,
// LBAs and counts in logical blocks.
type CDB = [16]byte

func cdb6(op scsi.Opcode, byte1, byte2, length uint8) CDB {
	return CDB{byte(op), byte1, byte2, 0, length}
}

func cdb10(op scsi.Opcode, lba uint32, length uint16) CDB {
	c := CDB{byte(op)}
	binary.BigEndian.PutUint32(c[2:], lba)
	binary.BigEndian.PutUint16(c[7:], length)
	return c
}

func cdb12(op scsi.Opcode, lba, length uint32) CDB {
	c := CDB{byte(op)}
	binary.BigEndian.PutUint32(c[2:], lba)
	binary.BigEndian.PutUint32(c[6:], length)
	return c
}

func cdb16(op scsi.Opcode, lba uint64, length uint32) CDB {
	c := CDB{byte(op)}
	binary.BigEndian.PutUint64(c[2:], lba)
	binary.BigEndian.PutUint32(c[10:], length)
	return c
}

// service sets the SERVICE ACTION of a CDB.
func service(c CDB, action uint8) CDB {
	c[1] = c[1]&^0x1f | action&0x1f
	return c
}

// Commands without a medium address.
func TestUnitReady() CDB             { return cdb6(scsi.OpTestUnitReady, 0, 0, 0) }
func RequestSense(length uint8) CDB  { return cdb6(scsi.OpRequestSense, 0, 0, length) }
func StartStopUnit(bits uint8) CDB   { return cdb6(scsi.OpStartStopUnit, 0, 0, bits) }
func PreventAllow(prevent uint8) CDB { return cdb6(scsi.OpPreventAllow, 0, 0, prevent) }
func Reserve6() CDB                  { return cdb6(scsi.OpReserve6, 0, 0, 0) }
func Release6() CDB                  { return cdb6(scsi.OpRelease6, 0, 0, 0) }
func ModeSelect6(length uint8) CDB   { return cdb6(scsi.OpModeSelect6, 0x10, 0, length) }
func ModeSelect10(length uint16) CDB {
	c := cdb10(scsi.OpModeSelect10, 0, length)
	c[1] = 0x10
	return c
}
func ReadCapacity10() CDB { return cdb10(scsi.OpReadCapacity10, 0, 0) }
func ReadCapacity16(length int) CDB {
	return service(cdb16(scsi.OpServiceActionIn16, 0, uint32(length)), 0x10)
}
func ReportLUNs(length int) CDB { return cdb12(scsi.OpReportLUNs, 0, uint32(length)) }
func ReportPortGroups(length int) CDB {
	return service(cdb12(scsi.OpMaintenanceIn, 0, uint32(length)), 0x0a)
}
func ReportOpcodes(length int) CDB {
	return service(cdb12(scsi.OpMaintenanceIn, 0, uint32(length)), 0x0c)
}

// Inquiry asks for the standard data, InquiryVPD for a vital product data page.
func Inquiry(length uint8) CDB                { return cdb6(scsi.OpInquiry, 0, 0, length) }
func InquiryVPD(page uint8, length uint8) CDB { return cdb6(scsi.OpInquiry, 1, page, length) }

// ModeSense6 and ModeSense10 ask for the current values of a page, without
// block descriptors.
func ModeSense6(page, length uint8) CDB { return cdb6(scsi.OpModeSense6, 0x08, page, length) }
func ModeSense10(page uint8, length uint16) CDB {
	c := cdb10(scsi.OpModeSense10, 0, length)
	c[1], c[2] = 0x08, page
	return c
}

// LogSense asks for the cumulative values of a page.
func LogSense(page uint8, length uint16) CDB {
	c := cdb10(scsi.OpLogSense, 0, length)
	c[2] = 1<<6 | page&0x3f
	return c
}

// Commands that move data of the medium or change it.
func Read6(lba uint32, blocks uint8) CDB             { return medium6(scsi.OpRead6, lba, blocks) }
func Write6(lba uint32, blocks uint8) CDB            { return medium6(scsi.OpWrite6, lba, blocks) }
func Read10(lba uint32, blocks uint16) CDB           { return cdb10(scsi.OpRead10, lba, blocks) }
func Write10(lba uint32, blocks uint16) CDB          { return cdb10(scsi.OpWrite10, lba, blocks) }
func Read12(lba, blocks uint32) CDB                  { return cdb12(scsi.OpRead12, lba, blocks) }
func Write12(lba, blocks uint32) CDB                 { return cdb12(scsi.OpWrite12, lba, blocks) }
func Read16(lba uint64, blocks uint32) CDB           { return cdb16(scsi.OpRead16, lba, blocks) }
func Write16(lba uint64, blocks uint32) CDB          { return cdb16(scsi.OpWrite16, lba, blocks) }
func WriteAndVerify16(lba uint64, blocks uint32) CDB { return cdb16(scsi.OpWriteVerify16, lba, blocks) }
func Verify16(lba uint64, blocks uint32) CDB         { return cdb16(scsi.OpVerify16, lba, blocks) }
func Prefetch16(lba uint64, blocks uint32) CDB       { return cdb16(scsi.OpPrefetch16, lba, blocks) }
func SyncCache10(lba uint32, blocks uint16) CDB      { return cdb10(scsi.OpSyncCache10, lba, blocks) }
func SyncCache16(lba uint64, blocks uint32) CDB      { return cdb16(scsi.OpSyncCache16, lba, blocks) }

// WriteSame16 writes one block, or zeros with WriteSameUnmap, to many. Out is
// the block.
func WriteSame16(lba uint64, blocks uint32, flags uint8) CDB {
	c := cdb16(scsi.OpWriteSame16, lba, blocks)
	c[1] = flags
	return c
}

// Flags of WRITE SAME (SBC-3, 5.46).
const (
	WriteSameNDOB  uint8 = 0x01 // no data-out buffer (16-byte CDB only)
	WriteSameUnmap uint8 = 0x08
)

func medium6(op scsi.Opcode, lba uint32, blocks uint8) CDB {
	return CDB{byte(op), byte(lba>>16) & 0x1f, byte(lba >> 8), byte(lba), blocks}
}

// CompareAndWrite: Out is the blocks to compare, then those to write.
func CompareAndWrite(lba uint64, blocks uint8) CDB {
	c := cdb16(scsi.OpCompareAndWrite, lba, 0)
	c[13] = blocks
	return c
}

// WriteAtomic16 has a 16-bit count.
func WriteAtomic16(lba uint64, blocks uint16) CDB {
	c := cdb16(scsi.OpWriteAtomic16, lba, 0)
	binary.BigEndian.PutUint16(c[12:], blocks)
	return c
}

// GetLBAStatus asks from lba on.
func GetLBAStatus(lba uint64, length int) CDB {
	return service(cdb16(scsi.OpServiceActionIn16, lba, uint32(length)), 0x12)
}

// Unmap: Out is UnmapList.
func Unmap(length uint16) CDB { return cdb10(scsi.OpUnmap, 0, length) }

// Extent is a run of logical blocks.
type Extent struct {
	LBA    uint64
	Blocks uint32
}

// UnmapList is the parameter list of UNMAP (SBC-3, 5.28.2).
func UnmapList(extents ...Extent) []byte {
	n := 16 * len(extents)
	b := binary.BigEndian.AppendUint16(nil, uint16(6+n))
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0, 0, 0, 0)
	for _, e := range extents {
		b = binary.BigEndian.AppendUint64(b, e.LBA)
		b = binary.BigEndian.AppendUint32(b, e.Blocks)
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

// Persistent reservations (SPC-4, 6.15 and 6.16). The service actions and
// types are the standard's numbers.
func PersistentIn(action uint8, length uint16) CDB {
	return service(cdb10(scsi.OpPersistentIn, 0, length), action)
}

// PersistentOut: Out is PersistentList.
func PersistentOut(action, typ uint8, length int) CDB {
	c := CDB{byte(scsi.OpPersistentOut), action & 0x1f, typ & 0x0f}
	binary.BigEndian.PutUint32(c[5:], uint32(length))
	return c
}

// PersistentList is the basic parameter list of PERSISTENT RESERVE OUT; flags
// is its byte 20 (APTPL is bit 0).
func PersistentList(key, serviceKey uint64, flags uint8) []byte {
	b := binary.BigEndian.AppendUint64(nil, key)
	b = binary.BigEndian.AppendUint64(b, serviceKey)
	return append(b, 0, 0, 0, 0, flags, 0, 0, 0)
}
