package replica

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"petal/cluster/blocklock"
	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// task is what a server does about one operation, or about one record that
// another member sent. It is pooled; so its func values are made once.
//
//	Do -> block lock -> (rest of the blocks read) -> admitted -> committed -> done
//	          |                  |                      |  \-> discarded -> done
//	          '------------------'----------------------'--> refused
//
// From admitted on it belongs to its seat too, until the machine has named its
// record for the last time (Commit, Discard) and the brick has (Done).
type task struct {
	s      *Server
	l      *seat
	d      *diskView
	op     *Op // who waits; nil: nobody
	result wire.Status
	bucket placement.Bucket
	ver    uint64        // of the link when the op came: under another it is not admitted
	came   time.Duration // 0: before the op waited for anything

	lock blocklock.Lock
	held bool // has it

	rec    *brick.Record // own, or what recovery gave
	own    brick.Record
	buf    *slab.Buf // its data: a reference
	ref    uint64    // in the seat's table
	shown  bool      // committed in the brick before it was durable (write-back)
	mapped bool      // what it writes has space already
	users  atomic.Int32

	load loader // reads blocks for it

	next    *task // in one of the seat's lists, or of the server's
	retry   func(*task)
	since   time.Duration // parked
	vver    uint64        // of the op
	cancels []func(wire.Status, placement.Server)
}

var tasks sync.Pool

func (s *Server) newTask() *task {
	t, ok := tasks.Get().(*task)
	if !ok {
		t = new(task)
		t.lock.Granted = t.locked
		t.own.Done = t.durable
		t.rec = &t.own
		t.load.init(t)
	}
	t.s = s
	return t
}

// recycle puts back a task that nobody refers to any more.
func (t *task) recycle() {
	if t.buf != nil {
		t.buf.Release()
	}
	t.s, t.l, t.d, t.op, t.buf, t.own.Buf, t.rec = nil, nil, nil, nil, nil, nil, &t.own
	t.next, t.retry, t.cancels = nil, nil, nil
	t.result, t.came, t.since, t.ref, t.vver, t.held, t.shown, t.mapped = wire.OK, 0, 0, 0, 0, false, false, false
	t.load.reset()
	tasks.Put(t)
}

// unuse gives the task up for one of its two users, machine and brick.
func (t *task) unuse() {
	if t.users.Add(-1) == 0 {
		t.recycle()
	}
}

// refuse ends an operation that was not admitted, and the task.
func (t *task) refuse(st wire.Status) {
	t.release()
	t.answer(st)
	t.recycle()
}

// release gives the block lock up.
func (t *task) release() {
	if t.held {
		t.held = false
		t.s.locks.Release(&t.lock)
	}
}

// answer tells who waits.
func (t *task) answer(st wire.Status) {
	op := t.op
	if op == nil {
		return
	}
	t.op = nil
	op.Status = st
	if st == wire.Redirect {
		op.Head, op.VerHere = t.l.head()
	}
	t.s.load.fill(&op.Load)
	op.Done(op)
}

// finish ends an admitted task whose record is decided. No mutex is held.
func (t *task) finish() {
	if t.shown {
		t.unuse()
		return
	}
	t.release()
	st, cancels := t.result, t.cancels
	t.cancels = nil
	t.answer(st)
	for _, f := range cancels {
		f(st, 0)
	}
	t.unuse()
}

// begin starts an operation that writes.
func (t *task) begin() {
	op := t.op
	t.lock.Key, t.lock.Mask = op.Key, op.mask()
	t.held = true
	if t.s.locks.Acquire(&t.lock) {
		t.locked()
	}
}

// locked goes on when the blocks are held: every earlier write of them that was
// admitted here is committed.
func (t *task) locked() {
	op := t.op
	switch {
	case op.Kind == CompareAndWrite:
		t.load.start(op.first(), op.count(), (*task).compare)
	case op.Kind == Zero && (op.head() || op.tail()):
		t.load.start(op.first(), op.count(), (*task).zeroEdges)
	case op.Kind == Zero:
		t.submit(brick.Zero, nil)
	case op.head():
		t.load.start(op.first(), 1, (*task).mergeFirst)
	case op.tail():
		t.load.start(op.first()+op.count()-1, 1, (*task).mergeLast)
	default:
		t.rec.Sum = op.Sum
		t.submit(brick.Write, op.Buf.Retain())
	}
}

// submit makes the task's record: the blocks of the operation are to hold buf,
// whose reference it takes over, or zeros.
func (t *task) submit(kind brick.Kind, buf *slab.Buf) {
	op, r := t.op, t.rec
	t.buf = buf
	r.Kind, r.Buf, r.Key, r.Mask, r.Link, r.Bucket, r.Op = kind, buf, op.Key, op.mask(), t.l.id, t.bucket, op.ID
	t.admit()
}

