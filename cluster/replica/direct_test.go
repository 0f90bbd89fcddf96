package replica

import (
	"bytes"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// TestRestOfABlockIsReadWhenTheLinkIsOpen: R10. A new head has a record of a
// block in doubt and no lease yet; a write of a part of the block comes. What it
// completes the block with must have that record in it.
func TestRestOfABlockIsReadWhenTheLinkIsOpen(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	a, b := pattern(1, 4096), pattern(2, 4096)
	w.ok(w.write(w.nodes[0], c, 0, a))
	w.run(10 * time.Millisecond)
	w.drop = func(_, _ placement.Server, m *wire.Message) bool {
		return m.Kind == wire.LinkControl || m.Kind == wire.Replicate && m.Stamp.Seq > 2 // the commit is not told
	}
	w.ok(w.write(w.nodes[0], c, 0, b))
	w.nodes[1].noLease = true
	w.run(1990 * time.Millisecond)
	w.nodes[0].stop(true)
	w.exclude(1)
	w.run(300 * time.Millisecond) // its lease is over: it can't open
	w.drop = nil
	small := pattern(3, 512)
	x := w.op(w.nodes[1], Write, c, 1024, 1536)
	fillBuf(w.nodes[1].pool, &x.Op, small)
	w.nodes[1].s.Do(&x.Op)
	w.run(100 * time.Millisecond)
	if x.over {
		t.Fatalf("ended %v without a lease", x.Status)
	}
	w.nodes[1].noLease = false
	w.done(x)
	want := bytes.Clone(b)
	if x.Status != wire.OK { // it has waited for too long: once more
		w.ok(w.write(w.nodes[1], c, 1024, small))
	}
	copy(want[1024:], small)
	w.want(w.nodes[1], c, 0, want)
}

// TestAdmittedOnlyUnderItsVersion: an operation that waits for its block while
// the link gets a new version is refused: another head may have carried it out,
// or have heard that it is cancelled.
func TestAdmittedOnlyUnderItsVersion(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n, c := w.nodes[0], w.chunkOf(0, 0)
	w.nodes[1].slow = 20 * time.Millisecond
	first := w.write(n, c, 0, pattern(1, 4096))
	second := w.write(n, c, 0, pattern(2, 4096)) // waits for the first
	w.run(time.Millisecond)
	w.link(placement.LinkID{GMap: 1}).config.Ver++
	w.apply()
	w.ok(first) // the union has it
	w.done(second)
	if second.Status != wire.NotReady {
		t.Errorf("the second ends %v", second.Status)
	}
	w.opened()
	w.want(n, c, 0, pattern(1, 4096))
}

// TestCopyOfABadBlockIsNotOlder: R4. The head's block goes bad, while the other
// member has not heard yet that its latest record is committed: that one must
// not give what was before.
func TestCopyOfABadBlockIsNotOlder(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n, c := w.nodes[0], w.chunkOf(0, 0)
	old, a := pattern(1, 65536), pattern(2, 65536)
	w.ok(w.write(n, c, 0, old))
	w.run(10 * time.Millisecond)
	w.drop = func(_, _ placement.Server, m *wire.Message) bool { return m.Kind == wire.LinkControl }
	w.ok(w.write(n, c, 0, a))
	n.destage()
	n.rot(t, a[:512])
	x := w.read(n, c, 0, 4096)
	w.run(20 * time.Millisecond)
	if x.over && x.Status == wire.OK && !bytes.Equal(x.data[:4096], a[:4096]) {
		t.Error("an older block was read")
	}
	w.drop = nil
	w.ok(w.write(n, c, 8192, a[:4096])) // takes the notice along
	w.done(x)
	if x.Status != wire.OK || !bytes.Equal(x.data[:4096], a[:4096]) {
		t.Errorf("the read ends %v", x.Status)
	}
}
