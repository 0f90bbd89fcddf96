// Package cache keeps verified blocks in memory: what a brick has read and
// checked, and what has been committed to it. It is a cache of references:
// a hit lends the very buffer that was filled by the disk or the network.
//
// An entry is a chunk; it holds up to 16 blocks, each somewhere in a counted
// buffer:
//
//	Key{family, node, chunk} -> entry   slot 0 .. 15 -> (slab.Buf, block in it)
//
//	Put (committed write) ----> entry ----> Get (hit: references)
//	                              ^
//	BeginFill .. Put .. End ------'     blocks that were Put or Dropped since
//	(read from the disk)                BeginFill are left out
//
// What is charged against the budget is the memory that entries keep from
// being reused: a whole 64 KiB buffer for one block of it. Entries that waste
// more than half of a buffer are compacted by copying.
//
// The cache knows nothing of disks and journals and keeps no promise about
// durability; dropping any entry at any time is always right. Which entries go
// is decided in policy.go. All methods may be called from any goroutine; none
// blocks on anything but a short lock.
package cache

import (
	"math/bits"
	"sync"

	"petal/cluster/slab"
	"petal/placement"
)

const (
	shardsMax     = 16
	shardBytesMin = 4 << 20 // a shard's budget below which there are fewer shards

	// entryBytes is charged for an entry beside its data: struct, map slot, ghost.
	entryBytes = 320
)

// Cache is a set of blocks with a budget in bytes.
type Cache struct {
	pool    *slab.Pool
	shards  []shard
	entries sync.Pool // of *entry
	fills   sync.Pool // of *Fill
}

// shard is an independent part of the cache with its own part of the budget.
type shard struct {
	mu      sync.Mutex
	entries map[placement.Key]*entry
	fills   map[placement.Key]*Fill
	policy  policy

	hits, misses, joined uint64
	_                    [64]byte
}

// entry is a chunk of which some blocks are cached.
//
// Invariant: bit i of have is set iff buf[i] is not nil; the entry holds one
// reference to each different buffer in buf; charge is what policy.bytes
// counts for it.
type entry struct {
	key    placement.Key
	hash   uint64
	buf    [placement.BlocksPerChunk]*slab.Buf
	at     [placement.BlocksPerChunk]uint8 // which 4 KiB of buf
	have   placement.Mask
	seen   placement.Mask // accessed since freq last grew
	freq   uint8          // repeated accesses, saturates
	main   bool           // which queue it is in
	charge int

	prev, next *entry
}

// Ref is a run of cached bytes: Len bytes of Buf from Off, multiples of 4 KiB.
type Ref struct {
	Buf      *slab.Buf
	Off, Len int
}

// Bytes is the run's memory. It must not be written.
func (r Ref) Bytes() []byte { return r.Buf.Bytes()[r.Off : r.Off+r.Len] }

// Refs are runs in order. Each holds one reference to its buffer.
type Refs []Ref

// Add appends n bytes of b from off, taking a reference unless they prolong
// the last run.
func (r *Refs) Add(b *slab.Buf, off, n int) {
	if k := len(*r); k > 0 {
		if last := &(*r)[k-1]; last.Buf == b && last.Off+last.Len == off {
			last.Len += n
			return
		}
	}
	*r = append(*r, Ref{b.Retain(), off, n})
}

// Release gives all references back and empties r, keeping its memory.
func (r *Refs) Release() {
	for i := range *r {
		(*r)[i].Buf.Release()
		(*r)[i].Buf = nil
	}
	*r = (*r)[:0]
}

// New returns a cache that keeps at most budget bytes of the pool's memory
// and of its own administration.
func New(pool *slab.Pool, budget int64) *Cache {
	n := 1
	for n < shardsMax && budget/int64(2*n) >= shardBytesMin {
		n *= 2
	}
	c := &Cache{pool: pool, shards: make([]shard, n)}
	c.entries.New = func() any { return new(entry) }
	c.fills.New = func() any { return new(Fill) }
	for i := range c.shards {
		s := &c.shards[i]
		s.entries = make(map[placement.Key]*entry)
		s.fills = make(map[placement.Key]*Fill)
		s.policy.init(int(budget / int64(n)))
	}
	return c
}

// shard returns the shard of a key and the key's hash.
func (c *Cache) shard(key placement.Key) (*shard, uint64) {
	h := hash(key)
	return &c.shards[h>>60&uint64(len(c.shards)-1)], h
}

