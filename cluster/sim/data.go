package sim

import (
	"bytes"
	"encoding/binary"
)

// sectorBytes is what describes itself. Every sector of a disk is zero, or says
// which attempt of which operation wrote it, and where; the rest follows from
// both:
//
//	| value 8 | sector 8 | filling 496 |
//
// so that a torn, misplaced or made-up sector shows without a checker. There is
// no CRC in it: with one of its own at its end every sector would have the same
// CRC32C, and petal's checksums could not tell one from another.
const sectorBytes = 512

// value is what a sector holds: the number of the attempt that wrote it, or 0.
type value uint64

// fill writes the sector that attempt v writes at a place.
func fill(p []byte, v value, sector uint64) {
	if v == 0 {
		clear(p[:sectorBytes])
		return
	}
	binary.LittleEndian.PutUint64(p, uint64(v))
	binary.LittleEndian.PutUint64(p[8:], sector)
	x := uint64(v)*0xff51afd7ed558ccd ^ sector
	for i := 16; i < sectorBytes; i += 8 { // SplitMix64
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(p[i:], z^z>>31)
	}
}

// tell reads a sector; it reports false if no attempt wrote it so at this place.
func tell(p []byte, sector uint64) (value, bool) {
	v := value(binary.LittleEndian.Uint64(p))
	var want [sectorBytes]byte
	fill(want[:], v, sector)
	return v, bytes.Equal(p[:sectorBytes], want[:])
}

// fillAll writes the sectors of a range that begins at byte off of the disk.
func fillAll(p []byte, v value, off uint64) {
	for i := 0; i < len(p); i += sectorBytes {
		fill(p[i:], v, (off+uint64(i))/sectorBytes)
	}
}
