package replica

import (
	"testing"
	"time"

	"petal/cluster/times"
	"petal/placement"
)

// A barrier is asked for again and again until it is answered. That costs
// nothing, is answered once, and what nobody waits for any more is forgotten:
// here a disk that has been deleted meanwhile, and a link that does not open.
func TestBarrierAskedAgain(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n := w.nodes[0]
	answers := 0
	ask := func(number uint64, f placement.Family, vver uint64) {
		n.s.Barrier(BarrierID{2, number}, f, testNode, vver, func([]LinkVer) { answers++ })
	}
	for range 50 {
		ask(1, testFamily+9, 1) // there is no such disk
		ask(2, testFamily, 2)   // not applied yet
		w.run(10 * time.Millisecond)
	}
	if got := len(n.s.barriers); got != 2 || answers != 0 {
		t.Errorf("%d barriers are kept, want 2; %d answers", got, answers)
	}
	w.disks[diskKey1].vver++
	w.apply()
	w.until("the answer", time.Second, func() bool { return answers > 0 })
	w.run(n.s.c.Times.Barrier)
	w.apply()
	w.run(10 * time.Millisecond)
	if got := len(n.s.barriers); got != 0 || answers != 1 {
		t.Errorf("%d barriers are left; %d answers, want 1", got, answers)
	}

	w.nodes[1].stop(true) // nobody excludes it
	for i := range w.links {
		w.links[i].config.Ver++
	}
	w.apply()
	for number := uint64(3); number < 10; number++ {
		for range 5 {
			ask(number, testFamily, 2)
		}
		w.run(n.s.c.Times.Barrier / 2)
	}
	kept := 0
	for _, l := range n.s.all() {
		kept = max(kept, len(l.barriers))
	}
	if kept == 0 || kept > 2 || len(n.s.barriers) > 2 {
		t.Errorf("%d barriers at a link, %d at the server, want 2", kept, len(n.s.barriers))
	}
}

// watchedClock notices who looks at it while the server's mutex is held.
type watchedClock struct {
	times.Clock
	s    *Server
	held int
}

func (c *watchedClock) Now() time.Duration {
	if c.s != nil && !c.s.mu.TryLock() {
		c.held++
	} else if c.s != nil {
		c.s.mu.Unlock()
	}
	return c.Clock.Now()
}

// A seat, new ones too, does nothing while the server's mutex is held: what
// follows from it may want that mutex.
func TestSeatsBeginWithoutTheServersMutex(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n := w.nodes[0]
	c := n.s.c
	watched := &watchedClock{Clock: c.Clock}
	c.Clock = watched
	s := New(c)
	watched.s = s
	s.Up(2, 1)
	s.SetLease(w.now+time.Second, 1)
	s.apply(w.state(1))
	if watched.held > 0 {
		t.Errorf("the clock was looked at %d times under the server's mutex", watched.held)
	}
	for _, l := range s.all() {
		if l.peers != placement.Members(0).With(1-l.self) || l.leased != w.now+time.Second {
			t.Errorf("link %v: peers %v, leased %v", l.id, l.peers, l.leased)
		}
	}
	s.Close()
}
