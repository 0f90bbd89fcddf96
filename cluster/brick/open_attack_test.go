package brick

import (
	"testing"

	"petal/placement"
)

// TestTornFirst: the only record beyond the map is an extent-write that never
// completed. The brick must open, and open again after any end of that life: what
// recovery decided without the map must not be trimmed before the map knows.
func TestTornFirst(t *testing.T) {
	for _, clean := range []bool{true, false} {
		g := newRig(3, nil)
		if err := g.start(); err != nil {
			t.Fatal(err)
		}
		k := placement.Key{Family: 1, Node: 1, Chunk: 1}
		r := &modelRecord{r: &Record{Key: k, Bucket: placement.BucketOf(1, 1)}, mask: placement.Full}
		if err := g.append(r); err != nil {
			t.Fatal(err)
		}
		g.b.StepJournal() // the record is durable, the extent is not even begun
		g.crash()
		if err := g.restart(nil); err != nil {
			t.Fatal(err)
		}
		if g.recovery.Torn != 1 {
			t.Fatalf("%d torn", g.recovery.Torn)
		}
		if clean {
			if err := g.b.Close(); err != nil {
				t.Fatal(err)
			}
			g.b = nil // the rig would close it again
		} else {
			if err := g.b.StepFlushMap(); err != nil {
				t.Fatal(err)
			}
			if err := g.append(&modelRecord{r: &Record{Key: k, Bucket: placement.BucketOf(1, 1)}, mask: 1}); err != nil {
				t.Fatal(err)
			}
			g.b.StepJournal()
		}
		if g.crashed == nil {
			g.crash()
		}
		if err := g.restart(nil); err != nil {
			t.Errorf("clean %v: %v", clean, err)
		}
	}
}
