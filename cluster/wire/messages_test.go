package wire

import (
	"math/bits"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/placement"
)

// filled returns a message of kind k in which every field that the kind carries
// is different from zero, and no other: the one list of all messages, from which
// round trip, truncation, garbage and the fuzz seeds come.
func filled(k Kind, pool *slab.Pool) *Message {
	r := &kinds[k]
	m := &Message{
		Kind: k, Flags: FlagLazy | FlagMore, Status: Redirect, Code: 9, Excluded: 5,
		Op: placement.OpID{Coordinator: 1, Incarnation: 2, Number: 3}, Ver: 4, VVer: 5,
		Sent: 123456789 * time.Microsecond,
	}
	m.Key.Chunk = 0x0000_a1b2_c3d4_e5f6
	f := r.fields
	if f&fieldKey != 0 {
		m.Key.Family, m.Key.Node = 6, 7
	}
	if f&fieldLink != 0 {
		m.Link = placement.LinkID{GMap: 8, Position: 9}
	}
	if f&fieldSpan != 0 {
		m.From, m.To = 3*512, 7*placement.BlockSize+512
		if r.form == formPair {
			m.To = 5 * 512
		}
	}
	if f&fieldMasks != 0 {
		m.Bucket, m.Mask, m.Zeros, m.Bad = 4095, 0b1001_0011, 0b100, 0b1000
	}
	if f&fieldStamp != 0 {
		m.Stamp = placement.Stamp{Ver: 10, Seq: 11}
	}
	if f&fieldCommitted != 0 {
		m.Committed = placement.Stamp{Ver: 12, Seq: 13}
	}
	if f&fieldLoad != 0 {
		m.Load = Load{14, 16}
	}
	if f&fieldHead != 0 {
		m.Head = 17
	}
	if f&fieldIndex != 0 {
		m.Index = 18
	}
	if f&fieldAt != 0 {
		m.At = 19 * time.Millisecond
	}
	if r.form == formBody {
		m.Body = []byte("the body of a " + k.String())
	}
	if n := m.DataLength(); n > 0 {
		m.Data = dataOf(pool, n)
		m.SetSums()
	}
	return m
}

// dataOf returns n bytes in up to three buffers, cut where no piece is.
func dataOf(pool *slab.Pool, n int) (d cache.Refs) {
	for at := 0; at < n; {
		size := min(n-at, []int{700, placement.BlockSize + 100, slab.Large}[len(d)])
		b := pool.Get(size)
		for i := range b.Bytes() {
			b.Bytes()[i] = byte((at + i) * 7 >> 3)
		}
		d = append(d, cache.Ref{Buf: b, Len: size})
		at += size
	}
	return d
}

func allKinds() (all []Kind) {
	for k := range kinds {
		if Kind(k).Known() {
			all = append(all, Kind(k))
		}
	}
	return all
}

