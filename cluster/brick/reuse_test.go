package brick

import (
	"testing"

	"petal/placement"
)

// TestReuseUnderAStuckMark: an early record stays prepared, so the applied mark
// stands still while extents behind it are freed, flushed and used again. The
// journal then names one extent twice, and recovery must not take the old name
// for the new owner's.
func TestReuseUnderAStuckMark(t *testing.T) {
	plenty := func(o *Options) { o.CapacityBytes = 256 << 20 }
	g := newRig(15, plenty)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	stuck := record(g.b, g.rng, placement.Key{Family: 1, Node: 1, Chunk: 100}, 1, Write)
	stuck.Done = func(*Record, error) {}
	if err := g.b.Append(stuck); err != nil {
		t.Fatal(err)
	}
	full := func(c placement.Chunk) uint64 {
		t.Helper()
		r := &modelRecord{r: &Record{Key: placement.Key{Family: 1, Node: 1, Chunk: c}}, mask: placement.Full}
		if err := g.append(r); err != nil {
			t.Fatal(err)
		}
		ext := r.r.p.ext
		for g.b.Step() {
		}
		for g.b.StepDestage(0) {
		}
		if err := g.b.StepFlushMap(); err != nil {
			t.Fatal(err)
		}
		return ext
	}
	first := full(1)
	full(1)
	if again := full(2); again != first {
		t.Fatalf("extent %d was not used again, %d was", first, again)
	}
	if n := g.b.order.applied.Load(); n != 0 {
		t.Fatalf("the mark moved to %d past a prepared record", n)
	}
	g.crash()
	if err := g.restart(plenty); err != nil {
		t.Fatal(err)
	}
	for c := range placement.Chunk(3) {
		if err := g.verify(1, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.audit(); err != nil {
		t.Fatal(err)
	}
}
