package replica

import (
	"slices"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/placement"
)

// TestLinksComeAndGo: a disk that is made and deleted again and again has a new
// link each time. Nothing is left of the old ones: the superblock has room for so
// many marks, and a link whose mark cannot be written never opens.
func TestLinksComeAndGo(t *testing.T) {
	w := newWorld(t, 1, 1, placement.Stripe)
	w.opened()
	n, c := w.nodes[0], w.chunkOf(0, 0)
	for i := range uint32(20) {
		w.ok(w.write(n, c, 0, pattern(byte(i), 4096)))
		w.run(10 * time.Millisecond)
		g := *w.gmap
		g.ID = i + 2
		w.gmap, w.disks[diskKey1].gmap = &g, &g
		w.links[0] = linkView{id: placement.LinkID{GMap: w.gmap.ID}, servers: w.links[0].servers, config: placement.Config{Ver: 1, InSync: 1}}
		w.apply()
		w.until("the new link is open", time.Second, func() bool {
			return slices.ContainsFunc(n.s.Status(), func(st LinkStatus) bool { return st.Link == w.links[0].id && st.Serving })
		})
		if seats := len(n.s.Status()); seats != 1 {
			t.Fatalf("%d links after %d", seats, i+1)
		}
		if marks := n.brick.Super().Links; len(marks) != 1 {
			t.Fatalf("marks of %v after %d", marks, i+1)
		}
	}
	w.run(time.Second)
	n.stop(true)
	n.start()
	w.opened()
	for i := range w.gmap.ID - 1 {
		n.brick.Lasts(placement.LinkID{GMap: i + 1}, func(b placement.Bucket, _ brick.Last) { t.Errorf("link %d: bucket %d", i+1, b) })
	}
}
