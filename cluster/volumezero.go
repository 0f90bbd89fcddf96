package cluster

import (
	"sync"
	"time"

	"petal/cluster/blocklock"
	"petal/cluster/replica"
	"petal/cluster/wire"
	"petal/placement"
)

const (
	// zeroChunksMax is the greatest number of chunks that Zero handles as
	// single pieces. Beyond, it takes one lock for all and looks for data first.
	zeroChunksMax = 64

	// zeroInFlight is how many pieces a long Zero keeps going at once.
	zeroInFlight = 32
)

// Zero makes n bytes at off read as zeros, and as far as they are whole 4 KiB
// blocks gives their space back, whether unmap asks for it or not. It
// allocates nothing but for blocks that it zeroes in part. A range of any
// length takes time only for what is allocated in it. Durable like Write.
func (v *Volume) Zero(off, n uint64, unmap bool, done func(error)) {
	st := v.state.Load()
	err := v.checkWrite(st, off, n)
	if err == nil && n > 0 && !v.busy.begin() {
		err = ErrVolumeClosed
	}
	if err != nil || n == 0 {
		done(err)
		return
	}
	if spansOf(off, n) > zeroChunksMax {
		v.zeroLong(st, off, n, false, done)
		return
	}
	op := v.newWriteOp(off, 0)
	op.done = done
	for n > 0 {
		s := spanAt(off, n)
		for _, part := range zeroParts(s) {
			if part.bytes() > 0 {
				p := v.newPiece(op, replica.Zero, part)
				p.slot = len(op.pieces)
				op.pieces = append(op.pieces, p)
			}
		}
		off += uint64(s.bytes())
		n -= uint64(s.bytes())
	}
	op.start(st, st.writeBack)
}

// zeroParts cuts a span into its first block, if only part of that is in it,
// its whole blocks, and its last block likewise: whole blocks need no look at
// what is there. Parts may be empty.
func zeroParts(s span) (parts [3]span) {
	const bs = placement.BlockSize
	from, to := (s.from+bs-1)/bs*bs, s.to/bs*bs
	if from > to { // within one block
		return [3]span{s}
	}
	return [3]span{{s.chunk, s.from, from}, {s.chunk, from, to}, {s.chunk, to, s.to}}
}

// longZero is a Zero of many chunks. It holds all of them locked and skips what
// was never written: it asks the head of each link for chunks with data, and
// zeroes them. Should a head move meanwhile, it begins again, and finds what the
// old one may not have told any more.
//
//	edges -> [ask link 0 -> zero what it has] ... -> [ask link n ...] -> done
//	              ^                                        |
//	              '------------- routes changed -----------'
type longZero struct {
	v      *Volume
	st     *volumeState
	off, n uint64
	beyond bool // it lies beyond the disk's end
	lazy   bool
	done   func(error)
	lock   *blocklock.Long
	since  time.Duration

	mu      sync.Mutex
	running bool   // someone works on steps
	steps   int    // events to work on
	flying  int    // pieces under way
	queue   []span // to be zeroed
	asking  bool
	err     error

	first, last placement.Chunk // whole chunks
	routes      *routes         // that this pass goes by
	link        int             // of routes, that is looked at
	at          placement.Chunk // of it, where to go on
}

// zeroLong zeroes [off, off+n).
func (v *Volume) zeroLong(st *volumeState, off, n uint64, beyond bool, done func(error)) {
	z := &longZero{v: v, st: st, off: off, n: n, beyond: beyond, lazy: st.writeBack, done: done, since: v.c.clock.Now()}
	first, last := placement.Chunk(off/placement.ChunkSize), placement.Chunk((off+(n-1))/placement.ChunkSize)
	v.locks.AcquireLong(placement.Key{Chunk: first}, last, func(l *blocklock.Long) {
		z.lock = l
		z.edges(first, last)
		z.begin()
		z.step()
	})
}

// edges queues the first and the last chunk if they are only touched in part.
func (z *longZero) edges(first, last placement.Chunk) {
	head := spanAt(z.off, z.n)
	if head.bytes() < placement.ChunkSize {
		z.add(head)
		first++
	}
	if end := z.off + z.n; end%placement.ChunkSize != 0 && last >= first {
		z.add(span{last, 0, int(end % placement.ChunkSize)})
		last--
	}
	z.first, z.last = first, last
}

func (z *longZero) add(s span) {
	for _, part := range zeroParts(s) {
		if part.bytes() > 0 {
			z.queue = append(z.queue, part)
		}
	}
}

