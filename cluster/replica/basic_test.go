package replica

import (
	"bytes"
	"testing"
	"time"

	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// try is an operation under way.
type try struct {
	Op
	over bool
	data []byte // of a read that succeeded
}

// op makes an operation of a server's coordinator.
func (w *world) op(n *node, kind OpKind, c placement.Chunk, from, to uint32) *try {
	w.opNo++
	x := &try{}
	x.Kind, x.Key, x.From, x.To = kind, placement.Key{Family: testFamily, Node: testNode, Chunk: c}, from, to
	x.ID = placement.OpID{Coordinator: uint32(n.id), Incarnation: uint32(n.life), Number: w.opNo}
	x.VVer = w.disks[diskKey1].vver
	x.Done = func(*Op) {
		if x.over {
			w.t.Fatal("done twice")
		}
		x.over = true
		for _, r := range x.Bufs {
			x.data = append(x.data, r.Bytes()...)
		}
		x.Bufs.Release()
		if x.Buf != nil {
			x.Buf.Release()
			x.Buf = nil
		}
	}
	return x
}

// pattern fills memory so that each 512 bytes tell which write they are of.
func pattern(tag byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = tag ^ byte(i/512) ^ byte(i%251)
	}
	return b
}

func fillBuf(pool *slab.Pool, x *Op, data []byte) {
	x.Buf = pool.Get(x.count() * placement.BlockSize)
	mem := x.Buf.Bytes()
	clear(mem)
	copy(mem[x.From%placement.BlockSize:], data)
	m := wire.Message{Kind: wire.Write, From: x.From, To: x.To}
	off := 0
	m.Pieces(func(i, n int) {
		x.Sum[i] = wire.Sum(data[off : off+n])
		off += n
	})
}

// write begins a write at a server.
func (w *world) write(n *node, c placement.Chunk, from uint32, data []byte) *try {
	x := w.op(n, Write, c, from, from+uint32(len(data)))
	fillBuf(n.pool, &x.Op, data)
	n.s.Do(&x.Op)
	return x
}

func (w *world) read(n *node, c placement.Chunk, from, to uint32) *try {
	x := w.op(n, Read, c, from, to)
	n.s.Do(&x.Op)
	return x
}

// done waits for the end of operations.
func (w *world) done(xs ...*try) {
	w.t.Helper()
	w.until("operations end", 10*time.Second, func() bool {
		for _, x := range xs {
			if !x.over {
				return false
			}
		}
		return true
	})
}

func (w *world) ok(xs ...*try) {
	w.t.Helper()
	w.done(xs...)
	for _, x := range xs {
		if x.Status != wire.OK {
			w.t.Fatalf("%v of chunk %d: %v", x.Kind, x.Key.Chunk, x.Status)
		}
	}
}

// want reads whole blocks at a server and compares.
func (w *world) want(n *node, c placement.Chunk, from uint32, data []byte) {
	w.t.Helper()
	x := w.read(n, c, from, from+uint32(len(data)))
	w.ok(x)
	got := x.data[from%placement.BlockSize:][:len(data)]
	if !bytes.Equal(got, data) {
		i := 0
		for got[i] == data[i] {
			i++
		}
		w.t.Fatalf("server %d chunk %d: byte %d is %#x, want %#x", n.id, c, int(from)+i, got[i], data[i])
	}
}

// opened waits until every link serves at all its members in sync.
func (w *world) opened() {
	w.t.Helper()
	w.until("links open", 10*time.Second, func() bool {
		for _, n := range w.nodes {
			if !n.alive || n.frozen {
				continue
			}
			for _, l := range w.state(n.id).links {
				if !l.config.InSync.Has(l.self) {
					continue
				}
				x := n.s.seat(l.id)
				if x == nil || x.ver != l.config.Ver || x.status0().Serving == false {
					return false
				}
			}
		}
		return true
	})
}

func TestAlone(t *testing.T) {
	w := newWorld(t, 1, 1, placement.Stripe)
	w.opened()
	n := w.nodes[0]
	a, b := pattern(1, 65536), pattern(2, 4096)
	w.ok(w.write(n, 3, 0, a))
	w.want(n, 3, 0, a)
	w.ok(w.write(n, 3, 8192, b))
	copy(a[8192:], b)
	w.want(n, 3, 0, a)
	small := pattern(3, 5000/512*512)
	w.ok(w.write(n, 3, 512*7, small)) // parts of two blocks
	copy(a[512*7:], small)
	w.want(n, 3, 0, a)
	w.ok(w.write(n, 3, 512, small[:512])) // inside one
	copy(a[512:], small[:512])
	w.want(n, 3, 0, a)
	z := w.op(n, Zero, 3, 512*3, 512*40)
	n.s.Do(&z.Op)
	w.ok(z)
	clear(a[512*3 : 512*40])
	w.want(n, 3, 0, a)
	w.want(n, 4, 0, make([]byte, 65536))
	w.caw(n, 3, 1024, a[1024:1536], pattern(9, 512), wire.OK)
	copy(a[1024:], pattern(9, 512))
	w.want(n, 3, 0, a)
	wrong := bytes.Clone(a[4096:8192])
	wrong[100] ^= 1
	if x := w.caw(n, 3, 4096, wrong, pattern(9, 4096), wire.Miscompare); x.At != 4096+100 {
		t.Fatalf("differs at %d", x.At)
	}
	w.want(n, 3, 0, a)
	n.stop(true)
	n.start()
	w.opened()
	w.want(n, 3, 0, a)
}

// caw does a compare-and-write and wants it to end so.
func (w *world) caw(n *node, c placement.Chunk, from uint32, old, data []byte, want wire.Status) *try {
	w.t.Helper()
	x := w.op(n, CompareAndWrite, c, from, from+uint32(len(old)))
	x.Buf = n.pool.Get(2 * len(old))
	copy(x.Buf.Bytes()[copy(x.Buf.Bytes(), old):], data)
	n.s.Do(&x.Op)
	w.done(x)
	if x.Status != want {
		w.t.Fatalf("compare-and-write: %v, want %v", x.Status, want)
	}
	return x
}

func TestMirrored(t *testing.T) {
	w := newWorld(t, 2, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	head, other := w.head(c), w.nodes[1]
	if head != w.nodes[0] {
		t.Fatal("head")
	}
	a := pattern(1, 65536)
	w.ok(w.write(head, c, 0, a))
	w.want(head, c, 0, a)
	w.run(10 * time.Millisecond)
	w.want(other, c, 0, a)
	var xs []*try
	for i := range 100 {
		b := pattern(byte(i), 4096)
		at := uint32(i%16) * 4096
		copy(a[at:], b)
		xs = append(xs, w.write(head, c, at, b))
	}
	w.ok(xs...)
	w.want(head, c, 0, a)
	w.run(10 * time.Millisecond)
	w.want(other, c, 0, a)
	if x := w.write(other, c, 0, a); x.over == false || x.Status != wire.Redirect || x.Head != head.id {
		t.Fatalf("a write at another than the head: %v to %d", x.Status, x.Head)
	}
}
