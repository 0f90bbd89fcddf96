package replica

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/wire"
	"petal/placement"
)

// TestPassesPause: a pass after which all have said that they have not what is
// missing makes for a longer pause, up to pullIdle; one that has not heard everybody
// makes for the shortest.
func TestPassesPause(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	l := w.nodes[1].s.seat(link10)
	p := &l.pulls
	l.lock()
	defer l.unlock()
	pass := func(failed int, gone uint64) time.Duration {
		p.failed, p.gone, p.rest = failed, gone, 0
		p.passed()
		return max(0, p.rest-w.now)
	}
	var pauses []time.Duration
	for range 8 {
		pauses = append(pauses, pass(0, 1))
	}
	if want := []time.Duration{pullRetry, 2 * pullRetry, 4 * pullRetry, 8 * pullRetry, 16 * pullRetry, 32 * pullRetry, pullIdle, pullIdle}; !slices.Equal(pauses, want) {
		t.Errorf("nobody has it: pauses of %v, want %v", pauses, want)
	}
	if got := pass(1, 1); got != pullRetry {
		t.Errorf("somebody has not answered: a pause of %v", got)
	}
	pass(0, 1)
	if got := pass(0, 0); got != 0 {
		t.Errorf("all was there: a pause of %v", got)
	}
	if got := pass(0, 1); got != pullRetry {
		t.Errorf("the first block that nobody has: a pause of %v", got)
	}
}

// TestHopeEndsThePause: who comes back, or a new version, may have what was missing:
// it is asked for at once.
func TestHopeEndsThePause(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	l := w.nodes[1].s.seat(link10)
	for _, x := range []struct {
		what    string
		happens func()
	}{
		{"a connection", func() { w.cut(1, 2); w.heal(1, 2) }},
		{"a version", func() { w.link(link10).config.Ver++; w.apply() }},
	} {
		l.lock()
		l.pulls.retry, l.pulls.rest = pullIdle, w.now+pullIdle
		l.unlock()
		x.happens()
		w.run(100 * time.Millisecond)
		if l.pulls.retry != 0 || l.pulls.rest != 0 {
			t.Errorf("%s: it rests until %v, at %v", x.what, l.pulls.rest, w.now)
		}
	}
	w.opened()
}

// TestWhatAnAnswerCountsFor: a block that somebody gives ends the growth of the
// pauses; one that nobody gives is gone if everybody has answered, and else not.
func TestWhatAnAnswerCountsFor(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	l := w.nodes[1].s.seat(link10)
	p := &l.pulls
	m := brick.Mark{Key: placement.Key{Family: testFamily, Node: testNode, Chunk: c}, Bucket: placement.BucketOf(testFamily, c), Mask: 3}
	for _, x := range []struct {
		what   string
		f      fetch
		heard  bool
		retry  time.Duration
		failed int
		gone   uint64
	}{
		{"one of two", fetch{status: wire.OK, zeros: 1, bad: 2}, true, 0, 0, 1},
		{"none", fetch{status: wire.OK, bad: 3}, true, pullIdle, 0, 2},
		{"none, and another has not answered", fetch{status: wire.OK, bad: 3}, false, pullIdle, 1, 0},
		{"not now", fetch{status: wire.NotReady}, true, pullIdle, 1, 0},
		{"no answer", fetch{status: wire.Failed}, true, pullIdle, 1, 0},
	} {
		p.flying, p.retry, p.failed, p.gone = 1, pullIdle, 0, 0
		x.f.l, x.f.key, x.f.mask = l, m.Key, m.Mask
		p.got(m, &x.f, l.ver, 0, x.heard)
		if p.retry != x.retry || p.failed != x.failed || p.gone != x.gone {
			t.Errorf("%s: retry %v, %d failed, %d gone; want %v, %d, %d", x.what, p.retry, p.failed, p.gone, x.retry, x.failed, x.gone)
		}
		w.run(10 * time.Millisecond)
	}
}

// refusing is a brick that takes nothing that is copied.
type refusing struct {
	spy
	err error
}

func (d *refusing) AppendFill(*brick.Record) error { return d.err }

// TestRefusedFillRests: a member whose brick does not take what it copies tries it now
// and then, and not all the time; it calls itself full only where it is.
func TestRefusedFillRests(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
		w := newWorld(t, 9, 2, placement.Mirror)
		w.opened()
		n := w.nodes[1]
		n.stop(true)
		w.exclude(n.id)
		w.opened()
		w.ok(w.write(w.nodes[0], w.chunkOf(0, 0), 0, pattern(1, 65536)))
		n.startOn(func(s spy) Store { return &refusing{s, err} })
		w.until("it is in sync", 10*time.Second, func() bool { return w.link(link10).config.InSync.Len() == 2 })
		w.run(time.Second)
		w.sent[wire.Fetch] = 0
		w.run(10 * pullRetry)
		if asked := w.sent[wire.Fetch]; asked < 5 || asked > 11 {
			t.Errorf("%v: asked for %d times in %v", err, asked, 10*pullRetry)
		}
		if st := n.status(link10); st.Full != (err == syscall.ENOSPC) || st.Missing != 16 {
			t.Errorf("%v: %+v", err, st)
		}
	}
}
