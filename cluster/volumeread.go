package cluster

import (
	"sync"
	"sync/atomic"
	"syscall"

	"petal/cluster/brick"
	"petal/placement"
)

// readOp is a read and, once it has succeeded, the loan of its data. It is
// pooled, with its parts.
type readOp struct {
	v    *Volume
	off  uint64
	n    int
	done func([][]byte, any, error)
	vec  [][]byte
	st   *volumeState
	left atomic.Int32 // parts not done, and one while they are being started
	lent atomic.Bool

	stamp uint64    // of Volume.joint, when it began
	lock  *longLock // of its chunks, or nil

	parts []*readPart // all that were ever needed at once
	used  int         // those of this read
}

// readPart is the part of a read that lies in one chunk.
type readPart struct {
	brick.ReadOp
	op *readOp
}

var readOps = sync.Pool{New: func() any { return new(readOp) }}

// part returns the next part of op.
func (op *readOp) part() *readPart {
	if op.used == len(op.parts) {
		x := &readPart{op: op}
		x.Done = func(*brick.ReadOp) { x.op.finish() }
		op.parts = append(op.parts, x)
	}
	op.used++
	return op.parts[op.used-1]
}

// Read reads n bytes at off; vec is lent until Release. What is cached is
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
	op.v, op.off, op.n, op.done, op.st = v, off, n, done, st
	quiet := true
	if spansOf(off, uint64(n)) > 1 {
		op.stamp, quiet = v.joint.quiet()
	}
	if quiet {
		op.start()
	} else {
		op.startLocked()
	}
	v.prefetch(st, off, n)
	if quiet {
		op.finish()
	}
}

// start reads the parts; finish is to be called once more than they do.
func (op *readOp) start() {
	v := op.v
	op.left.Store(int32(spansOf(op.off, uint64(op.n))) + 1)
	for at, left := op.off, uint64(op.n); left > 0; {
		s := spanAt(at, left)
		x := op.part()
		x.Family, x.Lineage, x.Chunk, x.First, x.Count = v.family, op.st.lineage, s.chunk, s.first(), s.count()
		v.c.brick.Read(&x.ReadOp)
		at += uint64(s.bytes())
		left -= uint64(s.bytes())
	}
}

// startLocked is start for a read that an atomic write of several chunks may
// come across: it reads when nothing is being written there.
func (op *readOp) startLocked() {
	first, last := op.off/placement.ChunkSize, (op.off+uint64(op.n)-1)/placement.ChunkSize
	op.v.locks.acquireLong(placement.Chunk(first), placement.Chunk(last), func(l *longLock) {
		op.lock = l
		op.start()
		op.finish()
	})
}

// prefetch reads ahead if off continues a stream.
func (v *Volume) prefetch(st *volumeState, off uint64, n int) {
	from, to := v.ahead.note(off, n, st.size)
	for c := from; c < to; c++ {
		v.c.brick.Prefetch(v.family, st.lineage, c)
	}
}

// finish counts a part as done; the last one ends the read.
func (op *readOp) finish() {
	if op.left.Add(-1) != 0 {
		return
	}
	v, done := op.v, op.done
	switch {
	case op.lock != nil:
		v.locks.releaseLong(op.lock)
		op.lock = nil
	case op.used > 1 && v.joint.begun.Load() != op.stamp:
		op.drop() // some of the parts may be of before, others of after
		op.startLocked()
		return
	}
	if err := op.error(); err != nil {
		op.recycle()
		done(nil, nil, err)
		v.busy.end()
		return
	}
	skip, left := int(op.off%placement.BlockSize), op.n
	for _, x := range op.parts[:op.used] {
		for _, ref := range x.Bufs {
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

// error is that of the first part that failed, in order of offset.
func (op *readOp) error() error {
	for _, x := range op.parts[:op.used] {
		if x.Err != nil {
			return op.v.fault(x.Err, op.off)
		}
	}
	return nil
}

// release ends the loan.
func (op *readOp) release() {
	if !op.lent.CompareAndSwap(true, false) {
		panic("cluster: loan given back twice")
	}
	op.recycle()
}

// drop gives up what the parts have read.
func (op *readOp) drop() {
	for _, x := range op.parts[:op.used] {
		x.Bufs.Release()
		x.Err, x.Lineage = nil, nil
	}
	op.used = 0
}

func (op *readOp) recycle() {
	op.drop()
	clear(op.vec)
	op.vec, op.v, op.done, op.st = op.vec[:0], nil, nil, nil
	readOps.Put(op)
}
