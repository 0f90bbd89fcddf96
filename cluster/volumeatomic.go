package cluster

import (
	"slices"
	"sync/atomic"
	"syscall"

	"petal/cluster/brick"
	"petal/placement"
)

// maxAtomic is the most that one WriteAtomic writes, in bytes.
const maxAtomic = 1 << 20

// jointPieces is how many chunks that may touch.
const jointPieces = maxAtomic/placement.ChunkSize + 1

// A brick takes that many blocks as one.
var _ = [brick.MaxTogether - jointPieces*placement.BlocksPerChunk + 1]struct{}{}

// MaxAtomic is the most that one WriteAtomic writes, in bytes.
func (v *Volume) MaxAtomic() int { return maxAtomic }

// WriteAtomic is Write for up to MaxAtomic bytes, atomic as a whole: after a
// crash all of it is there or nothing, no Read sees a part of it, and one that
// fails has written nothing. More bytes are syscall.EINVAL.
//
//	lock all its chunks, at once -> complete its first and last block
//	  -> one Brick.AppendAll -> all are durable -> commit each -> unlock
//	     a number in each bucket                  '--------------'
//	                                               reads of several chunks wait
//
// A Read of several chunks that meets the last step, before, during or after it,
// is done again under the locks. What several Reads see is not one moment: while
// the pieces are being committed, one may see the new data and the next, of
// another chunk, the old.
func (v *Volume) WriteAtomic(loan any, fua bool, done func(error)) {
	op := loan.(*writeOp)
	if op.n > maxAtomic {
		v.Release(loan)
		done(syscall.EINVAL)
		return
	}
	st := op.begin(done)
	switch {
	case st == nil:
	case len(op.pieces) == 1:
		op.start(st, st.writeBack && !fua)
	default:
		op.startJoint(st, st.writeBack && !fua)
	}
}

// joint is what is special about an atomic write of several chunks.
type joint struct {
	lock     *longLock // nil: it is none
	lazy     bool
	counted  bool         // by jointCommits
	waiting  atomic.Int32 // pieces without a record yet
	volatile atomic.Int32 // records that are not durable yet
	err      atomic.Pointer[error]
}

// jointCommits counts the atomic writes of a volume that begin and end to show
// in several chunks. A read that saw the same number begun and ended, and at its
// end still that number begun, has met none.
type jointCommits struct{ begun, ended atomic.Uint64 }

// quiet reports whether no such write is being committed, and a stamp to compare
// begun with.
func (j *jointCommits) quiet() (stamp uint64, ok bool) {
	ended := j.ended.Load() // first: begun only grows
	stamp = j.begun.Load()
	return stamp, stamp == ended
}

// startJoint sets all pieces going once all their chunks are locked.
func (op *writeOp) startJoint(st *volumeState, lazy bool) {
	n := int32(len(op.pieces))
	op.left.Store(n + 1)
	op.users.Store(n + 1)
	j := &op.joint
	j.lazy, j.counted = lazy, false
	j.waiting.Store(n)
	j.volatile.Store(n)
	j.err.Store(nil)
	id := op.v.c.opID()
	op.v.locks.acquireLong(op.pieces[0].span.chunk, op.pieces[n-1].span.chunk, func(l *longLock) {
		j.lock = l
		for _, p := range op.pieces {
			p.joint = op
			p.startLocked(st, id, lazy)
		}
		op.settle()
	})
}

// arrive counts a piece that is ready to make a record, or never will; the last
// one decides.
func (op *writeOp) arrive(err error) {
	op.joint.note(err)
	if op.joint.waiting.Add(-1) != 0 {
		return
	}
	err = op.joint.error()
	if err == nil {
		err = op.v.c.appendAll(op)
	}
	if err != nil {
		for _, p := range op.pieces {
			p.drop(err)
		}
	}
}

func (j *joint) note(err error) {
	if err != nil {
		first := err // so that err itself stays off the heap
		j.err.CompareAndSwap(nil, &first)
	}
}

func (j *joint) error() error {
	if e := j.err.Load(); e != nil {
		return *e
	}
	return nil
}

// appendAll gives the records of op their numbers and hands them to the brick.
// If it refuses them there is no gap.
func (c *coordinator) appendAll(op *writeOp) error {
	lazy := op.joint.lazy && c.holdLazy(op)
	op.joint.lazy = lazy
	var buckets [jointPieces]placement.Bucket
	var records [jointPieces]*brick.Record
	for i, p := range op.pieces {
		p.ready, p.next, p.err = false, nil, nil
		p.rec.Lazy = lazy
		buckets[i], records[i] = p.rec.Bucket, &p.rec
	}
	// In ascending order; everybody else locks but one.
	ordered := buckets[:len(op.pieces)]
	slices.Sort(ordered)
	ordered = slices.Compact(ordered)
	for _, b := range ordered {
		c.buckets[b].mu.Lock()
	}
	for _, p := range op.pieces {
		q := &c.buckets[p.rec.Bucket]
		q.seq++
		p.rec.Ver, p.rec.Seq = c.incarnation, q.seq
	}
	err := c.brick.AppendAll(records[:len(op.pieces)])
	for _, p := range op.pieces {
		q := &c.buckets[p.rec.Bucket]
		if err != nil {
			q.seq--
		} else {
			q.push(p)
		}
	}
	for _, b := range ordered {
		c.buckets[b].mu.Unlock()
	}
	if lazy && err != nil {
		c.releaseLazy(op)
	} else if lazy {
		op.show(nil)
	}
	return err
}

// holdLazy counts the records of op as lazy, unless there are too many.
func (c *coordinator) holdLazy(op *writeOp) bool {
	n := op.weight()
	if c.lazyBytes.Add(n) > c.lazyMax {
		c.lazyBytes.Add(-n)
		return false
	}
	op.v.lazy.Add(int64(len(op.pieces)))
	return true
}

func (c *coordinator) releaseLazy(op *writeOp) {
	c.lazyBytes.Add(-op.weight())
	op.v.lazy.Add(-int64(len(op.pieces)))
}

func (op *writeOp) weight() (n int64) {
	for _, p := range op.pieces {
		n += p.weight()
	}
	return n
}

// durable counts a record as durable, or lost; after the last one all may show,
// unless they do already.
func (op *writeOp) durable(err error) {
	j := &op.joint
	j.note(err)
	if j.volatile.Add(-1) == 0 && !j.lazy {
		op.show(j.error())
	}
}

// show lets all records be committed, or with an error dropped, each when its
// turn in its bucket has come.
func (op *writeOp) show(err error) {
	v := op.v
	op.users.Add(1) // for the command may end below
	op.joint.counted = true
	v.joint.begun.Add(1)
	for _, p := range op.pieces {
		q := &v.c.buckets[p.rec.Bucket]
		q.mu.Lock()
		p.ready, p.err = true, err
		q.mu.Unlock()
	}
	for _, p := range op.pieces {
		v.c.drain(&v.c.buckets[p.rec.Bucket])
	}
	op.unuse()
}

// leave ends the time in which op keeps others out.
func (op *writeOp) leave() {
	if op.joint.counted {
		op.v.joint.ended.Add(1)
	}
	op.v.locks.releaseLong(op.joint.lock)
}
