package replica

import (
	"testing"
	"time"

	"petal/placement"
)

// A disk that goes on, but takes more than Times.Complain for a record, is called
// slow: by its own server and by the one that replicates to it. The others are
// not, and nobody is when all is well.
func TestSlowDiskIsNoticed(t *testing.T) {
	for _, slow := range []time.Duration{0, 2600 * time.Millisecond} {
		w := newWorld(t, 1, 3, placement.Mirror)
		w.opened()
		w.nodes[1].slow = slow
		for i := range 800 {
			n := w.nodes[i%3]
			for p := range uint32(3) {
				c := w.chunkOf(p, i%20)
				if w.head(c) == n {
					w.write(n, c, uint32(i%16)*4096, pattern(byte(i), 4096))
				}
			}
			w.run(50 * time.Millisecond)
		}
		voices := map[[2]placement.Server]bool{} // who, of whom
		for _, p := range w.asked {
			if p.Kind == Slow {
				servers := w.gmap.Members(p.Link.Position)
				voices[[2]placement.Server{0, servers[p.Member]}] = true
			}
		}
		for id := placement.Server(1); id <= 3; id++ {
			if got, want := voices[[2]placement.Server{0, id}], slow > 0 && id == 2; got != want {
				t.Errorf("a disk step takes %v: server %d is called slow: %t", slow, id, got)
			}
		}
		w.nodes[1].slow = 0
		w.run(20 * time.Second)
	}
}

// A member whose disk takes too long does not ask to be let in before it is well, or
// the head would wait for it with every write.
func TestSlowDiskIsNotLetIn(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n, c := w.nodes[1], w.chunkOf(0, 0)
	w.ok(w.write(w.nodes[0], c, 0, pattern(1, 4096)))
	n.stop(true)
	w.exclude(n.id)
	w.opened()
	w.ok(w.write(w.nodes[0], c, 0, pattern(2, 4096)))
	n.slow = 600 * time.Millisecond
	n.start()
	for i := range 100 {
		x := w.write(w.nodes[0], c, 0, pattern(byte(i), 4096))
		w.until("the head does not wait", 400*time.Millisecond, func() bool { return x.over })
		w.ok(x)
		w.run(100 * time.Millisecond)
	}
	if w.link(link10).config.InSync.Len() != 1 {
		t.Error("it is let in")
	}
	n.slow = 0
	w.healed()
	w.same()
}
