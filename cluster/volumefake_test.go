package cluster

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"petal/cluster/meta"
	"petal/cluster/replica"
	"petal/cluster/slab"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// fakeMember is a member of links without links and disk: a map of blocks that
// checks what a member may rely on (one identity for each operation, checksums,
// nothing of one coordinator that overlaps under way) and can be told when and
// how things end.
type fakeMember struct {
	t    testing.TB
	self placement.Server
	pool *slab.Pool

	mu     sync.Mutex
	blocks map[fakeBlock][]byte // not zero
	open   map[placement.OpID]*replica.Op
	ended  map[placement.OpID]replica.Result // of those that write (R12)
	lazy   int                               // writes that a flush would make durable
	bad    map[fakeBlock]bool
	failed error
	space  int // blocks that may still be allocated, -1: any number

	// answer, if it is there, may give an operation another end before it takes
	// effect.
	answer func(op *replica.Op) wire.Status

	// deliver runs the end of a write: by default from a worker, one after
	// another, as a journal does. deliverRead runs a read: by default at once, as
	// a cache hit is.
	deliver, deliverRead func(func())

	records, reads, zeros, lookups int // records: what changed something
	prefetched                     []placement.Chunk
}

type fakeBlock struct {
	family placement.Family
	chunk  placement.Chunk
	block  int
}

func newFake(t testing.TB) *fakeMember {
	f := &fakeMember{
		t: t, self: 1, pool: slab.New(64 << 20), blocks: map[fakeBlock][]byte{}, open: map[placement.OpID]*replica.Op{},
		ended: map[placement.OpID]replica.Result{}, bad: map[fakeBlock]bool{}, space: -1,
		deliverRead: func(g func()) { g() },
	}
	work, stopped := make(chan func(), 1024), make(chan struct{})
	f.deliver = func(g func()) { work <- g }
	go func() {
		defer close(stopped)
		for g := range work {
			g()
		}
	}()
	t.Cleanup(func() {
		close(work)
		<-stopped
		if err := f.pool.Close(); err != nil {
			t.Errorf("leak: %v", err)
		}
	})
	return f
}

// queued makes completions wait until run is called, which runs them in an
// order drawn from the seed.
func (f *fakeMember) queued(seed uint64) (run func() (ran bool)) {
	var mu sync.Mutex
	var queue []func()
	r := rand.New(rand.NewPCG(seed, 77))
	f.deliver = func(g func()) {
		mu.Lock()
		queue = append(queue, g)
		mu.Unlock()
	}
	f.deliverRead = f.deliver
	return func() bool {
		mu.Lock()
		if len(queue) == 0 {
			mu.Unlock()
			return false
		}
		i := r.IntN(len(queue))
		g := queue[i]
		queue = slices.Delete(queue, i, i+1)
		mu.Unlock()
		g()
		return true
	}
}

// concurrent makes every completion run on a goroutine of its own.
func (f *fakeMember) concurrent() {
	f.deliver = func(g func()) { go g() }
	f.deliverRead = f.deliver
}

func (f *fakeMember) Do(op *replica.Op) {
	op.Status, op.Bad, op.Bufs = wire.OK, 0, op.Bufs[:0]
	if op.Kind == replica.Read {
		f.deliverRead(func() { f.read(op) })
		return
	}
	f.mu.Lock()
	f.check(op)
	if r, ok := f.ended[op.ID]; ok {
		f.mu.Unlock()
		op.Result = r
		op.Done(op)
		return
	}
	f.open[op.ID] = op
	lazy := op.Lazy && f.failed == nil
	f.mu.Unlock()
	if lazy {
		f.finish(op)
		return
	}
	f.deliver(func() { f.finish(op) })
}

// check looks at what a member must be able to rely on. The lock is held.
func (f *fakeMember) check(op *replica.Op) {
	mask := spanOf(op).mask()
	if op.ID.Number == 0 || op.ID.Incarnation == 0 || op.ID.Coordinator == 0 || op.Key.Node == 0 || op.From >= op.To || op.To > placement.ChunkSize {
		f.t.Errorf("operation %+v is malformed", op)
	}
	for _, x := range f.open {
		if x.ID.Coordinator == op.ID.Coordinator && x.Key == op.Key && spanOf(x).mask()&mask != 0 {
			f.t.Errorf("chunk %d: two operations under way for blocks %#x", op.Key.Chunk, spanOf(x).mask()&mask)
		}
	}
	if op.Kind != replica.Write {
		return
	}
	if op.Buf.Len() != spanOf(op).count()*placement.BlockSize {
		f.t.Errorf("%d bytes for blocks %#x", op.Buf.Len(), mask)
	}
	m := &wire.Message{Kind: wire.Write, From: op.From, To: op.To, Sum: op.Sum}
	m.Data.Add(op.Buf, int(op.From%placement.BlockSize), int(op.To-op.From))
	if !m.Verify() {
		f.t.Errorf("chunk %d: a checksum is wrong", op.Key.Chunk)
	}
	m.Data.Release()
}

