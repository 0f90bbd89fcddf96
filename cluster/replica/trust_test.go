package replica

import (
	"testing"
	"time"

	"petal/placement"
)

// TestRestartedSurvivorKnowsWhatIsMissed: R8. The survivor is restarted while the
// other is away, and its journal may have forgotten what it wrote. The other copies
// the blocks that it has missed all the same, and no others.
func TestRestartedSurvivorKnowsWhatIsMissed(t *testing.T) {
	oneThread(t)
	for _, forgets := range []bool{false, true} {
		w := newWorld(t, 1, 2, placement.Mirror)
		w.opened()
		c := w.chunkOf(0, 0)
		at := func(i int) placement.Chunk { return c + placement.Chunk(i)*placement.Buckets }
		for i := range 10 {
			w.ok(w.write(w.nodes[0], at(i), 0, pattern(byte(i), 65536)))
		}
		w.ok(w.write(w.nodes[0], w.chunkOf(0, 7)+500*placement.Buckets, 0, pattern(1, 4096))) // the bucket of forgetJournal
		w.run(20 * time.Millisecond)
		w.nodes[1].stop(true)
		w.exclude(2)
		w.opened()
		missed := uint64(0)
		for i := range 3 {
			w.ok(w.write(w.nodes[0], at(i), uint32(4096*i), pattern(byte(20+i), 4096)))
			missed++
		}
		if forgets {
			w.nodes[0].forgetJournal()
			missed += 400
		}
		w.nodes[0].stop(true)
		w.nodes[0].start()
		w.opened()
		w.ok(w.write(w.nodes[0], at(3), 0, pattern(30, 4096)))
		missed++
		w.nodes[1].start()
		w.healed()
		if st := w.nodes[1].status(link10); st.Copied != missed {
			t.Errorf("forgets %t: %d blocks copied, %d were missed", forgets, st.Copied, missed)
		}
		w.same()
	}
}

// TestUntrustedMarks: what the other of two has got without being named, when it was
// being let in, it may have lost since; and who has lost records may have lost marks.
// A survivor that was restarted finds out.
func TestUntrustedMarks(t *testing.T) {
	oneThread(t)
	w, c, data := written(t)
	w.goOnAlone()
	put := func(i int) {
		copy(data[4096*i:], pattern(byte(10+i), 4096))
		w.ok(w.write(w.nodes[0], c, uint32(4096*i), data[4096*i:4096*(i+1)]))
	}
	put(1)
	w.auto = false // it is let in, and never agreed to
	w.nodes[1].start()
	l := w.nodes[0].s.seat(link10)
	w.until("it is being let in", 5*time.Second, func() bool { return l.m.Joining() && l.trust.noted == l.ver })
	w.run(100 * time.Millisecond)
	image := w.nodes[1].disk.Crash(1)
	put(2)
	w.run(20 * time.Millisecond)
	if w.nodes[1].brick.MissingCount(link10) == 0 {
		t.Fatal("it has no cut")
	}
	w.nodes[0].forgetJournal()
	w.nodes[1].back(image) // it has lost the last one
	w.nodes[0].stop(true)
	w.nodes[0].start()
	w.opened()
	w.auto = true
	w.nodes[1].start()
	w.healed()
	w.same()
	for _, n := range w.nodes {
		w.want(n, c, 0, data)
	}
}
