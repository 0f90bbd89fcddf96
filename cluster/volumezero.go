package cluster

import (
	"sync/atomic"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/placement"
)

const (
	// zeroChunksMax is the greatest number of chunks that Zero handles as
	// single pieces. Beyond, it takes one lock for all and looks for data first.
	zeroChunksMax = 64

	// zeroInFlight is how many records a long Zero keeps going at once.
	zeroInFlight = 32

	// zeroLookup is how many chunks with data a long Zero looks up at once.
	zeroLookup = 1024
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
		v.zeroLong(st, off, n, done)
		return
	}
	op := v.newWriteOp(off, 0)
	op.done = done
	for n > 0 {
		s := spanAt(off, n)
		for _, part := range zeroParts(s) {
			if part.span.bytes() > 0 {
				op.pieces = append(op.pieces, v.newPiece(op, part.kind, part.span))
			}
		}
		off += uint64(s.bytes())
		n -= uint64(s.bytes())
	}
	op.start(st, st.writeBack)
}

// zeroPart is a part of a span to be zeroed.
type zeroPart struct {
	kind pieceKind
	span span
}

// zeroParts cuts a span into its first block, if only part of that is in it,
// its whole blocks, and its last block likewise. Parts may be empty.
func zeroParts(s span) (parts [3]zeroPart) {
	const bs = placement.BlockSize
	from, to := (s.from+bs-1)/bs*bs, s.to/bs*bs
	if from > to { // within one block
		return [3]zeroPart{{pieceReplace, s}}
	}
	return [3]zeroPart{
		{pieceReplace, span{s.chunk, s.from, from}},
		{pieceZero, span{s.chunk, from, to}},
		{pieceReplace, span{s.chunk, to, s.to}},
	}
}

// zeroEdge zeroes part of a block, if it isn't zero yet.
func zeroEdge(p *piece, blocks cache.Refs) bool {
	from := p.span.from % placement.BlockSize
	to := from + p.span.bytes()
	old := blocks[0].Bytes()
	if onlyZeros(old[from:to]) {
		return false
	}
	if onlyZeros(old[:from]) && onlyZeros(old[to:]) {
		p.kind = pieceZero // nothing is left in the block
		return true
	}
	p.buf = p.v.c.pool.Get(placement.BlockSize)
	mem := p.buf.Bytes()
	copy(mem, old)
	clear(mem[from:to])
	sum(p.buf, &p.rec, 0, 1)
	return true
}

// longZero is a Zero of many chunks. It holds all of them locked and skips
// what was never written; one goroutine issues its records, a few at a time.
type longZero struct {
	v     *Volume
	st    *volumeState
	off   uint64
	n     uint64
	id    brick.OpID
	lazy  bool
	done  func(error)
	lock  *longLock
	room  chan struct{} // a token per record in flight
	left  atomic.Int32  // pieces not settled, and one while they are being issued
	users atomic.Int32  // pieces not freed, and one until done has been called
	err   atomic.Pointer[error]
}

func (v *Volume) zeroLong(st *volumeState, off, n uint64, done func(error)) {
	z := &longZero{
		v: v, st: st, off: off, n: n, id: v.c.opID(), lazy: st.writeBack, done: done,
		room: make(chan struct{}, zeroInFlight),
	}
	z.left.Store(1)
	z.users.Store(1)
	first, last := placement.Chunk(off/placement.ChunkSize), placement.Chunk((off+(n-1))/placement.ChunkSize)
	v.locks.acquireLong(first, last, func(l *longLock) {
		z.lock = l
		go z.run(first, last)
	})
}

// run zeroes the edges, then each chunk that has data.
func (z *longZero) run(first, last placement.Chunk) {
	head := spanAt(z.off, z.n)
	if head.bytes() < placement.ChunkSize {
		z.zero(head)
		first++
	}
	if end := z.off + z.n; end%placement.ChunkSize != 0 {
		z.zero(span{last, 0, int(end % placement.ChunkSize)})
		last--
	}
	z.chunks(first, last)
	z.settle()
}

// chunks zeroes those whole chunks from first to last that have data.
func (z *longZero) chunks(first, last placement.Chunk) {
	dst := make([]placement.Chunk, 0, zeroLookup)
	for first <= last && z.err.Load() == nil {
		found, err := z.v.c.brick.Mapped(z.v.family, first, last, dst)
		if err != nil {
			err = z.v.fault(err, z.off)
			z.err.CompareAndSwap(nil, &err)
			return
		}
		for _, c := range found {
			z.zero(span{c, 0, placement.ChunkSize})
		}
		if len(found) < zeroLookup {
			return
		}
		first = found[len(found)-1] + 1
	}
}

// zero issues the pieces for a span.
func (z *longZero) zero(s span) {
	for _, part := range zeroParts(s) {
		if part.span.bytes() == 0 {
			continue
		}
		z.room <- struct{}{}
		z.left.Add(1)
		z.users.Add(1)
		z.v.newPiece(z, part.kind, part.span).startLocked(z.st, z.id, z.lazy)
	}
}

func (z *longZero) fillIn(p *piece, blocks cache.Refs) bool { return zeroEdge(p, blocks) }

func (z *longZero) pieceSettled(_ *piece, err error) {
	if err != nil {
		first := err // so that err itself stays off the heap
		z.err.CompareAndSwap(nil, &first)
	}
	<-z.room
	z.settle()
}

func (z *longZero) pieceFreed(p *piece) {
	p.free()
	z.unuse()
}

// settle counts a piece as settled; the last one ends the command.
func (z *longZero) settle() {
	if z.left.Add(-1) != 0 {
		return
	}
	z.v.locks.releaseLong(z.lock)
	var err error
	if e := z.err.Load(); e != nil {
		err = *e
	}
	z.done(err)
	z.unuse()
}

func (z *longZero) unuse() {
	if z.users.Add(-1) == 0 {
		z.v.busy.end()
	}
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
	v.zeroLong(st, st.size, -st.size, done)
}
