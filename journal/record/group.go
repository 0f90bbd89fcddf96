package record

import (
	"encoding/binary"
	"fmt"
)

// Offsets in the group header.
const (
	offVersion = 8
	offBlock   = offSeedEnd
	offBytes   = 44
	offRecords = 48
	offBlocks  = 52
	offFirst   = 56
	offDurable = 64
	offOpening = 72
	offBase    = 80
	offTrim    = 88
	offEnd     = 96
)

// The header ends where the frames begin, on a multiple of 8, and one block is
// a header's least.
var (
	_ = [1]struct{}{}[offEnd-HeaderSize]
	_ = [1]struct{}{}[HeaderSize%8]
	_ = [1]struct{}{}[offGeneration-(offUUID+16)]
	_ = [1]struct{}{}[offSeedEnd-(offGeneration+8)]
	_ = [1]struct{}{}[SegmentSize-(64+8)]
	_ = [BlockSize - HeaderSize - FrameSize]struct{}{}
	_ = [MaxHeaderBytes - HeaderSize - FrameSize - 4*MaxBlocks - MaxHead - 8]struct{}{}
)

// FrameBytes is what a record takes in the header blocks of its group.
func FrameBytes(head, blocks int) int { return (FrameSize + 4*blocks + head + 7) &^ 7 }

// HeaderBlocks is the number of blocks that n bytes of group header and frames
// take.
func HeaderBlocks(n int) int { return (n + BlockSize - 1) / BlockSize }

// GroupBytes is what a record takes on disk in a group of its own; no record
// ever needs more.
func GroupBytes(head, blocks int) int64 {
	return int64(HeaderBlocks(HeaderSize+FrameBytes(head, blocks))+blocks) * BlockSize
}

// Group is what a group header says beyond the sizes.
type Group struct {
	UUID       [16]byte
	Generation uint64
	Block      uint32 // where in the segment the group begins
	First      uint64 // LSN of the first record
	Durable    uint64 // LSN
	Opening    uint64
	Base       uint64 // LSN
	Trim       uint64 // LSN
}

// Flags of a frame.
const (
	// WithNext: the record is one with the next, see the package comment.
	WithNext = 1 << 0

	knownFlags = WithNext
)

// Builder makes the header blocks of a group in memory that it reuses:
// Reset, Add for each record, Finish. The zero value is ready after Reset.
type Builder struct {
	buf     []byte
	n       int // bytes of header and frames
	records int
	blocks  int
}

// Reset begins a group. The blocks are made in buf, of which the length counts
// and which must hold all that will be added.
func (b *Builder) Reset(buf []byte) { *b = Builder{buf: buf, n: HeaderSize} }

// Add appends a record: its head, the CRC32C of its data blocks, its flags. The
// caller keeps to the limits and to the size of the memory given to Reset; Add panics
// beyond them.
func (b *Builder) Add(head []byte, crc []uint32, flags uint16) {
	size := FrameBytes(len(head), len(crc))
	if len(head) > MaxHead || len(crc) > MaxBlocks || b.records >= MaxRecords || b.blocks+len(crc) > MaxGroupBlocks {
		panic("record: group limits exceeded")
	}
	f := b.buf[b.n : b.n+size]
	binary.LittleEndian.PutUint32(f, uint32(len(head)))
	binary.LittleEndian.PutUint16(f[4:], uint16(len(crc)))
	binary.LittleEndian.PutUint16(f[6:], flags)
	at := FrameSize
	for _, c := range crc {
		binary.LittleEndian.PutUint32(f[at:], c)
		at += 4
	}
	at += copy(f[at:], head)
	clear(f[at:])
	b.n += size
	b.records++
	b.blocks += len(crc)
}

// Finish writes the group header and returns the header blocks, which are part
// of the memory given to Reset.
func (b *Builder) Finish(g *Group) []byte {
	h := b.buf[:HeaderBlocks(b.n)*BlockSize]
	clear(h[b.n:])
	clear(h[:HeaderSize])
	copy(h, groupMagic)
	binary.LittleEndian.PutUint16(h[offVersion:], Version)
	copy(h[offUUID:], g.UUID[:])
	binary.LittleEndian.PutUint64(h[offGeneration:], g.Generation)
	binary.LittleEndian.PutUint32(h[offBlock:], g.Block)
	binary.LittleEndian.PutUint32(h[offBytes:], uint32(b.n))
	binary.LittleEndian.PutUint32(h[offRecords:], uint32(b.records))
	binary.LittleEndian.PutUint32(h[offBlocks:], uint32(b.blocks))
	binary.LittleEndian.PutUint64(h[offFirst:], g.First)
	binary.LittleEndian.PutUint64(h[offDurable:], g.Durable)
	binary.LittleEndian.PutUint64(h[offOpening:], g.Opening)
	binary.LittleEndian.PutUint64(h[offBase:], g.Base)
	binary.LittleEndian.PutUint64(h[offTrim:], g.Trim)
	binary.LittleEndian.PutUint32(h[offCRC:], sum(h))
	return h
}

// View is the header blocks of a sound group. Only Parse makes one, so its
// fields agree with each other and with the limits.
type View []byte

