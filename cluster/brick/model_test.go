package brick

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
	"sync"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/journal/vfs"
	"petal/placement"
)

// model is the slow twin of a brick: what each chunk may hold. A block's
// content is made from a number, so that any block that is read back says which
// write it is from, or that it is from none.
type model struct {
	mu     sync.Mutex
	chunks map[placement.Key]*modelChunk
	next   uint64 // number of the next block written
}

// state is a chunk's content: a number for each block, zero for zeros, absent
// for blocks that were never touched at this node.
type state [placement.BlocksPerChunk]uint64

const absent = 1<<64 - 1

// modelChunk is a chunk at one node: a base that is certain, and what was done
// to it since.
type modelChunk struct {
	base    state
	records []*modelRecord
	acked   int // of records: done and committed
	seen    int // of records: committed
}

type modelRecord struct {
	r     *Record
	mask  placement.Mask
	set   state // of the blocks of mask
	whole bool  // may go to an extent, and so be lost without those behind it
	done  bool
}

func newModel() *model { return &model{chunks: map[placement.Key]*modelChunk{}, next: 1} }

// chunk finds the model of a chunk. The power may go in one of Pebble's
// goroutines, which looks through all of them: hence the lock.
func (m *model) chunk(k placement.Key) *modelChunk {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.chunks[k]
	if c == nil {
		c = &modelChunk{}
		for i := range c.base {
			c.base[i] = absent
		}
		m.chunks[k] = c
	}
	return c
}

// fill makes the content of a block from its number.
func fill(b []byte, id uint64) {
	x := id
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], x)
		x = x*6364136223846793005 + id
	}
}

// identify is the inverse of fill; ok is false if no write made this content.
func identify(b []byte) (id uint64, ok bool) {
	id = binary.LittleEndian.Uint64(b)
	x := id
	for i := 0; i < len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) != x {
			return 0, false
		}
		x = x*6364136223846793005 + id
	}
	return id, true
}

// apply does a record to a state.
func (r *modelRecord) apply(s *state) {
	for i := range s {
		if r.mask>>i&1 != 0 {
			s[i] = r.set[i]
		}
	}
}

// view is the chunk as seen along a lineage, from the given state at each node.
func view(states []state) (v state) {
	for i := range v {
		for _, s := range states {
			if s[i] != absent {
				v[i] = s[i]
				break
			}
		}
	}
	return v
}

// committed is what the chunk must read as now.
func (c *modelChunk) committed() state {
	s := c.base
	for _, r := range c.records[:c.seen] {
		r.apply(&s)
	}
	return s
}

// possible lists the states that a crash may leave when so many records were
// acknowledged and so many issued: those acknowledged, then in order any
// number of the others, any extent-write among them left out.
func (c *modelChunk) possible(acked, issued int) []state {
	s := c.base
	for _, r := range c.records[:acked] {
		r.apply(&s)
	}
	all := []state{s}
	now := []state{s}
	for _, r := range c.records[acked:issued] {
		var next []state
		for _, s := range now {
			if r.whole {
				next = append(next, s)
			}
			r.apply(&s)
			next = append(next, s)
			all = append(all, s)
		}
		now = next
	}
	return all
}

// rig is a brick on a disk that can crash, with its model. Everything runs in
// the test's goroutine but Pebble's own work.
type rig struct {
	rng   *rand.Rand
	model *model
	mem   *vfs.Memory
	peb   *pebblefs.MemFS
	o     Options
	b     *Brick
	clock time.Time
	node  placement.Node // where writes go
	seq   uint64
	open  []*modelRecord // appended, not committed yet, in order of appending

	gate    sync.Mutex
	crashAt int // device call at which to crash, from 1; zero: never
	calls   int
	crashed *crash

	seed     uint64
	recovery *Recovery

	before, after func() // around taking what a crash leaves; the gate is held
}

// crash is what is left of a rig.
type crash struct {
	mem    *vfs.Memory
	peb    *pebblefs.MemFS
	acked  map[placement.Key]int
	issued map[placement.Key]int
}

