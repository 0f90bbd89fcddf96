package replica

import (
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/placement"
)

// TestTrustEnds: R8. The marks of a link are trusted as of before the present attempt
// to let the other in. When that has failed, the other may have lost what it got by
// it: only what came later names it for certain. Who has lost records trusts nothing,
// until both are in sync again.
func TestTrustEnds(t *testing.T) {
	w, c, _ := written(t)
	l := w.nodes[0].s.seat(link10)
	x := &l.trust
	bucket := placement.BucketOf(testFamily, c)
	knows := func(what string, session, both uint64, want bool) {
		t.Helper()
		l.lock()
		defer l.unlock()
		till, ok := l.known(&link.Effect{Bucket: bucket, Session: session})
		if ok != want || x.both != both || ok && till != (placement.Stamp{Ver: 1, Seq: 1}) {
			t.Errorf("%s: up to %v, known %t, of version %d; want %t, %d", what, till, ok, x.both, want, both)
		}
	}
	note := func(ver uint64) {
		t.Helper()
		if !l.noteJoin(ver) || uint64(w.nodes[0].brick.Super().Links[link10].Both) != ver || x.noted != ver {
			t.Errorf("version %d: noted %d, and in the superblock %+v", ver, x.noted, w.nodes[0].brick.Super().Links[link10])
		}
	}
	knows("in sync", 1, 1, true)
	note(2)
	knows("the same attempt", 1, 1, true)
	knows("the next one", 2, 2, true)
	note(3)
	w.cut(1, 2)
	knows("the same, and the connection has broken", 2, 3, true)
	w.heal(1, 2)

	init := func(what string, rec *brick.Recovery, lost bool, both uint64) {
		t.Helper()
		was := l.s.c.Recovery
		l.s.c.Recovery = rec
		var y trust
		y.init(l)
		l.s.c.Recovery = was
		if y.lost != lost || y.both != both || y.noted != both {
			t.Errorf("begins when %s with %+v", what, y)
		}
	}
	init("all is there", &brick.Recovery{}, false, 3)
	init("records are lost", &brick.Recovery{Lost: make([]brick.LostRange, 1)}, true, 0)

	x.lost = true
	knows("records are lost", 2, 3, false)
	w.link(link10).config.Ver = 5
	w.apply()
	w.run(100 * time.Millisecond)
	w.opened()
	knows("both were in sync since", 2, 5, true)
	x.lost = true
	w.goOnAlone()
	w.until("it is written down", time.Second, func() bool { return w.nodes[0].brick.Super().Links[link10].Solo })
	if m := w.nodes[0].brick.Super().Links[link10]; m.Both != 0 {
		t.Errorf("alone, and records are lost: %+v in the superblock", m)
	}
}

// TestTrustsNothing: R8. Nothing is known of a bucket that nobody has written to, nor
// of a link of three: which of them was named by whom one version can't say.
func TestTrustsNothing(t *testing.T) {
	for _, scheme := range []placement.Scheme{placement.Mirror, placement.Mirror3} {
		w := newWorld(t, 1, 3, scheme)
		w.opened()
		c := w.chunkOf(0, 0)
		h := w.head(c)
		w.ok(w.write(h, c, 0, pattern(1, 4096)))
		w.run(20 * time.Millisecond)
		l := h.s.seat(link10)
		if !l.noteJoin(2) {
			t.Fatal("the superblock can't be written")
		}
		two := scheme == placement.Mirror
		if both := h.brick.Super().Links[link10].Both; (both == 2) != two || !two && both != 0 {
			t.Errorf("%v: the superblock says %d", scheme, both)
		}
		for i, want := range []bool{two, false} {
			bucket := placement.BucketOf(testFamily, w.chunkOf(0, i))
			l.lock()
			till, ok := l.known(&link.Effect{Bucket: bucket, Session: 1})
			l.unlock()
			if ok != want {
				t.Errorf("%v: a bucket with %d records is known up to %v: %t", scheme, 1-i, till, ok)
			}
		}
	}
}