// hash is the finalizer of SplitMix64 over the fields. It has no seed, so that
// a simulated run evicts the same way each time.
func hash(key placement.Key) uint64 {
	x := uint64(key.Family)<<32 | uint64(key.Node)
	x = mix(x+0x9e3779b97f4a7c15) ^ uint64(key.Chunk)
	return mix(x)
}

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Get looks up count blocks of a chunk from block first. It is all or nothing:
// if it returns true, the runs have been appended to dst with a reference
// each. It panics if the blocks leave the chunk.
func (c *Cache) Get(key placement.Key, first, count int, dst *Refs) bool {
	want := placement.Span(first, count)
	s, _ := c.shard(key)
	s.mu.Lock()
	e := s.entries[key]
	if e == nil || e.have&want != want {
		s.misses++
		s.mu.Unlock()
		return false
	}
	s.hits++
	e.touch(want)
	for i := first; i < first+count; i++ {
		dst.Add(e.buf[i], int(e.at[i])*placement.BlockSize, placement.BlockSize)
	}
	s.mu.Unlock()
	return true
}

// Has returns which blocks of a chunk are cached. It is no access.
func (c *Cache) Has(key placement.Key) placement.Mask {
	s, _ := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		return e.have
	}
	return 0
}

// Put makes the blocks of mask what buf holds: a committed write. The blocks
// lie in buf one after another, in order; buf may be the pool's Zero. From now
// on Get gives these, and fills begun earlier do not replace them. The caller
// keeps its reference; nobody may write to the memory any more.
func (c *Cache) Put(key placement.Key, mask placement.Mask, buf *slab.Buf) {
	if mask == 0 {
		return
	}
	s, h := c.shard(key)
	var out evicted
	s.mu.Lock()
	if f := s.fills[key]; f != nil {
		f.stale |= mask
	}
	e := c.insert(s, key, h)
	e.set(mask, mask, buf, &out)
	e.touch(mask)
	c.settle(s, e, &out)
	s.mu.Unlock()
	c.free(&out)
}

// Drop forgets the blocks of mask. Fills begun earlier do not bring them back.
func (c *Cache) Drop(key placement.Key, mask placement.Mask) {
	s, _ := c.shard(key)
	var out evicted
	s.mu.Lock()
	if f := s.fills[key]; f != nil {
		f.stale |= mask
	}
	if e := s.entries[key]; e != nil && e.have&mask != 0 {
		if e.clear(mask, &out); e.have == 0 {
			s.remove(e, &out)
		} else {
			c.settle(s, e, &out)
		}
	}
	s.mu.Unlock()
	c.free(&out)
}

// DropFamily forgets everything of a family.
func (c *Cache) DropFamily(f placement.Family) {
	c.drop(func(of placement.Family) bool { return of == f })
}

// Clear forgets everything.
func (c *Cache) Clear() { c.drop(func(placement.Family) bool { return true }) }

func (c *Cache) drop(those func(placement.Family) bool) {
	for i := range c.shards {
		s := &c.shards[i]
		var out evicted
		s.mu.Lock()
		for key, fill := range s.fills {
			if those(key.Family) {
				fill.stale = placement.Full
			}
		}
		for key, e := range s.entries {
			if those(key.Family) {
				s.remove(e, &out)
			}
		}
		s.mu.Unlock()
		c.free(&out)
	}
}

// Stats are the figures of a cache. Bytes is what counts against Budget.
type Stats struct {
	Budget, Bytes int64
	Entries       int64
	Hits, Misses  uint64 // of Get
	Joined        uint64 // reads that found a fill of their chunk under way
	Evicted       uint64 // entries
}

// Stats returns the cache's figures.
func (c *Cache) Stats() (st Stats) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		st.Budget += int64(s.policy.budget)
		st.Bytes += int64(s.policy.bytes())
		st.Entries += int64(len(s.entries))
		st.Hits += s.hits
		st.Misses += s.misses
		st.Joined += s.joined
		st.Evicted += s.policy.evictions
		s.mu.Unlock()
	}
	return st
}

// insert returns the entry of key, a new one in its queue if there is none.
func (c *Cache) insert(s *shard, key placement.Key, hash uint64) *entry {
	e := s.entries[key]
	if e == nil {
		e = c.entries.Get().(*entry)
		e.key, e.hash = key, hash
		s.entries[key] = e
		s.policy.add(e)
	}
	return e
}

// remove takes an entry out of its shard.
func (s *shard) remove(e *entry, out *evicted) {
	delete(s.entries, e.key)
	s.policy.remove(e)
	out.add(e)
}

