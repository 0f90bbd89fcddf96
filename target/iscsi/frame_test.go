package iscsi

import (
	"bytes"
	"net"
	"testing"
)

// discardConn takes everything.
type discardConn struct{ bytes.Buffer }

func TestFrameSmoke(t *testing.T) {
	for _, digests := range []bool{false, true} {
		var w Writer
		w.HeaderDigest, w.DataDigest = digests, digests
		var h BHS
		h.Reset(OpDataOut)
		h.DataOut().SetBufferOffset(77)
		w.Append(&h, nil, [][]byte{[]byte("hello "), []byte("world")})
		h.Reset(OpNOPOut)
		w.Append(&h, nil, nil)
		w.AppendBytes(&h, bytes.Repeat([]byte{7}, 100_000))
		var out discardConn
		if err := w.Flush(&out); err != nil {
			t.Fatal(err)
		}
		r := NewReader(&out, 2048)
		r.MaxData = 1 << 20
		r.HeaderDigest, r.DataDigest = digests, digests
		g, err := r.Next()
		if err != nil || g.DataOut().BufferOffset() != 77 || r.DataLength() != 11 {
			t.Fatal(g, err)
		}
		a, b := make([]byte, 3), make([]byte, 20)
		if n, err := r.ReadData([][]byte{a, b}); n != 11 || err != nil || string(a)+string(b[:8]) != "hello world" {
			t.Fatal(n, err, a, b)
		}
		if g, err = r.Next(); err != nil || g.Opcode() != OpNOPOut {
			t.Fatal(g, err)
		}
		if g, err = r.Next(); err != nil || r.DataLength() != 100_000 {
			t.Fatal(g, err)
		}
		d, err := r.Data()
		if err != nil || !bytes.Equal(d, bytes.Repeat([]byte{7}, 100_000)) {
			t.Fatal(len(d), err)
		}
	}
	_ = net.Buffers{}
}
