package replica

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

var chunkFlag = flag.Int("chunk", -1, "the chunk to tell about")
var seedFlag = flag.Uint64("seed", 0, "the one seed to run")

// coordinator is the simplest there can be: one operation at a time, sent again
// until it is answered for good.
type coordinator struct {
	w     *world
	n     *node
	life  uint64
	op    *try
	to    *node
	sends int
	done  func(st wire.Status, data []byte)
	dead  bool
}

// send sends the operation to the server that seems to be the right one.
func (x *coordinator) send() {
	w := x.w
	if x.dead || !x.n.alive || x.n.life != x.life {
		x.dead = true // nobody will ever know
		return
	}
	l := w.link(w.gmap.LinkOf(placement.BucketOf(testFamily, x.op.Key.Chunk)))
	x.to = w.node(l.servers[l.config.Head])
	if x.op.Kind == Read && w.rng.IntN(2) == 0 {
		x.to = w.node(l.servers[w.rng.IntN(len(l.servers))])
	}
	x.sends++
	no := x.sends
	retry := func() {
		if x.sends == no && x.done != nil {
			x.send()
		}
	}
	op := x.op
	op.Again, op.Ver = x.sends > 1, 0
	op.Age = 0
	if x.to == x.n {
		op.over, op.data = false, nil
		op.Done = func(*Op) {
			var data []byte
			for _, r := range op.Bufs {
				data = append(data, r.Bytes()...)
			}
			op.Bufs.Release()
			x.answer(no, op.Status, data)
		}
		x.n.s.Do(&op.Op)
	} else {
		m := &wire.Message{Kind: [...]wire.Kind{Read: wire.Read, Write: wire.Write, Zero: wire.Zero, CompareAndWrite: wire.CompareAndWrite}[op.Kind],
			Op: op.ID, Key: op.Key, From: op.From, To: op.To, VVer: op.VVer, Ver: l.config.Ver, Link: l.id}
		if op.Again {
			m.Code = CodeAgain
		}
		switch op.Kind {
		case Write:
			m.Sum = op.Sum
			m.Data = cache.Refs{{Buf: op.Buf, Off: int(op.From % bs), Len: op.bytes()}}
		case CompareAndWrite:
			m.Data = cache.Refs{{Buf: op.Buf, Len: 2 * op.bytes()}}
			m.SetSums()
		}
		x.n.waits[op.ID] = func(m *wire.Message) {
			var data []byte
			for i := range uint32(placement.BlocksPerChunk) {
				if wire.SpanMask(op.From, op.To)>>i&1 == 0 {
					continue
				}
				if m.Mask>>i&1 == 0 {
					data = append(data, make([]byte, bs)...)
					continue
				}
				k := rank(m.Mask, int(i)) * bs
				var flat []byte
				for _, r := range m.Data {
					flat = append(flat, r.Bytes()...)
				}
				data = append(data, flat[k:k+bs]...)
			}
			if m.Status == wire.OK && !m.Verify() {
				w.t.Fatal("a reply with wrong sums")
			}
			x.answer(no, m.Status, data)
		}
		if !(transport{x.n, x.n.life}).Send(x.to.id, m) {
			w.after(30*time.Millisecond, retry)
			return
		}
		w.after(700*time.Millisecond, retry)
	}
}

func (x *coordinator) answer(no int, st wire.Status, data []byte) {
	if no != x.sends || x.done == nil {
		return
	}
	switch st {
	case wire.OK, wire.Miscompare, wire.Medium, wire.NoSpace:
		done := x.done
		x.done = nil
		done(st, data)
	case wire.Invalid:
		x.w.t.Fatalf("%v is invalid", x.op.Kind)
	default:
		x.w.after(time.Duration(5+x.w.rng.IntN(30))*time.Millisecond, func() {
			if x.sends == no && x.done == nil { // its coordinator is dead
				return
			} else if x.sends == no {
				x.send()
			}
		})
	}
}

// cell is a block that the test writes and reads: what it may hold.
type cell struct {
	chunk placement.Chunk
	from  uint32 // bytes of the chunk: a block, or a sector of one that others share
	n     uint32
	may   map[byte]bool                  // values that a read may return now; 0 is zeros
	busy  int                            // writes under way
	reads map[*coordinator]map[byte]bool // under way: the values that each may return
	last  byte
}

func (c *cell) holding(tag byte) []byte {
	if tag == 0 {
		return make([]byte, c.n)
	}
	return pattern(tag, int(c.n))
}

