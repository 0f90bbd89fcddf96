package brick

import (
	"testing"

	"petal/journal/vfs"
	"petal/placement"
)

// TestMisread: a block that does not match when it is read once, and does when it
// is read again, was being overwritten, or came over a bad wire. It is not lost.
func TestMisread(t *testing.T) {
	var fault *vfs.Fault
	g := newRig(7, func(o *Options) {
		fault = vfs.NewFault(o.FS, nil, 1)
		o.FS = fault
	})
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	k := placement.Key{Family: 1, Node: 1, Chunk: 3}
	if err := g.append(&modelRecord{r: &Record{Key: k}, mask: placement.Full}); err != nil {
		t.Fatal(err)
	}
	if err := g.settleAll(); err != nil {
		t.Fatal(err)
	}
	g.o.Cache.DropFamily(1)
	plan, err := vfs.ParsePlan("read data/* nth=1 flip 7")
	if err != nil {
		t.Fatal(err)
	}
	fault.SetPlan(plan)
	readAround(t, g, k, 0, placement.BlocksPerChunk, -1)
	if n := g.b.Stats().MediumErrors; n != 0 {
		t.Errorf("%d medium errors", n)
	}
}