type crashNow struct{}

func newRig(seed uint64, change func(*Options)) *rig {
	g := &rig{seed: seed, rng: rand.New(rand.NewPCG(seed, 99)), model: newModel(), clock: time.Unix(1e9, 0), node: 1}
	g.mem, g.peb = vfs.NewMemory(1<<30), pebblefs.NewCrashableMem()
	g.options(change)
	return g
}

func (g *rig) options(change func(*Options)) {
	pool := slab.New(64 << 20)
	g.o = Options{
		FS: g.mem, Pool: pool, Cache: cache.New(pool, 1<<20), Path: "brick", Manual: true, Now: func() time.Time { return g.clock },
		JournalBytes: 1 << 20, SegmentBytes: 128 << 10, CapacityBytes: 16 << 20, PendingBytes: 64 << 10,
	}
	g.o.MapFS = errorfs.Wrap(g.peb, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			g.call(false)
		}
		return nil
	}))
	g.mem.OnOp(func(vfs.Op) { g.call(true) })
	if g.seed%2 == 1 { // else space is always tight
		g.o.CapacityBytes = 256 << 20
	}
	if change != nil {
		change(&g.o)
	}
}

// call counts a device call and crashes at the chosen one. The test's own
// goroutine stops right there; Pebble's goes on, to no effect on the crash.
func (g *rig) call(own bool) {
	g.gate.Lock()
	g.calls++
	if g.calls == g.crashAt && g.crashed == nil {
		g.powerOff()
	}
	stop := own && g.crashed != nil
	g.gate.Unlock()
	if stop {
		panic(crashNow{})
	}
}

// crash takes the power away here.
func (g *rig) crash() {
	g.gate.Lock()
	defer g.gate.Unlock()
	g.powerOff()
}

// powerOff takes what a crash leaves, while nothing more of the brick's own can
// reach the disk. The gate is held.
func (g *rig) powerOff() {
	c := &crash{acked: map[placement.Key]int{}, issued: map[placement.Key]int{}}
	g.model.mu.Lock()
	for k, m := range g.model.chunks {
		c.acked[k] = m.acked
	}
	g.model.mu.Unlock()
	// If Pebble's goroutine is where the power goes, the test's own goes on up to
	// its next device call, which the disk may keep. So: what is acknowledged
	// before, the disk, the map, which follows it, and what is issued last.
	if g.before != nil {
		g.before()
	}
	rng := rand.New(rand.NewPCG(uint64(g.calls), 7))
	c.mem = g.mem.Crash(rng.Uint64())
	c.peb = g.peb.CrashClone(pebblefs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng})
	g.model.mu.Lock()
	for k, m := range g.model.chunks {
		c.issued[k] = len(m.records)
	}
	g.model.mu.Unlock()
	if g.after != nil {
		g.after()
	}
	g.crashed = c
}

// guard runs f until it ends or the power goes.
func (g *rig) guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crashNow); !ok {
				panic(r)
			}
		}
	}()
	return f()
}

// issue appends a random record.
func (g *rig) issue() error {
	k := placement.Key{Family: 1, Node: g.node, Chunk: placement.Chunk(g.rng.IntN(6))}
	r := &modelRecord{r: &Record{Key: k, Bucket: placement.BucketOf(1, k.Chunk)}}
	switch g.rng.IntN(8) {
	case 0, 1:
		r.mask = placement.Full
	case 2:
		r.mask = placement.Mask(g.rng.Uint32()) | 1<<g.rng.IntN(16)
	default:
		first := g.rng.IntN(16)
		r.mask = placement.Span(first, 1+g.rng.IntN(min(4, 16-first)))
	}
	if g.rng.IntN(5) == 0 {
		r.r.Kind = Zero
	}
	r.r.Lazy = g.rng.IntN(4) == 0
	return g.append(r)
}