// TestRandom runs writes, reads, crashes, cuts and exclusions by a seed. Each
// block has one writer at a time; a read must return the last value that was
// acknowledged, or one under way that no read has gone back behind.
func TestRandom(t *testing.T) {
	oneThread(t)
	const seeds = 10
	for i := range uint64(seeds) {
		seed := i + 1
		if *seedFlag != 0 && *seedFlag != seed {
			continue
		}
		n := 2 + int(seed%2)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			randomRun(t, seed, n, [...]placement.Scheme{placement.Mirror, placement.Mirror, placement.Mirror3}[seed%3*uint64(n/3)])
		})
	}
	if *seedFlag > seeds {
		t.Run(fmt.Sprint(*seedFlag), func(t *testing.T) { randomRun(t, *seedFlag, 2+int(*seedFlag%2), placement.Mirror) })
	}
}

type random struct {
	*world
	cells  []*cell
	tag    byte
	writes int
	reads  int
	stop   bool
}

func randomRun(t *testing.T, seed uint64, n int, scheme placement.Scheme) {
	r := &random{world: newWorld(t, seed, n, scheme)}
	w := r.world
	w.opened()
	for i := range 24 {
		r.cells = append(r.cells, &cell{chunk: placement.Chunk(i / 4), from: uint32(i%4) * bs, n: bs, may: map[byte]bool{0: true}, reads: map[*coordinator]map[byte]bool{}})
	}
	for i := range 8 { // and sectors, four to a block
		r.cells = append(r.cells, &cell{chunk: placement.Chunk(i / 4), from: 5*bs + uint32(i%4)*512, n: 512, may: map[byte]bool{0: true}, reads: map[*coordinator]map[byte]bool{}})
	}
	for i := range 12 {
		w.after(time.Duration(i)*time.Millisecond, r.client)
	}
	w.after(20*time.Millisecond, r.trouble)
	w.run(time.Duration(3+seed%5) * time.Second)
	r.stop = true
	for p := range w.cutOf {
		delete(w.cutOf, p)
	}
	for _, n := range w.nodes {
		n.noLease, n.frozen, n.slow = false, false, 0
		if !n.alive {
			n.start()
		}
	}
	w.wires()
	w.apply()
	w.healed()
	w.run(5 * time.Second)
	w.same()
	for _, c := range r.cells {
		for _, n := range w.nodes {
			if _, ok := w.gmap.MemberOf(w.gmap.Position(placement.BucketOf(testFamily, c.chunk)), n.id); !ok {
				continue
			}
			x := w.read(n, c.chunk, c.from, c.from+c.n)
			w.ok(x)
			r.check(c, x.data[c.from%bs:][:c.n], c.may)
		}
	}
	t.Logf("%d writes, %d reads acknowledged", r.writes, r.reads)
	if r.writes < 50 || r.reads < 50 {
		t.Errorf("only %d writes and %d reads were acknowledged", r.writes, r.reads)
	}
}

// client does one operation after another from any server.
func (r *random) client() {
	if r.stop {
		return
	}
	w := r.world
	again := func() { w.after(time.Duration(w.rng.IntN(4000))*time.Microsecond, r.client) }
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	c := r.cells[w.rng.IntN(len(r.cells))]
	if !n.alive || c.busy > 0 && w.rng.IntN(2) == 0 {
		again()
		return
	}
	x := &coordinator{w: w, n: n, life: n.life}
	if c.busy > 0 || w.rng.IntN(3) == 0 {
		r.readCell(x, c, again)
		return
	}
	r.writeCell(x, c, again)
}

// watchDog lets a client go on when its coordinator has died.
func (r *random) watchDog(x *coordinator, end func()) {
	if x.done == nil {
		return
	}
	if x.dead || !x.n.alive || x.n.life != x.life {
		x.done = nil
		end()
		return
	}
	r.after(50*time.Millisecond, func() { r.watchDog(x, end) })
}

func (r *random) writeCell(x *coordinator, c *cell, again func()) {
	w := r.world
	r.tag++
	if r.tag == 0 {
		r.tag = 1
	}
	tag, kind := r.tag, Write
	old := c.last
	switch w.rng.IntN(8) {
	case 0:
		tag, kind = 0, Zero
	case 1:
		if len(c.may) == 1 {
			kind = CompareAndWrite
			for old = range c.may {
			}
		}
	}
	x.op = w.op(x.n, kind, c.chunk, c.from, c.from+c.n)
	switch kind {
	case Write:
		fillBuf(testPool, &x.op.Op, c.holding(tag))
	case CompareAndWrite:
		x.op.Buf = testPool.Get(2 * int(c.n))
		copy(x.op.Buf.Bytes()[copy(x.op.Buf.Bytes(), c.holding(old)):], c.holding(tag))
	}
	r.tell(c.chunk, "byte %d %v of %d at server %d begins, op %d", c.from, kind, tag, x.n.id, x.op.ID.Number)
	c.busy++
	before := map[byte]bool{}
	for v := range c.may {
		before[v] = true
	}
	c.may[tag] = true
	for _, may := range c.reads {
		may[tag] = true
	}
	x.done = func(st wire.Status, _ []byte) {
		if st == wire.Miscompare && len(before) == 1 {
			w.t.Fatalf("chunk %d byte %d: compare with %d does not match, though nothing else was written", c.chunk, c.from, old)
		}
		c.busy--
		r.tell(c.chunk, "op %d ends %v at server %d, sent %d times", x.op.ID.Number, st, x.to.id, x.sends)
		if st == wire.OK {
			clear(c.may)
			c.may[tag], c.last = true, tag
			r.writes++
		}
		again()
	}
	r.watchDog(x, func() {
		c.busy-- // it may come yet, or not: both stay possible, until one is written over it
		c.busy++
		r.after(3*time.Second, func() { c.busy--; again() })
	})
	x.send()
}

