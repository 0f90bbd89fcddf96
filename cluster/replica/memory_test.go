package replica

import (
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/placement"
)

// R11: what a member lacks of committed records it gets from the others when the
// link opens, though they may have brought them home and forgotten them.

// back starts a server again on a disk as it was before: the end of its journal
// has rotted away.
func (n *node) back(image *brick.Disk) {
	n.stop(true)
	n.disk = image
}

// forgetJournal brings everything home, and has the journal go on for so long
// that it keeps nothing of what was there.
func (n *node) forgetJournal() {
	w := n.w
	w.t.Helper()
	c := w.chunkOf(0, 7)
	data := pattern(9, 4096)
	for range 8 {
		var all []*try
		for i := range 400 {
			all = append(all, w.write(w.nodes[0], c+placement.Chunk(i)*placement.Buckets, 0, data))
		}
		w.done(all...)
		w.run(20 * time.Millisecond)
		for _, n := range w.nodes {
			if n.alive {
				n.destage()
			}
		}
	}
}

// restartAll starts servers that are down, and waits until all is the same again.
func (w *world) restartAll() {
	w.t.Helper()
	for _, n := range w.nodes {
		if !n.alive {
			n.start()
		}
	}
	w.opened()
	w.until("nothing is missing", 50*pullRetry, func() bool {
		for _, n := range w.nodes {
			for _, st := range n.s.Status() {
				if st.Missing != 0 {
					return false
				}
			}
		}
		return true
	})
	w.same()
}

// TestLostRecordsComeBack: a member has lost its last records, which are committed.
// The other has them in its memory; or only in its journal, after a restart; or
// only at home.
func TestLostRecordsComeBack(t *testing.T) {
	oneThread(t)
	for _, lost := range []int{0, 1} { // the head, and the other
		for name, other := range map[string]func(n *node){
			"remembered":     func(*node) {},
			"in the journal": func(n *node) { n.stop(true) },
			"at home":        func(n *node) { n.forgetJournal(); n.stop(true) },
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, 1, 2, placement.Mirror)
				w.opened()
				c := w.chunkOf(0, 0)
				data := pattern(1, 65536)
				w.ok(w.write(w.nodes[0], c, 0, data))
				w.run(20 * time.Millisecond)
				image := w.nodes[lost].disk.Crash(1)
				for i := range 3 {
					b := pattern(byte(10+i), 4096)
					copy(data[i*8192:], b)
					w.ok(w.write(w.nodes[0], c, uint32(i*8192), b))
				}
				w.run(20 * time.Millisecond)
				other(w.nodes[1-lost])
				w.nodes[lost].back(image)
				w.restartAll()
				for _, n := range w.nodes {
					w.want(n, c, 0, data)
				}
			})
		}
	}
}

// TestLostBeforeTheCut: the head has lost records of a time when it was alone. Who
// came back since has their blocks, but never had the records.
func TestLostBeforeTheCut(t *testing.T) {
	w, c, data := written(t)
	w.goOnAlone()
	image := w.nodes[0].disk.Crash(1)
	b := pattern(2, 4096)
	copy(data[4096:], b)
	w.ok(w.write(w.nodes[0], c, 4096, b))
	w.nodes[1].start()
	w.healed()
	w.nodes[0].back(image)
	w.restartAll()
	for _, n := range w.nodes {
		w.want(n, c, 0, data)
	}
}
