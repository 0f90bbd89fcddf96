package cache

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"petal/cluster/slab"
	"petal/placement"
)

const bs = placement.BlockSize

func newCache(t testing.TB, budget int64) (*Cache, *slab.Pool) {
	pool := slab.New(budget + 16<<20)
	c := New(pool, budget)
	t.Cleanup(func() {
		for f := range placement.Family(8) {
			c.DropFamily(f)
		}
		if s := c.Stats(); s.Bytes != 0 || s.Entries != 0 {
			t.Errorf("an empty cache counts %d bytes, %d entries", s.Bytes, s.Entries)
		}
		if err := pool.Close(); err != nil { // a leaked reference
			t.Error(err)
		}
	})
	return c, pool
}

func key(chunk int) placement.Key {
	return placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(chunk)}
}

// filled is a buffer of n blocks; each begins with its tag.
func filled(pool *slab.Pool, tags ...uint64) *slab.Buf {
	b := pool.Get(len(tags) * bs)
	for i, tag := range tags {
		binary.LittleEndian.PutUint64(b.Bytes()[i*bs:], tag)
		binary.LittleEndian.PutUint64(b.Bytes()[(i+1)*bs-8:], ^tag)
	}
	return b
}

// tagsIn reads the tags of whole blocks back, or panics if one is torn.
func tagsIn(r Refs) (tags []uint64) {
	for _, ref := range r {
		for p := ref.Bytes(); len(p) > 0; p = p[bs:] {
			tag := binary.LittleEndian.Uint64(p)
			if end := binary.LittleEndian.Uint64(p[bs-8:]); end != ^tag && tag|end != 0 {
				panic("a block is mixed from two")
			}
			tags = append(tags, tag)
		}
	}
	return tags
}

func put(c *Cache, pool *slab.Pool, k placement.Key, first int, tags ...uint64) {
	b := filled(pool, tags...)
	c.Put(k, placement.Span(first, len(tags)), b)
	b.Release()
}

func get(c *Cache, k placement.Key, first, count int) (tags []uint64, ok bool) {
	var r Refs
	ok = c.Get(k, first, count, &r)
	tags = tagsIn(r)
	r.Release()
	return tags, ok
}

