package meta

import (
	"testing"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// TestDefaultScheme: a disk of which nobody said how many copies it should have is
// mirrored wherever there are two servers for it. One of them being down makes
// no disk with one copy, but an error that says how to make one.
func TestDefaultScheme(t *testing.T) {
	of := func(name string, n byte, scheme string, ms int64) *metapb.Command {
		c := diskOf(name, n, scheme)
		c.UnixMs = ms
		return c
	}
	scheme := func(s *State, disk string) placement.Scheme { return s.GMap(s.Family(s.Disk(disk).Family).GMap).Scheme }
	one := clusterOf(t, 1).with(t, diskOf("a", 1, ""))
	if got := scheme(one, "a"); got != placement.Stripe {
		t.Errorf("on one server: %v", got)
	}
	s := clusterOf(t, 2).with(t, diskOf("a", 1, ""))
	down := reconfigure(s, placement.LinkID{}, 0, 0)
	down.GetReconfigure().Links, down.GetReconfigure().Down = nil, []uint32{2}
	s = s.with(t, down, of("b", 2, "", down.UnixMs+goneAfter.Milliseconds()-1))
	if a, b := scheme(s, "a"), scheme(s, "b"); a != placement.Mirror || b != placement.Mirror {
		t.Errorf("on two servers: %v; one is down for a moment: %v", a, b)
	}
	late := down.UnixMs + goneAfter.Milliseconds()
	refused(t, s, of("c", 3, "", late), ErrInvalid, "scheme mirror", "it needs 2 servers that hold data, there are 1 beside those that have long been down (n2)", "start n2", "--scheme stripe")
	if s = s.with(t, of("c", 3, "stripe", late)); scheme(s, "c") != placement.Stripe {
		t.Errorf("asked for: %v", scheme(s, "c"))
	}
	s = s.with(t, &metapb.Command{UnixMs: late, Kind: &metapb.Command_Reconfigure{Reconfigure: &metapb.Reconfigure{Up: []uint32{2}}}}, of("d", 4, "", late))
	if got := scheme(s, "d"); got != placement.Mirror {
		t.Errorf("it is back: %v", got)
	}
}
