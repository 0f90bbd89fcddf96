package cluster

import "testing"

// R5: a lease must not outlive the data path. A node whose brick has not answered
// a flush for two leases asks for no more.
func TestStandstillEndsTheLease(t *testing.T) { virtual(t, standstillEndsTheLease) }

func standstillEndsTheLease(t *testing.T) {
	n := newMemoryNode(t, nil).Node
	n.Close(t.Context()) // nobody else asks its brick
	lease := n.opt.Times.Lease
	for _, c := range []struct {
		since  int64 // the flush has been under way, in leases/10
		leases bool
	}{{1, true}, {19, true}, {21, false}, {100, false}, {1, true}} {
		n.flushing.Store(int64(n.env.Clock.Now()) - c.since*int64(lease)/10)
		if got := n.healthy(); got != c.leases {
			t.Errorf("after %d tenths of a lease: asks for one: %t", c.since, got)
		}
	}
}
