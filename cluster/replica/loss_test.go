package replica

import (
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// lonely brings it about that server 2 alone is in sync and misses what server 1
// wrote to a chunk while it was away, half of which it has copied.
func lonely(t *testing.T) (w *world, c placement.Chunk, data []byte) {
	w = newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c = w.chunkOf(0, 0)
	data = pattern(1, 65536)
	w.nodes[1].stop(true)
	w.exclude(2)
	w.opened()
	w.ok(w.write(w.nodes[0], c, 0, data[:8192]))
	w.nodes[1].start()
	w.nodes[1].s.SetFillRate(1)
	w.nodes[1].s.fill.take(w.now, 1<<30) // nothing is copied for long
	w.until("it is let in", 10*time.Second, func() bool { return w.link(link10).config.InSync.Len() == 2 })
	w.opened()
	w.ok(w.write(w.nodes[0], c, 8192, data[8192:]))
	w.run(20 * time.Millisecond)
	w.nodes[0].stop(true)
	w.exclude(1)
	w.run(100 * time.Millisecond)
	return w, c, data
}

// bad fails unless the head says that just these blocks of a chunk are bad.
func (w *world) bad(c placement.Chunk, want placement.Mask, data []byte) {
	w.t.Helper()
	x := w.read(w.head(c), c, 0, 65536)
	w.done(x)
	if x.Status != wire.Medium || x.Bad != want {
		w.t.Fatalf("a read ends %v, bad %#x", x.Status, x.Bad)
	}
	w.want(w.head(c), c, 8192, data[8192:])
}

func (n *node) status(id placement.LinkID) LinkStatus {
	for _, st := range n.s.Status() {
		if st.Link == id {
			return st
		}
	}
	return LinkStatus{}
}

// TestLossIsAccepted: blocks whose only copy is away are waited for. When it is
// agreed that what the other has is worth nothing, they are bad, they only, and
// whoever writes them mends them; so it stays when the other is in sync again.
func TestLossIsAccepted(t *testing.T) {
	w, c, data := lonely(t)
	n := w.nodes[1]
	x := w.read(n, c, 0, 65536)
	w.done(x)
	if x.Status != wire.NotReady {
		t.Fatalf("a read of what the other has ends %v", x.Status)
	}
	w.want(n, c, 8192, data[8192:])
	if st := n.status(link10); st.Missing != 2 || st.Unrecoverable != 0 {
		t.Errorf("before: %+v", st)
	}
	l := w.link(link10)
	l.blank, l.config.Ver = placement.Members(0).With(0), l.config.Ver+1
	w.apply()
	w.opened()
	w.bad(c, 3, data)
	if st := n.status(link10); st.Unrecoverable != 2 {
		t.Errorf("given up: %+v", st)
	}
	y := w.write(n, c, 512, data[:512]) // needs the rest of the block
	w.done(y)
	if y.Status != wire.Medium {
		t.Errorf("a write of a part ends %v", y.Status)
	}
	w.ok(w.write(n, c, 4096, data[:4096]))
	w.want(n, c, 4096, data[:4096])
	w.bad(c, 1, data)

	w.nodes[0].start()
	n.s.SetFillRate(-1)
	w.until("the other is in sync", 10*time.Second, func() bool { return w.link(link10).config.InSync.Len() == 2 })
	w.run(5 * time.Second)
	w.opened()
	w.bad(c, 1, data)
	for _, n := range w.nodes {
		if st := n.status(link10); st.Unrecoverable != 1 || st.Missing != 1 {
			t.Errorf("server %d: %+v", n.id, st)
		}
	}
	w.sent[wire.Fetch] = 0
	w.run(30 * time.Second)
	if asked := w.sent[wire.Fetch]; asked == 0 || asked > 8 {
		t.Errorf("asked for %d times in 30 s", asked)
	}
	w.ok(w.write(w.head(c), c, 0, data[:4096]))
	w.want(w.head(c), c, 0, data[:4096])
	w.until("nothing is missing", 2*time.Minute, func() bool { return w.link(link10).filling == 0 })
	w.same()
}

// TestSilenceIsNoLoss: a member that is asked for a block and does not answer may
// have it.
func TestSilenceIsNoLoss(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	data := pattern(1, 65536)
	w.ok(w.write(w.nodes[0], c, 0, data))
	w.run(10 * time.Millisecond)
	w.nodes[0].destage()
	w.nodes[0].rot(t, data[:64])
	w.drop = func(_, _ placement.Server, m *wire.Message) bool { return m.Kind == wire.Fetched }
	x := w.read(w.nodes[0], c, 0, 4096)
	w.done(x)
	if x.Status != wire.NotReady {
		t.Errorf("it ends %v", x.Status)
	}
	w.drop = nil
	w.want(w.nodes[0], c, 0, data)
}

// TestOpensOverWhatCannotBeRead: R10. A member has lost records that the other has
// and can't read any more. The link opens all the same: the member is told which
// blocks it misses, and these alone are bad.
func TestOpensOverWhatCannotBeRead(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	data := pattern(1, 65536)
	w.ok(w.write(w.nodes[0], c, 0, data[:512])) // where memory begins
	w.run(20 * time.Millisecond)
	image := w.nodes[1].disk.Crash(1)
	w.ok(w.write(w.nodes[0], c, 0, data))
	w.run(20 * time.Millisecond)
	w.nodes[0].destage()
	w.nodes[0].rot(t, data[:512])
	w.nodes[1].back(image)
	w.nodes[1].start()
	w.opened()
	w.run(5 * time.Second)
	x := w.read(w.head(c), c, 0, 65536)
	w.done(x)
	if x.Status != wire.Medium || x.Bad != 1 {
		t.Errorf("a read ends %v, bad %#x", x.Status, x.Bad)
	}
	w.ok(w.write(w.head(c), c, 0, data[:4096]))
	w.until("all is whole", time.Minute, func() bool { return w.link(link10).filling == 0 })
	for _, n := range w.nodes {
		w.want(n, c, 0, data)
	}
	w.same()
}

// TestLostWhileOut: R9. A member comes back that has lost the end of its journal
// while it was out. The head knows what it had, and tells it to copy that, too.
func TestLostWhileOut(t *testing.T) {
	w, c, data := written(t)
	image := w.nodes[1].disk.Crash(1)
	copy(data[4096:], pattern(2, 4096))
	w.ok(w.write(w.nodes[0], c, 4096, data[4096:8192]))
	w.run(20 * time.Millisecond)
	w.nodes[1].back(image)
	w.exclude(2)
	w.opened()
	w.nodes[1].start()
	w.healed()
	w.same()
	w.want(w.nodes[1], c, 0, data)
}
