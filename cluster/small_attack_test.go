package cluster

import (
	"testing"
)

// TestSmallestDisks: a disk smaller than a chunk is trimmed beyond its end at
// each start like any other.
func TestSmallestDisks(t *testing.T) {
	dir := t.TempDir()
	n := testNode(t, dir)
	sizes := map[string]uint64{"a": 512, "b": 4096, "c": 5120, "d": 64<<10 - 512, "e": 1<<64 - 64<<10}
	for name, size := range sizes {
		d := testDisk(t, n, name, size)
		v, err := n.Volume(d.ID)
		if err != nil {
			t.Fatal(err)
		}
		writeAt(t, v, size-512, make([]byte, 512))
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	n = testNode(t, dir)
	for name := range sizes {
		v, err := n.Volume(n.State().Disk(name).ID)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		v.trimBeyondEnd(func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
