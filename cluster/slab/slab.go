// Package slab lends memory for data: 4 KiB-aligned, counted, reused, outside
// the Go heap. Data goes from the socket to the disk and back in one such
// buffer, so the alignment is what O_DIRECT asks for and the count is what
// lets the journal, the cache and a response share it without a copy.
//
// A pool grows by arenas, mapped on demand and never touched before they are
// needed, so an idle pool costs address space only:
//
//	arena   | buf | buf | buf | ...                one class each: 4, 16 or 64 KiB
//	         mmap'd memory; headers (Buf) are one Go allocation per arena
//
//	         Get           Release             Trim, or beyond the limit
//	cold ----------> lent ---------> warm free -------------------------> cold
//	(no pages)         ^---- Get ----'          MADV_DONTNEED
//
// It is not an allocator for anything but block data: at most Large bytes at a
// time, contents undefined.
//
// With the build tag "invariants" freed memory is filled with a poison pattern
// that is checked when the memory is lent again, so that a write through a
// stale reference panics at the next Get.
package slab

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of the classes, in bytes.
const (
	Small  = 4 << 10
	Medium = 16 << 10
	Large  = 64 << 10
)

const (
	classes    = 3
	arenaBytes = 2 << 20 // one mmap; all of one class
	shardsMax  = 16
)

var classSize = [classes]int{Small, Medium, Large}

// classOf returns the smallest class that holds n bytes.
func classOf(n int) int {
	switch {
	case n <= Small:
		return 0
	case n <= Medium:
		return 1
	}
	return 2
}

// Pool is a set of buffers with a common limit. All methods may be called from
// any goroutine.
type Pool struct {
	limit int64
	zero  *Buf
	class [classes]class

	// resident is the memory that has been touched and not given back to the
	// system, in bytes: lent or warm. It changes only when a buffer goes from
	// cold to lent or from lent or warm to cold, so the hot path leaves it alone.
	resident  atomic.Int64
	emergency atomic.Uint64
	mapped    atomic.Int64
}

// class is the free memory of one size. Warm buffers are spread over shards so
// that two cores seldom meet; cold ones, which cost a page fault or two
// anyway, are under one lock.
type class struct {
	shards []shard

	mu     sync.Mutex
	cold   *Buf
	arenas [][]byte
}

// shard is a stack of warm free buffers, padded to its own cache line.
type shard struct {
	mu   sync.Mutex
	free *Buf
	n    atomic.Int32 // length of free; changed under mu, read without
	_    [40]byte
}

// Buf is a lent piece of memory with a reference count. The holder of a
// reference may read the bytes; who may write them is up to the holders.
type Buf struct {
	refs  atomic.Int32
	n     int32 // length asked for
	class uint8
	fixed bool // the shared zero buffer: not counted, never freed
	mem   unsafe.Pointer
	pool  *Pool
	next  *Buf // free list
}

// New returns a pool that holds at most limit bytes of memory when things go
// well. Beyond the limit Get still succeeds, since a half-done write can't be
// refused for memory; it is counted (Stats.Emergencies), and what is released
// while the pool is beyond its limit goes back to the system at once.
func New(limit int64) *Pool {
	p := &Pool{limit: limit}
	n := 1
	for n < 2*runtime.GOMAXPROCS(0) && n < shardsMax {
		n *= 2
	}
	for i := range p.class {
		p.class[i].shards = make([]shard, n)
	}
	// Read-only: who writes to the shared zeros must crash, not make every
	// hole of every disk read as something else.
	mem := mmap(Large, unix.PROT_READ)
	p.zero = &Buf{n: Large, class: classes - 1, fixed: true, mem: unsafe.Pointer(&mem[0]), pool: p}
	p.zero.refs.Store(1)
	return p
}

func mmap(n, prot int) []byte {
	mem, err := unix.Mmap(-1, 0, n, prot, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		// The same end as the Go heap's when the system has no memory left.
		panic(fmt.Sprintf("slab: mmap of %d bytes: %v", n, err))
	}
	return mem
}

// Get lends n bytes, 0 < n <= Large, with one reference. The memory is of the
// smallest class that fits and aligned to 4 KiB; it is not zeroed. Get does
// not block on anything but short locks and always succeeds.
func (p *Pool) Get(n int) *Buf {
	if n <= 0 || n > Large {
		panic(fmt.Sprintf("slab: Get of %d bytes", n))
	}
	c := classOf(n)
	b := p.class[c].pop()
	if b == nil {
		b = p.warm(c)
	} else {
		checkPoison(b)
	}
	b.n = int32(n)
	b.refs.Store(1)
	return b
}

// pop takes a warm free buffer, or nil.
func (c *class) pop() *Buf {
	mask := uint32(len(c.shards) - 1)
	at := rand.Uint32()
	for i := range uint32(len(c.shards)) {
		s := &c.shards[(at+i)&mask]
		if s.n.Load() == 0 {
			continue
		}
		s.mu.Lock()
		b := s.free
		if b != nil {
			s.free, b.next = b.next, nil
			s.n.Add(-1)
		}
		s.mu.Unlock()
		if b != nil {
			return b
		}
	}
	return nil
}

func (c *class) push(b *Buf) {
	s := &c.shards[rand.Uint32()&uint32(len(c.shards)-1)]
	s.mu.Lock()
	b.next = s.free
	s.free = b
	s.n.Add(1)
	s.mu.Unlock()
}

