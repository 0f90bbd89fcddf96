// Package record is the journal's format on disk: segments, groups and the
// records in them. It turns bytes into these and back and knows whether they
// are sound; where they lie and what a missing one means is the journal's
// business. Nothing in it waits, and it trusts no byte it reads.
//
// A segment is a file of fixed size. Its first block is the segment header, then
// come groups, each written by one request, without gaps:
//
//	block 0           1                                                  size/4096
//	      +-----------+-----------------+-------+----------------+-----------+
//	      | segment   | group           | group | group          | zeros, or |
//	      | header    |                 |       |                | old bytes |
//	      +-----------+-----------------+-------+----------------+-----------+
//	                  /                 \
//	      +-----------------------------+--------+--------+-----+--------+
//	      | header blocks               | data   | data   | ... | data   |
//	      +-----------------------------+--------+--------+-----+--------+
//	      | group header | frame | frame | .. 0 |
//
// A frame is one record: its head bytes as the owner of the journal gave them,
// and the CRC32C of each of its data blocks. The data blocks follow the header
// blocks in the order of the frames. All numbers are little-endian.
//
// Records that are one with the next make a chain with it: recovery keeps all of
// a chain or nothing. A chain never leaves its group.
//
// Segment header, 72 bytes, the rest of its block is zero:
//
//	 0  8  magic "petalseg"
//	 8  2  format version
//	10  2  reserved, zero
//	12  4  CRC32C of the block with this field zero, seeded as below
//	16 16  uuid of the journal
//	32  8  generation: grows with every use of any segment of the journal
//	40  8  size of the segment in bytes
//	48  8  opening: counts how often the journal was opened
//	56  8  base: the first LSN that this opening wrote, or would have
//	64  8  trim: records below it are no longer needed
//
// Group header, 96 bytes:
//
//	 0  8  magic "petalgrp"
//	 8  2  format version
//	10  2  reserved, zero
//	12  4  CRC32C of the header blocks with this field zero, seeded as below
//	16 16  uuid of the journal
//	32  8  generation of the segment
//	40  4  block: where in the segment the group begins
//	44  4  bytes of group header and frames
//	48  4  records
//	52  4  data blocks
//	56  8  first: LSN of the first record
//	64  8  durable: the highest LSN known durable when the group was issued
//	72  8  opening, as in the segment header
//	80  8  base, as in the segment header
//	88  8  trim, as in the segment header
//
// Frame, a multiple of 8 bytes:
//
//	0  4  bytes of head
//	4  2  data blocks
//	6  2  flags: bit 0, one with the next record; the others zero
//	8 4*n CRC32C of each data block, not seeded
//	.. h  head, then zeros up to a multiple of 8
//
// Header checksums start from CRC32C(uuid, generation) and not from zero. So
// what an earlier use of the segment, or another journal, left in it never
// passes for valid. The bytes 0 to 47 keep their meaning in every version: they
// suffice to check the CRC, and only then is the version believed. So a rotten
// version field is corruption, not a newer version. A flag that this program does
// not know is a newer version's.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version of the format. History:
//
//	1  first
const Version = 1

// Sizes and limits, in bytes unless they say blocks.
const (
	BlockSize   = 4096
	SegmentSize = 72 // of the segment header
	HeaderSize  = 96 // of the group header
	FrameSize   = 8  // of a frame without CRCs and head

	MaxHead   = 1 << 20 // head of one record
	MaxBlocks = 256     // data blocks of one record
	// MaxHeaderBytes bounds group header and frames together; the largest single
	// record fits.
	MaxHeaderBytes = MaxHead + 64<<10
	// MaxGroupBlocks bounds the data blocks of a group: with the header it is one
	// vector of IOV_MAX, 1,024, parts.
	MaxGroupBlocks = 1023
	// MaxRecords bounds the records of a group.
	MaxRecords = 4096
)

// MaxGroup is the size of the largest group, in bytes.
const MaxGroup = (MaxHeaderBytes+BlockSize-1)/BlockSize*BlockSize + MaxGroupBlocks*BlockSize

