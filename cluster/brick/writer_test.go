package brick

import (
	"slices"
	"strings"
	"testing"

	"petal/journal/vfs"
	"petal/placement"
)

// TestExtentsTogether: whole chunks that are queued together are one request if
// they lie together, and one request each and a single sync if they do not.
func TestExtentsTogether(t *testing.T) {
	g := newRig(11, nil)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	b := g.b
	var ops []vfs.Kind
	g.mem.OnOp(func(op vfs.Op) {
		if strings.HasPrefix(op.Name, "data/") {
			ops = append(ops, op.Kind)
		}
	})
	write := func(chunks ...placement.Chunk) {
		for _, c := range chunks {
			r := &modelRecord{r: &Record{Key: placement.Key{Family: 1, Node: 1, Chunk: c}}, mask: placement.Full}
			if err := g.append(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	expect := func(when string, want ...vfs.Kind) {
		t.Helper()
		if !b.StepWrite() || b.StepWrite() || !slices.Equal(ops, want) {
			t.Errorf("%s: %v, want %v", when, ops, want)
		}
		ops = nil
		for b.StepJournal() {
		}
	}
	write(1, 2, 3, 4)
	expect("neighbours", vfs.OpWrite)
	write(5)
	if _, ok := b.alloc.take(false); !ok {
		t.Fatal("no extent to leave out")
	}
	write(6, 7)
	expect("two runs", vfs.OpWrite, vfs.OpWrite, vfs.OpSync)
	for c := placement.Chunk(1); c <= 7; c++ {
		b.o.Cache.DropFamily(1)
		if _, err := g.read(1, c, 0, placement.BlocksPerChunk); err != nil {
			t.Errorf("chunk %d: %v", c, err)
		}
	}
	if n := b.Stats().ExtentWrites; n != 7 {
		t.Errorf("%d extent-writes counted, want 7", n)
	}
}
