package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"petal/placement"
)

// Sizes, in bytes.
const (
	HeaderSize = 64
	// MaxDetail is the greatest detail, of all kinds.
	MaxDetail = 256
	// MaxData is the greatest data: one chunk.
	MaxData = placement.ChunkSize
	// MaxPayload is the greatest payload.
	MaxPayload = MaxBody

	wordSize = 8
	maxChunk = 1<<48 - 1
	timeMask = 1<<48 - 1
)

// Header is the first bytes of a message: see the package's drawing.
type Header [HeaderSize]byte

// The drawing, asserted: where the last field ends is the size.
const _ = uint(HeaderSize-(atCRC+4)) | uint((atCRC+4)-HeaderSize)

const (
	atMagic   = 0
	atVersion = atMagic + 4
	atKind    = atVersion + 1
	atFlags   = atKind + 1
	atOp      = atFlags + 2
	atVer     = atOp + 16
	atVVer    = atVer + 8
	atChunk   = atVVer + 8
	atPayload = atChunk + 8
	atDetail  = atPayload + 4
	atSent    = atDetail + 2
	atCRC     = atSent + 6
)

// magic begins every message: "ptl" and a byte that is no text.
var magic = [4]byte{'p', 't', 'l', 0x1a}

// Errors of decoding. They end the connection: nothing behind such a message
// can be trusted.
var (
	// ErrCorrupt: no petal wrote this.
	ErrCorrupt = errors.New("wire: damaged message")
	// ErrVersion: sound, but of a version that this program does not know.
	ErrVersion = errors.New("wire: message of a newer version")
)

var le = binary.LittleEndian

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// Lengths returns how many bytes of detail and of payload follow. It checks no
// more than is needed to trust the lengths so far as to read the detail, which
// is at most MaxDetail bytes; the payload's length is to be trusted only after
// Decode.
func (h *Header) Lengths() (detail, payload int, err error) {
	if [4]byte(h[:4]) != magic {
		return 0, 0, corrupt("magic %#x", h[:4])
	}
	detail, payload = int(le.Uint16(h[atDetail:])), int(le.Uint32(h[atPayload:]))
	if detail < wordSize || detail > MaxDetail || payload > MaxPayload {
		return 0, 0, corrupt("%d bytes of detail, %d of payload", detail, payload)
	}
	return detail, payload, nil
}

// Check returns an error unless the message can be encoded: its data and body
// are as long as its kind and its fields say, and its fields are within their
// limits.
func (m *Message) Check() error {
	r := &kinds[m.Kind]
	switch {
	case r.name == "":
		return fmt.Errorf("wire: no such message: %v", m.Kind)
	case m.Flags&^flagsKnown != 0:
		return fmt.Errorf("wire: %v with flags %#x", m.Kind, m.Flags)
	case len(m.Body) > r.body:
		return fmt.Errorf("wire: %v with a body of %d bytes, more than %d", m.Kind, len(m.Body), r.body)
	}
	if err := m.check(r); err != nil {
		return err
	}
	n := 0
	for i := range m.Data {
		n += m.Data[i].Len
	}
	if want := m.DataLength(); n != want {
		return fmt.Errorf("wire: %v with %d bytes of data, not %d", m.Kind, n, want)
	}
	return nil
}

// check looks at the fields, of which receivers rely on being within limits.
func (m *Message) check(r *row) error {
	if r.fields&fieldKey != 0 && m.Key.Chunk > maxChunk {
		return corrupt("%v of chunk %d", m.Kind, m.Key.Chunk)
	}
	if m.Bucket >= placement.Buckets {
		return corrupt("%v of bucket %d", m.Kind, m.Bucket)
	}
	if m.Excluded >= 1<<placement.MaxCopies {
		return corrupt("%v excludes members %#x", m.Kind, m.Excluded)
	}
	if r.fields&fieldSpan == 0 {
		if r.form == formBlocks && m.Mask == 0 && m.Kind == Replicate {
			return corrupt("%v of no block", m.Kind)
		}
		if m.Kind == Fetched && m.Flags&FlagZero != 0 && m.Mask != 0 {
			return corrupt("%v of data and of none", m.Kind)
		}
		return nil
	}
	return m.checkSpan(r)
}