func newPool(t testing.TB) *slab.Pool {
	p := slab.New(16 << 20)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// join returns a message's data in one piece, and releases them.
func join(m *Message) []byte {
	var b []byte
	for i := range m.Data {
		b = append(b, m.Data[i].Bytes()...)
	}
	m.Data.Release()
	m.Data = nil
	return b
}

func TestRoundTrip(t *testing.T) {
	pool := newPool(t)
	for _, k := range allKinds() {
		m := filled(k, pool)
		frame, err := m.AppendFrame([]byte("before"))
		if err != nil {
			t.Errorf("%v: %v", k, err)
			continue
		}
		frame = append(frame, "behind"...)
		var got Message
		n, err := got.DecodeFrame(frame[6:], pool)
		if err != nil || n != len(frame)-12 {
			t.Errorf("%v: %d bytes of %d, %v", k, n, len(frame)-12, err)
			continue
		}
		if !got.Verify() {
			t.Errorf("%v: sums do not fit", k)
		}
		want, have := join(m), join(&got)
		if string(want) != string(have) {
			t.Errorf("%v: data differ", k)
		}
		if len(got.Body) == 0 {
			got.Body = nil
		}
		if !reflect.DeepEqual(*m, got) {
			t.Errorf("%v:\nsent %+v\n got %+v", k, *m, got)
		}
	}
}

// TestEveryTruncatedPrefix: the beginning of a message is short, and nothing
// else; no memory is taken for it.
func TestEveryTruncatedPrefix(t *testing.T) {
	pool := newPool(t)
	for _, k := range allKinds() {
		m := filled(k, pool)
		frame, _ := m.AppendFrame(nil)
		join(m)
		for n := range len(frame) {
			if n > 2*HeaderSize+MaxDetail && n < len(frame)-2 {
				continue // inside the payload, where all are alike
			}
			var got Message
			if _, err := got.DecodeFrame(frame[:n], pool); err != ErrShort || len(got.Data) > 0 {
				t.Fatalf("%v cut to %d of %d bytes: %v", k, n, len(frame), err)
			}
		}
	}
}

// TestEveryFlippedBit: damage to header, detail or body is found, by Decode;
// damage to data is found by Verify.
func TestEveryFlippedBit(t *testing.T) {
	pool := newPool(t)
	for _, k := range allKinds() {
		m := filled(k, pool)
		frame, _ := m.AppendFrame(nil)
		data := len(join(m))
		for bit := range 8 * len(frame) {
			if data > 0 && bit > 8*(len(frame)-data)+64 && bit%1001 != 0 {
				continue
			}
			frame[bit/8] ^= 1 << (bit % 8)
			var got Message
			_, err := got.DecodeFrame(frame, pool)
			found := err != nil || data > 0 && bit/8 >= len(frame)-data && !got.Verify()
			if err == nil {
				got.Data.Release()
			}
			if !found {
				t.Fatalf("%v: bit %d of byte %d flipped and not found", k, bit%8, bit/8)
			}
			frame[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// reseal makes the checksum of a damaged header right again.
func reseal(frame []byte) {
	detail, _, err := (*Header)(frame).Lengths()
	if err == nil && len(frame) >= HeaderSize+detail {
		le.PutUint32(frame[atCRC:], headSum(frame[:HeaderSize], frame[HeaderSize:HeaderSize+detail]))
	}
}

// TestGarbageWithGoodChecksum: who knows the checksum can still send nothing that
// has other lengths than its fields say, or fields beyond their limits.
func TestGarbageWithGoodChecksum(t *testing.T) {
	pool := newPool(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	taken := 0
	for range 20000 {
		k := allKinds()[rnd.IntN(len(allKinds()))]
		m := filled(k, pool)
		frame, _ := m.AppendFrame(nil)
		join(m)
		for range 1 + rnd.IntN(4) {
			frame[4+rnd.IntN(min(len(frame), HeaderSize+80)-4)] = byte(rnd.Uint32())
		}
		reseal(frame)
		var got Message
		if _, err := got.DecodeFrame(frame, pool); err == nil {
			taken++
			plausible(t, &got)
			got.Data.Release()
		}
	}
	if taken < 1000 || taken > 19000 {
		t.Errorf("%d of 20000 taken: the damage tests nothing", taken)
	}
}

// plausible fails unless m is what a handler may rely on.
func plausible(t testing.TB, m *Message) {
	t.Helper()
	n := 0
	for i := range m.Data {
		n += m.Data[i].Len
	}
	pieces, sum := 0, 0
	pieces = m.Pieces(func(_, length int) {
		if length <= 0 || length > placement.BlockSize {
			t.Fatalf("%v with a piece of %d bytes", m, length)
		}
		sum += length
	})
	switch {
	case n != m.DataLength() || n != sum || n > MaxData || pieces > placement.BlocksPerChunk:
		t.Fatalf("%v with %d bytes of data in %d pieces, %d bytes together", m, n, pieces, sum)
	case m.Bucket >= placement.Buckets || kinds[m.Kind].fields&fieldKey != 0 && m.Key.Chunk >= 1<<48:
		t.Fatalf("%v of bucket %d, chunk %d", m, m.Bucket, m.Key.Chunk)
	case kinds[m.Kind].fields&fieldSpan != 0 && m.Kind != Reply && (m.From >= m.To || m.To > placement.ChunkSize || m.From%512 != 0 || m.To%512 != 0):
		t.Fatalf("%v of bytes %d to %d", m, m.From, m.To)
	case m.Kind == Reply && m.Mask&^SpanMask(m.From, m.To) != 0:
		t.Fatalf("reply of bytes %d to %d with blocks %#x", m.From, m.To, m.Mask)
	case len(m.Body) > kinds[m.Kind].body:
		t.Fatalf("%v with a body of %d bytes", m, len(m.Body))
	case m.Excluded>>placement.MaxCopies != 0:
		t.Fatalf("%v excludes %#x", m, m.Excluded)
	}
	if m.Kind == Replicate && m.Flags&FlagZero == 0 && bits.OnesCount16(uint16(m.Mask))*placement.BlockSize != n {
		t.Fatalf("%v of blocks %#x with %d bytes", m, m.Mask, n)
	}
}

func FuzzDecode(f *testing.F) {
	pool := slab.New(16 << 20)
	for _, k := range allKinds() {
		m := filled(k, pool)
		frame, _ := m.AppendFrame(nil)
		join(m)
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, sealed := range []bool{false, true} {
			if sealed && len(frame) >= HeaderSize {
				frame = append([]byte(nil), frame...)
				reseal(frame)
			}
			var m Message
			n, err := m.DecodeFrame(frame, pool)
			if err != nil {
				if len(m.Data) > 0 {
					t.Fatal("memory was taken for what was refused")
				}
				continue
			}
			plausible(t, &m)
			again, err := m.AppendFrame(nil)
			if err != nil {
				t.Fatalf("%v was decoded, but can't be sent: %v", &m, err)
			}
			var back Message
			if k, err := back.DecodeFrame(again, pool); err != nil || k != len(again) || k != n {
				t.Fatalf("%v encoded again: %d of %d bytes, %v", &m, k, n, err)
			}
			m.Data.Release()
			back.Data.Release()
		}
		if s := pool.Stats(); s.InUse != 0 {
			t.Fatalf("%d bytes leaked", s.InUse)
		}
	})
}
