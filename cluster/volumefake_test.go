package cluster

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/slab"
	"petal/placement"
)

// fakeBrick is a brick without a disk: a map of blocks that checks what a
// brick may rely on (order, checksums, no conflicting records under way) and
// can be told when and how things end.
type fakeBrick struct {
	t    testing.TB
	pool *slab.Pool

	mu     sync.Mutex
	blocks map[fakeBlock][]byte           // committed, not zero
	open   map[*brick.Record]*fakeRecord  // appended, not committed or failed
	seq    map[placement.Bucket][2]uint64 // appended, committed
	lazy   []*brick.Record                // waiting for a flush
	bad    map[fakeBlock]bool
	failed error
	space  int // blocks that may still be allocated, -1: any number

	// deliver runs the completion of a record: by default from a worker, one
	// after another, as a journal does. deliverRead runs a read: by default at
	// once, as a cache hit is.
	deliver, deliverRead func(func())

	appends, reads, zeros, lookups int
	prefetched                     []placement.Chunk
}

type fakeBlock struct {
	family placement.Family
	chunk  placement.Chunk
	block  int
}

type fakeRecord struct {
	data []byte // as it was at Append
}

func newFake(t testing.TB) *fakeBrick {
	f := &fakeBrick{
		t: t, pool: slab.New(64 << 20), blocks: map[fakeBlock][]byte{}, open: map[*brick.Record]*fakeRecord{},
		seq: map[placement.Bucket][2]uint64{}, bad: map[fakeBlock]bool{}, space: -1,
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
func (f *fakeBrick) queued(seed uint64) (run func() (ran bool)) {
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
func (f *fakeBrick) concurrent() {
	f.deliver = func(g func()) { go g() }
	f.deliverRead = f.deliver
}

func (f *fakeBrick) Append(r *brick.Record) error { return f.AppendAll([]*brick.Record{r}) }

func (f *fakeBrick) AppendAll(rs []*brick.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.appends++
	if f.failed != nil {
		return f.failed
	}
	for _, r := range rs {
		if !f.admit(r) {
			return syscall.ENOSPC
		}
	}
	for _, r := range rs {
		f.take(r)
	}
	return nil
}

// admit takes space for a record. The lock is held.
func (f *fakeBrick) admit(r *brick.Record) bool {
	if r.Kind == brick.Write && f.space >= 0 {
		for i := range 16 {
			if r.Mask&(1<<i) != 0 && f.blocks[fakeBlock{r.Key.Family, r.Key.Chunk, i}] == nil {
				f.space--
			}
		}
		if f.space < 0 {
			f.space = 0
			return false
		}
	}
	return true
}

func (f *fakeBrick) take(r *brick.Record) {
	f.check(r)
	rec := &fakeRecord{}
	if r.Kind == brick.Write {
		r.Buf.Retain()
		rec.data = slices.Clone(r.Buf.Bytes())
	} else {
		f.zeros++
	}
	f.open[r] = rec
	if r.Lazy {
		f.lazy = append(f.lazy, r)
		return
	}
	f.deliver(func() { f.finish(r) })
}

// check looks at what a brick must be able to rely on. The lock is held.
func (f *fakeBrick) check(r *brick.Record) {
	s := f.seq[r.Bucket]
	if r.Seq != s[0]+1 {
		f.t.Errorf("bucket %d: seq %d after %d", r.Bucket, r.Seq, s[0])
	}
	s[0] = r.Seq
	f.seq[r.Bucket] = s
	if r.Bucket != placement.BucketOf(r.Key.Family, r.Key.Chunk) || r.Op.Number == 0 || r.Mask == 0 {
		f.t.Errorf("record %+v is malformed", r)
	}
	for x := range f.open {
		if x.Key == r.Key && x.Mask&r.Mask != 0 {
			f.t.Errorf("chunk %d: two records under way for blocks %#x", r.Key.Chunk, x.Mask&r.Mask)
		}
	}
	if r.Kind != brick.Write {
		return
	}
	mem := r.Buf.Bytes()
	if len(mem) != bits.OnesCount16(uint16(r.Mask))*placement.BlockSize {
		f.t.Errorf("%d bytes for blocks %#x", len(mem), r.Mask)
	}
	for i := 0; i*placement.BlockSize < len(mem); i++ {
		if crc32.Checksum(mem[i*4096:(i+1)*4096], crc32.MakeTable(crc32.Castagnoli)) != r.Sum[i] {
			f.t.Errorf("chunk %d: checksum of block %d of the record is wrong", r.Key.Chunk, i)
		}
	}
}

// finish makes a record durable.
func (f *fakeBrick) finish(r *brick.Record) {
	f.mu.Lock()
	err := f.failed
	if rec := f.open[r]; rec != nil && err != nil && !r.Lazy {
		delete(f.open, r)
		f.drop(r)
	}
	f.mu.Unlock()
	r.Done(r, err)
}

func (f *fakeBrick) drop(r *brick.Record) {
	if r.Kind == brick.Write {
		r.Buf.Release()
	}
}

func (f *fakeBrick) Commit(r *brick.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.open[r]
	if rec == nil {
		f.t.Error("Commit of a record that is not under way")
		return
	}
	delete(f.open, r)
	s := f.seq[r.Bucket]
	if r.Seq <= s[1] {
		f.t.Errorf("bucket %d: commit of %d after %d", r.Bucket, r.Seq, s[1])
	}
	s[1] = r.Seq
	f.seq[r.Bucket] = s
	if r.Kind == brick.Write && !slices.Equal(rec.data, r.Buf.Bytes()) {
		f.t.Error("the buffer was written to after Append")
	}
	at := 0
	for i := range placement.BlocksPerChunk {
		if r.Mask&(1<<i) == 0 {
			continue
		}
		b := fakeBlock{r.Key.Family, r.Key.Chunk, i}
		delete(f.bad, b)
		if r.Kind == brick.Zero {
			delete(f.blocks, b)
			continue
		}
		f.blocks[b] = rec.data[at : at+placement.BlockSize]
		at += placement.BlockSize
	}
	f.drop(r)
}

func (f *fakeBrick) Read(op *brick.ReadOp) {
	op.Bufs, op.Err = op.Bufs[:0], nil
	f.deliverRead(func() {
		f.mu.Lock()
		f.reads++
		var bad placement.Mask
		for i := op.First; i < op.First+op.Count; i++ {
			b := fakeBlock{op.Family, op.Chunk, i}
			data := f.blocks[b]
			if f.bad[b] {
				bad |= 1 << i
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
		if bad != 0 {
			op.Err = &brick.MediumError{Key: placement.Key{Family: op.Family, Node: op.Lineage[0], Chunk: op.Chunk}, Blocks: bad}
		}
		if f.failed != nil {
			op.Bufs.Release()
			op.Err = f.failed
		}
		f.mu.Unlock()
		op.Done(op)
	})
}

func (f *fakeBrick) Prefetch(_ placement.Family, _ []placement.Node, c placement.Chunk) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prefetched = append(f.prefetched, c)
}

func (f *fakeBrick) Provisioned(fam placement.Family, _ []placement.Node, c placement.Chunk) (m placement.Mask, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	for i := range 16 {
		if f.blocks[fakeBlock{fam, c, i}] != nil {
			m |= 1 << i
		}
	}
	return m, f.failed
}

func (f *fakeBrick) NextMapped(fam placement.Family, from placement.Chunk) (next placement.Chunk, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	for b := range f.blocks {
		if b.family == fam && b.chunk >= from && (!ok || b.chunk < next) {
			next, ok = b.chunk, true
		}
	}
	return next, ok, f.failed
}

func (f *fakeBrick) Mapped(fam placement.Family, from, last placement.Chunk, dst []placement.Chunk) ([]placement.Chunk, error) {
	for len(dst) < cap(dst) && from <= last {
		c, ok, err := f.NextMapped(fam, from)
		if err != nil || !ok || c > last {
			return dst, err
		}
		dst, from = append(dst, c), c+1
	}
	return dst, nil
}

func (f *fakeBrick) Flush(done func(error)) {
	f.mu.Lock()
	lazy := f.lazy
	f.lazy = nil
	f.mu.Unlock()
	f.deliver(func() {
		for _, r := range lazy {
			f.finish(r)
		}
		done(f.Failed())
	})
}

func (f *fakeBrick) Usage(placement.Family) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.blocks)) * placement.BlockSize
}

func (f *fakeBrick) Space() (used, avail, total uint64) { return 80, 20, 100 }

func (f *fakeBrick) Failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *fakeBrick) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = err
}

// The volume under test.

func testVolume(f *fakeBrick, size uint64, blockSize int, writeBack bool) *Volume {
	return volumeOver(f, f.pool, size, blockSize, writeBack)
}

func volumeOver(b store, pool *slab.Pool, size uint64, blockSize int, writeBack bool) *Volume {
	d := &meta.Disk{Size: size, BlockSize: blockSize, WriteBack: writeBack, Family: 3, Node: 1}
	return newVolume(newCoordinator(b, pool, 1, 9), d, []placement.Node{1})
}

// change changes what update may change.
func change(v *Volume, f func(d *meta.Disk)) {
	st := v.state.Load()
	d := &meta.Disk{Size: st.size, BlockSize: v.blockSize, ReadOnly: st.readOnly, WriteBack: st.writeBack, Family: v.family, Node: st.node}
	f(d)
	v.update(d, st.lineage)
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
