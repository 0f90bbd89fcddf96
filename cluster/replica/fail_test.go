package replica

import (
	"log/slog"
	"slices"
	"syscall"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// dying is a brick whose disk stands still at some moment, and then fails: what it
// has not made durable by then never will be.
type dying struct {
	spy
	still bool
	held  []*brick.Record
	dead  error
}

func (d *dying) Append(r *brick.Record) error {
	switch {
	case d.dead != nil:
		return d.dead
	case d.still:
		d.held = append(d.held, r)
		return nil
	}
	return d.spy.Append(r)
}

func (d *dying) fail() {
	d.dead = syscall.EIO
	for _, r := range d.held {
		d.n.w.after(0, func() { r.Done(r, d.dead) })
	}
}

func (d *dying) Failed() error {
	if d.dead != nil {
		return d.dead
	}
	return d.spy.Failed()
}

// startOn is start on a store of the test's.
func (n *node) startOn(wrap func(spy) Store) {
	w := n.w
	b, rec, err := brick.Open(n.options())
	if err != nil {
		w.t.Fatal(err)
	}
	n.brick, n.alive = b, true
	n.life++
	n.waits = map[placement.OpID]func(*wire.Message){}
	n.s = New(Config{
		Self: n.id, Incarnation: n.life, Store: wrap(spy{b, n}), Recovery: rec, Pool: n.pool, Clock: clock{n, n.life}, Times: times.Default(),
		Transport: transport{n, n.life}, Log: slog.New(slog.DiscardHandler), FillRate: -1,
		Propose: func(p Proposal) { w.propose(n, p) },
	})
	for i := range w.links {
		l := &w.links[i]
		if m := slices.Index(l.servers, n.id); m >= 0 && l.config.InSync.Has(placement.Member(m)) {
			l.config.Ver++
		}
	}
	n.home(n.life)
	w.apply()
	w.wires()
}

// TestDiskDies: when the head's disk fails with writes under way, of the same block
// too, everybody is answered, and so is who asks again, so that coordinators can
// go where the other copy is.
func TestDiskDies(t *testing.T) {
	w := newWorld(t, 9, 2, placement.Mirror)
	w.lends = true
	w.opened()
	c := w.chunkOf(0, 0)
	h := w.head(c)
	h.stop(true)
	var d *dying
	h.startOn(func(s spy) Store { d = &dying{spy: s}; return d })
	w.healed()
	h = w.head(c)
	w.ok(w.write(h, c, 0, pattern(1, 4096)))
	d.still = true
	x := w.write(h, c, 0, pattern(2, 4096))
	queued := w.write(h, c, 0, pattern(3, 4096)) // behind its lock
	w.run(time.Millisecond)
	d.fail()
	w.done(x, queued)
	if x.Status != wire.Failed || queued.Status != wire.Failed {
		t.Errorf("what was in flight ends with %v, what waited for its lock with %v", x.Status, queued.Status)
	}
	for _, excluded := range []bool{false, true} {
		if excluded {
			w.exclude(h.id)
			w.run(200 * time.Millisecond)
		}
		if y := w.write(h, c, 0, pattern(2, 4096)); !y.over {
			w.done(y)
		}
	}
}

// TestIdleDiskDies: a disk that fails while nothing is written is noticed, and
// complained of, all the same.
func TestIdleDiskDies(t *testing.T) {
	w := newWorld(t, 9, 2, placement.Mirror)
	w.opened()
	h := w.nodes[0]
	h.stop(true)
	var d *dying
	h.startOn(func(s spy) Store { d = &dying{spy: s}; return d })
	w.healed()
	told := func() bool {
		return slices.ContainsFunc(w.asked, func(p Proposal) bool { return p.Kind == Complain && w.links[0].servers[p.Member] == h.id })
	}
	w.auto = false
	w.run(time.Second)
	if told() {
		t.Fatal("a server complains of itself though its disk is well")
	}
	d.fail()
	w.run(time.Second)
	if !told() {
		t.Error("nobody is told that the disk has failed")
	}
}

// TestBlankCatchesUp: while a server throws away what counts no more, the state
// goes on. It is told of that when it has done so: or else its lease, which is from
// after it, never counts, and it never asks to be let in.
func TestBlankCatchesUp(t *testing.T) {
	w := newWorld(t, 9, 2, placement.Mirror)
	w.opened()
	w.ok(w.write(w.nodes[0], w.chunkOf(0, 0), 0, pattern(1, 4096)))
	n := w.nodes[1]
	n.stop(true)
	for i := range w.links {
		w.links[i].blank = placement.Members(0).With(placement.Member(slices.Index(w.links[i].servers, n.id)))
	}
	w.exclude(n.id)
	w.run(time.Second)
	n.slow = 20 * time.Millisecond
	n.start()
	w.run(5 * time.Millisecond)
	if l := n.s.seat(w.links[0].id); l.discarding == 0 || l.blankAt != 0 {
		t.Fatalf("it discards for ver %d, and has for %d: the test comes too early or too late", l.discarding, l.blankAt)
	}
	w.apply()
	w.healed()
	w.same()
}

// crowded is a brick with room for no record, when the test says so.
type crowded struct {
	spy
	avail uint64
}

func (d *crowded) Append(r *brick.Record) error {
	if d.avail == 0 {
		return syscall.ENOSPC
	}
	return d.spy.Append(r)
}

func (d *crowded) Space() (used, avail, total uint64) { return 0, d.avail, 1 << 40 }

// TestNoSpaceAtAMember: a member that finds no space for a record leaves the link,
// says why, and comes back when there is space. Meanwhile the other goes on.
func TestNoSpaceAtAMember(t *testing.T) {
	w := newWorld(t, 9, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	n := w.nodes[1]
	n.stop(true)
	var d *crowded
	n.startOn(func(s spy) Store { d = &crowded{s, 1 << 40}; return d })
	w.healed()
	told := func() bool {
		return slices.ContainsFunc(w.asked, func(p Proposal) bool { return p.Kind == Complain && w.links[0].servers[p.Member] == n.id })
	}
	d.avail = 0
	x := w.write(w.nodes[0], c, 0, pattern(1, 4096))
	w.until("it complains of itself", time.Second, told)
	w.exclude(n.id)
	w.ok(x)
	w.ok(w.write(w.nodes[0], c, 4096, pattern(2, 4096)))
	w.run(5 * time.Second)
	if st := n.status(link10); !st.Full || w.link(link10).config.InSync.Len() != 1 {
		t.Errorf("with no space: %+v", st)
	}
	d.avail = comeBackBytes - 1
	w.run(5 * time.Second)
	if w.link(link10).config.InSync.Len() != 1 {
		t.Error("it comes back before there is enough")
	}
	d.avail = comeBackBytes
	w.healed()
	if st := n.status(link10); st.Full {
		t.Errorf("in sync: %+v", st)
	}
	w.same()
}

func (d *crowded) AppendFill(r *brick.Record) error {
	if d.avail == 0 {
		return syscall.ENOSPC
	}
	return d.spy.AppendFill(r)
}

// TestNoSpaceToFill: a member that finds no space for what it copies says so, stays,
// and goes on when there is some.
func TestNoSpaceToFill(t *testing.T) {
	w := newWorld(t, 9, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	n := w.nodes[1]
	n.stop(true)
	w.exclude(n.id)
	w.opened()
	w.ok(w.write(w.nodes[0], c, 0, pattern(1, 65536)))
	var d *crowded
	n.startOn(func(s spy) Store { d = &crowded{s, 0}; return d })
	w.until("it is in sync", 10*time.Second, func() bool { return w.link(link10).config.InSync.Len() == 2 })
	w.run(5 * time.Second)
	if st := n.status(link10); !st.Full || st.Missing != 16 {
		t.Errorf("with no space: %+v", st)
	}
	d.avail = 1
	w.healed()
	if st := n.status(link10); st.Full || st.Missing != 0 {
		t.Errorf("with space: %+v", st)
	}
	w.same()
}
