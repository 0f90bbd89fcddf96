package sim

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"petal/placement"
)

// volume is a disk as one process serves it to its initiators. Calls never
// block; done may come at once. After the process's end nothing is called.
type volume interface {
	read(off uint64, n int, done func(p []byte, err error))
	write(off uint64, p []byte, done func(error))
	zero(off, n uint64, done func(error))
	// compareAndWrite: miscompare is the first byte that differs, or negative.
	compareAndWrite(off uint64, compare, p []byte, done func(miscompare int, err error))
}

// errBusy: what was not done never will be; the node is well.
var errBusy = errors.New("sim: busy")

// client is a program on a host: it has one command under way at a time and
// resends it through another node as multipath does.
//
//	next --> try a node --> done: think, next
//	           ^   |  busy: same node, soon
//	           |   |  path lost (error, node dead, no answer): the others, after Replacement
//	           +---+
type client struct {
	s    *Sim
	id   int
	rng  *rand.Rand
	node placement.Server // the path in use

	op    *command
	fate  uint64 // of the timers of the current try
	flies bool   // a try is under way
	ended int
	stop  bool
}

// command is what the program asks for.
type command struct {
	kind   kind
	off    uint64
	n      int
	expect []byte     // of a COMPARE AND WRITE
	tries  []*attempt // of the current try, by block
	first  time.Duration
	count  int
}

// Patience of hosts: a path that gives no answer is lost after hostTimeout
// (NOP-Out 5 s + 5 s); what was under way on a lost path is resent after
// replacement, the least that petal asks hosts for (DESIGN R13).
const (
	hostTimeout = 10 * time.Second
	replacement = 5 * time.Second
	busyWait    = 100 * time.Millisecond
)

func (c *client) next() {
	if c.stop || c.s.failed() {
		return
	}
	c.op = c.s.work.draw(c)
	c.op.first = c.s.e.now
	c.try()
}

// try sends the command through the client's node, or another one if that can't
// be reached.
func (c *client) try() {
	m := c.s.reach(c.node)
	if m == nil {
		if m = c.s.reachAny(c.rng); m == nil {
			c.later(busyWait, c.try)
			return
		}
		c.node = m.id
	}
	op := c.op
	op.count++
	c.fate++
	c.flies = true
	fate := c.fate
	v := c.s.work.value()
	c.begin(m, op, v)
	if c.s.e.tracing() {
		c.s.tracef("client %d: %v of %d bytes at %d, value %d, through %d, try %d", c.id, op.kind, op.n, op.off, v, c.node, op.count)
	}
	answer := func(o outcome, seen []byte, err error) {
		if c.fate == fate {
			c.answer(o, seen, err)
		}
	}
	c.later(c.s.scaled(hostTimeout), func() { answer(unknown, nil, errors.New("no answer")) })
	c.send(m.proc.volume(), op, v, answer)
	m.kick()
}

// whole reports whether a volume carries the command out in one piece, so all of
// it or nothing: whether it lies in one chunk, and zeroes whole blocks or in one.
func (op *command) whole() bool {
	last := op.off + uint64(op.n) - 1
	if op.off/placement.ChunkSize != last/placement.ChunkSize {
		return false
	}
	const bs = placement.BlockSize
	return op.kind != opZero || op.off/bs == last/bs || op.off%bs == 0 && (last+1)%bs == 0
}

// send hands the command to a volume.
func (c *client) send(vol volume, op *command, v value, answer func(outcome, []byte, error)) {
	ended := func(err error) {
		switch {
		case err == nil:
			answer(done, nil, nil)
		case errors.Is(err, errBusy) && op.whole():
			answer(never, nil, err)
		default:
			answer(unknown, nil, err)
		}
	}
	switch op.kind {
	case opRead:
		vol.read(op.off, op.n, func(p []byte, err error) {
			if err != nil {
				ended(err)
				return
			}
			answer(done, p, nil)
		})
	case opWrite:
		p := make([]byte, op.n)
		fillAll(p, v, op.off)
		vol.write(op.off, p, ended)
	case opZero:
		vol.zero(op.off, uint64(op.n), ended)
	case opCAW:
		p := make([]byte, op.n)
		fillAll(p, v, op.off)
		vol.compareAndWrite(op.off, op.expect, p, func(at int, err error) {
			if err == nil && at >= 0 {
				answer(miscompare, nil, nil)
				return
			}
			ended(err)
		})
	}
}

