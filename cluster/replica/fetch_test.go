package replica

import (
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// TestFetchedWithoutData: an answer that names blocks and brings none is no answer.
func TestFetchedWithoutData(t *testing.T) {
	w := newWorld(t, 7, 2, placement.Mirror)
	w.opened()
	l := w.nodes[0].s.seat(placement.LinkID{GMap: 1, Position: 0})
	key := placement.Key{Family: testFamily, Node: testNode, Chunk: w.chunkOf(0, 0)}
	var got [placement.BlocksPerChunk]block
	ended := false
	l.lock()
	f := &fetch{l: l, to: 1 - l.self, key: key, mask: 1, done: func(f *fetch) { ended, _ = true, f.keep(&got) }}
	l.ask(f)
	l.unlock()
	w.nodes[0].s.Receive(w.nodes[1].id, 1, &wire.Message{Kind: wire.Fetched, Flags: wire.FlagZero, Link: l.id, Ver: l.ver, Key: key, Index: f.tag, Mask: 1})
	if ended {
		t.Fatal("blocks that did not come were taken")
	}
	w.until("the true answer", time.Second, func() bool { return ended })
	for i := range got {
		if got[i].buf != nil {
			got[i].buf.Release()
		}
	}
}