// warm makes a cold buffer of class c usable. It makes room by cooling free
// memory of the other classes if the limit is in the way.
func (p *Pool) warm(c int) *Buf {
	size := int64(classSize[c])
	if over := p.resident.Add(size) - p.limit; over > 0 && over > p.cool(over) {
		p.emergency.Add(1)
	}
	cl := &p.class[c]
	cl.mu.Lock()
	if cl.cold == nil {
		p.grow(c)
	}
	b := cl.cold
	cl.cold, b.next = b.next, nil
	cl.mu.Unlock()
	return b
}

// grow adds an arena of cold buffers. Called with the class locked.
func (p *Pool) grow(c int) {
	cl := &p.class[c]
	mem := mmap(arenaBytes, unix.PROT_READ|unix.PROT_WRITE)
	cl.arenas = append(cl.arenas, mem)
	p.mapped.Add(arenaBytes)
	size := classSize[c]
	bufs := make([]Buf, arenaBytes/size)
	for i := len(bufs) - 1; i >= 0; i-- { // so that the lowest address goes first
		b := &bufs[i]
		b.class, b.pool = uint8(c), p
		b.mem = unsafe.Pointer(&mem[i*size])
		b.next, cl.cold = cl.cold, b
	}
}

// cool gives warm free memory back to the system, largest buffers first, until
// want bytes went. It returns how many did.
func (p *Pool) cool(want int64) (got int64) {
	for c := classes - 1; c >= 0; c-- {
		for got < want {
			b := p.class[c].pop()
			if b == nil {
				break
			}
			p.freeze(b)
			got += int64(classSize[c])
		}
	}
	return got
}

// freeze gives the pages of a free buffer back and puts it on the cold list.
func (p *Pool) freeze(b *Buf) {
	if err := unix.Madvise(b.full(), unix.MADV_DONTNEED); err != nil {
		panic(fmt.Sprintf("slab: madvise: %v", err)) // only for bad arguments
	}
	p.resident.Add(-int64(classSize[b.class]))
	cl := &p.class[b.class]
	cl.mu.Lock()
	b.next, cl.cold = cl.cold, b
	cl.mu.Unlock()
}

// Trim gives all free memory back to the system.
func (p *Pool) Trim() {
	p.cool(1 << 62)
}

// Zero returns the pool's shared buffer of Large zeros. It needs no Release,
// though Retain and Release are allowed, and a write to it crashes the process.
func (p *Pool) Zero() *Buf { return p.zero }

// Close unmaps the pool's memory. It does nothing and returns an error if any
// of it is still lent. No method may be called afterwards.
func (p *Pool) Close() error {
	if s := p.Stats(); s.InUse != 0 {
		return fmt.Errorf("slab: %d bytes are still in use", s.InUse)
	}
	return p.Discard()
}

// Discard unmaps the pool's memory whoever has borrowed it: that process is dead
// and never touches it again. For simulation; a use after it ends the process.
func (p *Pool) Discard() error {
	for i := range p.class {
		for _, mem := range p.class[i].arenas {
			if err := unix.Munmap(mem); err != nil {
				return fmt.Errorf("slab: munmap: %w", err)
			}
		}
		p.class[i] = class{}
	}
	return unix.Munmap(p.zero.full())
}

// Stats are the figures of a pool, in bytes except for Emergencies. They are
// taken without stopping the pool and may be off by what moves meanwhile.
type Stats struct {
	Limit       int64
	InUse       int64  // lent
	Free        int64  // touched, kept for the next Get
	Mapped      int64  // address space
	Beyond      int64  // lent beyond the limit at present
	Emergencies uint64 // Gets so far that went beyond the limit
}

// Stats returns the pool's figures.
func (p *Pool) Stats() Stats {
	s := Stats{Limit: p.limit, Mapped: p.mapped.Load(), Emergencies: p.emergency.Load()}
	resident := p.resident.Load()
	for c := range p.class {
		for i := range p.class[c].shards {
			s.Free += int64(p.class[c].shards[i].n.Load()) * int64(classSize[c])
		}
	}
	s.InUse = max(0, resident-s.Free)
	s.Beyond = max(0, s.InUse-p.limit)
	return s
}

// full is the whole memory of the buffer's class.
func (b *Buf) full() []byte { return unsafe.Slice((*byte)(b.mem), classSize[b.class]) }

// Bytes returns the memory: as many bytes as were asked for, 4 KiB-aligned.
func (b *Buf) Bytes() []byte { return unsafe.Slice((*byte)(b.mem), int(b.n)) }

// Len is len(Bytes()).
func (b *Buf) Len() int { return int(b.n) }

// Size is the memory that the buffer occupies, in bytes: its class. The shared
// zeros occupy nothing.
func (b *Buf) Size() int {
	if b.fixed {
		return 0
	}
	return classSize[b.class]
}

// IsZero reports whether b is its pool's shared buffer of zeros.
func (b *Buf) IsZero() bool { return b.fixed }

// Retain takes another reference and returns b. The caller must hold one.
func (b *Buf) Retain() *Buf {
	if !b.fixed && b.refs.Add(1) <= 1 {
		panic("slab: Retain of a buffer that nobody holds")
	}
	return b
}

// Release gives one reference up; with the last one the memory goes back to
// the pool. It panics if there was none.
func (b *Buf) Release() {
	if b.fixed {
		return
	}
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("slab: Release of a buffer that nobody holds")
	}
	p := b.pool
	poison(b)
	if p.resident.Load() > p.limit {
		p.freeze(b)
		return
	}
	p.class[b.class].push(b)
}