func (g *rig) append(r *modelRecord) error {
	m, b := g.model, g.b
	r.r.Mask = r.mask
	r.whole = r.mask == placement.Full && r.r.Kind == Write
	g.seq++
	r.r.Seq = g.seq
	if r.r.Kind == Write {
		r.r.Buf = g.o.Pool.Get(bits.OnesCount16(uint16(r.mask)) * placement.BlockSize)
		defer r.r.Buf.Release()
		for i, n := 0, 0; i < placement.BlocksPerChunk; i++ {
			if r.mask>>i&1 != 0 {
				r.set[i] = m.next
				d := block(r.r.Buf.Bytes(), n)
				fill(d, m.next)
				r.r.Sum[n] = crc32.Checksum(d, castagnoli)
				m.next++
				n++
			}
		}
	}
	r.r.Done = func(_ *Record, err error) {
		if err == nil {
			r.done = true
			g.commitDone()
		}
	}
	c := m.chunk(r.r.Key)
	m.mu.Lock()
	c.records = append(c.records, r)
	m.mu.Unlock()
	if err := b.Append(r.r); err != nil {
		m.mu.Lock()
		c.records = c.records[:len(c.records)-1]
		m.mu.Unlock()
		return err
	}
	g.open = append(g.open, r)
	if r.r.Lazy && c.seen == len(c.records)-1 {
		b.Commit(r.r)
		c.seen++
	}
	g.commitDone()
	return nil
}

// commitDone commits and acknowledges what is done, in order within a chunk.
func (g *rig) commitDone() {
	blocked := map[placement.Key]bool{}
	kept := g.open[:0]
	for _, r := range g.open {
		k := r.r.Key
		c := g.model.chunk(k)
		if !r.done || blocked[k] {
			blocked[k] = true
			kept = append(kept, r)
			continue
		}
		if c.acked == c.seen {
			g.b.Commit(r.r)
			c.seen++
		}
		g.model.mu.Lock()
		c.acked++
		g.model.mu.Unlock()
	}
	g.open = kept
}

// lineage of the node where writes go: a chain.
func (g *rig) lineage(n placement.Node) (l []placement.Node) {
	for ; n > 0; n-- {
		l = append(l, n)
	}
	return l
}

