package brick

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"petal/cluster/slab"
	"petal/journal"
	"petal/placement"
)

// The states of a record on its way from the journal into the map. Each is
// set once, in any order.
const (
	stateDurable   = 1 << iota // the journal has it
	stateSettled               // its extent, if it has one, is complete
	stateCommitted             // visible to readers

	// stateReady is what a record needs before it may be destaged.
	stateReady = stateDurable | stateSettled | stateCommitted
)

// pend is a record that the map does not know yet. Between Commit and the end
// of its destage it is linked into its chunk, newest first.
type pend struct {
	key   placement.Key
	lsn   atomic.Uint64 // where it is in the journal
	ord   atomic.Uint64 // its place among all records, the LSN it had first; zero until durable: above all that are
	stamp placement.Stamp
	last  *last // of its bucket
	pos   journal.Position
	ext   uint64 // typeExtent
	buf   *slab.Buf
	older *pend
	more  *[placement.BlocksPerChunk]uint32
	few   [4]uint32
	born  int64 // nanoseconds of Options.Now
	state atomic.Uint32
	mask  placement.Mask
	typ   headType

	journalled bool              // its data goes into the journal, even a whole chunk's
	noted      bool              // it is among the notes of last
	excluded   placement.Members // that lack it
	carrying   bool              // a copy further on in the journal is on its way; under the shard's lock
	stays      bool              // it cannot be carried; under the shard's lock
	undone     bool              // it was abandoned; under the shard's lock
	op         OpID
	set        *bucketSet  // typeDiscard
	then       func(error) // typeDiscard: called when it is destaged
}

// LSN returns the record's number in the journal, or zero until it is durable.
// Carrying it forward changes that.
func (p *pend) LSN() journal.LSN { return journal.LSN(p.lsn.Load()) }

// turn returns the LSN by which the record is ordered among others, or zero
// until it is durable.
func (p *pend) turn() journal.LSN { return journal.LSN(p.ord.Load()) }

// at makes the record durable at an LSN that stands for another.
func (p *pend) at(lsn, ord journal.LSN) {
	p.lsn.Store(uint64(lsn))
	p.ord.Store(uint64(ord))
}

// above reports whether the record comes after x, or is not durable yet, which is
// the same for an x that is.
func (p *pend) above(x journal.LSN) bool { l := p.turn(); return l == 0 || l > x }

// sums returns the checksums of the blocks of mask, in order.
func (p *pend) sums() []uint32 {
	n := bits.OnesCount16(uint16(p.mask))
	if n <= len(p.few) {
		return p.few[:n]
	}
	return p.more[:n]
}

func (p *pend) setSums(s []uint32) {
	if len(s) > len(p.few) && p.more == nil {
		p.more = new([placement.BlocksPerChunk]uint32)
	}
	copy(p.sums(), s)
}

// rank returns the index of block i among the blocks of the mask.
func rank(m placement.Mask, i int) int {
	return bits.OnesCount16(uint16(m) & (1<<i - 1))
}

// pchunk is a chunk (at one node) with records in the journal.
type pchunk struct {
	newest   *pend // committed records by LSN, newest first
	open     *pend // appended, neither committed nor undone; newest first
	fulls    int   // extent-writes among both
	reserved bool  // an extent is set aside for the destage
}

// idle reports that nothing is left of the chunk.
func (c *pchunk) idle() bool { return c.newest == nil && c.open == nil }

// admit enters a record that is about to be appended.
func (c *pchunk) admit(p *pend) { p.older, c.open = c.open, p }

// close takes a record out of the open ones.
func (c *pchunk) close(p *pend) {
	for at := &c.open; *at != nil; at = &(*at).older {
		if *at == p {
			*at, p.older = p.older, nil
			return
		}
	}
	panic("brick: a record was committed or undone twice")
}

// commit moves a record from the open ones to the committed ones, at its place
// by LSN: what recovery would make of the journal is what is seen now. It
// reports whether that is above all others.
func (c *pchunk) commit(p *pend) (newest bool) {
	c.close(p)
	at := &c.newest
	if l := p.turn(); l != 0 {
		for *at != nil && (*at).above(l) {
			at = &(*at).older
		}
	}
	p.older, *at = *at, p
	return at == &c.newest
}

