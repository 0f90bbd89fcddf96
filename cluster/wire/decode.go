package wire

import (
	"time"

	"petal/placement"
)

// Decode fills m from a header and its detail: head is HeaderSize bytes and as
// many as Lengths said. It does not keep head. Data and Body of m are empty
// afterwards, but their memory stays for the caller to use. What follows on the
// wire are DataLength bytes of data, or BodyLength bytes of a body, which
// DecodeBody checks.
//
// The error is ErrVersion or ErrCorrupt; then m is not to be used.
func (m *Message) Decode(head []byte) (err error) {
	h := (*Header)(head)
	detail, payload, err := h.Lengths()
	if err != nil {
		return err
	}
	if len(head) != HeaderSize+detail {
		return corrupt("%d bytes of header and detail, not %d", len(head), HeaderSize+detail)
	}
	if le.Uint32(h[atCRC:]) != headSum(h[:], head[HeaderSize:]) {
		return corrupt("checksum of the header")
	}
	if v := h[atVersion]; v != Version {
		if v > Version {
			return ErrVersion
		}
		return corrupt("version %d", v)
	}
	*m = Message{Data: m.Data[:0], Body: m.Body[:0]}
	m.Kind = Kind(h[atKind])
	r := &kinds[m.Kind]
	if r.name == "" {
		return corrupt("no such message: %v", m.Kind)
	}
	m.header(h)
	if m.Flags&^flagsKnown != 0 {
		return corrupt("%v with flags %#x", m.Kind, m.Flags)
	}
	return m.detail(head[HeaderSize:], r, payload)
}

func (m *Message) header(h *Header) {
	m.Flags = Flags(le.Uint16(h[atFlags:]))
	m.Op = placement.OpID{Coordinator: le.Uint32(h[atOp:]), Incarnation: le.Uint32(h[atOp+4:]), Number: le.Uint64(h[atOp+8:])}
	m.Ver, m.VVer = le.Uint64(h[atVer:]), le.Uint64(h[atVVer:])
	m.Key.Chunk = placement.Chunk(le.Uint64(h[atChunk:]))
	m.Sent = time.Duration(le.Uint64(h[atDetail:])>>16) * time.Microsecond
}

// detail decodes the fields of the kind and checks all lengths against them.
func (m *Message) detail(b []byte, r *row, payload int) error {
	if len(b) < r.detailSize() || b[3] != 0 {
		return corrupt("%v with a detail of %d bytes", m.Kind, len(b))
	}
	m.Status, m.Excluded, m.Code = Status(b[0]), placement.Members(b[1]), b[2]
	d := details{b[wordSize:], r.fields}
	if d.next(fieldKey) {
		m.Key.Family, m.Key.Node = placement.Family(d.u32()), placement.Node(d.u32())
	}
	if d.next(fieldLink) {
		m.Link = placement.LinkID{GMap: d.u32(), Position: d.u32()}
	}
	if d.next(fieldSpan) {
		m.From, m.To = d.u32(), d.u32()
	}
	if d.next(fieldMasks) {
		x := d.u64()
		m.Bucket, m.Mask, m.Zeros, m.Bad = placement.Bucket(x), placement.Mask(x>>16), placement.Mask(x>>32), placement.Mask(x>>48)
	}
	if d.next(fieldStamp) {
		m.Stamp = placement.Stamp{Ver: d.u64(), Seq: d.u64()}
	}
	if d.next(fieldCommitted) {
		m.Committed = placement.Stamp{Ver: d.u64(), Seq: d.u64()}
	}
	if d.next(fieldLoad) {
		m.Load = Load{uint32(d.u64()), d.u64()}
	}
	if d.next(fieldHead) {
		m.Head = placement.Server(d.u64())
	}
	if d.next(fieldIndex) {
		m.Index = d.u64()
	}
	if d.next(fieldAt) {
		m.At = time.Duration(d.u64()&timeMask) * time.Microsecond
	}
	if err := m.check(r); err != nil {
		return err
	}
	return m.lengths(d.rest, r, payload)
}

// lengths holds the payload and the sums, which are what is left of the
// detail, against what the fields say.
func (m *Message) lengths(sums []byte, r *row, payload int) error {
	n := 0
	if r.fields&fieldSums != 0 {
		n = m.Pieces(nil)
	}
	if len(sums) != 4*n {
		return corrupt("%v with %d bytes of checksums, not %d", m.Kind, len(sums), 4*n)
	}
	for i := range n {
		m.Sum[i] = le.Uint32(sums[4*i:])
	}
	if r.form == formBody {
		if payload > r.body {
			return corrupt("%v with a body of %d bytes, more than %d", m.Kind, payload, r.body)
		}
		return nil
	}
	if want := m.DataLength(); payload != want {
		return corrupt("%v with %d bytes of data, not %d", m.Kind, payload, want)
	}
	return nil
}

// details takes the fields of a detail one after another.
type details struct {
	rest   []byte
	fields field
}

func (d *details) next(f field) bool { return d.fields&f != 0 }

func (d *details) u32() uint32 {
	x := le.Uint32(d.rest)
	d.rest = d.rest[4:]
	return x
}

func (d *details) u64() uint64 {
	x := le.Uint64(d.rest)
	d.rest = d.rest[8:]
	return x
}

// HasBody reports whether the payload of messages of kind k is a body.
func (k Kind) HasBody() bool { return kinds[k].form == formBody }

// DecodeBody makes body the message's Body if it is what the header and detail
// at head, which m was decoded from, were sent with. It is not copied.
func (m *Message) DecodeBody(head, body []byte) error {
	if le.Uint32(head[HeaderSize+4:]) != Sum(body) {
		return corrupt("checksum of the body of %v", m.Kind)
	}
	m.Body = body
	return nil
}
