package scsi

import "encoding/binary"

// Capacity is what READ CAPACITY tells.
type Capacity struct {
	Blocks       uint64 // number of logical blocks, at least 1
	BlockLength  uint32 // bytes
	PhysicalExp  uint8  // logical blocks per physical block, as a power of two
	LowestLBA    uint16 // lowest aligned LBA
	Provisioning bool   // LBPME
	ReadsZeros   bool   // LBPRZ: unmapped blocks read as zeros
}

// Append10 appends the parameter data of READ CAPACITY (10), SBC-3 5.15.2.
func (c Capacity) Append10(b []byte) []byte {
	last := min(c.Blocks-1, 0xFFFFFFFF)
	b = binary.BigEndian.AppendUint32(b, uint32(last))
	return binary.BigEndian.AppendUint32(b, c.BlockLength)
}

// Append16 appends the parameter data of READ CAPACITY (16), SBC-3 5.16.2.
func (c Capacity) Append16(b []byte) []byte {
	var d [32]byte
	binary.BigEndian.PutUint64(d[0:], c.Blocks-1)
	binary.BigEndian.PutUint32(d[8:], c.BlockLength)
	d[13] = c.PhysicalExp & 0xF
	binary.BigEndian.PutUint16(d[14:], c.LowestLBA&0x3FFF)
	if c.Provisioning {
		d[14] |= 0x80
	}
	if c.ReadsZeros {
		d[14] |= 0x40
	}
	return append(b, d[:]...)
}

// ParseCapacity16 reads the parameter data of READ CAPACITY (16).
func ParseCapacity16(d []byte) (c Capacity, ok bool) {
	if len(d) < 16 {
		return c, false
	}
	c.Blocks = binary.BigEndian.Uint64(d) + 1
	c.BlockLength = binary.BigEndian.Uint32(d[8:])
	c.PhysicalExp = d[13] & 0xF
	c.LowestLBA = binary.BigEndian.Uint16(d[14:]) & 0x3FFF
	c.Provisioning = d[14]&0x80 != 0
	c.ReadsZeros = d[14]&0x40 != 0
	return c, true
}

// Provisioning is the PROVISIONING STATUS of an LBA status descriptor
// (SBC-3 5.4.3).
type Provisioning uint8

const (
	Mapped      Provisioning = 0
	Deallocated Provisioning = 1
	Anchored    Provisioning = 2
)

// LBAStatus is one LBA status descriptor.
type LBAStatus struct {
	LBA    uint64
	Blocks uint32
	Status Provisioning
}

// LBAStatusLen is the length in bytes of one LBA status descriptor, and
// LBAStatusHeaderLen of the header in front of them.
const (
	LBAStatusLen       = 16
	LBAStatusHeaderLen = 8
)

// AppendLBAStatus appends the parameter data of GET LBA STATUS.
func AppendLBAStatus(b []byte, list []LBAStatus) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(4+LBAStatusLen*len(list)))
	b = append(b, 0, 0, 0, 0)
	for _, s := range list {
		b = binary.BigEndian.AppendUint64(b, s.LBA)
		b = binary.BigEndian.AppendUint32(b, s.Blocks)
		b = append(b, uint8(s.Status), 0, 0, 0)
	}
	return b
}

// ParseLBAStatus reads the parameter data of GET LBA STATUS.
func ParseLBAStatus(d []byte) (list []LBAStatus, ok bool) {
	if len(d) < LBAStatusHeaderLen {
		return nil, false
	}
	n := min(uint64(binary.BigEndian.Uint32(d))+4, uint64(len(d)))
	for at := uint64(LBAStatusHeaderLen); at+LBAStatusLen <= n; at += LBAStatusLen {
		e := d[at:]
		list = append(list, LBAStatus{
			LBA:    binary.BigEndian.Uint64(e),
			Blocks: binary.BigEndian.Uint32(e[8:]),
			Status: Provisioning(e[12] & 0xF),
		})
	}
	return list, true
}