// settle restores the invariants after e has changed: compact, charged, and
// the shard within its budget. e itself may be evicted.
func (c *Cache) settle(s *shard, e *entry, out *evicted) {
	e.compact(c.pool, out)
	s.policy.charge(e, entryBytes+e.pinned())
	for {
		victim := s.policy.victim()
		if victim == nil {
			return
		}
		delete(s.entries, victim.key)
		out.add(victim)
	}
}

// evicted collects what has to be given back after the lock is released.
type evicted struct {
	entries *entry // linked by next, buffers still in them
	bufs    [2 * placement.BlocksPerChunk]*slab.Buf
	n       int
}

func (out *evicted) add(e *entry) { e.next, out.entries = out.entries, e }

func (out *evicted) release(b *slab.Buf) {
	out.bufs[out.n] = b
	out.n++
}

// free gives back what was evicted.
func (c *Cache) free(out *evicted) {
	for _, b := range out.bufs[:out.n] {
		b.Release()
	}
	for e := out.entries; e != nil; {
		next := e.next
		for i, b := range &e.buf {
			if b != nil && !e.refers(b, i) {
				b.Release()
			}
		}
		*e = entry{}
		c.entries.Put(e)
		e = next
	}
}

// refers reports whether one of the slots below n is in b.
func (e *entry) refers(b *slab.Buf, n int) bool {
	for _, x := range e.buf[:n] {
		if x == b {
			return true
		}
	}
	return false
}

// pinned is the memory of all different buffers of the entry, in bytes.
func (e *entry) pinned() (n int) {
	var last *slab.Buf
	for i, b := range &e.buf {
		if b != nil && b != last && !e.refers(b, i) {
			n += b.Size()
		}
		last = b
	}
	return n
}

// set puts those blocks of mask that are also in only into their slots. The
// blocks of mask lie one after another in buf.
func (e *entry) set(mask, only placement.Mask, buf *slab.Buf, out *evicted) {
	if mask &= placement.Full; mask&only == 0 {
		return
	}
	if n := bits.OnesCount16(uint16(mask)) * placement.BlockSize; n > buf.Len() {
		panic("cache: the buffer is shorter than its blocks")
	}
	if !e.refers(buf, len(e.buf)) {
		buf.Retain()
	}
	var old [placement.BlocksPerChunk]*slab.Buf
	n := 0
	for i, at := 0, uint8(0); i < len(e.buf); i++ {
		bit := placement.Mask(1) << i
		if mask&bit == 0 {
			continue
		}
		if only&bit != 0 {
			if b := e.buf[i]; b != nil && (n == 0 || old[n-1] != b) {
				old[n] = b
				n++
			}
			e.buf[i], e.at[i] = buf, at
			if buf.IsZero() {
				e.at[i] = uint8(i) // so that neighbours make one run
			}
		}
		at++
	}
	e.have |= mask & only
	e.unref(old[:n], out)
}

// clear empties the slots of mask.
func (e *entry) clear(mask placement.Mask, out *evicted) {
	var old [placement.BlocksPerChunk]*slab.Buf
	n := 0
	for i, b := range &e.buf {
		if mask&(1<<i) == 0 || b == nil {
			continue
		}
		if n == 0 || old[n-1] != b {
			old[n] = b
			n++
		}
		e.buf[i] = nil
	}
	e.have &^= mask
	e.seen &^= mask
	e.unref(old[:n], out)
}

// unref gives up the entry's reference to those buffers that no slot is in any
// more. A buffer may occur in old more than once.
func (e *entry) unref(old []*slab.Buf, out *evicted) {
	for i, b := range old {
		again := false
		for _, x := range old[:i] {
			again = again || x == b
		}
		if !again && !e.refers(b, len(e.buf)) {
			out.release(b)
		}
	}
}

// compact copies blocks out of buffers of which less than half is used, so
// that an entry never pins more than twice its data.
func (e *entry) compact(pool *slab.Pool, out *evicted) {
	for i, b := range &e.buf {
		if b == nil || b.Size() <= slab.Small || e.refers(b, i) {
			continue
		}
		used := 0
		for _, x := range e.buf[i:] {
			if x == b {
				used++
			}
		}
		if 2*used*placement.BlockSize >= b.Size() {
			continue
		}
		for j := i; j < len(e.buf); j++ {
			if e.buf[j] == b {
				own := pool.Get(slab.Small)
				copy(own.Bytes(), b.Bytes()[int(e.at[j])*placement.BlockSize:])
				e.buf[j], e.at[j] = own, 0
			}
		}
		out.release(b)
	}
}