func equal(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestPutGet(t *testing.T) {
	c, pool := newCache(t, 4<<20)
	put(c, pool, key(7), 2, 10, 11, 12)
	put(c, pool, key(7), 3, 20)
	for _, x := range []struct {
		first, count int
		want         []uint64
	}{
		{2, 3, []uint64{10, 20, 12}}, {2, 1, []uint64{10}}, {1, 2, nil}, {4, 2, nil}, {0, 16, nil}, {3, 2, []uint64{20, 12}},
	} {
		if got, ok := get(c, key(7), x.first, x.count); !equal(got, x.want) || ok != (x.want != nil) {
			t.Errorf("Get(%d, %d) = %v %t, want %v", x.first, x.count, got, ok, x.want)
		}
	}
	if got := c.Has(key(7)); got != placement.Span(2, 3) {
		t.Errorf("Has = %#x", got)
	}
	if _, ok := get(c, key(8), 2, 1); ok {
		t.Error("hit in another chunk")
	}
	other := placement.Key{Family: 1, Node: 2, Chunk: 7}
	if _, ok := get(c, other, 2, 1); ok {
		t.Error("hit at another node")
	}
	c.Drop(key(7), placement.Span(3, 1))
	if got := c.Has(key(7)); got != 1<<2|1<<4 {
		t.Errorf("after Drop Has = %#x", got)
	}
}

func TestScatteredMask(t *testing.T) {
	c, pool := newCache(t, 4<<20)
	b := filled(pool, 1, 2, 3)
	c.Put(key(0), 1<<1|1<<5|1<<6, b)
	b.Release()
	if got, ok := get(c, key(0), 5, 2); !ok || !equal(got, []uint64{2, 3}) {
		t.Errorf("blocks 5, 6: %v %t", got, ok)
	}
	if got, ok := get(c, key(0), 1, 1); !ok || !equal(got, []uint64{1}) {
		t.Errorf("block 1: %v %t", got, ok)
	}
}

func TestZeroBufferIsFreeAndOneRun(t *testing.T) {
	c, pool := newCache(t, 4<<20)
	c.Put(key(0), placement.Span(0, 4), pool.Zero())
	c.Put(key(0), placement.Span(4, 12), pool.Zero())
	var r Refs
	if !c.Get(key(0), 0, 16, &r) || len(r) != 1 || r[0].Len != placement.ChunkSize {
		t.Errorf("runs %+v", r)
	}
	if !bytes.Equal(r[0].Bytes(), make([]byte, placement.ChunkSize)) {
		t.Error("not zeros")
	}
	if s := c.Stats(); s.Bytes != entryBytes {
		t.Errorf("zeros are charged %d bytes", s.Bytes)
	}
	r.Release()
}

// TestCharge checks that the count is of pinned memory, and that waste is
// compacted away.
func TestCharge(t *testing.T) {
	c, pool := newCache(t, 4<<20)
	check := func(what string, want int64) {
		t.Helper()
		if s := c.Stats(); s.Bytes != want+entryBytes {
			t.Errorf("%s: %d bytes, want %d", what, s.Bytes-entryBytes, want)
		}
		if s := pool.Stats(); s.InUse != want {
			t.Errorf("%s: pool lends %d, want %d", what, s.InUse, want)
		}
	}
	tags := make([]uint64, 16)
	put(c, pool, key(0), 0, tags...)
	check("a whole chunk", slab.Large)
	put(c, pool, key(0), 0, 1)
	check("and one block over it", slab.Large+slab.Small)
	for i := 1; i < 8; i++ {
		put(c, pool, key(0), i, uint64(i)+1)
	}
	check("half of it", slab.Large+8*slab.Small)
	put(c, pool, key(0), 8, 9)
	check("more than half, compacted", 16*slab.Small)
	if got, ok := get(c, key(0), 0, 16); !ok || !equal(got, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("after compaction: %v", got)
	}
	put(c, pool, key(0), 0, tags...)
	check("a whole chunk again", slab.Large)
	c.Drop(key(0), placement.Full)
	if s := c.Stats(); s.Bytes != 0 {
		t.Errorf("after Drop %d bytes", s.Bytes)
	}
	put(c, pool, key(1), 4, 1, 2, 3, 4, 5) // 20 KiB in a 64 KiB buffer
	check("a thin buffer, copied", 5*slab.Small)
}

// TestTwin compares the cache with a map under random work. The cache may
// forget, but what it has must be right, and its budget must hold.
func TestTwin(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		const budget = 1 << 20
		c, pool := newCache(t, budget)
		twin := map[placement.Key]*[16]uint64{}
		type flight struct {
			f    *Fill
			k    placement.Key
			snap [16]uint64
			mask placement.Mask
		}
		var fills []flight
		tag, hits := uint64(0), 0
		model := func(k placement.Key) *[16]uint64 {
			if twin[k] == nil {
				twin[k] = new([16]uint64)
			}
			return twin[k]
		}
		for range 20000 {
			k := placement.Key{Family: placement.Family(1 + r.IntN(2)), Node: 1, Chunk: placement.Chunk(r.IntN(40))}
			first := r.IntN(16)
			n := 1 + r.IntN(16-first)
			switch r.IntN(10) {
			case 0, 1, 2: // a committed write of a scattered mask
				mask := placement.Mask(r.Uint32()) & placement.Span(first, n)
				var tags []uint64
				for i := range 16 {
					if mask&(1<<i) != 0 {
						tag++
						tags = append(tags, tag)
						model(k)[i] = tag
					}
				}
				if len(tags) > 0 {
					b := filled(pool, tags...)
					c.Put(k, mask, b)
					b.Release()
				}
			case 3: // committed zeros
				for i := first; i < first+n; i++ {
					model(k)[i] = 0
				}
				c.Put(k, placement.Span(first, n), pool.Zero())
			case 4:
				c.Drop(k, placement.Span(first, n))
			case 5:
				if f := c.BeginFill(k, 0, nil); f != nil {
					fills = append(fills, flight{f, k, *model(k), placement.Span(first, n)})
				}
			case 6:
				if len(fills) == 0 {
					break
				}
				i := r.IntN(len(fills))
				x := fills[i]
				fills = append(fills[:i], fills[i+1:]...)
				var tags []uint64
				for i := range 16 {
					if x.mask&(1<<i) != 0 {
						tags = append(tags, x.snap[i])
					}
				}
				b := filled(pool, tags...)
				x.f.Put(x.mask, b)
				b.Release()
				x.f.End()
			case 7:
				if r.IntN(200) == 0 {
					c.DropFamily(k.Family)
				}
			default:
				got, ok := get(c, k, first, n)
				if ok {
					hits++
					if !equal(got, model(k)[first:first+n]) {
						t.Fatalf("seed %d: %v blocks %d+%d: %v, want %v", seed, k, first, n, got, model(k)[first:first+n])
					}
				}
			}
			if s := c.Stats(); s.Bytes > budget {
				t.Fatalf("seed %d: %d bytes of %d", seed, s.Bytes, budget)
			} else if pinned := pool.Stats().InUse; s.Bytes != pinned+entryBytes*s.Entries {
				t.Fatalf("seed %d: counted %d, pinned %d in %d entries", seed, s.Bytes, pinned, s.Entries)
			}
		}
		for _, x := range fills {
			x.f.End()
		}
		if hits < 500 {
			t.Errorf("seed %d: only %d hits, the test proves little", seed, hits)
		}
		if c.Stats().Evicted == 0 {
			t.Errorf("seed %d: nothing was evicted", seed)
		}
	}
}