func (r *random) readCell(x *coordinator, c *cell, again func()) {
	x.op = r.op(x.n, Read, c.chunk, c.from/bs*bs, c.from/bs*bs+bs)
	may := map[byte]bool{} // at any moment of the read
	for v := range c.may {
		may[v] = true
	}
	c.reads[x] = may
	x.done = func(st wire.Status, data []byte) {
		r.tell(c.chunk, "read of byte %d from server %d: %x", c.from, x.to.id, data[:2])
		delete(c.reads, x)
		if st != wire.OK {
			r.t.Fatalf("read: %v", st)
		}
		data = data[c.from%bs:][:c.n]
		r.check(c, data, may)
		if len(c.may) == 2 && c.busy == 1 { // the one under way has been seen: from now on nothing older
			for v := range c.may {
				if v != c.last && string(data) == string(c.holding(v)) {
					delete(c.may, c.last)
					c.last = v
				}
			}
		}
		r.reads++
		again()
	}
	r.watchDog(x, func() { delete(c.reads, x); again() })
	x.send()
}

// tell prints what happens to a chunk that is looked into.
func (r *random) tell(c placement.Chunk, format string, args ...any) {
	if *chunkFlag >= 0 && (*chunkFlag == int(c) || c == noChunk) {
		fmt.Printf("%v chunk %d: %s\n", r.now, c, fmt.Sprintf(format, args...))
	}
}

const noChunk = placement.Chunk(1 << 40)

// check fails unless data is one of the values that a block may hold.
func (r *random) check(c *cell, data []byte, may map[byte]bool) {
	r.t.Helper()
	for v := range may {
		if string(data) == string(c.holding(v)) {
			return
		}
	}
	for v := range 256 {
		if string(data) == string(c.holding(byte(v))) {
			r.t.Fatalf("%v: chunk %d byte %d holds %d, may hold %v; %s", r.now, c.chunk, c.from, v, may, r.describe())
		}
	}
	r.t.Fatalf("chunk %d byte %d holds what nobody wrote", c.chunk, c.from)
}

// trouble is one misfortune now and then, never more than the scheme survives:
// a second only when all links are whole.
func (r *random) trouble() {
	if r.stop {
		return
	}
	w := r.world
	next := func() { w.after(time.Duration(20+w.rng.IntN(300))*time.Millisecond, r.trouble) }
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	kind := w.rng.IntN(6)
	r.tell(noChunk, "trouble %d of server %d", kind, n.id)
	switch kind {
	case 0, 1: // crash and come back at once
		n.stop(kind == 0)
		w.after(time.Duration(w.rng.IntN(100))*time.Millisecond, func() { r.revive(n); next() })
	case 2, 3: // crash, be excluded, come back
		if !r.whole() {
			next()
			return
		}
		n.stop(true)
		w.after(time.Duration(w.rng.IntN(50))*time.Millisecond, func() {
			w.exclude(n.id)
			w.after(time.Duration(w.rng.IntN(800))*time.Millisecond, func() { r.revive(n); next() })
		})
	case 4: // a cut of a moment
		m := w.nodes[w.rng.IntN(len(w.nodes))]
		if m == n {
			next()
			return
		}
		w.cut(n.id, m.id)
		w.after(time.Duration(w.rng.IntN(300))*time.Millisecond, func() { w.heal(n.id, m.id); next() })
	case 5: // out of touch: its lease ends, it is excluded, and learns of it late
		if !r.whole() {
			next()
			return
		}
		n.frozen = true
		w.after(2300*time.Millisecond, func() {
			w.exclude(n.id)
			w.after(time.Duration(w.rng.IntN(500))*time.Millisecond, func() { n.frozen = false; next() })
		})
	}
}

func (r *random) revive(n *node) {
	if !n.alive {
		n.start()
	}
}

// whole reports whether every link has all its members in sync, and filled.
func (r *random) whole() bool {
	for _, l := range r.links {
		if l.config.InSync != placement.MembersOf(len(l.servers)) || l.filling != 0 {
			return false
		}
	}
	return true
}

// testPool is the coordinators'.
var testPool = slab.New(64 << 20)