// What may be wrong with bytes that should be a header.
var (
	// ErrNone: no header begins here; zeros, say, or data.
	ErrNone = errors.New("record: no header here")
	// ErrCorrupt: the bytes claim to be a header and are damaged.
	ErrCorrupt = errors.New("record: corrupt")
	// ErrForeign: a sound header of another journal.
	ErrForeign = errors.New("record: of another journal")
	// ErrVersion: sound, but written by a newer petal.
	ErrVersion = errors.New("record: format version is newer than this program knows")
	// ErrShort: sound so far, but more bytes are needed.
	ErrShort = errors.New("record: more bytes needed")
)

const (
	segmentMagic = "petalseg"
	groupMagic   = "petalgrp"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C of a data block, as frames carry it.
func Checksum(block []byte) uint32 { return crc32.Checksum(block, castagnoli) }

// Where both headers keep what their checksum is about.
const (
	offCRC        = 12
	offUUID       = 16
	offGeneration = 32
	offSeedEnd    = 40
)

var noCRC [4]byte // never written

// sum is the checksum of header blocks with their CRC field as zero. It starts
// from that of uuid and generation, which lie next to each other in b.
func sum(b []byte) uint32 {
	c := crc32.Checksum(b[offUUID:offSeedEnd], castagnoli)
	c = crc32.Update(c, castagnoli, b[:offCRC])
	c = crc32.Update(c, castagnoli, noCRC[:])
	return crc32.Update(c, castagnoli, b[offCRC+4:])
}

// checkSum checks header blocks b in the order that tells most: damage first, so
// that a damaged uuid or version is corruption; then whose it is; then whether
// this program knows the rest.
func checkSum(b []byte, uuid *[16]byte) error {
	if binary.LittleEndian.Uint32(b[offCRC:]) != sum(b) {
		return fmt.Errorf("%w: checksum of header", ErrCorrupt)
	}
	if [16]byte(b[offUUID:offGeneration]) != *uuid {
		return ErrForeign
	}
	return checkVersion(b)
}

// checkVersion believes the version field of a header whose CRC is right.
func checkVersion(b []byte) error {
	switch v := binary.LittleEndian.Uint16(b[8:]); {
	case v > Version:
		return fmt.Errorf("%w: %d > %d", ErrVersion, v, Version)
	case v == 0:
		return fmt.Errorf("%w: version 0", ErrCorrupt)
	}
	return nil
}

// Segment is what a segment header says.
type Segment struct {
	UUID       [16]byte
	Generation uint64
	Size       uint64 // bytes
	Opening    uint64
	Base       uint64 // LSN
	Trim       uint64 // LSN
}

// Encode fills block, BlockSize bytes, with the segment header.
func (s *Segment) Encode(block []byte) {
	block = block[:BlockSize]
	clear(block)
	copy(block, segmentMagic)
	binary.LittleEndian.PutUint16(block[8:], Version)
	copy(block[offUUID:], s.UUID[:])
	binary.LittleEndian.PutUint64(block[offGeneration:], s.Generation)
	binary.LittleEndian.PutUint64(block[40:], s.Size)
	binary.LittleEndian.PutUint64(block[48:], s.Opening)
	binary.LittleEndian.PutUint64(block[56:], s.Base)
	binary.LittleEndian.PutUint64(block[64:], s.Trim)
	binary.LittleEndian.PutUint32(block[offCRC:], sum(block))
}

// ParseSegment reads the segment header of journal uuid in block, BlockSize
// bytes. Errors: ErrNone, ErrForeign (another uuid), ErrCorrupt, ErrVersion.
func ParseSegment(block []byte, uuid [16]byte) (Segment, error) {
	if len(block) < BlockSize {
		return Segment{}, ErrShort
	}
	block = block[:BlockSize]
	if string(block[:8]) != segmentMagic {
		return Segment{}, ErrNone
	}
	if err := checkSum(block, &uuid); err != nil {
		return Segment{}, err
	}
	return Segment{
		UUID:       uuid,
		Generation: binary.LittleEndian.Uint64(block[offGeneration:]),
		Size:       binary.LittleEndian.Uint64(block[40:]),
		Opening:    binary.LittleEndian.Uint64(block[48:]),
		Base:       binary.LittleEndian.Uint64(block[56:]),
		Trim:       binary.LittleEndian.Uint64(block[64:]),
	}, nil
}

// Reseal makes the checksum of header blocks right again after a change, for
// tests that play a newer version or an attacker.
func Reseal(b []byte) { binary.LittleEndian.PutUint32(b[offCRC:], sum(b)) }
