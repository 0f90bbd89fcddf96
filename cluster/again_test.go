package cluster

import (
	"testing"
	"time"

	"petal/cluster/replica"
	"petal/cluster/wire"
	"petal/placement"
)

// R12: every attempt but the first says that there was one, however the one before
// ended: only then does a head look whether it was carried out.

func TestSecondAttemptSaysSoHere(t *testing.T) {
	for _, st := range []wire.Status{wire.NotReady, wire.NoLease, wire.Redirect, wire.Failed} {
		b := newBench(t, placement.Mirror, 1, 2, 3)
		var said []bool
		b.here.answer = func(op *replica.Op) wire.Status {
			if said = append(said, op.Again); len(said) == 1 {
				return st
			}
			return wire.OK
		}
		ch := write(b.v, b.chunkAt(1), pattern(1, 4096), false)
		b.run(time.Second)
		if err := result(b, ch); err != nil || len(said) != 2 || said[0] || !said[1] {
			t.Errorf("%v: ends %v; attempts said %v", st, err, said)
		}
	}
}

func TestSecondAttemptSaysSoElsewhere(t *testing.T) {
	b := newBench(t, placement.Mirror, 2, 3, 4)
	var said []uint16
	b.server[2] = func(m *wire.Message) *wire.Message {
		if said = append(said, uint16(m.Code)); len(said) == 1 {
			return nil // it was carried out, perhaps, and then the connection broke
		}
		return status(wire.OK)(m)
	}
	ch := write(b.v, b.chunkAt(2), pattern(1, 4096), false)
	b.run(time.Millisecond)
	b.c.peerDown(2)
	b.c.peerUp(2)
	b.run(100 * time.Millisecond)
	if err := result(b, ch); err != nil || len(said) != 2 || said[0] != 0 || said[1] != replica.CodeAgain {
		t.Errorf("ends %v; attempts said %v", err, said)
	}
}
