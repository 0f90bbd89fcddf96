package load

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// SectorBytes is the unit of stamping and of judging, whatever the logical
// block length of the disk is.
const SectorBytes = 512

// Offsets of the stamp's fields; the picture is in the package comment.
const (
	stampRun    = 8
	stampOp     = 16
	stampSector = 24
	stampFiller = 32
	stampCRC    = SectorBytes - 4
)

var (
	stampMagic = [8]byte{'P', 'E', 'T', 'A', 'L', 'V', 'F', 'Y'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeroSector [SectorBytes]byte
)

// putStamps fills data, whole sectors, with the stamps of a write that begins
// at sector.
func putStamps(data []byte, run, op, sector uint64) {
	for len(data) >= SectorBytes {
		putStamp(data[:SectorBytes], run, op, sector)
		data, sector = data[SectorBytes:], sector+1
	}
}

func putStamp(s []byte, run, op, sector uint64) {
	copy(s, stampMagic[:])
	binary.BigEndian.PutUint64(s[stampRun:], run)
	binary.BigEndian.PutUint64(s[stampOp:], op)
	binary.BigEndian.PutUint64(s[stampSector:], sector)
	// A Weyl sequence under a multiply: cheap, and no two sectors look alike,
	// so that neither compression nor deduplication can flatter a target.
	x := run ^ op*0x9E3779B97F4A7C15 ^ sector*0xD1B54A32D192ED03
	for i := stampFiller; i+8 <= stampCRC; i += 8 {
		x += 0x9E3779B97F4A7C15
		z := (x ^ x>>32) * 0xD6E8FEB86659FD93
		binary.LittleEndian.PutUint64(s[i:], z^z>>32)
	}
	binary.LittleEndian.PutUint32(s[stampCRC-4:], uint32(x))
	binary.BigEndian.PutUint32(s[stampCRC:], crc32.Checksum(s[:stampCRC], castagnoli))
}

// content is what the bytes of one sector turned out to be.
type content uint8

const (
	contentStamp   content = iota // a whole stamp of this run
	contentZero                   // all zeros
	contentForeign                // not a stamp, or one of another run
	contentRotten                 // begins as a stamp of this run, and its CRC is wrong
)

// readStamp says what s, one sector, holds; op and sector are set for
// contentStamp and, as far as they can be believed, for contentRotten.
func readStamp(s []byte, run uint64) (c content, op, sector uint64) {
	if !bytes.Equal(s[:len(stampMagic)], stampMagic[:]) {
		if bytes.Equal(s, zeroSector[:]) {
			return contentZero, 0, 0
		}
		return contentForeign, 0, 0
	}
	op = binary.BigEndian.Uint64(s[stampOp:])
	sector = binary.BigEndian.Uint64(s[stampSector:])
	whole := binary.BigEndian.Uint32(s[stampCRC:]) == crc32.Checksum(s[:stampCRC], castagnoli)
	switch {
	case binary.BigEndian.Uint64(s[stampRun:]) != run:
		return contentForeign, op, sector
	case !whole:
		return contentRotten, op, sector
	}
	return contentStamp, op, sector
}
