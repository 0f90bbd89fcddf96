package cluster

import (
	"sync"
	"sync/atomic"
	"syscall"

	"petal/cluster/replica"
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
	pieces []*piece // one that was given up is nil
	done   func(error)
	lent   atomic.Bool

	left atomic.Int32 // pieces not done, and one while they are being started
	err  atomic.Pointer[error]

	caw func(miscompare int, err error) // done of a compare and write
}

var writeOps = sync.Pool{New: func() any { return new(writeOp) }}

func (v *Volume) newWriteOp(off uint64, n int) *writeOp {
	op := writeOps.Get().(*writeOp)
	op.v, op.off, op.n = v, off, n
	return op
}

// recycle puts op back when its pieces are its own again.
func (op *writeOp) recycle() {
	for _, p := range op.pieces {
		if p != nil {
			p.free()
		}
	}
	clear(op.vec)
	clear(op.pieces)
	op.pieces, op.vec = op.pieces[:0], op.vec[:0]
	op.v, op.done, op.caw = nil, nil, nil
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
		p := v.newPiece(op, replica.Write, s)
		p.slot = len(op.pieces)
		p.Buf = v.c.pool.Get(s.count() * placement.BlockSize)
		op.pieces = append(op.pieces, p)
		from := s.from % placement.BlockSize
		op.vec = append(op.vec, p.Buf.Bytes()[from:from+s.bytes()])
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
	op.taken()
	op.done = done
	st := v.state.Load()
	err := v.checkWrite(st, op.off, uint64(op.n)) // it may have changed since Reserve
	if err == nil && !v.busy.begin() {
		err = ErrVolumeClosed
	}
	if err != nil {
		op.recycle()
		done(err)
		return
	}
	for _, p := range op.pieces {
		p.sum()
	}
	op.start(st, st.writeBack && !fua)
}

// taken ends the time in which op is the borrower's.
func (op *writeOp) taken() {
	if !op.lent.CompareAndSwap(true, false) {
		panic("cluster: loan given back twice")
	}
}

// start sets all pieces going.
func (op *writeOp) start(st *volumeState, lazy bool) {
	op.left.Store(int32(len(op.pieces)) + 1)
	for i := range op.pieces {
		op.pieces[i].start(st, lazy)
	}
	op.settle()
}

func (op *writeOp) pieceDone(p *piece, err error, givenUp bool) {
	if err != nil {
		first := err // so that err itself stays off the heap
		op.err.CompareAndSwap(nil, &first)
	}
	if givenUp {
		op.pieces[p.slot] = nil
	}
	op.settle()
}

// settle counts a piece as done; the last one ends the command.
func (op *writeOp) settle() {
	if op.left.Add(-1) != 0 {
		return
	}
	var err error
	if e := op.err.Load(); e != nil {
		err = clip(*e, op.off)
	}
	v := op.v
	if op.caw != nil {
		op.compared(err)
	} else {
		op.done(err)
	}
	op.recycle()
	v.busy.end()
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
