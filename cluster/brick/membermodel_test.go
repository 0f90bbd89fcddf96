package brick

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"petal/placement"
)

// memberRig is a brick as a member of a link uses it, with its slow twin: a list
// of everything that was ever appended, in the order of the journal. What a
// chunk holds, which blocks are missing and who lacks what follow from the list
// alone.
type memberRig struct {
	*rig
	mu    sync.Mutex // of what a crash looks at
	ops   []*memberOp
	ver   uint64
	seq   map[placement.Bucket]uint64 // of the newest record
	drops map[placement.Member]uint64 // marks of lower versions are dropped
	maybe map[placement.Member]uint64 // or may be
	kept  map[placement.Member]uint64 // drops, when the power went
	next  uint64                      // content
	nodes placement.Node
	stats memberStats
}

type memberStats struct {
	prepared, abandoned, committed, fills, missing, torn, repairs int
}

var memberLink = LinkID{GMap: 3, Position: 1}

// memberOp is one record. Its number is its place in the list, from 1.
type memberOp struct {
	n      int
	typ    headType // typeExtent and typeWrite are not told apart
	key    placement.Key
	bucket placement.Bucket
	mask   placement.Mask
	set    state // of the blocks of mask
	stamp  placement.Stamp
	excl   placement.Members
	r      *Record

	done, committed, aborting, aborted bool
	acked                              bool // done when the power went
	abortAcked                         bool
	gone                               bool // it never happened
}

// What a block may hold beside the number of its content.
const (
	lacking = absent - 1
)

func newMemberRig(seed uint64) *memberRig {
	g := &memberRig{rig: newRig(seed, hold), ver: 1, seq: map[placement.Bucket]uint64{}, drops: map[placement.Member]uint64{}, maybe: map[placement.Member]uint64{}, next: 1, nodes: 1}
	g.before = func() {
		g.mu.Lock()
		for _, o := range g.ops {
			o.acked, o.abortAcked = o.done, o.aborted
		}
		g.kept = maps.Clone(g.drops)
	}
	g.after = func() { g.mu.Unlock() }
	return g
}

func hold(o *Options) { o.HoldPrepared = true }

func (g *memberRig) key() placement.Key {
	c := placement.Chunk(g.rng.IntN(3) + placement.Buckets*g.rng.IntN(2)) // three buckets of two chunks
	return placement.Key{Family: 1, Node: 1 + placement.Node(g.rng.IntN(int(g.nodes))), Chunk: c}
}

func (g *memberRig) mask() placement.Mask {
	if g.rng.IntN(4) == 0 {
		return placement.Full
	}
	first := g.rng.IntN(16)
	return placement.Span(first, 1+g.rng.IntN(min(6, 16-first)))
}

// enter puts an op at the end of the list. What it says must be journalled next.
func (g *memberRig) enter(o *memberOp) *memberOp {
	g.mu.Lock()
	defer g.mu.Unlock()
	o.n = len(g.ops) + 1
	o.bucket = placement.BucketOf(1, o.key.Chunk)
	g.ops = append(g.ops, o)
	return o
}

func (g *memberRig) leave(o *memberOp) {
	g.mu.Lock()
	g.ops = g.ops[:len(g.ops)-1]
	g.mu.Unlock()
}

func (g *memberRig) isDone(o *memberOp) {
	g.mu.Lock()
	o.done = true
	g.mu.Unlock()
}

// record makes the record of an op, with content.
func (g *memberRig) record(o *memberOp) *Record {
	r := &Record{Key: o.key, Mask: o.mask, Link: memberLink, Bucket: o.bucket, Op: OpID{Number: uint64(o.n)}, Excluded: o.excl, Ver: o.stamp.Ver, Seq: o.stamp.Seq}
	switch o.typ {
	case typeZero, typeFillZero:
		r.Kind = Zero
	case typeFillAbsent:
		r.Kind = Absent
		for i := range o.set {
			o.set[i] = absent
		}
	default:
		r.Buf = g.o.Pool.Get(blocks(o.mask) * placement.BlockSize)
		for i, k := 0, 0; i < placement.BlocksPerChunk; i++ {
			if o.mask>>i&1 == 0 {
				continue
			}
			if o.set[i] == 0 {
				o.set[i] = g.next
				g.next++
			}
			fill(block(r.Buf.Bytes(), k), o.set[i])
			r.Sum[k] = checksum(block(r.Buf.Bytes(), k))
			k++
		}
	}
	r.Done = func(_ *Record, err error) {
		if err == nil {
			g.isDone(o)
		}
	}
	return r
}

// write appends a record of the link's order.
func (g *memberRig) write() error {
	o := &memberOp{typ: typeWrite, key: g.key(), mask: g.mask()}
	o.key.Node = g.nodes
	if g.rng.IntN(5) == 0 {
		o.typ = typeZero
	}
	if g.rng.IntN(2) == 0 {
		o.excl = placement.Members(0).With(placement.Member(g.rng.IntN(2)))
	}
	g.enter(o)
	o.stamp = placement.Stamp{Ver: g.ver, Seq: g.seq[o.bucket] + 1}
	o.r = g.record(o)
	err := g.b.Append(o.r)
	if o.r.Buf != nil {
		o.r.Buf.Release()
	}
	if err != nil {
		g.leave(o)
		return err
	}
	g.seq[o.bucket]++
	return nil
}

