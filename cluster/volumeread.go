package cluster

import (
	"sync"
	"sync/atomic"
	"syscall"

	"petal/cluster/replica"
	"petal/placement"
)

// readOp is a read and, once it has succeeded, the loan of its data. It is
// pooled, with its pieces.
type readOp struct {
	v      *Volume
	off    uint64
	n      int
	done   func([][]byte, any, error)
	vec    [][]byte
	pieces []*piece // in order of offset; one that was given up is nil
	errs   []error
	left   atomic.Int32 // pieces not done, and one while they are being started
	lent   atomic.Bool
}

var readOps = sync.Pool{New: func() any { return new(readOp) }}

// Read reads n bytes at off; vec is lent until Release. What is cached here is
// served before Read returns.
func (v *Volume) Read(off uint64, n int, done func(vec [][]byte, loan any, err error)) {
	st := v.state.Load()
	err := v.check(st, off, uint64(n))
	if n <= 0 || n > maxTransfer {
		err = syscall.EINVAL
	}
	if err == nil && !v.busy.begin() {
		err = ErrVolumeClosed
	}
	if err != nil {
		done(nil, nil, err)
		return
	}
	op := readOps.Get().(*readOp)
	op.v, op.off, op.n, op.done = v, off, n, done
	op.start(st)
	v.prefetch(st, off, n)
	op.finish()
}

// start reads the pieces; finish is to be called once more than they do. Whole
// blocks are read, so that their checksums go all the way.
func (op *readOp) start(st *volumeState) {
	const bs = placement.BlockSize
	for at, left := op.off, uint64(op.n); left > 0; {
		s := spanAt(at, left)
		at += uint64(s.bytes())
		left -= uint64(s.bytes())
		s.from, s.to = s.from/bs*bs, (s.to+bs-1)/bs*bs
		p := op.v.newPiece(op, replica.Read, s)
		p.slot = len(op.pieces)
		op.pieces = append(op.pieces, p)
		op.errs = append(op.errs, nil)
	}
	op.left.Store(int32(len(op.pieces)) + 1)
	for _, p := range op.pieces {
		p.startLocked(st, false)
	}
}

// prefetch reads ahead if off continues a stream: what this node itself keeps.
func (v *Volume) prefetch(st *volumeState, off uint64, n int) {
	h := v.c.here.Load()
	from, to := v.ahead.note(off, n, st.size)
	if from >= to || h == nil {
		return
	}
	for c := from; c < to; c++ {
		if r := st.routes.of(v.family, c); r.holds(v.c.self) {
			h.Prefetch(placement.Key{Family: v.family, Node: st.node, Chunk: c})
		}
	}
}

func (op *readOp) pieceDone(p *piece, err error, givenUp bool) {
	slot := p.slot // p may be used again once it is out of here
	op.errs[slot] = err
	if givenUp {
		op.pieces[slot] = nil
	}
	op.finish()
}

// finish counts a piece as done; the last one ends the read.
func (op *readOp) finish() {
	if op.left.Add(-1) != 0 {
		return
	}
	v, done := op.v, op.done
	for _, err := range op.errs {
		if err != nil { // the first, in order of offset
			err = clip(err, op.off)
			op.recycle()
			done(nil, nil, err)
			v.busy.end()
			return
		}
	}
	skip, left := int(op.off%placement.BlockSize), op.n
	for _, p := range op.pieces {
		for _, ref := range p.Bufs {
			b := ref.Bytes()[skip:]
			b = b[:min(len(b), left)]
			op.vec = append(op.vec, b)
			skip, left = 0, left-len(b)
		}
	}
	op.lent.Store(true)
	done(op.vec, op, nil)
	v.busy.end()
}

// release ends the loan.
func (op *readOp) release() {
	if !op.lent.CompareAndSwap(true, false) {
		panic("cluster: loan given back twice")
	}
	op.recycle()
}

func (op *readOp) recycle() {
	for _, p := range op.pieces {
		if p != nil {
			p.free()
		}
	}
	clear(op.vec)
	clear(op.pieces)
	clear(op.errs)
	op.vec, op.pieces, op.errs = op.vec[:0], op.pieces[:0], op.errs[:0]
	op.v, op.done = nil, nil
	readOps.Put(op)
}
