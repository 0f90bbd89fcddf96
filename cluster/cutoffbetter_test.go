package cluster

import (
	"context"
	"slices"
	"testing"
	"time"

	"petal/placement"
)

// A node that does not reach another one is cut off only where a third does, by the
// leader's word; it is so no longer when there is none, or when that other one may
// be dead. Whoever listens hears of each change, and of nothing else.
func TestCutOffWhereThereIsABetter(t *testing.T) { virtual(t, cutOffWhereThereIsABetter) }

func cutOffWhereThereIsABetter(t *testing.T) {
	c := newMemCluster(t, 2, 1)
	n := c.nodes[0].Node
	n.Close(context.Background()) // nobody else tells it anything
	c.nodes[0].Node = nil
	now := n.env.Clock.Now()
	told, all := 0, []placement.Server{1, 2}
	n.OnReach(func() { told++ })
	for _, step := range []struct {
		what   string
		gone   time.Duration // for how long 2 has been out of reach and live; 0: it is reached
		live   []placement.Server
		better bool
		want   []string
		told   int
	}{
		{"it is reached", 0, all, true, nil, 0},
		{"for a moment", n.coord.patience(), all, true, nil, 0},
		{"nobody is better", time.Minute, all, false, nil, 0},
		{"another is better", time.Minute, all, true, []string{"n2"}, 1},
		{"and still is", 2 * time.Minute, all, true, []string{"n2"}, 1},
		{"none is better any more", 3 * time.Minute, all, false, nil, 2},
		{"one is again", 4 * time.Minute, all, true, []string{"n2"}, 3},
		{"it may be dead", 5 * time.Minute, all[:1], true, nil, 4},
	} {
		s := n.coord.copies.of(2)
		s.up.Store(step.gone == 0)
		s.down.Store(int64(now - step.gone))
		s.live.Store(int64(now - step.gone))
		n.liveChanged(step.live, step.better)
		if got := n.CutOff(); !slices.Equal(got, step.want) || told != step.told {
			t.Errorf("%s: cut off from %v, told %d times; want %v, %d", step.what, got, told, step.want, step.told)
		}
	}
	n.opt.Witness = true // has no portals
	n.coord.copies.of(2).live.Store(int64(now - time.Minute))
	n.liveChanged(all, true)
	if got := n.CutOff(); got != nil {
		t.Errorf("a witness is cut off from %v", got)
	}
}
