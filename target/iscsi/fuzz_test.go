package iscsi

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// drain reads all PDUs of b in changing ways. It must end, without a panic and
// within the memory that MaxData allows.
func drain(t *testing.T, b []byte, header, data bool) {
	r := newReader(bytes.NewReader(b), 0, header, data)
	for n := 0; ; n++ {
		r.Buffered()
		h, err := r.Next()
		if err == nil {
			_ = h.Opcode().String()
			if h.Opcode() == OpSCSICommand {
				if _, err := ParseAHS(r.AHS()); err != nil && !isA[*RejectError](err) {
					t.Fatal(err)
				}
			}
			if _, err = take(r, n%3); isA[*RejectError](err) {
				err = nil
			}
		}
		if len(r.buf) > DefaultRecvDataSegment+afterBulk+MaxAHS {
			t.Fatalf("buffer of %d bytes", len(r.buf))
		}
		if err == nil {
			continue
		}
		if err != io.EOF && err != io.ErrUnexpectedEOF && !isA[*ConnectionError](err) {
			t.Fatal(err)
		}
		return
	}
}

func TestGarbage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		b := make([]byte, rnd.IntN(1000))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		drain(t, b, rnd.IntN(2) == 0, rnd.IntN(2) == 0)
	}
}

func FuzzPDU(f *testing.F) {
	for _, m := range messages {
		for i := range 4 {
			f.Add(wire(f, i&1 != 0, i&2 != 0, m), i&1 != 0, i&2 != 0)
		}
	}
	f.Add(wire(f, false, false, messages...), false, false)
	f.Fuzz(func(t *testing.T, b []byte, header, data bool) { drain(t, b, header, data) })
}

func FuzzAHS(f *testing.F) {
	for _, m := range messages {
		f.Add(m.ahs)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAHS(b)
		if err != nil {
			return
		}
		// What has been understood can be said again, and means the same.
		var c []byte
		if a.ExtraCDB != nil {
			c = AppendExtendedCDB(c, a.ExtraCDB)
		}
		if a.HasReadLength {
			c = AppendReadLength(c, a.ReadLength)
		}
		again, err := ParseAHS(c)
		if err != nil || !cmp.Equal(a, again) {
			t.Fatalf("%+v, then %+v, %v", a, again, err)
		}
	})
}

func FuzzText(f *testing.F) {
	for _, m := range messages {
		f.Add(m.data)
	}
	f.Add([]byte("A=b\x00C=d\x00\x00"))
	f.Add([]byte("A=b\x00A=d\x00"))
	f.Add([]byte("A=b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := ParseText(b)
		if err != nil {
			if _, ok := errors.AsType[*RejectError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseText(AppendText(nil, pairs))
		if err != nil || !cmp.Equal(pairs, again) {
			t.Fatalf("%q, then %q, %v", pairs, again, err)
		}
	})
}