// admit asks the machine for the record's place in the order and hands it to
// the brick. Until here nothing has happened that would have to be undone.
func (t *task) admit() {
	l, s := t.l, t.s
	now := s.now()
	if st := t.fresh(now); st != wire.OK {
		t.refuse(st)
		return
	}
	l.lock()
	st := t.admitLocked(now)
	l.unlock()
	switch st {
	case admitted:
	case shown:
		t.release()
		t.answer(wire.OK)
		t.unuse()
	case done:
		t.refuse(wire.OK)
	case tight:
		if t.mapped = t.hasSpace(); !t.mapped {
			t.refuse(wire.NoSpace)
			return
		}
		t.admit()
	default:
		t.refuse(st)
	}
}

// What admitLocked and its like return beside outcomes.
const (
	admitted wire.Status = 0xff - iota // the task is under way, or parked
	shown                              // and visible already
	tight                              // a member has no space for it, if it needs any
	done                               // the op took effect before (R12)
)

func (t *task) admitLocked(now time.Duration) wire.Status {
	l, s, op := t.l, t.s, t.op
	if s.canceled(op.ID) {
		return wire.Canceled
	}
	if l.closed || l.ver != t.ver || t.stale() {
		return wire.NotReady // what became of the op meanwhile, elsewhere, is not known here
	}
	stamp, excluded, verdict := l.m.Admit(t.bucket, now)
	switch verdict {
	case link.Take:
	case link.NotOpen, link.Held:
		return l.park(t, (*task).admit, now)
	default:
		return l.status(verdict)
	}
	if op.Again && l.past.did(op.ID) {
		return done
	}
	if t.rec.Kind == brick.Write && !t.mapped && l.short() {
		return tight
	}
	lazy := op.Lazy && l.alone() && s.lazy.take(t.buf)
	r := t.rec
	r.Ver, r.Seq, r.Excluded, r.Lazy = stamp.Ver, stamp.Seq, excluded, lazy
	t.users.Store(2)
	if err := s.c.Store.Append(r); err != nil {
		if lazy {
			s.lazy.give(t.buf)
		}
		return s.fault(err)
	}
	t.ref, t.vver = l.enter(t), op.VVer
	if lazy {
		t.shown = true
		t.users.Add(1)
		s.c.Store.Commit(r)
	}
	l.stepAt(&link.Event{Kind: link.EventAppended, Rec: t.record()}, now)
	if !l.alone() {
		l.timeRecord(t.bucket, stamp, now)
	}
	if lazy {
		return shown
	}
	return admitted
}

// record is the task's record as the machine knows it.
func (t *task) record() link.Record {
	r := t.rec
	return link.Record{Bucket: r.Bucket, Stamp: r.Stamp(), Excluded: r.Excluded, Ref: t.ref}
}

// durable is the Done of the task's record.
func (t *task) durable(_ *brick.Record, err error) {
	l := t.l
	if t.rec.Lazy {
		if err != nil {
			first := err // so that err itself stays off the heap
			t.s.lazy.lost.CompareAndSwap(nil, &first)
		}
		t.s.lazy.give(t.buf)
	}
	l.lock()
	if err != nil && !l.closed {
		l.fail(err)
	} else {
		now := l.s.now()
		l.paces[l.self].end(l.id, t.rec.Bucket, t.rec.Stamp(), now, l.s.c.Times.Complain)
		l.stepAt(&link.Event{Kind: link.EventDurable, Rec: t.record()}, now)
	}
	l.unlock()
	t.unuse()
}

// fresh is OK unless the operation has been under way for too long (R13). One of
// a coordinator in this very process can be cancelled at any time and needs no
// such bound.
func (t *task) fresh(now time.Duration) wire.Status {
	if t.op.ID.Coordinator == uint32(t.s.c.Self) {
		return wire.OK
	}
	if t.op.Age+now-t.came > t.s.c.Times.Admission {
		return wire.TooOld
	}
	return wire.OK
}

// stale reports whether the virtual disk has moved on since the operation came:
// what its coordinator has acted upon may not hold any more (R1).
func (t *task) stale() bool {
	d := t.s.view.Load().disk(t.op.Key)
	return d == nil || d.vver != t.op.VVer
}

// fault turns an error of the brick into an outcome.
func (s *Server) fault(err error) wire.Status {
	switch err {
	case nil:
		return wire.OK
	case syscall.ENOSPC:
		return wire.NoSpace
	case syscall.EINVAL:
		return wire.Invalid
	}
	return wire.Failed
}