// begin notes a try in the history of each block that it touches.
func (c *client) begin(m *machine, op *command, v value) {
	op.tries = op.tries[:0]
	vver := m.proc.state().Disk(diskName).VVer
	for off, end := op.off, op.off+uint64(op.n); off < end; {
		block := off / placement.BlockSize
		next := min(end, (block+1)*placement.BlockSize)
		a := &attempt{kind: op.kind, client: c.id, node: c.node, mask: sectors(off, next), ret: forever, at: c.s.e.now, vver: vver}
		if op.kind == opWrite || op.kind == opCAW {
			a.v = v
		}
		if op.kind == opCAW {
			a.seen = c.s.contentOf(op.expect, off)
		}
		a.call = c.s.history.now()
		c.s.history.add(block, a)
		op.tries = append(op.tries, a)
		off = next
	}
}

// sectors is the mask of the sectors of bytes [off, end) in their block.
func sectors(off, end uint64) uint8 {
	first := off % placement.BlockSize / sectorBytes
	n := (end - off) / sectorBytes
	return uint8((1<<n - 1) << first)
}

// answer ends a try.
func (c *client) answer(o outcome, seen []byte, err error) {
	c.fate++
	c.flies = false
	op := c.op
	now := c.s.history.now()
	for _, a := range op.tries {
		a.until = c.s.e.now
		a.outcome = o
		if o != unknown { // else its ret is set when the next try begins
			a.ret = now
		}
		if op.kind == opRead && o == done {
			from := max(op.off, a.block*placement.BlockSize)
			a.seen = c.s.contentOf(seen[from-op.off:min(uint64(len(seen)), from-op.off+placement.BlockSize-from%placement.BlockSize)], from)
		}
	}
	if c.s.e.tracing() {
		c.s.tracef("client %d: %v through %d: %v %v", c.id, op.kind, c.node, outcomeNames[o], err)
	}
	switch {
	case o == done || o == miscompare:
		c.s.work.learn(op, seen)
		c.s.latency(c.s.e.now - op.first)
		c.ended++
		c.op = nil
		c.later(c.s.work.think(c), c.next)
	case o == never:
		c.later(busyWait, c.again)
	default:
		c.later(c.s.scaled(replacement)+between(c.rng, 0, 500*time.Millisecond), func() {
			c.node = c.s.otherNode(c.node, c.rng)
			c.again()
		})
	}
}

var outcomeNames = [...]string{unknown: "unknown", done: "done", miscompare: "miscompare", never: "never"}

// again resends, or gives up: in either case, from now on the last try must have no effect any more (R13).
func (c *client) again() {
	for _, a := range c.op.tries {
		if a.outcome == unknown {
			a.ret = c.s.history.now()
		}
	}
	if c.rng.IntN(2) == 0 { // the program has lost patience
		c.op = nil
		c.next()
		return
	}
	c.try()
}

// lost tells the client that its node's process has ended: its connection is
// closed.
func (c *client) lost(node placement.Server) {
	if c.flies && c.node == node {
		c.fate++
		fate := c.fate
		c.s.e.after(between(c.rng, time.Millisecond, 20*time.Millisecond), nil, nil, func() {
			if c.fate == fate {
				c.answer(unknown, nil, errors.New("connection closed"))
			}
		})
	}
}

func (c *client) later(d time.Duration, f func()) { c.s.e.after(d, nil, nil, f) }

