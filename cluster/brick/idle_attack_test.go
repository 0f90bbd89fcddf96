package brick

import (
	"testing"

	"petal/placement"
)

// TestIdleIsQuiet: an idle brick vouches for its last records once, and then
// writes nothing more.
func TestIdleIsQuiet(t *testing.T) {
	g := newRig(4, nil)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	for _, m := range []placement.Mask{placement.Full, 1} {
		if err := g.append(&modelRecord{r: &Record{Key: placement.Key{Family: 1, Node: 1, Chunk: 1}}, mask: m}); err != nil {
			t.Fatal(err)
		}
		for g.b.Step() {
		}
		before := g.b.journal.Next()
		for range 5 {
			g.b.vouch()
			g.b.StepJournal()
		}
		if n := g.b.journal.Next() - before; n != 1 {
			t.Errorf("mask %#x: %d records of an idle brick's own, want 1", m, n)
		}
	}
}