// TestScanResistance runs a hot set with a scan of ten times the budget in
// between, and wants the hot set to be still there. A plain LRU of this size
// would have lost it all.
func TestScanResistance(t *testing.T) {
	for _, blocks := range []int{1, 16} { // scanned by 4 KiB and by 64 KiB reads
		const budget, hot = 16 << 20, 120 // chunks: 7.5 MiB
		c, pool := newCache(t, budget)
		read := func(k placement.Key, first, n int) bool {
			if _, ok := get(c, k, first, n); ok {
				return true
			}
			f := c.BeginFill(k, placement.Span(first, n), nil)
			b := filled(pool, make([]uint64, n)...)
			f.Put(placement.Span(first, n), b)
			b.Release()
			f.End()
			return false
		}
		r := rand.New(rand.NewPCG(3, 3))
		for range 4 * hot {
			read(key(r.IntN(hot)), 0, 16)
		}
		hits, reads := 0, 0
		scan := 1000
		for range 10 * budget / placement.ChunkSize {
			for i := 0; i < 16; i += blocks {
				if read(key(scan), i, blocks) {
					t.Fatal("a scan of new chunks hit")
				}
			}
			scan++
			reads++
			if read(key(r.IntN(hot)), 0, 16) {
				hits++
			}
		}
		ratio := float64(hits) / float64(reads)
		t.Logf("scan by %d blocks: hot set hit ratio %.3f over %d reads", blocks, ratio, reads)
		if ratio < 0.95 {
			t.Errorf("the scan washed the hot set out: hit ratio %.3f", ratio)
		}
	}
}

// TestGhost: a chunk that comes back soon after its eviction goes to main.
func TestGhost(t *testing.T) {
	c, pool := newCache(t, 1<<20)
	s := &c.shards[0]
	for i := range 20 { // two rounds: these live in main
		put(c, pool, key(1000+i), 0, make([]uint64, 16)...)
		put(c, pool, key(1000+i), 0, make([]uint64, 16)...)
	}
	for i := 0; i == 0 || c.Has(key(0)) != 0; i++ {
		put(c, pool, key(i), 0, make([]uint64, 16)...)
	}
	if s.policy.main.n < 5 {
		t.Fatalf("%d entries in main, the test needs some", s.policy.main.n)
	}
	put(c, pool, key(0), 0, 1)
	if e := s.entries[key(0)]; e == nil || !e.main {
		t.Error("a chunk that came back did not go to main")
	}
	put(c, pool, key(5000), 0, 1)
	if e := s.entries[key(5000)]; e == nil || e.main {
		t.Error("a new chunk did not go to small")
	}
}

func TestFillNeverCoversAWrite(t *testing.T) {
	c, pool := newCache(t, 4<<20)
	f := c.BeginFill(key(0), 0, nil)
	put(c, pool, key(0), 1, 50)
	c.Drop(key(0), placement.Span(2, 1))
	c.Put(key(0), placement.Span(3, 1), pool.Zero())
	b := filled(pool, 1, 2, 3, 4, 5)
	f.Put(placement.Span(0, 5), b)
	f.End()
	if got, ok := get(c, key(0), 0, 2); !ok || !equal(got, []uint64{1, 50}) {
		t.Errorf("blocks 0, 1: %v %t", got, ok)
	}
	if c.Has(key(0)) != placement.Span(0, 5)&^(1<<2) {
		t.Errorf("has %#x: a dropped block came back, or others are missing", c.Has(key(0)))
	}
	if got, ok := get(c, key(0), 3, 2); !ok || !equal(got, []uint64{0, 5}) {
		t.Errorf("blocks 3, 4: %v %t", got, ok)
	}
	f = c.BeginFill(key(0), 0, nil)
	c.DropFamily(1)
	f.Put(placement.Span(0, 5), b)
	f.End()
	if c.Has(key(0)) != 0 {
		t.Errorf("a dropped family came back: %#x", c.Has(key(0)))
	}
	f = c.BeginFill(key(0), 0, nil)
	f.Put(placement.Span(0, 5), b)
	f.End()
	if c.Has(key(0)) != placement.Span(0, 5) {
		t.Error("a later fill was refused")
	}
	b.Release()
}