// workload draws the commands of all clients. How many there are, of what kind
// and how near to each other is the seed's: crowds on few blocks find what goes
// wrong between commands, single ones on many what goes wrong behind their back.
type workload struct {
	s     *Sim
	rng   *rand.Rand
	last  value
	known map[uint64][]byte // what a unit was seen to hold last, for COMPARE AND WRITE

	link   *placement.LinkID // all chunks are of this link; nil: of any
	hot    []uint64          // chunks
	blocks []int             // of a chunk
	unit   int               // logical block length, bytes
	pause  time.Duration     // most usual time between a client's commands
	// Of a hundred commands, so many are these; the others read.
	write, caw, zero, whole int
}

// choose draws the chunks, half of the time all of one link.
func (w *workload) choose(g *placement.GMap) {
	family := w.s.state().Disk(diskName).Family
	linkOf := func(c uint64) placement.LinkID {
		return g.LinkOf(placement.BucketOf(family, placement.Chunk(c)))
	}
	first := uint64(w.rng.IntN(diskChunks / 2))
	if w.rng.IntN(3) > 0 {
		l := linkOf(first)
		w.link = &l
	}
	most := []int{1, 3, 8, 40}[w.rng.IntN(4)]
	for c := first; c < diskChunks && len(w.hot) < most; c++ {
		if w.link == nil || linkOf(c) == *w.link {
			w.hot = append(w.hot, c)
		}
	}
	w.blocks = [][]int{{0}, {0, 1, 15}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}[w.rng.IntN(3)]
	w.s.tracef("workload: chunks %v of link %v, blocks %v of %d bytes, pause %v", w.hot, w.link, w.blocks, w.unit, w.pause)
}

// value is a fresh one.
func (w *workload) value() value { w.last++; return w.last }

// learn remembers what was seen, so that a later COMPARE AND WRITE has something
// to expect.
func (w *workload) learn(op *command, seen []byte) {
	for i := 0; i+w.unit <= len(seen); i += w.unit {
		w.known[op.off+uint64(i)] = slices.Clone(seen[i : i+w.unit])
	}
}

// think is the time between commands.
func (w *workload) think(c *client) time.Duration {
	if c.rng.IntN(20) == 0 {
		return between(c.rng, 0, 500*time.Millisecond)
	}
	return between(c.rng, 0, w.pause)
}

// draw makes a command.
func (w *workload) draw(c *client) *command {
	r := c.rng
	if r.IntN(40) == 0 {
		c.node = c.s.otherNode(0, r)
	}
	op := &command{kind: opRead}
	chunk := w.hot[r.IntN(len(w.hot))]
	op.off = chunk*placement.ChunkSize + uint64(w.blocks[r.IntN(len(w.blocks))])*placement.BlockSize
	x := r.IntN(100)
	among := func(share int) bool { x -= share; return x < 0 }
	switch {
	case among(w.write):
		op.kind, op.n = opWrite, w.span(c, op, 4)
	case among(w.caw):
		op.kind, op.n = opCAW, w.unit
		op.expect = w.known[op.off]
		if op.expect == nil || r.IntN(30) == 0 {
			op.expect = make([]byte, op.n)
		}
		op.expect = slices.Clone(op.expect)
	case among(w.zero):
		op.kind, op.n = opZero, w.span(c, op, 2)
	case among(w.whole): // for the other path of a brick
		op.kind, op.off, op.n = opWrite, chunk*placement.ChunkSize, placement.ChunkSize
	default:
		op.n = w.span(c, op, 3)
	}
	return op
}

// span draws a length, and sometimes moves the beginning inside its block.
func (w *workload) span(c *client, op *command, blocks int) int {
	r := c.rng
	if w.unit == sectorBytes && r.IntN(3) == 0 {
		first := r.IntN(sectorsPerBlock)
		op.off += uint64(first * sectorBytes)
		rest := int(placement.ChunkSize - op.off%placement.ChunkSize)
		return min(rest, (1+r.IntN(sectorsPerBlock))*sectorBytes)
	}
	rest := int(placement.ChunkSize - op.off%placement.ChunkSize)
	return min(rest, (1+r.IntN(blocks))*placement.BlockSize)
}