// commit commits the oldest record of a bucket that is done and not committed.
func (g *memberRig) commit() {
	bucket := placement.BucketOf(1, g.key().Chunk)
	for _, o := range g.ops {
		if o.bucket != bucket || !o.typ.ordered() || o.committed || o.gone || o.aborting {
			continue
		}
		if o.done {
			o.committed = true
			g.stats.committed++
			g.b.Commit(o.r)
		}
		return
	}
}

// abandon undoes the records of a bucket that are not committed, the last first,
// as a member does that was excluded: what they wrote is missing, if it matters.
// All must be done.
func (g *memberRig) abandon(bucket placement.Bucket) {
	var tail []*memberOp
	for _, o := range g.ops {
		if o.bucket == bucket && o.typ.ordered() && !o.committed && !o.gone {
			if !o.done || o.aborting {
				return
			}
			tail = append(tail, o)
		}
	}
	for _, o := range tail {
		g.addMissing([]Mark{{bucket, o.key, o.mask}}, placement.Stamp{})
	}
	for _, o := range slices.Backward(tail) {
		o.aborting = true
		g.stats.abandoned++
		g.b.Abandon(o.r, func(err error) {
			if err == nil {
				g.mu.Lock()
				o.aborted, o.gone = true, true
				g.mu.Unlock()
			}
		})
	}
	g.ver++
	clear(g.seq)
}

// addMissing says that blocks are missing, all of one bucket.
func (g *memberRig) addMissing(marks []Mark, last placement.Stamp) {
	var ops []*memberOp
	for _, m := range marks {
		o := &memberOp{typ: typeMissing, key: m.Key, mask: m.Mask}
		for i := range o.set {
			o.set[i] = lacking
		}
		ops = append(ops, g.enter(o))
		g.stats.missing++
	}
	g.b.AddMissing(memberLink, marks[0].Bucket, marks, last, func(err error) {
		for _, o := range ops {
			if err == nil {
				g.isDone(o)
			}
		}
	})
}

// local appends a record of the brick's own.
func (g *memberRig) local(typ headType) error {
	o := &memberOp{typ: typ, key: g.key(), mask: g.mask()}
	switch typ {
	case typeMissing:
		bucket := placement.BucketOf(1, o.key.Chunk)
		g.addMissing([]Mark{{bucket, o.key, o.mask}, {bucket, o.key, g.mask()}}, placement.Stamp{})
		return nil
	case typeMarks:
		o.excl = 1 << g.rng.IntN(2)
		o.stamp.Ver = uint64(g.rng.IntN(int(g.ver) + 1))
		g.enter(o)
		g.b.AddMarks(memberLink, o.excl, []Mark{{o.bucket, o.key, o.mask}}, o.stamp.Ver, func(err error) {
			if err == nil {
				g.isDone(o)
			}
		})
		return nil
	case typeRepair:
		o.set = g.fold(o.key, true)
		for i := range o.set { // only what is there, and now and then something else
			if o.set[i] == 0 || o.set[i] >= lacking {
				o.mask &^= 1 << i
			} else if g.rng.IntN(4) == 0 {
				o.set[i] = 0
			}
		}
		if o.mask == 0 {
			return nil
		}
		g.stats.repairs++
	default:
		g.stats.fills++
	}
	g.enter(o)
	r := g.record(o)
	add := g.b.AppendFill
	if typ == typeRepair {
		add = g.b.AppendRepair
	}
	err := add(r)
	if r.Buf != nil {
		r.Buf.Release()
	}
	if err != nil {
		g.leave(o)
	}
	return err
}

// rewind takes back what the test's goroutine was told after the power had gone, in
// one of Pebble's goroutines: it may have been within a device call of its own,
// which then came too late for the disk that is left.
func (g *memberRig) rewind() {
	g.drops = g.kept
	for _, o := range g.ops {
		if !o.typ.ordered() {
			o.done = o.acked
		}
		if o.aborted && !o.abortAcked {
			o.aborted, o.gone = false, false
		}
	}
}

// seen reports whether an op shows.
func (o *memberOp) seen() bool {
	if o.gone || o.typ.ordered() && !o.committed {
		return false
	}
	return o.done
}

// fold is what a chunk at one node comes to: what shows of it, or all of it.
func (g *memberRig) fold(k placement.Key, shown bool) state {
	return g.foldOf(k, func(o *memberOp) bool { return !o.gone && (!shown || o.seen()) })
}

func (g *memberRig) foldOf(k placement.Key, with func(*memberOp) bool) state {
	var s state
	for i := range s {
		s[i] = absent
	}
	for _, o := range g.ops {
		if o.key != k || !with(o) {
			continue
		}
		for i := range s {
			if o.mask>>i&1 == 0 {
				continue
			}
			switch o.typ {
			case typeWrite, typeZero, typeMissing:
				s[i] = o.set[i]
			case typeFill, typeFillZero, typeFillAbsent:
				if s[i] == lacking {
					s[i] = o.set[i]
				}
			}
		}
	}
	return s
}

