package cache

import "petal/placement"

// policy decides which entries go. It is S3-FIFO (Yang et al., "FIFO queues
// are all you need for cache eviction", SOSP 2023): three first-in-first-out
// queues,
//
//	new -> [ small: a tenth ] --accessed again--> [ main ] --accessed--> head of main
//	            |                                    |
//	            v once only                          v not accessed
//	       [ ghost: keys only ] --comes back--> main        gone
//
// so what is touched once, a backup or a copy of a whole disk, passes through
// a tenth of the budget and leaves the working set alone.
//
// An entry is a chunk of 16 blocks, and a stream of 4 KiB reads touches it 16
// times. That is one use, not 16: only an access to a block that was already
// accessed counts as "again".
//
// Methods are called with the shard locked.
type policy struct {
	budget      int // bytes
	small, main queue
	ghost       ghost
	evictions   uint64
}

const (
	smallPart = 10 // the small queue's share of the budget is 1/smallPart
	freqMax   = 3  // accesses that an entry in main can save up

	// ghostBytes is the budget for which there is one slot of ghost memory.
	ghostBytes = 16 << 10
)

func (p *policy) init(budget int) {
	p.budget = budget
	p.small.init()
	p.main.init()
	p.ghost.init(budget / ghostBytes)
}

func (p *policy) bytes() int { return p.small.bytes + p.main.bytes }

// queueOf is the queue that e is in.
func (p *policy) queueOf(e *entry) *queue {
	if e.main {
		return &p.main
	}
	return &p.small
}

// touch notes an access to the blocks of m.
func (e *entry) touch(m placement.Mask) {
	if e.seen&m == 0 {
		e.seen |= m
		return
	}
	e.seen = m
	if e.freq < freqMax {
		e.freq++
	}
}

// add queues a new entry.
func (p *policy) add(e *entry) {
	e.main = p.ghost.has(e.hash, p.main.n)
	p.queueOf(e).push(e)
}

// remove takes an entry out of its queue.
func (p *policy) remove(e *entry) { p.queueOf(e).remove(e) }

// charge sets what e counts for, in bytes.
func (p *policy) charge(e *entry, n int) {
	p.queueOf(e).bytes += n - e.charge
	e.charge = n
}

// victim takes an entry out of the queues and returns it, or nil if all is
// within the budget. It ends: each turn evicts, moves an entry on from small,
// or uses up some entry's freq.
func (p *policy) victim() *entry {
	for p.bytes() > p.budget {
		if p.main.n == 0 || p.small.bytes > p.budget/smallPart {
			e := p.small.tail()
			p.small.remove(e)
			if e.freq > 0 {
				e.freq, e.main = 0, true
				p.main.push(e)
				continue
			}
			p.ghost.add(e.hash)
			p.evictions++
			return e
		}
		e := p.main.tail()
		p.main.remove(e)
		if e.freq > 0 {
			e.freq--
			p.main.push(e)
			continue
		}
		p.evictions++
		return e
	}
	return nil
}

// queue is a FIFO of entries, in at the head, out at the tail.
type queue struct {
	ring  entry // ring.next is the head, ring.prev the tail
	n     int
	bytes int
}

func (q *queue) init() { q.ring.prev, q.ring.next = &q.ring, &q.ring }

func (q *queue) tail() *entry { return q.ring.prev }

func (q *queue) push(e *entry) {
	e.prev, e.next = &q.ring, q.ring.next
	e.prev.next, e.next.prev = e, e
	q.n++
	q.bytes += e.charge
}

func (q *queue) remove(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	q.n--
	q.bytes -= e.charge
}

// ghost remembers keys that were evicted from small, roughly: a hash table
// without chains in which a newer key overwrites an older one. An age in
// evictions makes it a queue. A wrong answer costs a place in main, no more.
type ghost struct {
	slots []ghostSlot // length is a power of two
	clock uint32      // evictions so far
}

type ghostSlot struct {
	tag  uint32 // 0: empty
	born uint32
}

func (g *ghost) init(n int) {
	size := 16
	for size < n {
		size *= 2
	}
	g.slots = make([]ghostSlot, size)
}

func (g *ghost) slot(hash uint64) (*ghostSlot, uint32) {
	return &g.slots[uint32(hash)&uint32(len(g.slots)-1)], uint32(hash>>32) | 1
}

func (g *ghost) add(hash uint64) {
	s, tag := g.slot(hash)
	g.clock++
	*s = ghostSlot{tag, g.clock}
}

// has reports whether the key was evicted within the last `within` evictions.
func (g *ghost) has(hash uint64, within int) bool {
	s, tag := g.slot(hash)
	return s.tag == tag && g.clock-s.born < uint32(within)
}
