package brick

import (
	"testing"

	"petal/placement"
)

// TestFrags: after a snapshot, random 4 KiB writes take little more than their
// size; a chunk that gathers more than a few blocks moves to an extent of its
// own, and its slots are used again.
func TestFrags(t *testing.T) {
	g := newRig(13, nil)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	g.node = 2
	put := func(c, i int) {
		t.Helper()
		k := placement.Key{Family: 1, Node: 2, Chunk: placement.Chunk(c)}
		if err := g.append(&modelRecord{r: &Record{Key: k}, mask: 1 << i}); err != nil {
			t.Fatal(err)
		}
	}
	used := func(when string, extents int64, bytes int64) {
		t.Helper()
		if err := g.audit(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if g.b.alloc.used != extents || g.b.Usage(1) != bytes {
			t.Errorf("%s: %d extents and %d bytes are used, want %d and %d", when, g.b.alloc.used, g.b.Usage(1), extents, bytes)
		}
	}
	for c := range 40 {
		put(c, c%16)
	}
	used("40 blocks of 40 chunks", 3, 40<<12)
	for c := range 8 {
		put(c, c%16) // overwritten in place
		put(c, (c+1)%16)
	}
	used("8 more", 3, 48<<12)
	for i := range 5 {
		put(0, i)
	}
	used("one chunk has 5", 4, 46<<12+extentSize)
	put(40, 0)
	put(41, 0)
	used("two slots used again", 4, 48<<12+extentSize)
	for c := range 42 {
		if err := g.verify(2, placement.Chunk(c)); err != nil {
			t.Fatal(err)
		}
	}
	g.crash()
	if err := g.restart(nil); err != nil {
		t.Fatal(err)
	}
	used("after a crash", 4, 48<<12+extentSize)
}