// keys are all keys that ops are about.
func (g *memberRig) keys() []placement.Key {
	all := map[placement.Key]bool{}
	for _, o := range g.ops {
		all[o.key] = true
	}
	return slices.SortedFunc(maps.Keys(all), compareKeys)
}

// at reads a chunk at one node from the brick.
func (g *memberRig) at(k placement.Key) (s state, err error) {
	over := false
	op := &ReadOp{Family: k.Family, Lineage: []placement.Node{k.Node}, Chunk: k.Chunk, Count: placement.BlocksPerChunk, Bare: true, Done: func(*ReadOp) { over = true }}
	return s, g.finish(op, &over, func() error { return g.readInto(op, &s) })
}

func (g *memberRig) finish(op *ReadOp, over *bool, f func() error) error {
	if op.record == nil {
		g.b.Read(op)
	}
	for !*over {
		if !g.b.Step() {
			return fmt.Errorf("a read does not end")
		}
	}
	defer op.Bufs.Release()
	if op.Err != nil && op.Err != ErrElsewhere {
		return op.Err
	}
	return f()
}

func (g *memberRig) readInto(op *ReadOp, s *state) error {
	i := op.First
	for _, r := range op.Bufs {
		for k := range r.Len / placement.BlockSize {
			id, ok := identify(block(r.Bytes(), k))
			switch {
			case !ok:
				return fmt.Errorf("chunk %d: block %d is nothing that was ever written", op.Chunk, i)
			case op.Missing>>i&1 != 0:
				id = lacking
			case op.Absent>>i&1 != 0:
				id = absent
			case op.Bare && op.Zero>>i&1 != 0 != (id == 0):
				return fmt.Errorf("chunk %d: block %d is called zero: %v", op.Chunk, i, op.Zero>>i&1 != 0)
			}
			s[i] = id
			i++
		}
	}
	return nil
}

// same compares chunks: at the root, zeros may as well be absent.
func same(k placement.Key, x, y state) bool {
	for i := range x {
		if root(k.Node) {
			if x[i] == absent {
				x[i] = 0
			}
			if y[i] == absent {
				y[i] = 0
			}
		}
	}
	return x == y
}

// inOrder calls f for each bucket's records that happened, by stamp.
func (g *memberRig) inOrder(f func(placement.Bucket, []*memberOp)) {
	all := map[placement.Bucket][]*memberOp{}
	for _, o := range g.ops {
		if o.typ.ordered() && !o.gone {
			all[o.bucket] = append(all[o.bucket], o)
		}
	}
	for _, b := range slices.Sorted(maps.Keys(all)) {
		slices.SortStableFunc(all[b], func(x, y *memberOp) int { return cmp.Compare(x.n, y.n) })
		f(b, all[b])
	}
}

// act does one random thing.
func (g *memberRig) memberAct() error {
	g.clock = g.clock.Add(100 * time.Millisecond)
	switch x := g.rng.IntN(100); {
	case x < 25:
		return g.write()
	case x < 45:
		g.commit()
	case x < 49:
		return g.local(typeMissing)
	case x < 56:
		return g.local([]headType{typeFill, typeFillZero, typeFillAbsent, typeFill}[g.rng.IntN(4)])
	case x < 58:
		return g.local(typeRepair)
	case x < 60:
		return g.local(typeMarks)
	case x < 61:
		g.settleDone()
		g.abandon(placement.BucketOf(1, g.key().Chunk))
	case x < 62:
		g.dropMarks()
	case x < 74:
		g.b.StepJournal()
	case x < 80:
		g.b.StepWrite()
	case x < 86:
		return g.verify(g.key())
	case x < 88:
		return g.verifyNotes()
	case x < 95:
		g.b.StepDestage(time.Duration(g.rng.IntN(2)) * time.Second)
	case x < 98:
		return g.b.StepFlushMap()
	default:
		if g.nodes < 3 && g.quiet() {
			g.nodes++
		}
	}
	return g.b.Failed()
}

// quiet lets everything end and be committed.
func (g *memberRig) quiet() bool {
	for range 100 {
		g.settleDone()
		for range 30 {
			g.commit()
		}
		if !slices.ContainsFunc(g.ops, func(o *memberOp) bool { return !o.gone && !o.seen() && o.typ != typeMarks }) {
			return true
		}
		if err := g.b.drain(); err != nil {
			return false
		}
	}
	return false
}

func (g *memberRig) settleDone() {
	for g.b.Step() {
	}
}

// dropMarks forgets the marks of a member that is in sync under the next version.
func (g *memberRig) dropMarks() {
	m := placement.Member(g.rng.IntN(2))
	g.settleDone()
	g.ver++
	clear(g.seq)
	g.maybe[m] = g.ver // a crash may leave either
	ver := g.ver
	g.b.DropMarks(memberLink, m, ver, func(err error) {
		if err == nil {
			g.mu.Lock()
			g.drops[m] = max(g.drops[m], ver)
			g.mu.Unlock()
		}
	})
}
