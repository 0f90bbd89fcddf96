package replica

import (
	"testing"
	"time"

	"petal/placement"
)

// Where many tests begin.

// written is a world of two servers that have a chunk, whole and committed.
func written(t *testing.T) (w *world, c placement.Chunk, data []byte) {
	t.Helper()
	w = newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c = w.chunkOf(0, 0)
	data = pattern(1, 65536)
	w.ok(w.write(w.nodes[0], c, 0, data))
	w.run(20 * time.Millisecond)
	return w, c, data
}

// goOnAlone takes the second server away; the first goes on without it.
func (w *world) goOnAlone() {
	w.t.Helper()
	w.nodes[1].stop(true)
	w.exclude(2)
	w.opened()
}
