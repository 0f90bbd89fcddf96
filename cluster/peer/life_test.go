package peer

import (
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// TestAgeOfAMessage: R13. A message that the network has held back says so, to
// the handler; one that it has not is young.
func TestAgeOfAMessage(t *testing.T) {
	bubbleOfTwo(t, false, func(_ *fleet, n *pipes, start func(placement.Server, uint64) (*Peers, *recorder)) {
		one, r1 := start(1, 10)
		two, r2 := start(2, 20)
		r1.want("up")
		r2.want("up")
		for i, held := range []time.Duration{0, 900 * time.Millisecond, 0, 1200 * time.Millisecond} {
			n.setCut(true)
			one.Send(2, &wire.Message{Kind: wire.Cancel, Op: placement.OpID{Number: uint64(i)}})
			pass(held)
			n.setCut(false)
			if e := r2.want("cancel"); e.op != uint64(i) || e.age < held || e.age > held+100*time.Millisecond {
				t.Errorf("%d: held back for %v, its age is %v", e.op, held, e.age)
			}
			pass(100 * time.Millisecond)
		}
		one.Close()
		two.Close()
	})
}

// TestOneLifeAnswersAll: R1. The connections of a session are to one process: not
// the first to one, and the next to the one that has followed it.
func TestOneLifeAnswersAll(t *testing.T) {
	b := newBundle(&peer{}, bundleData)
	b.state, b.session = forming, session{number: 5}
	for _, c := range []struct {
		number, incarnation uint64
		ok                  bool
	}{
		{5, 10, true},
		{5, 11, false},
		{5, 10, true},
		{4, 10, false},
		{5, 9, false},
	} {
		if err := b.learn(c.number, c.incarnation); (err == nil) != c.ok {
			t.Errorf("session %d answered by incarnation %d: %v", c.number, c.incarnation, err)
		}
	}
	b.session = session{number: 6} // the next session: the peer may live on, but not again
	if b.learn(6, 9) == nil || b.learn(6, 11) != nil {
		t.Error("an earlier life counts, or a later one does not")
	}
}
