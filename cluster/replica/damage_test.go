package replica

import (
	"bytes"
	"testing"
	"time"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// TestDamagedOnTheWay: data that do not match their sums are neither journalled
// by a head nor by another member (DESIGN D.5).
func TestDamagedOnTheWay(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	a := pattern(1, 4096)
	w.ok(w.write(w.nodes[0], c, 0, a))
	w.run(10 * time.Millisecond)

	m := &wire.Message{Kind: wire.Write, Op: placement.OpID{Coordinator: 2, Incarnation: 1, Number: 99}, Key: placement.Key{Family: testFamily, Node: testNode, Chunk: c}, To: 4096, VVer: 1, Ver: 1}
	x := w.op(w.nodes[1], Write, c, 0, 4096)
	fillBuf(w.nodes[1].pool, &x.Op, pattern(2, 4096))
	m.Sum, m.Data = x.Sum, append(m.Data, refOf(x.Buf))
	m.Sum[0]++
	var st wire.Status = 0xff
	w.nodes[1].waits[m.Op] = func(m *wire.Message) { st = m.Status }
	transport{w.nodes[1], w.nodes[1].life}.Send(1, m)
	w.until("an answer", time.Second, func() bool { return st != 0xff })
	if st != wire.Damaged || w.nodes[0].s.Damaged() != 1 {
		t.Errorf("a damaged write: %v", st)
	}
	w.want(w.nodes[0], c, 0, a)

	w.lends = true // the head knows nothing of the record that follows
	m.Sum[0]--
	m.Kind, m.Link, m.Bucket, m.Mask, m.From, m.To = wire.Replicate, placement.LinkID{GMap: 1}, placement.BucketOf(testFamily, c), 1, 0, 0
	m.Stamp = placement.Stamp{Ver: 1, Seq: 2}
	m.Sum[0]++
	transport{w.nodes[0], w.nodes[0].life}.Send(2, m)
	w.run(10 * time.Millisecond)
	if w.nodes[1].s.Damaged() != 1 || w.nodes[1].s.Status()[0].InFlight != 0 {
		t.Error("a damaged record was taken")
	}
	m.Sum[0]--
	transport{w.nodes[0], w.nodes[0].life}.Send(2, m)
	w.run(10 * time.Millisecond)
	if w.nodes[1].s.Status()[0].InFlight != 1 {
		t.Error("a sound record was not taken")
	}
	x.Buf.Release()
}

// TestBadBlockIsReadElsewhereAndRepaired: D.5.
func TestBadBlockIsReadElsewhereAndRepaired(t *testing.T) {
	for _, at := range []int{0, 1} { // at the head, and at the other
		w := newWorld(t, 1, 2, placement.Mirror)
		w.opened()
		c := w.chunkOf(0, 0)
		a := pattern(1, 65536)
		w.ok(w.write(w.nodes[0], c, 0, a))
		w.run(10 * time.Millisecond)
		n := w.nodes[at]
		n.destage()
		n.rot(t, a[8192:8192+64])
		x := w.read(n, c, 0, 65536)
		w.done(x)
		if at == 1 && x.Status != wire.Redirect || at == 0 && x.Status != wire.OK {
			t.Fatalf("server %d: %v", n.id, x.Status)
		}
		if at == 0 && string(x.data) != string(a) {
			t.Error("what was read is not what was written")
		}
		w.until("it is repaired", time.Second, func() bool { return n.s.Repaired() == 1 })
		w.sent[wire.Fetch] = 0
		w.want(n, c, 0, a)
		if w.sent[wire.Fetch] != 0 {
			t.Error("not repaired")
		}
	}
}

// TestBadEverywhere: a block that no copy has is said to be bad, and no other.
func TestBadEverywhere(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	a := pattern(1, 65536)
	w.ok(w.write(w.nodes[0], c, 0, a))
	w.run(10 * time.Millisecond)
	for _, n := range w.nodes {
		n.destage()
		n.rot(t, a[8192:8192+64])
	}
	x := w.read(w.nodes[0], c, 0, 65536)
	w.done(x)
	if x.Status != wire.Medium || x.Bad != 1<<2 || len(x.data) != 65536 || string(x.data[12288:]) != string(a[12288:]) || string(x.data[:8192]) != string(a[:8192]) {
		t.Errorf("%v, bad %#x", x.Status, x.Bad)
	}
	w.want(w.nodes[0], c, 12288, a[12288:])
	y := w.write(w.nodes[0], c, 8192, a[:512]) // needs the rest of the block
	w.done(y)
	if y.Status != wire.Medium {
		t.Errorf("a write of a part: %v", y.Status)
	}
	w.ok(w.write(w.nodes[0], c, 8192, a[:4096])) // the whole block heals it
	w.want(w.nodes[0], c, 8192, a[:4096])
}

// rot changes a byte on the node's disk, where these bytes lie.
func (n *node) rot(t *testing.T, what []byte) {
	t.Helper()
	names, err := n.disk.FS.List("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := n.disk.FS.Open("data/"+name, 0)
		if err != nil {
			t.Fatal(err)
		}
		mem := make([]byte, 1<<20)
		for off := int64(0); off < 64<<20; off += int64(len(mem)) {
			k, _ := f.ReadAt(mem, off)
			if i := bytes.Index(mem[:k], what); i >= 0 {
				err := n.disk.FS.Damage("data/"+name, off+int64(i), func(p []byte) { p[0] ^= 1 }, 1)
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
				return
			}
		}
		f.Close()
	}
	t.Fatal("not on the disk")
}

func refOf(b *slab.Buf) cache.Ref { return cache.Ref{Buf: b, Len: b.Len()} }

// TestDamagedRecordIsSentAgain: a record that comes damaged is had again at once,
// not after the head has lost its patience and had the member excluded.
func TestDamagedRecordIsSentAgain(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	w.ok(w.write(w.nodes[0], c, 0, pattern(1, 4096)))
	w.run(10 * time.Millisecond)
	hurt := 0
	w.drop = func(from, to placement.Server, m *wire.Message) bool {
		if m.Kind != wire.Replicate || hurt > 0 {
			return false
		}
		hurt++
		frame, err := m.AppendFrame(nil)
		if err != nil {
			t.Fatal(err)
		}
		n := w.node(to)
		w.after(time.Millisecond, func() {
			var got wire.Message
			if _, err := got.DecodeFrame(frame, n.pool); err != nil {
				t.Fatal(err)
			}
			got.Sum[0]++
			n.receive(from, w.node(from).life, &got)
			got.Data.Release()
		})
		return true
	}
	x := w.write(w.nodes[0], c, 0, pattern(2, 4096))
	w.until("the write is done", 20*time.Millisecond, func() bool { return x.over })
	if w.ok(x); hurt != 1 || w.nodes[1].s.Damaged() != 1 {
		t.Errorf("%d hurt, %d noticed", hurt, w.nodes[1].s.Damaged())
	}
}
