package wire

import (
	"errors"

	"petal/cluster/cache"
	"petal/cluster/slab"
)

// ErrShort: the bytes are the beginning of a message.
var ErrShort = errors.New("wire: more bytes needed")

// AppendFrame encodes the whole message behind b, data included.
func (m *Message) AppendFrame(b []byte) ([]byte, error) {
	if err := m.Check(); err != nil {
		return b, err
	}
	b = m.Append(b)
	for i := range m.Data {
		b = append(b, m.Data[i].Bytes()...)
	}
	return b, nil
}

// DecodeFrame decodes the message at the beginning of b and returns how long it
// is. Data are copied to memory of pool, of which m holds one reference; Body is
// in b. The error is ErrShort, or Decode's.
func (m *Message) DecodeFrame(b []byte, pool *slab.Pool) (n int, err error) {
	if len(b) < HeaderSize {
		return 0, ErrShort
	}
	detail, payload, err := (*Header)(b).Lengths()
	if err != nil {
		return 0, err
	}
	n = HeaderSize + detail
	if len(b) < n {
		return 0, ErrShort
	}
	head := b[:n]
	if err := m.Decode(head); err != nil {
		return 0, err
	}
	if len(b) < n+payload {
		return 0, ErrShort
	}
	rest := b[n : n+payload : n+payload]
	if m.Kind.HasBody() {
		return n + payload, m.DecodeBody(head, rest)
	}
	if payload > 0 {
		buf := pool.Get(payload)
		copy(buf.Bytes(), rest)
		m.Data = append(m.Data, cache.Ref{Buf: buf, Len: payload})
	}
	return n + payload, nil
}
