package iscsi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/iotest"
)

// wire is the messages as they go over a connection.
func wire(t testing.TB, header, data bool, list ...message) []byte {
	t.Helper()
	w := Writer{HeaderDigest: header, DataDigest: data}
	for _, m := range list {
		h := m.header()
		w.Append(&h, m.ahs, [][]byte{m.data})
	}
	var b bytes.Buffer
	if err := w.Flush(&b); err != nil {
		t.Fatal(err)
	}
	if w.Pending() != 0 || int(w.Sent()) != b.Len() {
		t.Fatalf("%d bytes pending, %d sent of %d", w.Pending(), w.Sent(), b.Len())
	}
	return b.Bytes()
}

func newReader(src io.Reader, size int, header, data bool) *Reader {
	r := NewReader(src, size)
	r.HeaderDigest, r.DataDigest = header, data
	return r
}

// take reads the data segment in one of the ways there are.
func take(r *Reader, how int) ([]byte, error) {
	switch how {
	case 0:
		b, err := r.Data()
		return slices.Clone(b), err
	case 1: // in small parts, the last of them too long
		var parts [][]byte
		for n := r.DataLength(); n > -3; n -= 3 {
			parts = append(parts, make([]byte, 3))
		}
		n, err := r.ReadData(parts)
		return bytes.Join(parts, nil)[:n], err
	}
	a := make([]byte, min(2, r.DataLength())) // some of it, then the rest
	if n, err := r.ReadData([][]byte{a}); n != len(a) || err != nil {
		return a, err
	}
	b, err := r.Data()
	return append(a, b...), err
}

func TestRoundTrip(t *testing.T) {
	for _, digests := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		stream := wire(t, digests[0], digests[1], messages...)
		for how := range 3 {
			for name, src := range map[string]io.Reader{
				"at once": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)), "in halves": iotest.HalfReader(bytes.NewReader(stream)),
			} {
				t.Run(fmt.Sprintf("%v/%d/%s", digests, how, name), func(t *testing.T) {
					roundTrip(t, newReader(src, 0, digests[0], digests[1]), how)
				})
			}
		}
	}
}

