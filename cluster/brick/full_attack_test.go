package brick

import (
	"syscall"
	"testing"

	"petal/journal/vfs"
	"petal/placement"
)

// TestFullAcrossCrash: the file system is full up to the reserve, the last
// chunks have been acknowledged and are only in the journal. After a crash they
// must still find their way home, and what space was there before must be there.
func TestFullAcrossCrash(t *testing.T) {
	const left = 20
	g := newRig(12, func(o *Options) { o.CapacityBytes = 0 })
	g.mem = vfs.NewMemory(112 << 20)
	g.options(func(o *Options) { o.CapacityBytes = 0 })
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	put := func(c int, m placement.Mask) error {
		k := placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(c)}
		return g.append(&modelRecord{r: &Record{Key: k}, mask: m})
	}
	total := 0
	for ; ; total++ {
		if err := put(total, placement.Full); err == syscall.ENOSPC {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for g.b.Step() {
		}
		if total%100 == 0 {
			g.b.StepDestage(0)
		}
	}
	if err := g.settleAll(); err != nil {
		t.Fatal(err)
	}
	for c := range left { // give some back, and take them again in the journal only
		if err := g.append(&modelRecord{r: &Record{Kind: Zero, Key: placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(c)}}, mask: placement.Full}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.settleAll(); err != nil {
		t.Fatal(err)
	}
	for c := range left {
		if err := put(total+c, 1); err != nil {
			t.Fatalf("chunk %d of %d: %v", c, left, err)
		}
		for g.b.Step() {
		}
	}
	g.crash()
	change := func(o *Options) { o.CapacityBytes = 0 }
	if err := g.restart(change); err != nil {
		t.Fatal(err)
	}
	if err := g.settleAll(); err != nil {
		t.Fatalf("acknowledged records do not find their way home: %v", err)
	}
	for c := range left {
		if err := g.verify(1, placement.Chunk(total+c)); err != nil {
			t.Fatal(err)
		}
	}
	g.b.Kill() // and let go of the memory
}
