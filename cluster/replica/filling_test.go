package replica

import (
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// A member in sync that lacks more records of a bucket than are sent one by one
// gets a list of what it misses when the link opens (R10). That it misses
// something is agreed on before anybody serves the link: from then on nobody
// keeps it in preference to the other. It copies, and then is whole.
func TestListInsteadOfRecords(t *testing.T) {
	w := newWorld(t, 9, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	h := w.head(c)
	other := w.nodes[2-h.id]
	w.ok(w.write(h, c, 0, pattern(1, 4096)))
	w.drop = func(_, _ placement.Server, m *wire.Message) bool { return m.Kind == wire.Replicate }
	for k := range 20 {
		for i := range 16 {
			w.write(h, c+placement.Chunk(k*placement.Buckets), uint32(i*4096), pattern(byte(k+i), 4096))
		}
	}
	w.run(50 * time.Millisecond) // durable at the head, not there
	w.drop = nil
	for _, n := range w.nodes {
		n.stop(false)
	}
	w.auto = false
	for _, n := range w.nodes {
		n.start()
	}
	id := placement.LinkID{GMap: 1, Position: 0}
	serving := func() bool {
		for _, n := range w.nodes {
			for _, st := range n.s.Status() {
				if st.Link == id && st.Serving {
					return true
				}
			}
		}
		return false
	}
	for range 100 {
		w.run(20 * time.Millisecond)
		if serving() {
			t.Fatal("the link is served, and nobody knows that a member misses blocks")
		}
	}
	if n := other.brick.MissingCount(id); n == 0 {
		t.Fatal("nothing is missing: the test shows nothing")
	}
	ver := w.link(id).config.Ver
	w.auto = true
	w.until("it is agreed who misses something", time.Second, func() bool { return w.link(id).filling != 0 })
	w.until("the link is served", time.Second, serving)
	if l := w.link(id); l.config.Ver != ver || l.filling != placement.Members(0).With(1) && l.filling != placement.Members(0).With(0) {
		t.Errorf("ver %d after %d, filling %v", l.config.Ver, ver, l.filling)
	}
	w.until("it is whole", 20*time.Second, func() bool { return w.link(id).filling == 0 && other.brick.MissingCount(id) == 0 })
	w.same()
}
