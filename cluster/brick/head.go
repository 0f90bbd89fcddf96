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
//	 0  version  u8    1
//	 1  type     u8    headType
//	 2  mask     u16   blocks of the chunk that the record is about
//	 4  family   u32
//	 8  node     u32
//	12  bucket   u16
//	14  flags    u16   none yet; a reader refuses flags that it does not know
//	16  chunk    u64
//	24  ver      u64   version of the link under which the record was admitted
//	32  seq      u64   number of the record within (bucket, ver), without gaps
//	40  op       u32 coordinator, u32 incarnation, u64 number
//	56  excluded u64   members (bit per place in the link) that lack this record (R8)
//	64  committed u64  every record up to this LSN was committed when this one was appended
//	72  settled  u64   the extents of all records up to this LSN were complete
//	80  target   u64   typeExtent: extent number (40 bits); typeAbort: LSN that is void; else 0
//	88  crc      16 x u32, typeExtent only
const (
	headVersion = 1
	headSize    = 88
	headMax     = headSize + 4*placement.BlocksPerChunk
)

// headType says what a record does. The numbers are on disk.
type headType uint8

const (
	typeWrite      headType = 1 // blocks of mask; their data follows in the journal
	typeExtent     headType = 2 // a whole chunk; its data lies in the extent named by target
	typeZero       headType = 3 // blocks of mask read as zeros from here on (UNMAP, WRITE SAME of zeros)
	typeAbort      headType = 4 // the record with LSN target never happened
	typeDrop       headType = 5 // everything of the family is gone
	typeConfig     headType = 6 // reserved: a link's configuration
	typeMarks      headType = 7 // reserved: stale marks carried forward
	typeCheckpoint headType = 8 // reserved: what a peer has checkpointed
	typeStamp      headType = 9 // nothing but its watermarks
)

var headTypeNames = [...]string{
	typeWrite: "write", typeExtent: "extent-write", typeZero: "zero", typeAbort: "abort",
	typeDrop: "drop", typeConfig: "config", typeMarks: "marks", typeCheckpoint: "checkpoint", typeStamp: "stamp",
}

func (t headType) String() string {
	if int(t) < len(headTypeNames) && headTypeNames[t] != "" {
		return headTypeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// head is a decoded record head.
type head struct {
	Type      headType
	Mask      placement.Mask
	Key       placement.Key
	Bucket    placement.Bucket
	Ver       uint64
	Seq       uint64
	Op        OpID
	Excluded  uint64
	Committed journal.LSN
	Settled   journal.LSN
	Target    uint64
	Sum       [placement.BlocksPerChunk]uint32 // typeExtent only
}

// append encodes h behind b.
func (h *head) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, headVersion, byte(h.Type))
	b = le.AppendUint16(b, uint16(h.Mask))
	b = le.AppendUint32(b, uint32(h.Key.Family))
	b = le.AppendUint32(b, uint32(h.Key.Node))
	b = le.AppendUint16(b, uint16(h.Bucket))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(h.Key.Chunk))
	b = le.AppendUint64(b, h.Ver)
	b = le.AppendUint64(b, h.Seq)
	b = le.AppendUint32(b, h.Op.Coordinator)
	b = le.AppendUint32(b, h.Op.Incarnation)
	b = le.AppendUint64(b, h.Op.Number)
	b = le.AppendUint64(b, h.Excluded)
	b = le.AppendUint64(b, uint64(h.Committed))
	b = le.AppendUint64(b, uint64(h.Settled))
	b = le.AppendUint64(b, h.Target)
	if h.Type == typeExtent {
		for _, c := range h.Sum {
			b = le.AppendUint32(b, c)
		}
	}
	return b
}

// parseHead decodes a record head. A version or flag from the future is
// ErrNewer, anything else that does not fit is ErrRotten.
func parseHead(b []byte, h *head) error {
	if len(b) < headSize {
		return rotten("record head", "of %d bytes is shorter than %d", len(b), headSize)
	}
	le := binary.LittleEndian
	if b[0] != headVersion {
		return newer("record head", int(b[0]), headVersion)
	}
	if flags := le.Uint16(b[14:]); flags != 0 {
		return rotten("record head", "has unknown flags %#x", flags)
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
		Excluded:  le.Uint64(b[56:]),
		Committed: journal.LSN(le.Uint64(b[64:])),
		Settled:   journal.LSN(le.Uint64(b[72:])),
		Target:    le.Uint64(b[80:]),
	}
	want := headSize
	if h.Type == typeExtent {
		want = headMax
	}
	if len(b) != want {
		return rotten("record head", "of type %s has %d bytes, not %d", h.Type, len(b), want)
	}
	for i := range h.Sum {
		if h.Type == typeExtent {
			h.Sum[i] = le.Uint32(b[headSize+4*i:])
		}
	}
	return h.check()
}

// check refuses what no brick ever wrote, so that the code behind it need not
// ask again.
func (h *head) check() error {
	switch h.Type {
	case typeWrite, typeZero, typeExtent:
		if h.Mask == 0 || h.Key.Family == 0 || h.Key.Node == 0 {
			return rotten("record head", "of type %s names nothing: family %d node %d mask %#x", h.Type, h.Key.Family, h.Key.Node, h.Mask)
		}
		if h.Key.Chunk > maxChunk || h.Bucket >= placement.Buckets {
			return rotten("record head", "names chunk %d of bucket %d", h.Key.Chunk, h.Bucket)
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
	case typeDrop:
		if h.Key.Family == 0 {
			return rotten("record head", "of a drop names no family")
		}
	case typeStamp:
	default:
		return newer("record head", int(h.Type), int(typeStamp))
	}
	return nil
}

// maxChunk is the greatest chunk: offsets are below 2^64 bytes.
const maxChunk = 1<<48 - 1
