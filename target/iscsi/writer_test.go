package iscsi

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// The digests of RFC 7143, appendix A.4.
func TestDigestVectors(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range 32 {
		up[i], down[i] = byte(i), byte(31-i)
	}
	read, _ := hex.DecodeString("01c00000" + "00000000" + "00000000" + "00000000" + "14000000" + "00000400" + "00000014" + "00000018" + "28000000" + "00000000" + "02000000" + "00000000")
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"zeros", make([]byte, 32), "aa36918a"},
		{"ones", bytes.Repeat([]byte{0xff}, 32), "43aba862"},
		{"increasing", up, "4e79dd46"},
		{"decreasing", down, "5cdb3f11"},
		{"a SCSI Read(10) command", read, "563a96d9"},
	} {
		if got := hex.EncodeToString(littleEndian(crcUpdate(0, tt.data))); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func littleEndian(v uint32) []byte {
	return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}
}

// On the wire a data digest covers the padding (section 11.2.3).
func TestPaddingIsDigested(t *testing.T) {
	b := wire(t, false, true, message{set: func(h *BHS) { h.Reset(OpDataOut) }, data: []byte{1}})
	want := append(append(b[:HeaderSize:HeaderSize], 1, 0, 0, 0), littleEndian(crcUpdate(0, []byte{1, 0, 0, 0}))...)
	if !bytes.Equal(b, want) {
		t.Fatalf("% x", b)
	}
}

func TestSpoil(t *testing.T) {
	for fault, inHeader := range map[Fault]bool{SpoilHeaderDigest: true, SpoilDataDigest: false} {
		w := Writer{HeaderDigest: true, DataDigest: true, Spoil: fault}
		w.AppendBytes(messages[0].header2(), []byte("x"))
		w.AppendBytes(messages[0].header2(), []byte("x")) // this one is good again
		var b bytes.Buffer
		w.Flush(&b)
		r := newReader(&b, 0, true, true)
		_, err := r.Next()
		if inHeader {
			if !isA[*ConnectionError](err) {
				t.Error(err)
			}
			continue
		}
		if err := r.Skip(); !isA[*RejectError](err) {
			t.Error(err)
		}
		if _, err := r.Next(); err != nil {
			t.Error(err)
		}
		if err := r.Skip(); err != nil {
			t.Error(err)
		}
	}
}

// socketPair is a connection over loopback.
func socketPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// What a socket does not take at once stays pending, in order, while more is
// appended; Flush sends the rest.
func TestTryFlush(t *testing.T) {
	a, b := socketPair(t)
	try, err := NewTryFlusher(a)
	if err != nil {
		t.Fatal(err)
	}
	w := Writer{HeaderDigest: true, DataDigest: true}
	data := make([]byte, 1<<20+1)
	rand.NewChaCha8([32]byte{2}).Read(data)
	var total int
	full := false
	for i := 0; !full || i < 3; i++ {
		var h BHS
		h.Reset(OpDataIn)
		h.DataIn().SetDataSN(0)
		h.SetITT(uint32(i))
		w.AppendBytes(&h, data[i:])
		total++
		done, err := try.Flush(&w)
		if err != nil {
			t.Fatal(err)
		}
		if done != (w.Pending() == 0) || done && len(w.vectors)+w.used > 0 {
			t.Fatalf("done %v with %d bytes pending, %d vectors held", done, w.Pending(), len(w.vectors))
		}
		full = full || !done
	}
	if w.Sent()+uint64(w.Pending()) != w.Appended() {
		t.Fatal(w.Sent(), w.Pending(), w.Appended())
	}
	got := make(chan error, 1)
	go func() {
		r := newReader(b, ReadBuffer, true, true)
		r.MaxData = MaxDataSegmentField
		for i := range total {
			h, err := r.Next()
			if err == nil && h.ITT() != uint32(i) {
				err = fmt.Errorf("PDU %d came as %d", i, h.ITT())
			}
			if err == nil {
				var d []byte
				if d, err = r.Data(); err == nil && !bytes.Equal(d, data[i:]) {
					err = fmt.Errorf("data of PDU %d differs", i)
				}
			}
			if err != nil {
				got <- err
				return
			}
		}
		got <- nil
	}()
	if err := w.Flush(a); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if w.Pending() != 0 {
		t.Fatal(w.Pending())
	}
}