// conflicts reports whether an open record of the link's order touches a block.
func (c *pchunk) conflicts(m placement.Mask) bool {
	for p := c.open; p != nil; p = p.older {
		if p.mask&m != 0 && p.typ.ordered() {
			return true
		}
	}
	return false
}

// pends lends pend structs.
type pends struct{ pool sync.Pool }

func (x *pends) get() *pend {
	if p, ok := x.pool.Get().(*pend); ok {
		return p
	}
	return &pend{}
}

func (x *pends) put(p *pend) {
	more := p.more
	*p = pend{more: more}
	x.pool.Put(p)
}

// pending is the index of records that the map does not know yet: chunk ->
// committed records, newest first. It is what makes journalled data readable.
type pending struct {
	shards [64]pshard
	bytes  atomic.Int64 // memory held by buffers
}

type pshard struct {
	mu     sync.Mutex
	chunks map[placement.Key]*pchunk
	moves  uint64   // destages begun of chunks of this shard
	_      [32]byte // a cache line each
}

func (x *pending) init() {
	for i := range x.shards {
		x.shards[i].chunks = map[placement.Key]*pchunk{}
	}
}

func hashKey(k placement.Key) uint64 {
	h := uint64(k.Chunk)*0x9e3779b97f4a7c15 ^ uint64(k.Family)<<32 ^ uint64(k.Node)
	h ^= h >> 32
	return h * 0xd6e8feb86659fd93
}

func (x *pending) shard(k placement.Key) *pshard {
	return &x.shards[hashKey(k)>>58]
}

// get returns the chunk's entry, made if need be. The lock is held.
func (s *pshard) get(k placement.Key) *pchunk {
	c := s.chunks[k]
	if c == nil {
		c = &pchunk{}
		s.chunks[k] = c
	}
	return c
}

// collect takes the oldest records of the chunk that may be destaged, oldest
// first, up to the first that may not: a record must never reach the map before
// an older one of its chunk, nor before a control record that came before it.
// The lock is held.
func (c *pchunk) collect(dst []*pend, before journal.LSN) []*pend {
	for p := c.open; p != nil; p = p.older {
		if l := p.turn(); l != 0 {
			before = min(before, l)
		}
	}
	for p := c.newest; p != nil; p = p.older {
		dst = append(dst, p)
	}
	slices.Reverse(dst)
	for i, p := range dst {
		if p.state.Load()&stateReady != stateReady || p.carrying || p.turn() >= before {
			return dst[:i]
		}
	}
	return dst
}

// remove unlinks the n oldest records of the chunk and returns them as a list,
// their buffers released. The lock is held.
func (x *pending) remove(c *pchunk, n int) *pend {
	total := 0
	for p := c.newest; p != nil; p = p.older {
		total++
	}
	at := &c.newest
	for range total - n {
		at = &(*at).older
	}
	oldest := *at
	*at = nil
	for p := oldest; p != nil; p = p.older {
		if p.typ == typeExtent {
			c.fulls--
		}
		x.drop(p)
	}
	return oldest
}

// hold and drop count the memory of buffers; the lock of p's shard is held, or
// p is not shared yet.
func (x *pending) hold(p *pend, b *slab.Buf) {
	p.buf = b.Retain()
	x.bytes.Add(int64(b.Size()))
}

func (x *pending) drop(p *pend) {
	if p.buf != nil {
		x.bytes.Add(-int64(p.buf.Size()))
		p.buf.Release()
		p.buf = nil
	}
}

// letGo gives back the buffers of whatever is still on its way, records in doubt
// above all: the brick is closed.
func (x *pending) letGo() {
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		for _, c := range s.chunks {
			for _, list := range []*pend{c.open, c.newest} {
				for p := list; p != nil; p = p.older {
					x.drop(p)
				}
			}
		}
		s.mu.Unlock()
	}
}
