package wire

import "petal/placement"

// Progress is what a member has of a bucket: an element of the body of Summary,
// Rejoin and LinkControl (R10, R9, R4).
type Progress struct {
	Bucket    placement.Bucket
	Durable   placement.Stamp // last record here
	Committed placement.Stamp // last that is committed
}

// Mark names blocks of one chunk at one node: an element of the body of Missing
// (R9).
type Mark struct {
	Key  placement.Key
	Mask placement.Mask
}

// Sizes of the elements, in bytes, and how many make the longest list.
const (
	ProgressSize = 2 + 4*8
	MarkSize     = 8 + 8 + 2
	ProgressMax  = MaxList / ProgressSize
	MarksMax     = MaxList / MarkSize
)

// AppendProgress encodes p behind the list b.
//
//	0  2  bucket   2  8+8  durable: ver, seq   18  8+8  committed
func AppendProgress(b []byte, p Progress) []byte {
	b = le.AppendUint16(b, uint16(p.Bucket))
	return appendStamp(appendStamp(b, p.Durable), p.Committed)
}

// ParseProgress calls f with each element of the list b until f returns false.
// It returns ErrCorrupt, before the first call, unless b is such a list.
func ParseProgress(b []byte, f func(Progress) bool) error {
	if len(b)%ProgressSize != 0 {
		return corrupt("list of %d bytes", len(b))
	}
	for i := 0; i < len(b); i += ProgressSize {
		if le.Uint16(b[i:]) >= placement.Buckets {
			return corrupt("list with bucket %d", le.Uint16(b[i:]))
		}
	}
	for ; len(b) > 0; b = b[ProgressSize:] {
		p := Progress{placement.Bucket(le.Uint16(b)), stampAt(b[2:]), stampAt(b[18:])}
		if !f(p) {
			break
		}
	}
	return nil
}

func stampAt(b []byte) placement.Stamp {
	return placement.Stamp{Ver: le.Uint64(b), Seq: le.Uint64(b[8:])}
}

// AppendMark encodes m behind the list b.
//
//	0  4  family   4  4  node   8  8  chunk   16  2  mask
func AppendMark(b []byte, m Mark) []byte {
	b = le.AppendUint32(b, uint32(m.Key.Family))
	b = le.AppendUint32(b, uint32(m.Key.Node))
	b = le.AppendUint64(b, uint64(m.Key.Chunk))
	return le.AppendUint16(b, uint16(m.Mask))
}

// ParseMarks calls f with each element of the list b until f returns false. It
// returns ErrCorrupt, before the first call, unless b is such a list: each names
// at least one block of a chunk that can be.
func ParseMarks(b []byte, f func(Mark) bool) error {
	if len(b)%MarkSize != 0 {
		return corrupt("list of %d bytes", len(b))
	}
	for i := 0; i < len(b); i += MarkSize {
		if m := markAt(b[i:]); m.Key.Chunk > maxChunk || m.Key.Family == 0 || m.Key.Node == 0 || m.Mask == 0 {
			return corrupt("list with mark %v", m)
		}
	}
	for ; len(b) > 0; b = b[MarkSize:] {
		if !f(markAt(b)) {
			break
		}
	}
	return nil
}

func markAt(b []byte) Mark {
	return Mark{
		Key: placement.Key{
			Family: placement.Family(le.Uint32(b)), Node: placement.Node(le.Uint32(b[4:])), Chunk: placement.Chunk(le.Uint64(b[8:])),
		},
		Mask: placement.Mask(le.Uint16(b[16:])),
	}
}