// Headers that follow each other go out as one vector.
func TestHeadersAreJoined(t *testing.T) {
	var w Writer
	for range 10 {
		w.Append(messages[5].header2(), nil, nil)
	}
	w.AppendBytes(messages[3].header2(), []byte("12345"))
	w.Append(messages[5].header2(), nil, nil) // joins the padding
	if len(w.vectors) != 3 {
		t.Fatalf("%d vectors", len(w.vectors))
	}
}

// Raw bytes go out as they are, and count.
func TestAppendRaw(t *testing.T) {
	var w Writer
	var b bytes.Buffer
	w.Append(messages[5].header2(), nil, nil)
	w.AppendRaw([]byte("abc"))
	w.Append(messages[5].header2(), nil, nil)
	if err := w.Flush(&b); err != nil || b.Len() != 2*HeaderSize+3 || w.Sent() != uint64(b.Len()) || w.Pending() != 0 {
		t.Fatal(err, b.Len(), w.Sent(), w.Pending())
	}
	if got := b.Bytes()[HeaderSize : HeaderSize+3]; string(got) != "abc" {
		t.Fatalf("% x", got)
	}
}

// More PDUs than the arena has blocks, then again: nothing is mixed up.
func TestManyPDUs(t *testing.T) {
	var w Writer
	for round := range 3 {
		var b bytes.Buffer
		const n = 10_000
		for i := range n {
			var h BHS
			h.Reset(OpNOPIn)
			h.SetITT(uint32(i))
			w.Append(&h, nil, nil)
		}
		if err := w.Flush(&b); err != nil {
			t.Fatal(err)
		}
		if len(w.arena) > arenaKeep {
			t.Errorf("%d blocks kept", len(w.arena))
		}
		r := NewReader(&b, 0)
		for i := range n {
			h, err := r.Next()
			if err != nil || h.ITT() != uint32(i) {
				t.Fatal(round, i, h, err)
			}
		}
	}
}

func noWriteAllocations(t *testing.T, digests bool, list []message) {
	a, b := socketPair(t)
	go io.Copy(io.Discard, b)
	try, err := NewTryFlusher(a)
	if err != nil {
		t.Fatal(err)
	}
	w := Writer{HeaderDigest: digests, DataDigest: digests}
	headers := make([]BHS, len(list))
	vectors := make([][][]byte, len(list))
	for i, m := range list {
		headers[i], vectors[i] = m.header(), [][]byte{m.data}
	}
	for name, flush := range map[string]func() error{
		"Flush":    func() error { return w.Flush(a) },
		"TryFlush": func() error { try.Flush(&w); return w.Flush(a) },
	} {
		write := func() {
			for i := range list {
				w.Append(&headers[i], list[i].ahs, vectors[i])
			}
			if err := flush(); err != nil {
				t.Fatal(err)
			}
		}
		write()
		if n := testing.AllocsPerRun(50, write); n != 0 {
			t.Errorf("%s of %d PDUs, digests %v: %v allocations", name, len(list), digests, n)
		}
	}
}

// Append refuses what a header cannot say.
func TestAppendPanics(t *testing.T) {
	new(Writer).Append(new(BHS), make([]byte, MaxAHS), [][]byte{make([]byte, MaxDataSegmentField)}) // the longest that it can
	for name, f := range map[string]func(w *Writer, h *BHS){
		"AHS not a multiple of 4": func(w *Writer, h *BHS) { w.Append(h, make([]byte, 3), nil) },
		"AHS too long":            func(w *Writer, h *BHS) { w.Append(h, make([]byte, MaxAHS+4), nil) },
		"data too long":           func(w *Writer, h *BHS) { w.AppendBytes(h, make([]byte, MaxDataSegmentField+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(new(Writer), new(BHS))
		})
	}
}

func BenchmarkWrite4K(b *testing.B) {
	var w Writer
	h := messages[4].header2()
	data := [][]byte{make([]byte, 4096)}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		w.Append(h, nil, data)
		if n++; n%32 == 0 {
			w.sent = w.appended
			w.reset()
		}
	}
}