func (m *Message) checkSpan(r *row) error {
	touched := SpanMask(m.From, m.To)
	switch {
	case r.form == formReply && m.Mask == 0:
		return nil // no data; From is a byte's number, or nothing
	case r.form == formReply && m.Mask&^touched != 0:
		return corrupt("%v of bytes %d to %d with data of blocks %#x", m.Kind, m.From, m.To, m.Mask)
	case touched == 0 || m.From%sectorSize != 0 || m.To%sectorSize != 0:
		return corrupt("%v of bytes %d to %d", m.Kind, m.From, m.To)
	case r.form == formPair && touched&(touched-1) != 0:
		return corrupt("%v of bytes %d to %d, more than one block", m.Kind, m.From, m.To)
	}
	return nil
}

// sectorSize is the least logical block of a disk.
const sectorSize = 512

// Append encodes header, detail and body behind b; the data, if any, follow on
// the wire as they are. The message has passed Check.
func (m *Message) Append(b []byte) []byte {
	r := &kinds[m.Kind]
	sums := 0
	if r.fields&fieldSums != 0 {
		sums = m.Pieces(nil)
	}
	detail := r.detailSize() + 4*sums
	payload := len(m.Body)
	if r.form != formBody {
		payload = m.DataLength()
	}
	at := len(b)
	b = append(b, magic[0], magic[1], magic[2], magic[3], Version, byte(m.Kind))
	b = le.AppendUint16(b, uint16(m.Flags))
	b = le.AppendUint32(b, m.Op.Coordinator)
	b = le.AppendUint32(b, m.Op.Incarnation)
	b = le.AppendUint64(b, m.Op.Number)
	b = le.AppendUint64(b, m.Ver)
	b = le.AppendUint64(b, m.VVer)
	b = le.AppendUint64(b, uint64(m.Key.Chunk))
	b = le.AppendUint32(b, uint32(payload))
	b = le.AppendUint64(b, uint64(detail)|uint64(m.Sent/time.Microsecond)<<16) // both fields
	b = le.AppendUint32(b, 0)
	b = m.appendDetail(b, r, sums)
	le.PutUint32(b[at+atCRC:], headSum(b[at:at+HeaderSize], b[at+HeaderSize:]))
	return append(b, m.Body...)
}

// headSum is the checksum of a header and its detail.
func headSum(header, detail []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, header[:atCRC]), castagnoli, detail)
}

func (m *Message) appendDetail(b []byte, r *row, sums int) []byte {
	b = append(b, byte(m.Status), byte(m.Excluded), m.Code, 0)
	b = le.AppendUint32(b, Sum(m.Body))
	f := r.fields
	if f&fieldKey != 0 {
		b = le.AppendUint32(b, uint32(m.Key.Family))
		b = le.AppendUint32(b, uint32(m.Key.Node))
	}
	if f&fieldLink != 0 {
		b = le.AppendUint32(b, m.Link.GMap)
		b = le.AppendUint32(b, m.Link.Position)
	}
	if f&fieldSpan != 0 {
		b = le.AppendUint32(b, m.From)
		b = le.AppendUint32(b, m.To)
	}
	if f&fieldMasks != 0 {
		b = le.AppendUint64(b, uint64(m.Bucket)|uint64(m.Mask)<<16|uint64(m.Zeros)<<32|uint64(m.Bad)<<48)
	}
	if f&fieldStamp != 0 {
		b = appendStamp(b, m.Stamp)
	}
	if f&fieldCommitted != 0 {
		b = appendStamp(b, m.Committed)
	}
	if f&fieldLoad != 0 {
		b = le.AppendUint64(b, uint64(m.Load.Queue)) // and four bytes that nobody reads
		b = le.AppendUint64(b, m.Load.Avail)
	}
	if f&fieldHead != 0 {
		b = le.AppendUint64(b, uint64(m.Head))
	}
	if f&fieldIndex != 0 {
		b = le.AppendUint64(b, m.Index)
	}
	if f&fieldAt != 0 {
		b = le.AppendUint64(b, uint64(m.At/time.Microsecond))
	}
	for _, s := range m.Sum[:sums] {
		b = le.AppendUint32(b, s)
	}
	return b
}

func appendStamp(b []byte, s placement.Stamp) []byte {
	return le.AppendUint64(le.AppendUint64(b, s.Ver), s.Seq)
}
