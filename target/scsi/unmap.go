package scsi

import "encoding/binary"

// UnmapBlock is one UNMAP block descriptor.
type UnmapBlock struct {
	LBA    uint64
	Blocks uint32
}

const (
	unmapHeaderLen     = 8
	unmapDescriptorLen = 16
)

// UnmapListLen is the length of an UNMAP parameter list of n descriptors.
func UnmapListLen(n int) int { return unmapHeaderLen + unmapDescriptorLen*n }

// ParseUnmap appends the block descriptors of an UNMAP parameter list to out
// (SBC-3 5.28.2). A list shorter than its header is a length error; a
// descriptor that is cut off is ignored, as the standard wants.
func ParseUnmap(out []UnmapBlock, list []byte) ([]UnmapBlock, *ParamError) {
	if len(list) == 0 {
		return out, nil
	}
	if len(list) < unmapHeaderLen {
		return out, &ParamError{Length: true}
	}
	n := min(int(binary.BigEndian.Uint16(list[2:])), len(list)-unmapHeaderLen)
	for d := list[unmapHeaderLen:][:n]; len(d) >= unmapDescriptorLen; d = d[unmapDescriptorLen:] {
		out = append(out, UnmapBlock{LBA: binary.BigEndian.Uint64(d), Blocks: binary.BigEndian.Uint32(d[8:])})
	}
	return out, nil
}

// AppendUnmap appends an UNMAP parameter list.
func AppendUnmap(b []byte, blocks []UnmapBlock) []byte {
	n := unmapDescriptorLen * len(blocks)
	b = binary.BigEndian.AppendUint16(b, uint16(n+6))
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0, 0, 0, 0)
	for _, k := range blocks {
		b = binary.BigEndian.AppendUint64(b, k.LBA)
		b = binary.BigEndian.AppendUint32(b, k.Blocks)
		b = append(b, 0, 0, 0, 0)
	}
	return b
}