// begin starts a pass over all links.
func (z *longZero) begin() {
	z.routes = z.v.state.Load().routes
	z.link, z.at = 0, z.first
	if z.first > z.last { // nothing but edges
		z.link = len(z.routes.links)
	}
}

// step works until there is nothing to do but wait. Answers that come while
// somebody works, from inside what it calls too, are left to that one.
func (z *longZero) step() {
	z.mu.Lock()
	z.steps++
	if z.running {
		z.mu.Unlock()
		return
	}
	z.running = true
	for z.steps > 0 {
		z.steps = 0
		for do := z.next(); do != nil; do = z.next() {
			z.mu.Unlock()
			do()
			z.mu.Lock()
		}
	}
	z.running = false
	end := z.flying == 0 && !z.asking && z.done != nil && (z.err != nil || len(z.queue) == 0 && z.looked())
	done := z.done
	if end {
		z.done = nil
	}
	z.mu.Unlock()
	if end {
		z.v.locks.ReleaseLong(z.lock)
		done(z.err)
		z.v.busy.end()
	}
}

// next returns what can be done now, or nil. The lock is held.
func (z *longZero) next() func() {
	switch {
	case z.err != nil || z.flying >= zeroInFlight:
		return nil
	case len(z.queue) > 0:
		p := z.v.newPiece(z, replica.Zero, z.queue[0])
		z.queue = z.queue[1:]
		z.flying++
		return func() { p.startLocked(z.st, z.lazy) }
	case z.asking || z.looked() || z.flying > 0:
		return nil
	}
	z.asking = true
	r, key := &z.routes.links[z.link], placement.Key{Family: z.v.family, Node: z.st.node, Chunk: z.at}
	return func() { z.v.c.mapped(r, key, z.last, z.found) }
}

// looked reports whether every link has been looked at.
func (z *longZero) looked() bool { return z.link == len(z.routes.links) }

// found gets an answer.
func (z *longZero) found(chunks []replica.MappedChunk, more bool, status wire.Status) {
	z.mu.Lock()
	if status != wire.OK {
		z.retry(status)
		return
	}
	z.asking = false
	for _, c := range chunks {
		if c.Chunk >= z.at && c.Chunk <= z.last {
			z.queue = append(z.queue, span{c.Chunk, 0, placement.ChunkSize})
		}
	}
	if n := len(chunks); more && n > 0 && chunks[n-1].Chunk < z.last {
		z.at = chunks[n-1].Chunk + 1
	} else {
		z.link, z.at = z.link+1, z.first
	}
	if now := z.v.state.Load().routes; z.looked() && !now.same(z.routes) {
		z.begin()
	}
	z.mu.Unlock()
	z.step()
}

// retry asks again a little later, for as long as a command may live. It
// unlocks.
func (z *longZero) retry(status wire.Status) {
	c := z.v.c
	alone := z.routes.only(c.self)
	if c.clock.Now()-z.since >= c.times.Command*ageMax/ageTicks || status == wire.Failed && alone || c.lapsed.Load() {
		z.asking, z.err = false, &unreachableError{statusError(status)}
		z.mu.Unlock()
		z.step()
		return
	}
	z.mu.Unlock()
	c.clock.AfterFunc(retryMax, func() {
		z.mu.Lock()
		if !z.v.state.Load().routes.same(z.routes) {
			z.begin()
		}
		z.asking = false
		z.mu.Unlock()
		z.step()
	})
}

func (z *longZero) pieceDone(p *piece, err error, givenUp bool) {
	z.mu.Lock()
	z.flying--
	if err != nil && z.err == nil {
		z.err = err
	}
	if z.err == nil {
		z.since = z.v.c.clock.Now() // it gets on
	}
	z.mu.Unlock()
	if !givenUp {
		p.free()
	}
	z.step()
}

// trimBeyondEnd gives back what lies beyond the end of the disk, after it has
// been made smaller, so that a disk that grows again reads as zeros there. It
// may be repeated and is quick when there is nothing.
func (v *Volume) trimBeyondEnd(done func(error)) {
	st := v.state.Load()
	if !v.busy.begin() {
		done(ErrVolumeClosed)
		return
	}
	if st.size == 0 { // 2^64 bytes at 0 have no length that fits
		panic("cluster: a disk without size")
	}
	v.zeroLong(st, st.size, -st.size, true, done)
}
