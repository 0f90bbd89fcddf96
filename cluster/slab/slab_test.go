package slab

import (
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"
)

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}

func newPool(t testing.TB, limit int64) *Pool {
	p := New(limit)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestClassesAndAlignment(t *testing.T) {
	p := newPool(t, 64<<20)
	for _, c := range []struct{ n, size int }{
		{1, Small}, {512, Small}, {Small, Small}, {Small + 1, Medium}, {Medium, Medium}, {Medium + 1, Large}, {Large, Large},
	} {
		b := p.Get(c.n)
		if b.Len() != c.n || len(b.Bytes()) != c.n || b.Size() != c.size {
			t.Errorf("Get(%d): len %d, size %d, want size %d", c.n, b.Len(), b.Size(), c.size)
		}
		if uintptr(unsafe.Pointer(&b.Bytes()[0]))%4096 != 0 {
			t.Errorf("Get(%d) is not aligned to 4 KiB", c.n)
		}
		b.Release()
	}
	mustPanic(t, "Get(0)", func() { p.Get(0) })
	mustPanic(t, "Get(Large+1)", func() { p.Get(Large + 1) })
}

// TestDistinct holds many buffers at once, writes an own pattern to each and
// finds them all untouched.
func TestDistinct(t *testing.T) {
	p := newPool(t, 64<<20)
	r := rand.New(rand.NewPCG(1, 2))
	held := map[*Buf]byte{}
	for i := range 3000 {
		b := p.Get([]int{Small, Medium, Large}[r.IntN(3)])
		if _, ok := held[b]; ok {
			t.Fatal("the same buffer was lent twice")
		}
		for j := range b.Bytes() {
			b.Bytes()[j] = byte(i)
		}
		held[b] = byte(i)
		for b, v := range held { // drop a random third now and then
			if r.IntN(3) > 0 {
				break
			}
			for _, got := range b.Bytes() {
				if got != v {
					t.Fatal("a lent buffer was overwritten")
				}
			}
			b.Release()
			delete(held, b)
		}
	}
	for b, v := range held {
		if b.Bytes()[b.Len()-1] != v {
			t.Fatal("a lent buffer was overwritten")
		}
		b.Release()
	}
	if s := p.Stats(); s.InUse != 0 || s.Emergencies == 0 && s.Free == 0 {
		t.Errorf("after all was released: %+v", s)
	}
}

func TestReferences(t *testing.T) {
	p := newPool(t, 1<<20)
	b := p.Get(Small)
	b.Retain()
	b.Release()
	if s := p.Stats(); s.InUse != Small || s.Free != 0 {
		t.Errorf("with one reference left: %+v", s)
	}
	b.Release()
	if s := p.Stats(); s.InUse != 0 || s.Free != Small {
		t.Errorf("with none left: %+v", s)
	}
	mustPanic(t, "a second Release", b.Release)
	b.refs.Store(0)
	mustPanic(t, "Retain of a free buffer", func() { b.Retain() })
	b.refs.Store(0)
}

func TestZero(t *testing.T) {
	p := newPool(t, 1<<20)
	z := p.Zero()
	if z.Len() != Large || !z.IsZero() || z.Size() != 0 {
		t.Errorf("zero buffer: len %d, size %d", z.Len(), z.Size())
	}
	for range 10 {
		z.Release() // must not free it
	}
	z.Retain()
	for i, v := range z.Bytes() {
		if v != 0 {
			t.Fatalf("byte %d of the zeros is %#x", i, v)
		}
	}
	if b := p.Get(Large); b == z {
		t.Error("the zeros were lent")
	} else {
		b.Release()
	}
}

func TestLimitAndEmergency(t *testing.T) {
	const limit = 8 * Large
	p := newPool(t, limit)
	var held []*Buf
	for range 8 {
		held = append(held, p.Get(Large))
	}
	if s := p.Stats(); s.InUse != limit || s.Emergencies != 0 || s.Beyond != 0 {
		t.Errorf("at the limit: %+v", s)
	}
	for range 4 {
		held = append(held, p.Get(Large))
	}
	if s := p.Stats(); s.Emergencies != 4 || s.Beyond != 4*Large {
		t.Errorf("beyond the limit: %+v", s)
	}
	for _, b := range held {
		b.Release()
	}
	if s := p.Stats(); s.InUse != 0 || s.Free != limit {
		t.Errorf("the pool keeps more than its limit: %+v", s)
	}
	// Free memory of one class makes room for another within the limit.
	for i := range held[:8] {
		held[i] = p.Get(Medium)
	}
	if s := p.Stats(); s.Emergencies != 4 || s.InUse+s.Free > limit {
		t.Errorf("other class: %+v", s)
	}
	for _, b := range held[:8] {
		b.Release()
	}
}

// TestTrim looks at the pages themselves: trimmed memory reads as zeros.
func TestTrim(t *testing.T) {
	p := newPool(t, 1<<20)
	b := p.Get(Small)
	b.Bytes()[0] = 7
	b.Release()
	p.Trim()
	if s := p.Stats(); s.Free != 0 || s.InUse != 0 {
		t.Errorf("after Trim: %+v", s)
	}
	if c := p.Get(Small); c != b || c.Bytes()[0] != 0 {
		t.Errorf("the same buffer again %t, byte %#x", c == b, c.Bytes()[0])
	} else {
		c.Release()
	}
}

func TestIdlePoolTouchesNothing(t *testing.T) {
	p := newPool(t, 1<<30)
	if s := p.Stats(); s.Mapped != 0 || s.InUse != 0 || s.Free != 0 {
		t.Errorf("a new pool holds memory: %+v", s)
	}
	p.Get(1).Release()
	if s := p.Stats(); s.Mapped != arenaBytes || s.Free != Small {
		t.Errorf("after one small buffer: %+v", s)
	}
}

func TestUseAfterFree(t *testing.T) {
	if !Invariants {
		t.Log("the poison check needs -tags invariants; here: that it is off")
		return
	}
	p := New(1 << 20) // not closed: the buffer is lost on purpose
	b := p.Get(Small)
	stale := b.Bytes()
	b.Release()
	stale[100] = 1
	mustPanic(t, "Get of a buffer written after Release", func() { p.Get(Small) })
}

func TestConcurrent(t *testing.T) {
	p := newPool(t, 32*Large)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 0))
			var held []*Buf
			for range 5000 {
				if len(held) > 20 || r.IntN(3) == 0 && len(held) > 0 {
					b := held[0]
					if b.Bytes()[0] != byte(g) {
						t.Error("a lent buffer was overwritten")
						return
					}
					b.Retain()
					b.Release()
					b.Release()
					held = held[1:]
					continue
				}
				b := p.Get(1 + r.IntN(Large))
				b.Bytes()[0] = byte(g)
				held = append(held, b)
				if r.IntN(500) == 0 {
					p.Trim()
				}
			}
			for _, b := range held {
				b.Release()
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.InUse != 0 {
		t.Errorf("in use after all: %+v", s)
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	p := newPool(t, 1<<20)
	p.Get(Small).Release()
	if n := testing.AllocsPerRun(1000, func() {
		b := p.Get(Small)
		b.Retain()
		b.Release()
		b.Release()
	}); n != 0 {
		t.Errorf("%v allocations per Get", n)
	}
}

func BenchmarkGetRelease(b *testing.B) {
	p := newPool(b, 64<<20)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.Get(Small).Release()
		}
	})
}