func spanOf(op *replica.Op) span { return span{op.Key.Chunk, int(op.From), int(op.To)} }

// finish carries an operation out.
func (f *fakeMember) finish(op *replica.Op) {
	f.mu.Lock()
	delete(f.open, op.ID)
	if f.answer != nil {
		op.Status = f.answer(op)
	}
	if op.Status == wire.OK {
		f.apply(op)
		f.ended[op.ID] = op.Result
	}
	f.mu.Unlock()
	op.Done(op)
}

// apply changes the blocks, or says why not. The lock is held.
func (f *fakeMember) apply(op *replica.Op) {
	s := spanOf(op)
	old := make([]byte, placement.ChunkSize)
	for i := range placement.BlocksPerChunk {
		copy(old[i*placement.BlockSize:], f.blocks[fakeBlock{op.Key.Family, op.Key.Chunk, i}])
		whole := op.Kind != replica.CompareAndWrite && i*placement.BlockSize >= s.from && (i+1)*placement.BlockSize <= s.to
		if f.bad[fakeBlock{op.Key.Family, op.Key.Chunk, i}] && s.mask()&(1<<i) != 0 && !whole {
			op.Bad |= 1 << i
		}
	}
	next := slices.Clone(old)
	switch op.Kind {
	case replica.Write:
		copy(next[s.from:], op.Buf.Bytes()[s.from%placement.BlockSize:][:s.bytes()])
	case replica.Zero:
		clear(next[s.from:s.to])
	case replica.CompareAndWrite:
		compare := op.Buf.Bytes()[:s.bytes()]
		for i := range compare {
			if old[s.from+i] != compare[i] {
				op.Status, op.At = wire.Miscompare, uint32(s.from+i)
				return
			}
		}
		copy(next[s.from:], op.Buf.Bytes()[s.bytes():])
	}
	switch {
	case f.failed != nil:
		op.Status = wire.Failed
		return
	case op.Bad != 0:
		op.Status = wire.Medium
		return
	}
	if op.Kind != replica.Zero && f.space >= 0 {
		need := 0
		for i := s.first(); i < s.first()+s.count(); i++ {
			if f.blocks[fakeBlock{op.Key.Family, op.Key.Chunk, i}] == nil {
				need++
			}
		}
		if need > f.space {
			op.Status, f.space = wire.NoSpace, 0
			return
		}
		f.space -= need
	}
	if part := s.from%placement.BlockSize != 0 || s.to%placement.BlockSize != 0; op.Kind == replica.Zero && part && onlyZeros(old[s.from:s.to]) {
		return
	}
	if f.records++; op.Kind == replica.Zero {
		f.zeros++
	}
	if op.Lazy {
		f.lazy++
	}
	for i := s.first(); i < s.first()+s.count(); i++ {
		b := fakeBlock{op.Key.Family, op.Key.Chunk, i}
		delete(f.bad, b)
		data := next[i*placement.BlockSize : (i+1)*placement.BlockSize]
		if op.Kind == replica.Zero && onlyZeros(data) {
			delete(f.blocks, b)
			continue
		}
		f.blocks[b] = data
	}
}

// onlyZeros reports whether b is all zeros.
func onlyZeros(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }

func (f *fakeMember) read(op *replica.Op) {
	f.mu.Lock()
	f.reads++
	s := spanOf(op)
	for i := s.first(); i < s.first()+s.count(); i++ {
		b := fakeBlock{op.Key.Family, op.Key.Chunk, i}
		data := f.blocks[b]
		if f.bad[b] {
			op.Bad |= 1 << i
			op.Status = wire.Medium
		}
		if data == nil || f.bad[b] {
			op.Bufs.Add(f.pool.Zero(), i*4096, 4096)
			continue
		}
		buf := f.pool.Get(placement.BlockSize)
		copy(buf.Bytes(), data)
		op.Bufs.Add(buf, 0, placement.BlockSize)
		buf.Release()
	}
	if f.answer != nil {
		if st := f.answer(op); st != wire.OK {
			op.Status = st
		}
	}
	if f.failed != nil {
		op.Status = wire.Failed
	}
	if op.Status != wire.OK && op.Status != wire.Medium {
		op.Bufs.Release()
	}
	f.mu.Unlock()
	op.Done(op)
}

func (f *fakeMember) Cancel(id placement.OpID, _ placement.Key, done func(wire.Status, placement.Server)) {
	f.mu.Lock()
	r, ended := f.ended[id]
	f.mu.Unlock()
	if ended {
		done(r.Status, 0)
		return
	}
	done(wire.Canceled, 0)
}

func (f *fakeMember) Prefetch(k placement.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prefetched = append(f.prefetched, k.Chunk)
}

