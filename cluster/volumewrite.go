package cluster

import (
	"sync"
	"sync/atomic"
	"syscall"

	"petal/cluster/cache"
	"petal/placement"
)

// maxTransfer is the greatest length of one Read or Reserve, in bytes. It
// bounds the memory that one command takes. lun.MaxTransfer is the same.
const maxTransfer = 16 << 20

// writeOp is a command that writes: a loan from Reserve, then Write; or Zero
// or CompareAndWrite. It is pooled.
type writeOp struct {
	v      *Volume
	off    uint64
	n      int
	vec    [][]byte // what is lent
	pieces []*piece
	done   func(error)
	lent   atomic.Bool

	left  atomic.Int32 // pieces not settled, and one while they are being started
	users atomic.Int32 // pieces not freed, and one until done has been called
	err   atomic.Pointer[error]

	caw   compareAndWrite
	joint joint
}

var writeOps = sync.Pool{New: func() any { return new(writeOp) }}

func (v *Volume) newWriteOp(off uint64, n int) *writeOp {
	op := writeOps.Get().(*writeOp)
	op.v, op.off, op.n = v, off, n
	return op
}

// recycle puts op back when nobody uses it or its pieces any more.
func (op *writeOp) recycle() {
	for i, p := range op.pieces {
		p.free()
		op.pieces[i] = nil
	}
	clear(op.vec)
	op.pieces, op.vec = op.pieces[:0], op.vec[:0]
	op.v, op.done, op.caw, op.joint.lock = nil, nil, compareAndWrite{}, nil
	op.err.Store(nil)
	writeOps.Put(op)
}

// Reserve lends memory for a write of n bytes at off, in whole 4 KiB blocks of
// the slab so that nothing is copied later. It is given back by one of Write
// and Release.
func (v *Volume) Reserve(off uint64, n int) (vec [][]byte, loan any, err error) {
	if n <= 0 || n > maxTransfer {
		return nil, nil, syscall.EINVAL
	}
	if err := v.checkWrite(v.state.Load(), off, uint64(n)); err != nil {
		return nil, nil, err
	}
	op := v.newWriteOp(off, n)
	for left := uint64(n); left > 0; {
		s := spanAt(off, left)
		p := v.newPiece(op, pieceWrite, s)
		p.buf = v.c.pool.Get(s.count() * placement.BlockSize)
		op.pieces = append(op.pieces, p)
		from := s.from % placement.BlockSize
		op.vec = append(op.vec, p.buf.Bytes()[from:from+s.bytes()])
		off += uint64(s.bytes())
		left -= uint64(s.bytes())
	}
	op.lent.Store(true)
	return op.vec, op, nil
}

// Write writes the data in loan and takes the loan over. With fua, or without
// write cache, done(nil) means durable.
func (v *Volume) Write(loan any, fua bool, done func(error)) {
	op := loan.(*writeOp)
	if st := op.begin(done); st != nil {
		op.start(st, st.writeBack && !fua)
	}
}

// begin takes a loan over for writing and makes the checksums. If it returns
// nil, the command has ended.
func (op *writeOp) begin(done func(error)) *volumeState {
	op.taken()
	op.done = done
	v := op.v
	st := v.state.Load()
	err := v.checkWrite(st, op.off, uint64(op.n)) // it may have changed since Reserve
	if err == nil && !v.busy.begin() {
		err = ErrVolumeClosed
	}
	if err != nil {
		op.recycle()
		done(err)
		return nil
	}
	for _, p := range op.pieces {
		first, count := 0, p.span.count()
		if p.span.head() {
			first++
		}
		if p.span.tail() && first < count {
			count--
		}
		if first < count { // blocks that are completed later are summed then
			sum(p.buf, &p.rec, first, count-first)
		}
	}
	return st
}

// taken ends the time in which op is the borrower's.
func (op *writeOp) taken() {
	if !op.lent.CompareAndSwap(true, false) {
		panic("cluster: loan given back twice")
	}
}

// start sets all pieces going.
func (op *writeOp) start(st *volumeState, lazy bool) {
	n := int32(len(op.pieces))
	op.left.Store(n + 1)
	op.users.Store(n + 1)
	id := op.v.c.opID()
	for _, p := range op.pieces {
		p.start(st, id, lazy)
	}
	op.settle()
}

func (op *writeOp) pieceSettled(_ *piece, err error) {
	if err != nil {
		first := err // so that err itself stays off the heap
		op.err.CompareAndSwap(nil, &first)
	}
	op.settle()
}

// settle counts a piece as settled; the last one ends the command.
func (op *writeOp) settle() {
	if op.left.Add(-1) != 0 {
		return
	}
	var err error
	if e := op.err.Load(); e != nil {
		err = *e
	}
	if op.joint.lock != nil {
		op.leave()
	}
	if op.caw.done != nil {
		op.caw.finish(err)
	} else {
		op.done(err)
	}
	op.unuse()
}

func (op *writeOp) pieceFreed(*piece) { op.unuse() }

// unuse gives op up for one of its users.
func (op *writeOp) unuse() {
	if op.users.Add(-1) == 0 {
		v := op.v
		op.recycle()
		v.busy.end()
	}
}

// fillIn decides what a piece that replaces blocks writes.
func (op *writeOp) fillIn(p *piece, blocks cache.Refs) bool {
	if op.caw.done != nil {
		return op.caw.fillIn(p, blocks)
	}
	return zeroEdge(p, blocks)
}

// Release gives back what Read or Reserve lent.
func (v *Volume) Release(loan any) {
	switch op := loan.(type) {
	case *writeOp:
		op.taken()
		op.recycle()
	case *readOp:
		op.release()
	default:
		panic("cluster: Release of something that is no loan")
	}
}
