package replica

import (
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// R1 at a member: what belongs to another state of the disk, to another version
// of the link, or to another server is not believed.

// TestRevokedWhileItWaits: an operation waits, for its block or for the link to
// open, when the disk's state moves. No barrier knows of it, so it must not be
// carried out afterwards.
func TestRevokedWhileItWaits(t *testing.T) {
	old := pattern(1, 4096)
	for _, c := range []struct {
		name  string
		begin func(w *world, n *node, c placement.Chunk) *try
	}{
		{"write", func(w *world, n *node, c placement.Chunk) *try { return w.write(n, c, 0, pattern(2, 4096)) }},
		{"write of a part", func(w *world, n *node, c placement.Chunk) *try { return w.write(n, c, 512, pattern(2, 512)) }},
		{"zero", func(w *world, n *node, c placement.Chunk) *try {
			x := w.op(n, Zero, c, 0, 4096)
			n.s.Do(&x.Op)
			return x
		}},
		{"read", func(w *world, n *node, c placement.Chunk) *try { return w.read(n, c, 0, 4096) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1, 2, placement.Mirror)
			w.opened()
			n, chunk := w.nodes[0], w.chunkOf(0, 0)
			w.nodes[1].slow = 20 * time.Millisecond
			first := w.write(n, chunk, 0, old)
			if c.name == "read" { // it waits for the link, which waits for the write
				w.link(placement.LinkID{GMap: 1}).config.Ver++
				w.apply()
				w.run(3 * time.Millisecond)
			}
			x := c.begin(w, n, chunk)
			w.run(time.Millisecond)
			if first.over || x.over {
				t.Fatal("nothing waits: the test shows nothing")
			}
			w.disks[diskKey1].vver++
			w.apply()
			w.ok(first)
			w.done(x)
			if x.Status == wire.OK {
				t.Error("it was carried out under the old state")
			}
			w.opened()
			w.want(n, chunk, 0, old)
		})
	}
}

// TestNewerDiskStateIsAwaited: a coordinator knows of a newer state of the disk
// than this server. What it asks waits until that is here, too, and is answered
// under it; so does what knows of a newer version of the link.
func TestNewerDiskStateIsAwaited(t *testing.T) {
	for _, kind := range []OpKind{Read, Write} {
		w := newWorld(t, 1, 2, placement.Mirror)
		w.opened()
		n, c := w.nodes[0], w.chunkOf(0, 0)
		w.ok(w.write(n, c, 0, pattern(1, 4096)))
		for _, move := range []func(x *try){
			func(x *try) { w.disks[diskKey1].vver++; x.VVer++ },
			func(x *try) { l := w.link(placement.LinkID{GMap: 1}); l.config.Ver++; x.Ver = l.config.Ver },
		} {
			x := w.op(n, kind, c, 0, 4096)
			if kind == Write {
				fillBuf(n.pool, &x.Op, pattern(2, 4096))
			}
			move(x)
			n.s.Do(&x.Op)
			w.run(100 * time.Millisecond)
			if x.over {
				t.Fatalf("%v: ended %v under the state before", kind, x.Status)
			}
			w.apply()
			w.done(x)
			if x.Status != wire.OK {
				t.Errorf("%v: ended %v", kind, x.Status)
			}
		}
	}
}

// TestNobodySpeaksForAnother: a server's messages about operations of another
// coordinator are not heard: neither does it write in its name, nor cancel.
func TestNobodySpeaksForAnother(t *testing.T) {
	w := newWorld(t, 1, 3, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	n, liar := w.nodes[0], w.nodes[2]
	a := pattern(1, 4096)
	w.ok(w.write(n, c, 0, a))
	x := w.op(n, Write, c, 0, 4096) // of coordinator 1
	fillBuf(n.pool, &x.Op, pattern(2, 4096))
	m := wire.Message{Op: x.ID, Key: x.Key, To: 4096, VVer: 1, Ver: 1, Sum: x.Sum}
	said := map[wire.Kind]wire.Status{}
	send := func(kind wire.Kind) {
		m.Kind = kind
		liar.waits[x.ID] = func(m *wire.Message) { said[kind] = m.Status }
		transport{liar, liar.life}.Send(1, &m)
		w.run(10 * time.Millisecond)
	}
	m.Data = append(m.Data, refOf(x.Buf))
	send(wire.Write)
	if said[wire.Write] != wire.Invalid {
		t.Errorf("a write in another's name: %v", said[wire.Write])
	}
	w.want(n, c, 0, a)
	m.Data, m.Sum = nil, [placement.BlocksPerChunk]uint32{}
	send(wire.Cancel)
	n.s.Do(&x.Op)
	w.ok(x) // not cancelled
}

// TestFetchUnderAnotherVersion: whoever has not applied the version that the
// question was asked under may not know that it was excluded meanwhile: what it
// has may be old.
func TestFetchUnderAnotherVersion(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	w.ok(w.write(w.nodes[0], c, 0, pattern(1, 4096)))
	w.run(10 * time.Millisecond)
	ask := func() wire.Status {
		st := wire.Status(0xff)
		key := placement.Key{Family: testFamily, Node: testNode, Chunk: c}
		w.nodes[0].s.seat(placement.LinkID{GMap: 1}).fetch(1, key, 1, false, func(f *fetch) { st = f.status })
		w.until("an answer", 3*time.Second, func() bool { return st != 0xff })
		return st
	}
	if st := ask(); st != wire.OK {
		t.Fatalf("under the same version: %v", st)
	}
	w.nodes[1].frozen = true
	w.link(placement.LinkID{GMap: 1}).config.Ver++
	w.apply()
	w.run(10 * time.Millisecond)
	if st := ask(); st == wire.OK {
		t.Error("a member under an older version has given blocks")
	}
}

// TestOperationsOfAnotherVersion: what a head of another version says has been
// done is not believed, for it may be lost since (`petal link force`).
func TestOperationsOfAnotherVersion(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	id := placement.OpID{Coordinator: 1, Incarnation: 1, Number: 99}
	m := wire.Message{Kind: wire.LinkControl, Link: placement.LinkID{GMap: 1}, Code: codeOps, Body: make([]byte, opSize)}
	m.Body[0], m.Body[4], m.Body[8] = byte(id.Coordinator), byte(id.Incarnation), byte(id.Number)
	for _, m.Ver = range []uint64{2, 1} {
		transport{w.nodes[0], w.nodes[0].life}.Send(2, &m)
		w.run(10 * time.Millisecond)
		past := &w.nodes[1].s.seat(m.Link).past
		if believed := past.did(id); believed != (m.Ver == 1) {
			t.Errorf("of version %d: believed: %t", m.Ver, believed)
		}
	}
}