func (f *fakeMember) Mapped(_ placement.LinkID, key placement.Key, last placement.Chunk, most int, done func([]replica.MappedChunk, bool, wire.Status)) {
	fam, from := key.Family, key.Chunk
	f.mu.Lock()
	f.lookups++
	by := map[placement.Chunk]placement.Mask{}
	for b := range f.blocks {
		if b.family == fam && b.chunk >= from && b.chunk <= last {
			by[b.chunk] |= 1 << b.block
		}
	}
	var out []replica.MappedChunk
	for c, m := range by {
		out = append(out, replica.MappedChunk{Chunk: c, Mask: m})
	}
	slices.SortFunc(out, func(a, b replica.MappedChunk) int { return int(int64(a.Chunk) - int64(b.Chunk)) })
	more := len(out) > most
	out = out[:min(len(out), most)]
	status := wire.OK
	if f.failed != nil {
		out, status = nil, wire.Failed
	}
	f.mu.Unlock()
	done(out, more, status)
}

func (f *fakeMember) Flush(done func(error)) {
	f.mu.Lock()
	f.lazy = 0
	f.mu.Unlock()
	f.deliver(func() { done(f.Failed()) })
}

func (f *fakeMember) Usage(placement.Family) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.blocks)) * placement.BlockSize
}

func (f *fakeMember) Space() (used, avail, total uint64) { return 80, 20, 100 }

func (f *fakeMember) Failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *fakeMember) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = err
}

// The volume under test.

// oneServer are the routes of a node that keeps everything.
func oneServer() *routes { return testRoutes(placement.Stripe, 1) }

// testRoutes are the routes of a gmap over servers as they begin.
func testRoutes(scheme placement.Scheme, servers ...placement.Server) *routes {
	var places []placement.Place
	for _, s := range servers {
		places = append(places, placement.Place{Server: s})
	}
	g, err := placement.New(1, scheme, places)
	if err != nil {
		panic(err)
	}
	r := &routes{table: &g.Table, links: make([]route, len(g.Ring))}
	for p := range r.links {
		m := g.Members(uint32(p))
		r.links[p] = route{link: placement.LinkID{GMap: 1, Position: uint32(p)}, servers: m,
			Config: placement.Config{Ver: 1, InSync: placement.MembersOf(len(m))}}
	}
	return r
}

func testVolume(f *fakeMember, size uint64, blockSize int, writeBack bool) *Volume {
	return volumeOver(f, f.pool, size, blockSize, writeBack)
}

func volumeOver(m interface {
	member
	localStore
}, pool *slab.Pool, size uint64, blockSize int, writeBack bool) *Volume {
	c := newCoordinator(1, pool, times.Real{}, times.Default().Scale(100), nil) // on a machine that stands still no command gets too old
	c.copies.grow([]placement.Server{1})
	c.start(9, &here{m, m})
	return newVolume(c, &meta.Disk{Size: size, BlockSize: blockSize, WriteBack: writeBack, Family: 3, Node: 1}, oneServer())
}

// change changes what update may change.
func change(v *Volume, f func(d *meta.Disk)) {
	st := v.state.Load()
	d := &meta.Disk{Size: st.size, BlockSize: v.blockSize, ReadOnly: st.readOnly, WriteBack: st.writeBack, Family: v.family, Node: st.node, VVer: st.vver, Revoked: st.revoked}
	f(d)
	v.update(d, st.routes)
}

// write starts a write and returns a channel with its result.
func write(v *Volume, off uint64, data []byte, fua bool) <-chan error {
	ch := make(chan error, 1)
	vec, loan, err := v.Reserve(off, len(data))
	if err != nil {
		ch <- err
		return ch
	}
	for _, b := range vec {
		data = data[copy(b, data):]
	}
	if len(data) != 0 {
		panic(fmt.Sprintf("Reserve lent %d bytes too few", len(data)))
	}
	v.Write(loan, fua, func(err error) { ch <- err })
	return ch
}

type readResult struct {
	data []byte
	err  error
}

func read(v *Volume, off uint64, n int) <-chan readResult {
	ch := make(chan readResult, 1)
	v.Read(off, n, func(vec [][]byte, loan any, err error) {
		if err != nil {
			ch <- readResult{nil, err}
			return
		}
		data := slices.Concat(vec...)
		v.Release(loan)
		ch <- readResult{data, nil}
	})
	return ch
}

type cawResult struct {
	miscompare int
	err        error
}

func caw(v *Volume, off uint64, compare, data []byte) <-chan cawResult {
	ch := make(chan cawResult, 1)
	v.CompareAndWrite(off, compare, data, func(m int, err error) { ch <- cawResult{m, err} })
	return ch
}

func zero(v *Volume, off, n uint64) <-chan error {
	ch := make(chan error, 1)
	v.Zero(off, n, true, func(err error) { ch <- err })
	return ch
}

func flush(v *Volume) <-chan error {
	ch := make(chan error, 1)
	v.Flush(func(err error) { ch <- err })
	return ch
}

// pattern is n bytes that say which write they are from.
func pattern(tag uint64, n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], tag<<20|uint64(i))
	}
	return b
}
