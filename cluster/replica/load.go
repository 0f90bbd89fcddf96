package replica

import (
	"errors"
	"time"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/link"
	"petal/cluster/wire"
	"petal/placement"
)

// loader reads whole blocks of a task's chunk: for a Read, or what a small
// write leaves of its blocks. What this server lacks or can't read, its head
// gets from another member in sync; any other member sends the reader to the
// head.
//
//	MayRead -> brick -> StillMayRead -> then
//	   ^         |            |
//	   |         '-- lacking: fetch from others, one after another
//	   '----------------------' no: the link has changed under it
type loader struct {
	t    *task
	rd   brick.ReadOp
	then func(*task)

	gate *gate             // that was open when the read began; nil: the machine was asked
	ver  uint64            // under which MayRead said yes
	head bool              // this server was head then
	lack placement.Mask    // still to be had from elsewhere
	left placement.Members // who has not been asked yet
	mute bool              // somebody who was asked has not said
	got  [placement.BlocksPerChunk]block
}

func (x *loader) init(t *task) {
	x.t = t
	x.rd.Done = func(*brick.ReadOp) { x.read() }
}

func (x *loader) reset() {
	x.rd.Bufs.Release()
	x.forget()
	x.rd.Lineage, x.rd.Err, x.then, x.gate = nil, nil, nil, nil
}

// start reads count blocks from first on and calls then with the blocks in
// rd.Bufs, unless it has refused the task.
func (x *loader) start(first, count int, then func(*task)) {
	x.rd.First, x.rd.Count, x.then = first, count, then
	if x.t.op.Kind == Read && x.enter() {
		x.issue()
		return
	}
	x.again()
}

// enter begins a read without the mutex, if the gate is open.
func (x *loader) enter() bool {
	t := x.t
	g := t.l.gate.Load()
	if g == nil || g.ver < t.ver || !g.head && t.s.c.Store.Conflict(t.op.Key.Family, t.d.lineage, t.op.Key.Chunk, x.mask()) {
		return false
	}
	x.gate, x.ver, x.head = g, g.ver, g.head
	return true
}

// issue asks the brick.
func (x *loader) issue() {
	t := x.t
	x.rd.Family, x.rd.Lineage, x.rd.Chunk = t.op.Key.Family, t.d.lineage, t.op.Key.Chunk
	t.s.load.begin()
	t.s.c.Store.Read(&x.rd)
}

func (x *loader) mask() placement.Mask { return placement.Span(x.rd.First, x.rd.Count) }

func (x *loader) again() {
	t := x.t
	now := t.s.now()
	if st := t.fresh(now); st != wire.OK {
		t.refuse(st)
		return
	}
	t.l.lock()
	st := x.allowed(now)
	t.l.unlock()
	switch st {
	case wire.OK:
		x.issue()
	case admitted: // parked
	case done:
		t.refuse(wire.OK)
	default:
		t.refuse(st)
	}
}

// allowed asks whether the task may read now (R4, R5). Before it writes, it must
// be head, since what it reads becomes part of what it writes: and a head that
// serves has all that was ever committed (R10).
func (x *loader) allowed(now time.Duration) wire.Status {
	t, l := x.t, x.t.l
	write := t.op.Kind != Read
	if l.closed {
		return wire.NotReady
	}
	if t.ver != l.ver && (write || t.ver > l.ver) || t.stale() {
		return wire.NotReady
	}
	if write && t.op.Again && l.past.did(t.op.ID) {
		return done
	}
	x.ver, x.head = l.ver, l.m.Head()
	conflict := !x.head && l.s.c.Store.Conflict(t.op.Key.Family, t.d.lineage, t.op.Key.Chunk, x.mask())
	switch verdict := l.m.MayRead(t.bucket, conflict, now); {
	case verdict == link.Serve && write && !x.head:
		return wire.Redirect
	case verdict == link.Serve:
		return wire.OK
	case verdict == link.NotOpen:
		return l.park(t, func(t *task) { t.load.again() }, now)
	default:
		return l.status(verdict)
	}
}