func TestSingleFlight(t *testing.T) {
	c, _ := newCache(t, 4<<20)
	f := c.BeginFill(key(0), 0, nil)
	var order []int
	w := make([]Waiter, 3)
	for i := range w {
		w[i].Ready = func(*Waiter) { order = append(order, i) }
		if c.BeginFill(key(0), 0, &w[i]) != nil {
			t.Fatal("two fills of one chunk")
		}
	}
	if c.BeginFill(key(0), 0, nil) != nil {
		t.Fatal("a prefetch made a second fill")
	}
	if g := c.BeginFill(key(1), 0, nil); g == nil {
		t.Fatal("another chunk's fill was held back")
	} else {
		g.End()
	}
	f.End()
	if len(order) != 3 || order[0] != 0 || order[2] != 2 {
		t.Errorf("woken in order %v", order)
	}
	if g := c.BeginFill(key(0), 0, nil); g == nil {
		t.Error("no fill after the first has ended")
	} else {
		g.End()
	}
}

// TestConcurrentFills races writers with fillers on few chunks, with a small
// "disk" behind. A reader must never see a tag older than one that was
// committed before its Get began.
func TestConcurrentFills(t *testing.T) {
	c, pool := newCache(t, 1<<20)
	const chunks = 4
	type cell struct {
		sync.Mutex
		tag uint64
	}
	var disk [chunks][16]cell
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			for range 4000 {
				k, i := r.IntN(chunks), r.IntN(16)
				d := &disk[k][i]
				if g == 0 && r.IntN(2) == 0 { // one writer: commits are in order
					d.Lock()
					d.tag++
					tag := d.tag
					d.Unlock()
					put(c, pool, key(k), i, tag)
					continue
				}
				d.Lock()
				floor := uint64(0)
				if g == 0 {
					floor = d.tag
				}
				d.Unlock()
				if got, ok := get(c, key(k), i, 1); ok {
					if g == 0 && got[0] < floor {
						t.Errorf("stale: %d after %d", got[0], floor)
						return
					}
					continue
				}
				f := c.BeginFill(key(k), 0, nil)
				if f == nil {
					continue
				}
				tags := make([]uint64, 16)
				for j := range tags {
					disk[k][j].Lock()
					tags[j] = disk[k][j].tag
					disk[k][j].Unlock()
				}
				b := filled(pool, tags...)
				f.Put(placement.Full, b)
				b.Release()
				f.End()
				if r.IntN(10) == 0 {
					c.Drop(key(k), placement.Full)
				}
			}
		})
	}
	wg.Wait()
}

func TestHitAllocatesNothing(t *testing.T) {
	c, pool := newCache(t, 4<<20)
	put(c, pool, key(0), 0, make([]uint64, 16)...)
	refs := make(Refs, 0, 16)
	if n := testing.AllocsPerRun(1000, func() {
		if !c.Get(key(0), 3, 4, &refs) {
			t.Fatal("miss")
		}
		refs.Release()
	}); n != 0 {
		t.Errorf("%v allocations per hit", n)
	}
	b := filled(pool, 1)
	if n := testing.AllocsPerRun(1000, func() { c.Put(key(0), 1, b) }); n != 0 {
		t.Errorf("%v allocations per Put", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		f := c.BeginFill(key(0), 1, nil)
		f.Put(1, b)
		f.End()
	}); n != 0 {
		t.Errorf("%v allocations per fill", n)
	}
	b.Release()
}

func BenchmarkGetHit(b *testing.B) {
	c, pool := newCache(b, 64<<20)
	for i := range 512 {
		put(c, pool, key(i), 0, make([]uint64, 16)...)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		refs := make(Refs, 0, 16)
		r := rand.New(rand.NewPCG(1, 1))
		for pb.Next() {
			x := r.Uint32()
			if !c.Get(key(int(x%512)), int(x>>16%16), 1, &refs) {
				b.Error("miss")
				return
			}
			refs.Release()
		}
	})
}

func BenchmarkPut(b *testing.B) {
	c, pool := newCache(b, 64<<20)
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		buf := pool.Get(bs)
		c.Put(key(r.IntN(1<<20)), placement.Mask(1)<<r.IntN(16), buf)
		buf.Release()
	}
}

func BenchmarkPutChunk(b *testing.B) {
	c, pool := newCache(b, 64<<20)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		buf := pool.Get(placement.ChunkSize)
		c.Put(key(i), placement.Full, buf)
		buf.Release()
		i++
	}
}
