package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/iotest"
	"time"
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
		if len(r.buf) > afterBulk {
			t.Errorf("%d bytes where %d are allowed: buffer of %d", tt.length, tt.max, len(r.buf))
		}
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

// DataBuffered says so exactly when the last byte of the digest is in memory.
func TestDataBuffered(t *testing.T) {
	stream := wire(t, true, true, messages[1])
	for cut, want := range map[int]bool{0: true, 1: false, 4: false, 5: false} {
		r := newReader(bytes.NewReader(stream[:len(stream)-cut]), 4096, true, true)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if got := r.DataBuffered(); got != want {
			t.Errorf("%d bytes missing: %v", cut, got)
		}
	}
}

// Parts without bytes are passed over, and no parts at all read nothing.
func TestEmptyParts(t *testing.T) {
	r := newReader(bytes.NewReader(wire(t, true, true, messages[3])), 0, true, true)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadData(nil); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	b := make([]byte, 5)
	if n, err := r.ReadData([][]byte{{}, b[:2], nil, b[2:], {}}); n != 5 || err != nil || string(b) != "12345" {
		t.Fatal(n, err, b)
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

// shortVectors reads into vectors as little or as much as chance has it.
type shortVectors struct {
	b   []byte
	rnd *rand.Rand
}

func (s *shortVectors) Read(p []byte) (int, error) { return s.ReadVector([][]byte{p}) }

func (s *shortVectors) ReadVector(v [][]byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	most := min(len(s.b), 1+s.rnd.IntN(1<<uint(s.rnd.IntN(20))))
	n := 0
	for _, p := range v {
		got := copy(p[:min(len(p), most-n)], s.b)
		s.b = s.b[got:]
		n += got
	}
	return n, nil
}

// PDUs of all sizes come whole through every mixture of sources, digests,
// vectors and short reads.
func TestRandomScatter(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		w := Writer{HeaderDigest: rnd.IntN(2) == 0, DataDigest: rnd.IntN(2) == 0}
		var sent [][]byte
		for range 20 {
			d := make([]byte, rnd.IntN(1<<uint(rnd.IntN(18))))
			rand.NewChaCha8([32]byte{byte(seed), byte(len(sent))}).Read(d)
			var h BHS
			h.Reset(OpDataOut)
			h.SetITT(uint32(len(sent)))
			w.AppendBytes(&h, d)
			sent = append(sent, d)
		}
		var b bytes.Buffer
		w.Flush(&b)
		var src io.Reader = &shortVectors{b.Bytes(), rnd}
		if rnd.IntN(3) == 0 {
			src = struct{ io.Reader }{src} // without ReadVector
		}
		r := newReader(src, 4096, w.HeaderDigest, w.DataDigest)
		r.MaxData = 1 << 18
		for i, want := range sent {
			h, err := r.Next()
			if err != nil || h.ITT() != uint32(i) {
				t.Fatalf("seed %d, PDU %d: %v", seed, i, err)
			}
			if got := takeRandom(t, r, rnd); !bytes.Equal(got, want) {
				t.Fatalf("seed %d, PDU %d: %d bytes differ", seed, i, len(want))
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// takeRandom reads the data segment with a few ReadData of random parts.
func takeRandom(t *testing.T, r *Reader, rnd *rand.Rand) []byte {
	var all []byte
	for r.DataLength() > 0 {
		buf := make([]byte, 1+rnd.IntN(1<<uint(rnd.IntN(18))))
		parts := slices.Collect(slices.Chunk(buf, 1+rnd.IntN(1<<uint(rnd.IntN(18)))))
		buffered := r.DataBuffered()
		n, err := r.ReadData(parts)
		if err != nil {
			t.Fatal(err)
		}
		if buffered && r.DataLength() > 0 && !r.DataBuffered() {
			t.Fatal("the data was buffered and is not any more")
		}
		all = append(all, buf[:n]...)
	}
	return all
}

// A socket takes a header and what is behind it together, honours deadlines and
// tells its end.
func TestSocketReader(t *testing.T) {
	a, b := socketPair(t)
	src, err := NewSocketReader(b)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 256<<10)
	rand.NewChaCha8([32]byte{3}).Read(data)
	stream := wire(t, true, true, message{set: func(h *BHS) { h.Reset(OpDataOut) }, data: data}, messages[0])
	go func() {
		for range 8 {
			a.Write(stream)
		}
		a.CloseWrite()
	}()
	r := newReader(src, ReadBuffer, true, true)
	r.MaxData = RecvDataSegment
	dst := make([]byte, len(data))
	for i := range 8 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		clear(dst)
		if n, err := r.ReadData(slices.Collect(slices.Chunk(dst, 4096))); n != len(dst) || err != nil || !bytes.Equal(dst, data) {
			t.Fatal(i, n, err)
		}
		if h, err := r.Next(); err != nil || h.Opcode() != OpNOPOut {
			t.Fatal(h, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatal(err)
	}
	if n, err := src.ReadVector([][]byte{dst[:1]}); n != 0 || err != io.EOF {
		t.Fatal(n, err)
	}
	back, err := NewSocketReader(a)
	if err != nil {
		t.Fatal(err)
	}
	a.SetReadDeadline(time.Unix(1, 0))
	if n, err := back.ReadVector([][]byte{dst[:1]}); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(n, err)
	}
}

// Neither reading nor writing allocates per PDU.
func TestNoAllocations(t *testing.T) {
	for _, digests := range []bool{false, true} {
		big := message{set: func(h *BHS) { h.Reset(OpDataOut) }, data: make([]byte, 256<<10)}
		list := append(slices.Clone(messages), big)
		a, b := socketPair(t)
		stream := wire(t, digests, digests, list...)
		go func() {
			for {
				if _, err := a.Write(stream); err != nil {
					return
				}
			}
		}()
		src, err := NewSocketReader(b)
		if err != nil {
			t.Fatal(err)
		}
		r := newReader(src, ReadBuffer, digests, digests)
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

// BenchmarkSocket64K reads PDUs as bulk writes have them off a socket.
func BenchmarkSocket64K(b *testing.B) {
	m := message{set: func(h *BHS) { h.Reset(OpDataOut) }, data: make([]byte, 64<<10)}
	stream := bytes.Repeat(wire(b, false, false, m), 16)
	for _, vectors := range []bool{false, true} {
		b.Run(fmt.Sprintf("vectors=%v", vectors), func(b *testing.B) {
			x, y := socketPair(b)
			go func() {
				for {
					if _, err := x.Write(stream); err != nil {
						return
					}
				}
			}()
			s, _ := NewSocketReader(y)
			var src io.Reader = s
			if !vectors {
				src = y
			}
			r := NewReader(src, ReadBuffer)
			r.MaxData = RecvDataSegment
			dst := slices.Collect(slices.Chunk(make([]byte, 64<<10), 4096))
			b.SetBytes(64 << 10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
				if _, err := r.ReadData(dst); err != nil {
					b.Fatal(err)
				}
			}
			x.Close()
		})
	}
}
