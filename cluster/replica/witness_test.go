package replica

import (
	"errors"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/placement"
)

// mute is a brick whose superblock can't be written while on says so.
type mute struct {
	Store
	on *bool
}

func (m mute) UpdateSuper(f func(*brick.Super) error) error {
	if *m.on {
		return errors.New("the superblock can't be written")
	}
	return m.Store.UpdateSuper(f)
}

// TestWitnessedBeforeServed: R14. Before a member serves a link under a version,
// its superblock says so, and whether it is alone: after a crash, too. Where that
// can't be written, it does not serve.
func TestWitnessedBeforeServed(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n := w.nodes[0]
	want := func(ver uint64, solo bool) {
		t.Helper()
		w.opened()
		both := uint32(min(ver, 2))
		if got := n.brick.Super().Links[link10]; got != (brick.LinkMark{Ver: ver, Solo: solo, Both: both}) {
			t.Errorf("serves under version %d, and its superblock says %+v", ver, got)
		}
	}
	want(1, false)
	w.link(link10).config.Ver++
	w.apply()
	want(2, false)
	w.auto = false
	w.exclude(2)
	want(3, true)
	n.stop(true)
	n.start() // a new process: a new version
	if got := n.brick.Super().Links[link10]; got != (brick.LinkMark{Ver: 3, Solo: true, Both: 2}) {
		t.Errorf("after a crash: %+v", got)
	}
	want(4, true)

	silent := true
	n.s.c.Store = mute{n.s.c.Store, &silent}
	w.link(link10).config.Ver++
	w.apply()
	w.run(100 * time.Millisecond)
	if n.s.Status()[0].Serving {
		t.Error("serves what it has not written down")
	}
	silent = false
	w.link(link10).config.Ver++
	w.apply()
	want(6, true)
}
