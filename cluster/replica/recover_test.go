package replica

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/wire"
	"petal/placement"
)

// healed waits until all members of all links are in sync and miss nothing.
func (w *world) healed() {
	w.t.Helper()
	w.until("links heal", 30*time.Second, func() bool {
		for _, l := range w.links {
			if l.config.InSync != placement.MembersOf(len(l.servers)) || l.filling != 0 {
				return false
			}
		}
		return true
	})
	w.opened()
}

// same fails unless all members of each link hold the same.
func (w *world) same() {
	w.t.Helper()
	w.run(100 * time.Millisecond) // commit notices
	for i := range w.links {
		l := &w.links[i]
		first := ""
		for m, id := range l.servers {
			got := w.node(id).sums(w.gmap, l.id)
			if m == 0 {
				first = got
			} else if got != first {
				w.t.Fatalf("link %v: server %d holds\n%s\nserver %d holds\n%s", l.id, l.servers[0], first, id, got)
			}
		}
	}
}

// sums tells what a server holds of a link.
func (n *node) sums(g *placement.GMap, id placement.LinkID) string {
	out := &bytes.Buffer{}
	for b := range placement.Bucket(placement.Buckets) {
		if g.LinkOf(b) != id {
			continue
		}
		keys, err := n.brick.Keys(testFamily, b, placement.Key{}, make([]placement.Key, 0, 1000))
		if err != nil {
			n.w.t.Fatal(err)
		}
		for _, k := range keys {
			var s brick.Sums
			if err := n.brick.Sums(k, &s); err != nil {
				n.w.t.Fatal(err)
			}
			if s.Missing != 0 {
				fmt.Fprintf(out, "%d misses %x ", k.Chunk, s.Missing)
			}
			if s.Valid != 0 {
				fmt.Fprintf(out, "%d %x %x\n", k.Chunk, s.Valid, s.Sum)
			}
		}
	}
	return out.String()
}

// destage brings home what is committed.
func (n *node) destage() {
	n.w.t.Helper()
	for n.brick.StepDestage(0) || n.brick.Step() {
	}
	if err := n.brick.StepFlushMap(); err != nil {
		n.w.t.Fatal(err)
	}
}

// chunks fills n chunks of a link and returns what is in them.
func (w *world) chunks(position uint32, n int) ([]placement.Chunk, [][]byte) {
	w.t.Helper()
	cs, data := make([]placement.Chunk, n), make([][]byte, n)
	for i := range n {
		cs[i] = w.chunkOf(position, i)
		data[i] = pattern(byte(i), 65536)
		w.ok(w.write(w.head(cs[i]), cs[i], 0, data[i]))
	}
	return cs, data
}

func TestTakeoverAndRejoin(t *testing.T) {
	for _, crashed := range []placement.Server{1, 2} {
		t.Run(fmt.Sprint("server", crashed), func(t *testing.T) {
			w := newWorld(t, 3, 2, placement.Mirror)
			w.opened()
			cs, data := w.chunks(0, 20)
			w.run(10 * time.Millisecond)
			w.node(crashed).destage() // else the records at the end of its journal are in doubt
			w.node(crashed).stop(true)
			w.exclude(crashed)
			w.opened()
			for i, c := range cs {
				w.want(w.head(c), c, 0, data[i])
			}
			for i := range 5 { // one block of each of five chunks
				b := pattern(byte(100+i), 4096)
				copy(data[i][8192:], b)
				w.ok(w.write(w.head(cs[i]), cs[i], 8192, b))
			}
			w.node(crashed).start()
			w.healed()
			copied := uint64(0)
			for _, st := range w.node(crashed).s.Status() {
				copied += st.Copied
			}
			if copied != 5 {
				t.Errorf("%d blocks copied, want 5: only what was missed", copied)
			}
			w.same()
			for i, c := range cs {
				w.want(w.nodes[0], c, 0, data[i])
				w.want(w.nodes[1], c, 0, data[i])
			}
		})
	}
}

func TestRestartInSyncCopiesNothing(t *testing.T) {
	w := newWorld(t, 4, 2, placement.Mirror)
	w.opened()
	cs, data := w.chunks(0, 10)
	for _, n := range w.nodes {
		var under []*try
		for i, c := range cs {
			b := pattern(byte(50+i), 4096)
			under = append(under, w.write(w.head(c), c, 4096, b))
			copy(data[i][4096:], b)
		}
		w.run(200 * time.Microsecond)
		n.stop(true)
		w.run(100 * time.Millisecond)
		n.start()
		w.opened()
		for i, c := range cs { // those that did not come back are sent again
			if !under[i].over || under[i].Status != wire.OK {
				w.ok(w.write(w.head(c), c, 4096, data[i][4096:8192]))
			}
		}
		w.same()
		for i, c := range cs {
			w.want(w.nodes[0], c, 0, data[i])
			w.want(w.nodes[1], c, 0, data[i])
		}
	}
	if w.sent[wire.Missing]+w.sent[wire.Fetch] != 0 {
		t.Error("something was copied")
	}
}

func TestAllLosePower(t *testing.T) {
	oneThread(t)
	for seed := range uint64(20) {
		w := newWorld(t, 100+seed, 2, placement.Mirror)
		w.opened()
		cs, data := w.chunks(0, 5)
		var under []*try
		for i, c := range cs {
			under = append(under, w.write(w.head(c), c, 4096, pattern(byte(50+i), 4096)))
		}
		w.run(time.Duration(seed*20) * time.Microsecond)
		for _, n := range w.nodes {
			n.stop(true)
		}
		for _, n := range w.nodes {
			n.start()
		}
		w.opened()
		w.same()
		for i, c := range cs {
			x := w.read(w.head(c), c, 0, 65536)
			w.ok(x)
			old := bytes.Equal(x.data, data[i])
			copy(data[i][4096:], pattern(byte(50+i), 4096))
			if old && under[i].over && under[i].Status == wire.OK || !old && !bytes.Equal(x.data, data[i]) {
				t.Fatalf("seed %d chunk %d: acknowledged %v, and old %v", seed, c, under[i].over, old)
			}
		}
	}
}

// TestZeroedWhileOut: a chunk that was zeroed while a member was out, of which the
// survivor has nothing left that names it, is zero on that member too after it is
// let in, also if the survivor has restarted and does not know what it has (R9).
func TestZeroedWhileOut(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t, 7, 2, placement.Mirror)
		w.opened()
		cs, _ := w.chunks(0, 3)
		w.run(10 * time.Millisecond)
		w.nodes[0].destage()
		w.nodes[1].destage()
		w.node(2).stop(true)
		w.exclude(2)
		w.opened()
		z := w.op(w.head(cs[0]), Zero, cs[0], 0, placement.ChunkSize)
		w.head(cs[0]).s.Do(&z.Op)
		w.ok(z)
		w.run(10 * time.Millisecond)
		w.nodes[0].destage()
		if restart {
			w.node(1).stop(false)
			w.node(1).start()
			w.opened()
		}
		w.node(2).start()
		w.healed()
		for _, n := range w.nodes {
			w.want(n, cs[0], 0, make([]byte, placement.ChunkSize))
		}
		w.same()
	}
}