// read reads part of a chunk at a node and returns what it holds.
func (g *rig) read(n placement.Node, c placement.Chunk, first, count int) (ids []uint64, err error) {
	over := false
	op := &ReadOp{Family: 1, Lineage: g.lineage(n), Chunk: c, First: first, Count: count, Done: func(*ReadOp) { over = true }}
	g.b.Read(op)
	for !over {
		if !g.b.Step() {
			return nil, fmt.Errorf("a read does not end")
		}
	}
	defer op.Bufs.Release()
	if op.Err != nil {
		return nil, op.Err
	}
	for _, r := range op.Bufs {
		for i := range r.Len / placement.BlockSize {
			id, ok := identify(block(r.Bytes(), i))
			if !ok {
				return nil, fmt.Errorf("chunk %d at node %d: block %d is nothing that was ever written", c, n, first+len(ids))
			}
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// verify checks a chunk at a node against the model.
func (g *rig) verify(n placement.Node, c placement.Chunk) error {
	first := g.rng.IntN(16)
	count := 1 + g.rng.IntN(16-first)
	got, err := g.read(n, c, first, count)
	if err != nil {
		return err
	}
	var states []state
	for _, n := range g.lineage(n) {
		states = append(states, g.model.chunk(placement.Key{Family: 1, Node: n, Chunk: c}).committed())
	}
	want := view(states)
	for i, id := range got {
		if id != want[first+i] {
			return fmt.Errorf("chunk %d at node %d: block %d holds write %d, want %d", c, n, first+i, id, want[first+i])
		}
	}
	return nil
}

// act does one random thing.
func (g *rig) act() error {
	g.clock = g.clock.Add(100 * time.Millisecond)
	switch x := g.rng.IntN(100); {
	case x < 45:
		return g.issue()
	case x < 57:
		g.b.StepJournal()
	case x < 65:
		g.b.StepWrite()
	case x < 85:
		return g.verify(1+placement.Node(g.rng.IntN(int(g.node))), placement.Chunk(g.rng.IntN(6)))
	case x < 93:
		g.b.StepDestage(time.Duration(g.rng.IntN(2)) * time.Second)
	case x < 96:
		return g.b.StepFlushMap()
	case x < 98:
		g.o.Cache.DropFamily(1)
	case x < 99:
		for g.b.Step() {
		}
		if len(g.open) == 0 && g.node < 4 {
			g.node++ // a snapshot
		}
	default:
		over := false
		g.b.Flush(func(err error) { over = err == nil })
		if err := g.settleAll(); err != nil {
			return err
		}
		if !over {
			return fmt.Errorf("flush does not end")
		}
	}
	return g.b.Failed()
}

// remains is what the crash has left.
func (g *rig) remains() *crash {
	g.gate.Lock()
	defer g.gate.Unlock()
	return g.crashed
}

// restart opens the brick on what the crash has left, and checks that each
// chunk holds what it may; that is then certain.
func (g *rig) restart(change func(*Options)) error {
	c := g.remains()
	if err := g.reopen(change); err != nil {
		return err
	}
	for k, m := range g.model.chunks {
		if err := g.settle(k, m, m.possible(c.acked[k], c.issued[k])); err != nil {
			return err
		}
	}
	return nil
}

// reopen opens the brick on what the crash has left.
func (g *rig) reopen(change func(*Options)) error {
	c := g.remains()
	if g.b != nil {
		g.b.pmap.close()
	}
	g.gate.Lock() // the old map's goroutines may not have ended yet
	g.mem, g.peb, g.crashed, g.crashAt, g.calls, g.open = c.mem, c.peb, nil, 0, 0, nil
	g.gate.Unlock()
	if err := g.o.Pool.Discard(); err != nil { // the dead brick's
		return err
	}
	g.options(change)
	b, rec, err := Open(g.o)
	if err != nil {
		return fmt.Errorf("open after the crash: %w", err)
	}
	g.b, g.recovery = b, rec
	return nil
}

// settle finds out which of the possible states a chunk is in.
func (g *rig) settle(k placement.Key, m *modelChunk, possible []state) error {
	var at places
	if _, err := g.b.findAt(k, placement.Full, &at); err != nil {
		return err
	}
	at.release()
	e, _, err := g.entryAt(k)
	if err != nil {
		return err
	}
	var got state
	for i := range got {
		got[i] = e[i]
	}
	for _, s := range possible {
		if k.Node == 1 { // there absent and zero are the same
			for i := range s {
				if s[i] == absent {
					s[i] = 0
				}
			}
		}
		if s == got {
			m.base, m.records, m.acked, m.seen = s, nil, 0, 0
			return nil
		}
	}
	return fmt.Errorf("%+v holds\n%v, which is none of\n%v", k, got, possible)
}

// entryAt reads a chunk at one node only: absent blocks show.
func (g *rig) entryAt(k placement.Key) (s state, mask placement.Mask, err error) {
	var op ReadOp
	op.Family, op.Lineage, op.Chunk, op.Count = k.Family, []placement.Node{k.Node}, k.Chunk, placement.BlocksPerChunk
	left, err := g.b.findAt(k, placement.Full, &op.place)
	if err != nil {
		return s, 0, err
	}
	defer op.Bufs.Release()
	if bad, _ := g.b.collect(&op); bad != 0 {
		return s, 0, fmt.Errorf("%+v: blocks %#x are bad", k, bad)
	}
	i := 0
	for _, r := range op.Bufs {
		for j := range r.Len / placement.BlockSize {
			id, ok := identify(block(r.Bytes(), j))
			if !ok {
				return s, 0, fmt.Errorf("%+v: block %d is nothing that was ever written", k, i)
			}
			s[i] = id
			if left>>i&1 != 0 && k.Node != 1 {
				s[i] = absent
			}
			i++
		}
	}
	return s, left, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