// read goes on when the brick has answered.
func (x *loader) read() {
	t := x.t
	t.s.load.end()
	err := x.rd.Err
	if err == nil {
		x.finish()
		return
	}
	lack := x.rd.Missing
	var medium *brick.MediumError
	if errors.As(err, &medium) {
		lack |= medium.Blocks
	} else if !errors.Is(err, brick.ErrElsewhere) {
		t.refuse(t.s.fault(err))
		return
	}
	x.lack = lack & x.mask()
	if medium != nil {
		t.l.repair(placement.Key{Family: t.op.Key.Family, Node: t.op.Key.Node, Chunk: t.op.Key.Chunk}, medium.Blocks)
	}
	if !x.head || t.op.Local {
		t.refuse(wire.Redirect)
		return
	}
	x.left = t.l.others()
	x.fetch()
}

// fetch asks the next member for what is lacking.
func (x *loader) fetch() {
	t := x.t
	if x.lack == 0 {
		x.merge()
		x.finish()
		return
	}
	if x.left == 0 {
		x.short()
		return
	}
	m := x.left.First()
	x.left = x.left.Without(m)
	t.l.fetch(m, t.op.Key, x.lack, false, func(f *fetch) {
		x.lack &^= f.keep(&x.got)
		x.mute = x.mute || f.status != wire.OK
		if f.status != wire.NotReady {
			x.fetch()
			return
		}
		// A record of these blocks is in doubt there: a moment, and again from
		// the beginning.
		x.forget()
		x.rd.Bufs.Release()
		t.l.lock()
		st := t.l.park(t, func(t *task) { t.load.again() }, t.s.now())
		t.l.unlock()
		if st != admitted {
			t.refuse(st)
		}
	})
}

// short ends a read some of whose blocks can't be had. They are said to be bad
// only if everyone that may have them has said that it has not: those in sync,
// and of what is missing here also those out of sync, unless what they have has
// been given up.
func (x *loader) short() {
	t := x.t
	if x.mute || t.l.away() || x.rd.Missing&x.lack != 0 && t.l.mayReturn() {
		t.refuse(wire.NotReady)
		return
	}
	t.op.Bad = x.lack
	if t.op.Kind == Read {
		x.merge()
		t.op.Bufs, x.rd.Bufs = x.rd.Bufs, t.op.Bufs
	}
	t.refuse(wire.Medium)
}

// merge puts what was fetched in the place of what was lacking.
func (x *loader) merge() {
	old := x.rd.Bufs
	var bufs cache.Refs
	i := x.rd.First
	for _, r := range old {
		for off := 0; off < r.Len; off += placement.BlockSize {
			if b := &x.got[i]; b.buf != nil {
				bufs.Add(b.buf, b.off, placement.BlockSize)
			} else {
				bufs.Add(r.Buf, r.Off+off, placement.BlockSize)
			}
			i++
		}
	}
	old.Release()
	x.rd.Bufs = bufs
	x.forget()
}

func (x *loader) forget() {
	for i := range x.got {
		if x.got[i].buf != nil {
			x.got[i].buf.Release()
			x.got[i] = block{}
		}
	}
	x.lack, x.left, x.mute = 0, 0, false
}

// still reports whether what was read may be used. A gate that is open under the
// same version as before has been open all the time: what closes it, a lapse too,
// ends with a new version.
func (x *loader) still(now time.Duration) bool {
	l := x.t.l
	if g := x.gate; g != nil {
		x.gate = nil
		n := l.gate.Load()
		return n != nil && n.ver == g.ver && now < n.until
	}
	l.lock()
	defer l.unlock()
	return !l.closed && l.m.StillMayRead(x.ver, now)
}

// finish gives the task what was read, if it may be used still (R5).
func (x *loader) finish() {
	t := x.t
	if !x.still(t.s.now()) {
		x.rd.Bufs.Release()
		x.again()
		return
	}
	x.rd.Lineage = nil
	x.then(t)
}
