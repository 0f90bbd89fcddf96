package replica

import (
	"bytes"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// R5 where reads go without the mutex, and everywhere else: what was read counts
// only if the lease and the link's version still are what they were.

var link10 = placement.LinkID{GMap: 1}

// twoVersions writes old data to a chunk and returns it with the new ones.
func (w *world) twoVersions() (c placement.Chunk, old, data []byte) {
	w.t.Helper()
	w.opened()
	c, old, data = w.chunkOf(0, 0), pattern(1, 4096), pattern(2, 4096)
	w.ok(w.write(w.nodes[0], c, 0, old))
	w.run(10 * time.Millisecond)
	w.want(w.nodes[1], c, 0, old)
	return c, old, data
}

// notOld fails if a read gave old data.
func (w *world) notOld(x *try, old []byte) {
	w.t.Helper()
	w.done(x)
	if x.Status == wire.OK && bytes.Equal(x.data, old) {
		w.t.Error("a stale read")
	}
}

// TestReadEndsWithTheLease: to the moment that it is over, and nothing else has
// to happen then.
func TestReadEndsWithTheLease(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	c, old, _ := w.twoVersions()
	n := w.nodes[1]
	n.noLease = true
	n.s.SetLease(0, 0)
	w.link(link10).config.Ver++
	w.apply()
	w.run(10 * time.Millisecond)
	for i := range time.Duration(20) { // some time no tick comes between
		until := w.now + 200*time.Millisecond + i*17*time.Millisecond
		n.s.SetLease(until, w.index)
		w.opened()
		w.run(until - 2*time.Millisecond - w.now)
		w.after(0, func() {}) // the disk goes when something happens
		w.want(n, c, 0, old)
		w.run(until - w.now)
		silent := n.s.seat(link10).gate.Load() != nil
		x := w.read(n, c, 0, 4096)
		x.Local = true
		w.done(x)
		if x.Status == wire.OK {
			t.Fatalf("served after its lease; silent: %t", silent)
		}
		if silent && i > 3 {
			return
		}
		w.run(10 * time.Millisecond)
	}
	t.Error("there always was a tick: the test shows nothing")
}

// TestReadAcrossALife: a member reads, and before it hands the data over it is
// excluded, misses a write, and is let in again.
func TestReadAcrossALife(t *testing.T) {
	for _, waited := range []bool{false, true} {
		w := newWorld(t, 1, 2, placement.Mirror)
		c, old, data := w.twoVersions()
		n := w.nodes[1]
		if waited { // for the link to open: it goes by the machine then
			w.link(link10).config.Ver++
			w.apply()
			w.until("the link is closed", time.Second, func() bool { return !n.s.Status()[0].Serving })
		}
		n.holds = true
		x := w.read(n, c, 0, 4096)
		w.until("it has been read", time.Second, func() bool { return len(n.held) == 1 })
		w.opened()
		w.exclude(2)
		w.until("the head goes on", time.Second, func() bool { return w.nodes[0].s.Status()[0].Config.InSync.Len() == 1 })
		w.ok(w.write(w.nodes[0], c, 0, data))
		n.holds = false
		w.healed()
		n.release()
		w.notOld(x, old)
	}
}

// TestReadEndsWithTheLeaseOnItsWay: the lease ends while the disk reads.
func TestReadEndsWithTheLeaseOnItsWay(t *testing.T) {
	for _, waited := range []bool{false, true} {
		w := newWorld(t, 1, 2, placement.Mirror)
		c, old, _ := w.twoVersions()
		n := w.nodes[1]
		if waited {
			w.link(link10).config.Ver++
			w.apply()
			w.until("the link is closed", time.Second, func() bool { return !n.s.Status()[0].Serving })
		}
		n.holds = true
		x := w.read(n, c, 0, 4096)
		x.Local = true
		w.until("it has been read", time.Second, func() bool { return len(n.held) == 1 })
		n.frozen = true // and gets no more leases
		w.run(2*time.Second + time.Millisecond)
		n.release()
		w.notOld(x, old)
	}
}

// TestExcludedWithALease: who is taken out of one link (A.2) keeps its lease, for
// its other links. It serves that link no more.
func TestExcludedWithALease(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	c, old, data := w.twoVersions()
	w.auto = false
	w.exclude(2)
	w.until("the head goes on", time.Second, func() bool { return w.nodes[0].s.Status()[0].Config.InSync.Len() == 1 })
	w.run(10 * time.Millisecond)
	w.ok(w.write(w.nodes[0], c, 0, data))
	x := w.read(w.nodes[1], c, 0, 4096)
	w.notOld(x, old)
	if x.Status != wire.Redirect || x.Head != 1 {
		t.Errorf("ends %v, head %d", x.Status, x.Head)
	}
}

// TestGrantCountsWhenItsIndexIsApplied: M15, also where reads go without the
// mutex. The grant is of a time when this member may have been excluded.
func TestGrantCountsWhenItsIndexIsApplied(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	c, old, _ := w.twoVersions()
	n := w.nodes[1]
	n.frozen = true // and gets no more of the usual leases
	until := n.s.seat(link10).leased
	n.s.SetLease(until+time.Second, w.index+1)
	w.run(until - 2*time.Millisecond - w.now)
	w.after(0, func() {})
	w.want(n, c, 0, old) // the one before lasts
	w.run(until + 1 - w.now)
	x := w.read(n, c, 0, 4096)
	x.Local = true
	w.done(x)
	if x.Status == wire.OK {
		t.Error("a grant counts whose index is not applied")
	}
}

// TestFencedServesNothing: R6. Who confirms that it has stopped has stopped, long
// before its lease is over.
func TestFencedServesNothing(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	c, _, _ := w.twoVersions()
	n := w.nodes[1]
	w.nodes[0].frozen = true
	w.auto = false
	w.link(link10).fenced = true
	w.apply()
	w.until("it confirms", time.Second, func() bool {
		return len(w.asked) > 0 && w.asked[len(w.asked)-1] == Proposal{Kind: Fenced, Link: link10, Member: 1, Ver: 1}
	})
	x := w.read(n, c, 0, 4096)
	w.done(x)
	if x.Status == wire.OK {
		t.Error("it serves a read")
	}
}
