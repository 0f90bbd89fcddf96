package brick

import (
	"encoding/binary"
	"fmt"

	"petal/journal"
	"petal/placement"
)

// A record head is what the brick puts into the opaque head of a journal
// record. Little-endian, fixed offsets; frozen.
//
//	 0  version  u8    2
//	 1  type     u8    headType
//	 2  mask     u16   blocks of the chunk that the record is about
//	 4  family   u32
//	 8  node     u32
//	12  bucket   u16
//	14  flags    u16   1: carried, see origin; a reader refuses flags that it does not know
//	16  chunk    u64
//	24  ver      u64   version of the link under which the record was admitted
//	32  seq      u64   number of the record within (bucket, ver), without gaps
//	40  op       u32 coordinator, u32 incarnation, u64 number
//	56  excluded u64   members (bit per place in the link) that lack this record (R8)
//	64  committed u64  every record up to this LSN was committed when this one was appended
//	72  settled  u64   the extents of all records up to this LSN were complete
//	80  target   u64   typeExtent: extent number (40 bits); typeAbort: LSN that is void; typeHistory: a version; else 0
//	88  gmap     u32   the link: gmap, and position on its ring
//	92  position u32
//	96  crc      16 x u32, typeExtent only
//	    buckets  512   typeDiscard only: bit per bucket
//	    origin   u64   carried only: LSN of the record that this one stands for, in its place
//
// Version 1 ended at 88, and only typeExtent, Write, Zero, Abort, Drop and Stamp
// were known. It was written by nodes that stood alone: its link is position 0 of
// gmap 1, and all that was durable was committed.
const (
	headVersion = 2
	headSize    = 96
	headSize1   = 88 // of version 1
	headMax     = headSize + 4*placement.BlocksPerChunk

	flagCarried = 1
)

// linkOf1 is the link of records of version 1.
var linkOf1 = LinkID{GMap: 1, Position: 0}

// headType says what a record does. The numbers are on disk.
type headType uint8

const (
	typeWrite      headType = 1 // blocks of mask; their data follows in the journal
	typeExtent     headType = 2 // a whole chunk; its data lies in the extent named by target
	typeZero       headType = 3 // blocks of mask read as zeros from here on (UNMAP, WRITE SAME of zeros)
	typeAbort      headType = 4 // the record with LSN target never happened
	typeDrop       headType = 5 // everything of the family is gone
	typeConfig     headType = 6 // reserved: a link's configuration
	typeMarks      headType = 7 // members excluded lack blocks of mask (R8); nothing is written
	typeCheckpoint headType = 8 // reserved: what a peer has checkpointed
	typeStamp      headType = 9 // nothing but its watermarks

	typeMissing    headType = 10 // this copy lacks blocks of mask from here on; another has them (R9)
	typeFill       headType = 11 // as typeWrite, but only for blocks that are missing at this point
	typeFillZero   headType = 12 // the same, of zeros
	typeFillAbsent headType = 13 // the same: nothing was ever written there at this node
	typeRepair     headType = 14 // as typeWrite, but only for blocks whose checksum is the same already
	typeUnmark     headType = 15 // marks of members excluded that were made under a version below ver are void
	typeDiscard    headType = 16 // everything of the family in the buckets that follow is gone; family 0: the link's order
	typeCut        headType = 17 // ver, seq is the last of the bucket, whatever came before
	typeHistory    headType = 18 // ver, seq is the last of ver in the bucket; of versions below target nothing is known
)

var headTypeNames = [...]string{
	typeWrite: "write", typeExtent: "extent-write", typeZero: "zero", typeAbort: "abort",
	typeDrop: "drop", typeConfig: "config", typeMarks: "marks", typeCheckpoint: "checkpoint", typeStamp: "stamp",
	typeMissing: "missing", typeFill: "fill", typeFillZero: "fill with zeros", typeFillAbsent: "fill with nothing",
	typeRepair: "repair", typeUnmark: "unmark", typeDiscard: "discard", typeCut: "cut", typeHistory: "history",
}

