package replica

import (
	"testing"
	"time"

	"petal/cluster/link"
	"petal/placement"
)

// TestFitnessIsForOnce: that a disk has been found to be well lets one Rejoin go, all
// parts of it, and only soon after: the next one asks the disk again.
func TestFitnessIsForOnce(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	l := w.nodes[1].s.seat(link10)
	complain := l.s.c.Times.Complain
	asks := func(first, want bool) {
		t.Helper()
		l.lock()
		defer l.unlock()
		if got := l.fitness.asks(&link.Msg{First: first}); got != want {
			t.Errorf("a part of a Rejoin, the first %t, goes: %t", first, got)
		}
	}
	well := func(since time.Duration) {
		l.lock()
		defer l.unlock()
		l.fitness = fitness{l: l, good: true, changed: w.now - since, trying: true}
	}
	well(complain - 1)
	asks(true, true)
	asks(false, true)
	asks(true, false)
	asks(false, false)
	well(complain)
	asks(true, false)
}
