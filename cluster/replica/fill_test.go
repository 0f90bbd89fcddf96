package replica

import (
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/wire"
	"petal/placement"
)

// TestWhatNobodyCanGiveStaysMissing: R9. A block that its only copy cannot read any
// more is not taken for one that was never written: it stays missing, and reading
// it says so.
func TestWhatNobodyCanGiveStaysMissing(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	w.nodes[1].stop(true)
	w.exclude(2)
	w.opened()
	data := pattern(1, 65536)
	w.ok(w.write(w.nodes[0], c, 0, data))
	w.nodes[0].destage()
	w.nodes[0].rot(t, data[:512])
	w.nodes[1].start()
	w.until("it is let in", 10*time.Second, func() bool { return w.link(link10).config.InSync.Len() == 2 })
	w.run(5 * time.Second)
	w.opened()
	for _, n := range w.nodes {
		x := w.read(n, c, 0, 4096)
		w.done(x)
		if x.Status == wire.OK {
			t.Errorf("server %d reads it: %x...", n.id, x.data[:4])
		}
		w.want(n, c, 4096, data[4096:]) // the rest is there
	}
	if l := w.link(link10); l.filling == 0 {
		t.Error("it is said to be complete")
	}
}

// TestLateFillCountsForNothing: R9. Blocks that were asked for under an earlier
// version may be missing anew, since something was written to them.
func TestLateFillCountsForNothing(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	l := w.nodes[1].s.seat(link10)
	m := brick.Mark{Key: placement.Key{Family: testFamily, Node: testNode, Chunk: c}, Bucket: placement.BucketOf(testFamily, c), Mask: 1}
	for _, ver := range []uint64{l.ver - 1, l.ver} {
		l.pulls.flying, l.pulls.failed = 1, 0
		l.pulls.got(m, &fetch{l: l, key: m.Key, mask: 1, status: wire.OK, zeros: 1}, ver, 0, true)
		if taken := l.pulls.flying > 0; taken != (ver == l.ver) {
			t.Errorf("asked for under version %d, at %d: taken: %t", ver, l.ver, taken)
		}
	}
	w.run(10 * time.Millisecond)
}

// TestHeadReadsWhatItMisses: R9. A head that misses blocks, and has not copied them
// yet, gets them from who has them: for a reader, and for a write of a part of one.
func TestHeadReadsWhatItMisses(t *testing.T) {
	w, c, data := written(t)
	w.goOnAlone()
	image := w.nodes[0].disk.Crash(1)
	b := pattern(2, 8192)
	copy(data[4096:], b)
	w.ok(w.write(w.nodes[0], c, 4096, b))
	w.nodes[1].start()
	w.healed()
	w.nodes[0].back(image)
	w.nodes[0].start()
	w.nodes[0].s.SetFillRate(1)
	w.nodes[0].s.fill.take(w.now, 1<<30) // nothing is copied for long
	w.opened()
	if w.nodes[0].brick.MissingCount(link10) == 0 {
		t.Fatal("it misses nothing: the test shows nothing")
	}
	w.want(w.nodes[0], c, 0, data)
	small := pattern(3, 512)
	copy(data[8192:], small)
	w.ok(w.write(w.nodes[0], c, 8192, small))
	w.want(w.nodes[0], c, 0, data)
}