func (t headType) String() string {
	if int(t) < len(headTypeNames) && headTypeNames[t] != "" {
		return headTypeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// ordered reports whether such records are of the order that the head of a link
// makes: prepared first, committed by the caller. The others are the brick's
// own affair and count as soon as they are durable.
func (t headType) ordered() bool { return t == typeWrite || t == typeExtent || t == typeZero }

// stores reports whether such records may need space.
func (t headType) stores() bool {
	return t == typeWrite || t == typeExtent || t == typeFill || t == typeRepair
}

// data reports whether the record's blocks follow it in the journal.
func (t headType) data() bool { return t == typeWrite || t == typeFill || t == typeRepair }

// hides reports whether nothing below such a record is seen any more.
func (t headType) hides() bool { return t.ordered() || t == typeMissing }

// control reports whether such records are about more than one chunk. The
// destager takes them alone, after all that came before.
func (t headType) control() bool { return t == typeDrop || t == typeUnmark || t == typeDiscard }

// head is a decoded record head.
type head struct {
	Type      headType
	Mask      placement.Mask
	Key       placement.Key
	Bucket    placement.Bucket
	Ver       uint64
	Seq       uint64
	Op        OpID
	Excluded  placement.Members
	Committed journal.LSN
	Settled   journal.LSN
	Target    uint64
	Link      LinkID
	Sum       [placement.BlocksPerChunk]uint32 // typeExtent only
	Buckets   *bucketSet                       // typeDiscard only
	Origin    journal.LSN                      // zero: not carried
	alone     bool                             // version 1
}

// stamp returns where the record is in its bucket's order.
func (h *head) stamp() placement.Stamp { return placement.Stamp{Ver: h.Ver, Seq: h.Seq} }

// bucketSet is a set of buckets.
type bucketSet [placement.Buckets / 8]byte

func (s *bucketSet) has(b placement.Bucket) bool { return s[b/8]>>(b%8)&1 != 0 }
func (s *bucketSet) add(b placement.Bucket)      { s[b/8] |= 1 << (b % 8) }

// append encodes h behind b.
func (h *head) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, headVersion, byte(h.Type))
	b = le.AppendUint16(b, uint16(h.Mask))
	b = le.AppendUint32(b, uint32(h.Key.Family))
	b = le.AppendUint32(b, uint32(h.Key.Node))
	b = le.AppendUint16(b, uint16(h.Bucket))
	flags := uint16(0)
	if h.Origin != 0 {
		flags = flagCarried
	}
	b = le.AppendUint16(b, flags)
	b = le.AppendUint64(b, uint64(h.Key.Chunk))
	b = le.AppendUint64(b, h.Ver)
	b = le.AppendUint64(b, h.Seq)
	b = le.AppendUint32(b, h.Op.Coordinator)
	b = le.AppendUint32(b, h.Op.Incarnation)
	b = le.AppendUint64(b, h.Op.Number)
	b = le.AppendUint64(b, uint64(h.Excluded))
	b = le.AppendUint64(b, uint64(h.Committed))
	b = le.AppendUint64(b, uint64(h.Settled))
	b = le.AppendUint64(b, h.Target)
	b = le.AppendUint32(b, h.Link.GMap)
	b = le.AppendUint32(b, h.Link.Position)
	switch h.Type {
	case typeExtent:
		for _, c := range h.Sum {
			b = le.AppendUint32(b, c)
		}
	case typeDiscard:
		b = append(b, h.Buckets[:]...)
	}
	if h.Origin != 0 {
		b = le.AppendUint64(b, uint64(h.Origin))
	}
	return b
}