func (v View) Generation() uint64 { return binary.LittleEndian.Uint64(v[offGeneration:]) }
func (v View) Block() uint32      { return binary.LittleEndian.Uint32(v[offBlock:]) }
func (v View) Bytes() int         { return int(binary.LittleEndian.Uint32(v[offBytes:])) }
func (v View) Records() int       { return int(binary.LittleEndian.Uint32(v[offRecords:])) }
func (v View) DataBlocks() int    { return int(binary.LittleEndian.Uint32(v[offBlocks:])) }
func (v View) First() uint64      { return binary.LittleEndian.Uint64(v[offFirst:]) }
func (v View) Durable() uint64    { return binary.LittleEndian.Uint64(v[offDurable:]) }
func (v View) Opening() uint64    { return binary.LittleEndian.Uint64(v[offOpening:]) }
func (v View) Base() uint64       { return binary.LittleEndian.Uint64(v[offBase:]) }
func (v View) Trim() uint64       { return binary.LittleEndian.Uint64(v[offTrim:]) }

// HeaderBlocks is the number of header blocks, the length of v in blocks.
func (v View) HeaderBlocks() int { return len(v) / BlockSize }

// Size is what the group takes in the segment, in bytes.
func (v View) Size() int64 { return int64(v.HeaderBlocks()+v.DataBlocks()) * BlockSize }

// Need returns how many bytes of b Parse wants to see, if b may be the start of
// a group, and zero if not. It looks at HeaderSize bytes and believes nothing but
// the limits.
func Need(b []byte) int {
	if len(b) < HeaderSize || string(b[:8]) != groupMagic {
		return 0
	}
	n := binary.LittleEndian.Uint32(b[offBytes:])
	if n < HeaderSize || n > MaxHeaderBytes {
		return 0
	}
	return HeaderBlocks(int(n)) * BlockSize
}

// Parse reads the header blocks of a group of journal uuid at the start of b. The
// view is a part of b. It checks everything about the group but its data. Errors:
// ErrNone; ErrShort, see Need; ErrCorrupt; ErrForeign, another journal's;
// ErrVersion. The generation is for the caller to compare.
func Parse(b []byte, uuid [16]byte) (View, error) {
	if len(b) < HeaderSize {
		return nil, ErrShort
	}
	if string(b[:8]) != groupMagic {
		return nil, ErrNone
	}
	need := Need(b)
	if need == 0 {
		return nil, fmt.Errorf("%w: length of header", ErrCorrupt)
	}
	if len(b) < need {
		return nil, ErrShort
	}
	v := View(b[:need:need])
	if err := checkSum(v, &uuid); err != nil {
		return nil, err
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	return v, nil
}

// check walks the frames of a group whose checksum is right: they must fill the
// header exactly and agree with its counts. A group of ours always does; this
// is so that nobody else's can lead a reader astray.
func (v View) check() error {
	if v.Records() > MaxRecords || v.DataBlocks() > MaxGroupBlocks {
		return fmt.Errorf("%w: group beyond its limits", ErrCorrupt)
	}
	if v.First() == 0 || v.First()+uint64(v.Records()) < v.First() {
		return fmt.Errorf("%w: LSN", ErrCorrupt)
	}
	at, blocks, flags := HeaderSize, 0, uint16(0)
	for range v.Records() {
		f, ok := v.frame(at)
		if !ok {
			return fmt.Errorf("%w: frame at %d", ErrCorrupt, at)
		}
		if flags = f.flags(); flags&^knownFlags != 0 {
			return fmt.Errorf("%w: flags %#x of a record", ErrVersion, flags)
		}
		at += f.size()
		blocks += f.Blocks()
	}
	if at != v.Bytes() || blocks != v.DataBlocks() {
		return fmt.Errorf("%w: frames do not fill the group", ErrCorrupt)
	}
	if flags&WithNext != 0 {
		return fmt.Errorf("%w: the last record of a group is one with the next", ErrCorrupt)
	}
	return nil
}

// Frame is one record of a group.
type Frame []byte

func (f Frame) Blocks() int      { return int(binary.LittleEndian.Uint16(f[4:])) }
func (f Frame) CRC(i int) uint32 { return binary.LittleEndian.Uint32(f[FrameSize+4*i:]) }

// Head returns the record's head; it is a part of the view's memory.
func (f Frame) Head() []byte {
	from := FrameSize + 4*f.Blocks()
	to := from + int(binary.LittleEndian.Uint32(f))
	return f[from:to:to]
}

// WithNext reports whether the record is one with the next of its group.
func (f Frame) WithNext() bool { return f.flags()&WithNext != 0 }

func (f Frame) flags() uint16 { return binary.LittleEndian.Uint16(f[6:]) }
func (f Frame) size() int     { return len(f) }

// frame returns the frame at byte at, if it is wholly inside the group.
func (v View) frame(at int) (Frame, bool) {
	if at < HeaderSize || at+FrameSize > v.Bytes() {
		return nil, false
	}
	head := binary.LittleEndian.Uint32(v[at:])
	blocks := int(binary.LittleEndian.Uint16(v[at+4:]))
	if head > MaxHead || blocks > MaxBlocks {
		return nil, false
	}
	end := at + FrameBytes(int(head), blocks)
	if end > v.Bytes() {
		return nil, false
	}
	return Frame(v[at:end:end]), true
}

// Frames calls f for each record in order with its LSN and the number of its
// first data block, counted in blocks from the start of the group, until f
// returns false.
func (v View) Frames(f func(lsn uint64, dataBlock int, frame Frame) bool) {
	at, block, lsn := HeaderSize, v.HeaderBlocks(), v.First()
	for range v.Records() {
		fr, ok := v.frame(at)
		if !ok || !f(lsn, block, fr) {
			return
		}
		at += fr.size()
		block += fr.Blocks()
		lsn++
	}
}

// Claimed returns the generation that damaged bytes, for which Parse returned
// ErrCorrupt, say they are of.
func Claimed(b []byte) uint64 { return View(b[:HeaderSize]).Generation() }