func roundTrip(t *testing.T, r *Reader, how int) {
	for _, m := range messages {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		want := m.header()
		want.SetAHSLength(len(m.ahs))
		want.SetDataLength(len(m.data))
		if *h != want || !bytes.Equal(r.AHS(), m.ahs) || r.DataLength() != len(m.data) {
			t.Fatalf("%s: got % x, AHS % x, %d bytes", m.name, h[:], r.AHS(), r.DataLength())
		}
		got, err := take(r, how)
		if err != nil || !bytes.Equal(got, m.data) || r.DataLength() != 0 {
			t.Fatalf("%s: data %q, %v", m.name, got, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}
}

// A PDU cut off anywhere is never taken, and is told from a clean end.
func TestEveryTruncatedPrefix(t *testing.T) {
	for _, m := range messages {
		for _, digest := range []bool{false, true} {
			whole := wire(t, digest, digest, m)
			for n := range len(whole) {
				r := newReader(bytes.NewReader(whole[:n]), 0, digest, digest)
				if r.Buffered() {
					t.Fatalf("%s cut at %d: Buffered", m.name, n)
				}
				_, err := r.Next()
				if err == nil {
					_, err = take(r, n%3)
				}
				want := io.ErrUnexpectedEOF
				if n == 0 {
					want = io.EOF
				}
				if err != want {
					t.Fatalf("%s cut at %d of %d: %v", m.name, n, len(whole), err)
				}
			}
		}
	}
}

// Every flipped bit is found by one of the digests, and a wrong data digest
// leaves the connection in step.
func TestFlippedBits(t *testing.T) {
	for _, m := range messages {
		whole := wire(t, true, true, m, messages[0])
		end := len(whole) - len(wire(t, true, true, messages[0]))
		for bit := range end * 8 {
			if at := bit / 8; at >= 4 && at < 8 {
				continue // lengths: see TestLengthsAreBounded
			}
			b := slices.Clone(whole)
			b[bit/8] ^= 1 << (bit % 8)
			r := newReader(bytes.NewReader(b), 0, true, true)
			_, err := r.Next()
			if inHeader := bit/8 < HeaderSize+len(m.ahs)+digestSize; inHeader {
				if !isA[*ConnectionError](err) {
					t.Fatalf("%s, bit %d of the header: %v", m.name, bit, err)
				}
				continue
			}
			if err == nil {
				_, err = take(r, bit%3)
			}
			if e, ok := errors.AsType[*RejectError](err); !ok || e.Reason != RejectDataDigest {
				t.Fatalf("%s, bit %d: %v", m.name, bit, err)
			}
			if h, err := r.Next(); err != nil || h.Opcode() != messages[0].header2().Opcode() {
				t.Fatalf("%s, bit %d: out of step: %v", m.name, bit, err)
			}
		}
	}
}

func (m *message) header2() *BHS { h := m.header(); return &h }

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// A data segment longer than declared is refused before memory is taken, with
// and without its header being all there is.
func TestLengthsAreBounded(t *testing.T) {
	var h BHS
	h.Reset(OpDataOut)
	for _, tt := range []struct {
		length, max int
		ok          bool
	}{{8192, 8192, true}, {8193, 8192, false}, {MaxDataSegmentField, 8192, false}, {MaxDataSegmentField, MaxDataSegmentField, true}} {
		h.SetDataLength(tt.length)
		r := NewReader(bytes.NewReader(h[:]), 0)
		r.MaxData = tt.max
		_, err := r.Next()
		if tt.ok != (err == nil) || !tt.ok && !isA[*ConnectionError](err) {
			t.Errorf("%d bytes where %d are allowed: %v", tt.length, tt.max, err)
		}
		if len(r.buf) > 1<<10 {
			t.Errorf("%d bytes where %d are allowed: buffer of %d", tt.length, tt.max, len(r.buf))
		}
	}
}

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

func TestBuffered(t *testing.T) {
	stream := wire(t, true, true, messages[1], messages[0])
	second := len(stream) - len(wire(t, true, true, messages[0]))
	for _, tt := range []struct {
		n    int
		want bool
	}{{len(stream), true}, {len(stream) - 1, false}, {second + HeaderSize, false}, {second + 1, false}, {second, false}} {
		r := newReader(bytes.NewReader(stream[:tt.n]), 4096, true, true)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if r.Buffered() {
			t.Error("Buffered while data is unread")
		}
		if err := r.Skip(); err != nil {
			t.Fatal(err)
		}
		if got := r.Buffered(); got != tt.want {
			t.Errorf("with %d bytes of %d: %v", tt.n, len(stream), got)
		}
	}
}

// Next leaves data behind that nobody wanted.
func TestNextSkips(t *testing.T) {
	stream := wire(t, false, true, messages[1], messages[0])
	r := newReader(bytes.NewReader(stream), 0, false, true)
	for _, m := range []message{messages[1], messages[0]} {
		if h, err := r.Next(); err != nil || h.Opcode() != m.header2().Opcode() {
			t.Fatal(h, err)
		}
	}
}

// Large data comes straight into the caller's memory, past a small buffer.
func TestLargeDataScattered(t *testing.T) {
	data := make([]byte, 200_001)
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(data)
	m := message{set: func(h *BHS) { h.Reset(OpDataOut) }, data: data}
	stream := wire(t, true, true, m, messages[0])
	for _, part := range []int{1, 4095, 4096, 65536, 200_001, 300_000} {
		r := newReader(bytes.NewReader(stream), 4096, true, true)
		r.MaxData = MaxDataSegmentField
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 300_000)
		n, err := r.ReadData(slices.Collect(slices.Chunk(buf, part)))
		if n != len(data) || err != nil || !bytes.Equal(buf[:n], data) {
			t.Fatalf("parts of %d: %d bytes, %v", part, n, err)
		}
		if len(r.buf) != 4096 {
			t.Errorf("the buffer grew to %d", len(r.buf))
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
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
		if done != (w.Pending() == 0) {
			t.Fatalf("done %v with %d bytes pending", done, w.Pending())
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

// loop gives the same bytes for ever.
type loop struct {
	b  []byte
	at int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.b[l.at:])
	l.at = (l.at + n) % len(l.b)
	return n, nil
}

// Neither reading nor writing allocates per PDU.
func TestNoAllocations(t *testing.T) {
	for _, digests := range []bool{false, true} {
		big := message{set: func(h *BHS) { h.Reset(OpDataOut) }, data: make([]byte, 256<<10)}
		list := append(slices.Clone(messages), big)
		r := newReader(&loop{b: wire(t, digests, digests, list...)}, ReadBuffer, digests, digests)
		r.MaxData = RecvDataSegment
		dst := [][]byte{make([]byte, 64<<10), make([]byte, 192<<10)}
		read := func() {
			for range list {
				if _, err := r.Next(); err != nil {
					t.Fatal(err)
				}
				if _, err := r.ReadData(dst); err != nil {
					t.Fatal(err)
				}
				r.Buffered()
			}
		}
		read()
		if n := testing.AllocsPerRun(50, read); n != 0 {
			t.Errorf("reading %d PDUs, digests %v: %v allocations", len(list), digests, n)
		}
		noWriteAllocations(t, digests, list)
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

func BenchmarkRead4K(b *testing.B) {
	m := message{set: func(h *BHS) { h.Reset(OpSCSICommand) }, data: make([]byte, 4096)}
	r := newReader(&loop{b: wire(b, false, false, m)}, ReadBuffer, false, false)
	dst := [][]byte{make([]byte, 4096)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
		if _, err := r.ReadData(dst); err != nil {
			b.Fatal(err)
		}
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