// parseHead decodes a record head. A version or flag from the future is
// ErrNewer, anything else that does not fit is ErrRotten.
func parseHead(b []byte, h *head) error {
	if len(b) < headSize1 {
		return rotten("record head", "of %d bytes is shorter than %d", len(b), headSize1)
	}
	le := binary.LittleEndian
	size := headSize
	switch b[0] {
	case 1:
		size = headSize1
	case headVersion:
		if len(b) < headSize {
			return rotten("record head", "of %d bytes is shorter than %d", len(b), headSize)
		}
	default:
		return newer("record head", int(b[0]), headVersion)
	}
	flags := le.Uint16(b[14:])
	if flags > flagCarried || flags != 0 && b[0] == 1 {
		return rotten("record head", "has unknown flags %#x", flags)
	}
	if x := le.Uint64(b[56:]); x > 1<<8-1 {
		return rotten("record head", "excludes members %#x", x)
	}
	*h = head{
		Type: headType(b[1]),
		Mask: placement.Mask(le.Uint16(b[2:])),
		Key: placement.Key{
			Family: placement.Family(le.Uint32(b[4:])),
			Node:   placement.Node(le.Uint32(b[8:])),
			Chunk:  placement.Chunk(le.Uint64(b[16:])),
		},
		Bucket:    placement.Bucket(le.Uint16(b[12:])),
		Ver:       le.Uint64(b[24:]),
		Seq:       le.Uint64(b[32:]),
		Op:        OpID{Coordinator: le.Uint32(b[40:]), Incarnation: le.Uint32(b[44:]), Number: le.Uint64(b[48:])},
		Excluded:  placement.Members(b[56]),
		Committed: journal.LSN(le.Uint64(b[64:])),
		Settled:   journal.LSN(le.Uint64(b[72:])),
		Target:    le.Uint64(b[80:]),
		Link:      linkOf1,
		alone:     b[0] == 1,
	}
	if !h.alone {
		h.Link = LinkID{GMap: le.Uint32(b[88:]), Position: le.Uint32(b[92:])}
	}
	if b = b[size:]; flags&flagCarried != 0 {
		if len(b) < 8 || le.Uint64(b[len(b)-8:]) == 0 || !h.Type.ordered() {
			return rotten("record head", "of type %s stands for no other", h.Type)
		}
		h.Origin = journal.LSN(le.Uint64(b[len(b)-8:]))
		b = b[:len(b)-8]
	}
	if err := h.parseRest(b); err != nil {
		return err
	}
	return h.check()
}

// parseRest decodes what follows the fixed part.
func (h *head) parseRest(b []byte) error {
	want := 0
	switch h.Type {
	case typeExtent:
		want = len(h.Sum) * 4
	case typeDiscard:
		want = len(bucketSet{})
	}
	switch {
	case len(b) != want:
		return rotten("record head", "of type %s has %d bytes more than the fixed ones, not %d", h.Type, len(b), want)
	case h.alone && h.Type > typeStamp:
		return rotten("record head", "of type %s has version 1", h.Type)
	case h.Type == typeExtent:
		for i := range h.Sum {
			h.Sum[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
	case h.Type == typeDiscard:
		set := bucketSet(b) // a copy: b is the reader's
		h.Buckets = &set
	}
	return nil
}

// check refuses what no brick ever wrote, so that the code behind it need not
// ask again.
func (h *head) check() error {
	switch h.Type {
	case typeWrite, typeZero, typeExtent, typeMarks, typeMissing, typeFill, typeFillZero, typeFillAbsent, typeRepair:
		if h.Mask == 0 || h.Key.Family == 0 || h.Key.Node == 0 {
			return rotten("record head", "of type %s names nothing: family %d node %d mask %#x", h.Type, h.Key.Family, h.Key.Node, h.Mask)
		}
		if h.Key.Chunk > maxChunk || h.Bucket >= placement.Buckets {
			return rotten("record head", "names chunk %d of bucket %d", h.Key.Chunk, h.Bucket)
		}
		if h.Type == typeMarks && h.Excluded == 0 {
			return rotten("record head", "marks blocks of nobody")
		}
		if h.Type == typeExtent && (h.Mask != placement.Full || h.Target > maxExtent) {
			return rotten("record head", "of an extent-write has mask %#x and extent %d", h.Mask, h.Target)
		}
		if h.Type != typeExtent && h.Target != 0 {
			return rotten("record head", "of type %s has target %d", h.Type, h.Target)
		}
	case typeAbort:
		if h.Target == 0 {
			return rotten("record head", "of an abort names no record")
		}
	case typeDiscard: // of family 0: the order of the link
	case typeDrop:
		if h.Key.Family == 0 {
			return rotten("record head", "of type %s names no family", h.Type)
		}
	case typeUnmark:
		if h.Bucket != 0 || h.Excluded == 0 {
			return rotten("record head", "takes back marks of members %#x in bucket %d", h.Excluded, h.Bucket)
		}
	case typeCut, typeHistory:
		if h.Bucket >= placement.Buckets || h.stamp() == (placement.Stamp{}) {
			return rotten("record head", "cuts bucket %d at %v", h.Bucket, h.stamp())
		}
	case typeStamp:
	default:
		return newer("record head", int(h.Type), int(typeHistory))
	}
	return nil
}

// maxChunk is the greatest chunk: offsets are below 2^64 bytes.
const maxChunk = 1<<48 - 1
