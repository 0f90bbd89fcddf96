package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"petal/cluster/replica"
	"petal/cluster/slab"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// member is what a coordinator asks of its own node, as a member of links.
type member interface {
	Do(*replica.Op)
	Cancel(id placement.OpID, key placement.Key, done func(status wire.Status, head placement.Server))
	Mapped(link placement.LinkID, key placement.Key, last placement.Chunk, most int, done func(found []replica.MappedChunk, more bool, status wire.Status))
	Flush(done func(error))
	Prefetch(placement.Key)
}

// localStore is the rest of what a coordinator asks of its node: the brick.
type localStore interface {
	Failed() error
	Usage(placement.Family) int64
	Space() (used, avail, total uint64)
}

// sender is the way to other servers.
type sender interface {
	Send(to placement.Server, m *wire.Message) bool
}

// coordinator is what the volumes of a node share: the pieces under way, where
// they go, and what is known about the servers.
type coordinator struct {
	self  placement.Server
	pool  *slab.Pool
	clock times.Clock
	times times.Times
	net   sender // nil: this node is alone

	here        atomic.Pointer[here]
	lapsed      atomic.Bool // the lease has ended: every command ends, too
	incarnation atomic.Uint32
	number      atomic.Uint64 // of the last op id

	flying   atomic.Int64 // pieces in lists
	watching atomic.Bool  // somebody looks for late reads
	ticking  atomic.Bool
	tick     atomic.Uint32 // counts ticks while there are any, from 1
	shards   [flightShards]flightShard

	mu      sync.Mutex
	waiting pieceList
	timer   times.Timer
	timerAt time.Duration
	closed  bool

	orphans  orphans
	copies   copyTable
	counts   counters
	messages sync.Pool
	asked    asks
}

// here is this node's own storage, once it is open.
type here struct {
	member
	localStore
}

const flightShards = 16

// flightShard has the pieces that are with a server, by their op's number.
type flightShard struct {
	mu            sync.Mutex
	by            map[uint64]*piece
	reads, writes pieceList // reads of a chunk that has one copy are among the writes
	_             [8]byte
}

// list is the one that a piece belongs to.
func (s *flightShard) list(p *piece) *pieceList {
	if p.sent != 0 {
		return &s.reads
	}
	return &s.writes
}

// pieceList is a queue of pieces.
type pieceList struct{ first, last *piece }

func (l *pieceList) push(p *piece) {
	p.prev, p.next = l.last, nil
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
}

func (l *pieceList) remove(p *piece) {
	if p.prev == nil {
		l.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}

// counters count what the data path meets.
type counters struct {
	remote, redirects, retries, cancels, expired, hedges, hedgeWins atomic.Uint64
}

// newCoordinator returns the coordinator of server self. Until start its
// commands wait.
func newCoordinator(self placement.Server, pool *slab.Pool, clock times.Clock, t times.Times, net sender) *coordinator {
	c := &coordinator{self: self, pool: pool, clock: clock, times: t, net: net}
	c.messages.New = func() any { return new(wire.Message) }
	c.tick.Store(1)
	for i := range c.shards {
		c.shards[i].by = map[uint64]*piece{}
	}
	return c
}

// start gives the coordinator its process's incarnation and, unless it is a
// witness, its node's storage.
func (c *coordinator) start(incarnation uint64, h *here) {
	c.incarnation.Store(uint32(incarnation))
	if h != nil {
		c.here.Store(h)
	}
	c.wake()
}

// member is this node as a member of links, nil if it is none (yet).
func (c *coordinator) member() member {
	if h := c.here.Load(); h != nil {
		return h.member
	}
	return nil
}

// flush makes durable what this node has acknowledged before it was.
func (c *coordinator) flush(done func(error)) {
	if m := c.member(); m != nil {
		m.Flush(done)
		return
	}
	done(nil)
}

// opID makes the identity of an operation. Its incarnation is filled in when it
// is sent.
func (c *coordinator) opID() placement.OpID {
	return placement.OpID{Coordinator: uint32(c.self), Number: c.number.Add(1)}
}

func (c *coordinator) shard(number uint64) *flightShard { return &c.shards[number%flightShards] }

// send starts an attempt, or the piece's end if the volume's state asks for it.
// The caller owns the piece and gives it up.
func (c *coordinator) send(p *piece) {
	st := p.v.state.Load()
	if c.lapsed.Load() && !p.orphan {
		c.letGo(p)
		return
	}
	if p.hedge != nil && p.hedge.over.Load() {
		p.end(errHedged)
		return
	}
	if !p.cancelling {
		if err := p.current(st); err != nil {
			c.abandon(p, err)
			return
		}
	}
	if p.ID.Incarnation = c.incarnation.Load(); p.ID.Incarnation == 0 || !p.cancelling && c.orphans.block(p) {
		c.wait(p)
		return
	}
	r := st.routes.of(p.v.family, p.span.chunk)
	to := r.head()
	switch {
	case p.hint != 0:
		to, p.hint = p.hint, 0
	case !p.writes() && !r.alone():
		to = c.choose(p, r)
	}
	p.Ver = r.Ver
	switch {
	case p.cancelling:
		c.sendCancel(p, to)
	case to == c.self:
		c.sendLocal(p, r)
	default:
		c.sendRemote(p, r, to)
	}
}

// sendLocal has this node's own member do it. The end may come before Do
// returns, as when all is cached; such a piece is never put down anywhere. Else
// it is put down first, and of the two, this function and the end, the one that
// comes second goes on.
func (c *coordinator) sendLocal(p *piece, r *route) {
	m := c.member()
	if m == nil {
		c.wait(p)
		return
	}
	p.server, p.local, p.Age, p.wasOpen = c.self, true, 0, p.open
	p.Op.Local = !p.writes() && !p.wide
	if p.Lazy = p.Lazy && r.alone(); p.Lazy {
		p.v.lazy.Store(true)
	}
	c.copies.begin(p)
	p.gate.Store(0)
	m.Do(&p.Op)
	if p.gate.Load() == 1 {
		p.local = false
		c.settle(p)
		return
	}
	if !p.writes() && !r.alone() {
		p.sent = c.clock.Now()
	}
	c.putDown(p)
	if p.gate.Add(1) == 2 {
		c.localEnd(p)
	}
}

// answered is the Done of a local attempt.
func (p *piece) answered() {
	if p.gate.Add(1) == 2 {
		p.v.c.localEnd(p)
	}
}

// localEnd takes the piece up again after a local attempt that took a while.
func (c *coordinator) localEnd(p *piece) {
	s := c.shard(p.ID.Number)
	s.mu.Lock()
	given := p.place == nowhere // the command has ended without it
	if !given {
		c.takeUp(s, p)
	}
	s.mu.Unlock()
	if given {
		c.copies.end(p, c, p.Status == wire.OK)
		p.given()
		return
	}
	p.local = false
	c.settle(p)
}

// sendRemote has another server do it.
func (c *coordinator) sendRemote(p *piece, r *route, to placement.Server) {
	if c.net == nil {
		c.wait(p)
		return
	}
	c.counts.remote.Add(1)
	m := c.messages.Get().(*wire.Message)
	m.Kind, m.Op, m.Ver, m.VVer, m.Link, m.Key = kindOf[p.Kind], p.ID, r.Ver, p.VVer, r.link, p.Key
	m.From, m.To = p.From, p.To
	if p.Again {
		m.Code = replica.CodeAgain
	}
	switch p.Kind {
	case replica.Read:
		if !p.wide {
			m.Flags |= wire.FlagLocal
		}
	case replica.Write:
		m.Sum = p.Sum
		m.Data.Add(p.Buf, int(p.From%placement.BlockSize), int(p.To-p.From))
	case replica.CompareAndWrite:
		m.Data.Add(p.Buf, 0, p.Buf.Len())
		m.SetSums()
	}
	p.wasOpen = p.open
	if p.writes() {
		p.open = true // from here on nobody knows, until somebody says so
	}
	p.server, p.local, p.Lazy = to, false, false
	c.copies.begin(p)
	id := p.ID
	p.Again = true
	c.putDown(p) // the answer may come before Send returns
	sent := c.net.Send(to, m)
	m.Data.Release()
	data := m.Data
	*m = wire.Message{Data: data}
	c.messages.Put(m)
	if !sent {
		c.lost(id, to)
	}
}

var kindOf = [...]wire.Kind{replica.Read: wire.Read, replica.Write: wire.Write, replica.Zero: wire.Zero, replica.CompareAndWrite: wire.CompareAndWrite}

// putDown notes a piece that a server has. From here on it is whoever's finds it.
func (c *coordinator) putDown(p *piece) {
	c.count(p)
	s, orphan := c.shard(p.ID.Number), p.orphan
	s.mu.Lock()
	p.place = inFlight
	s.by[p.ID.Number] = p
	s.list(p).push(p)
	if p.sent != 0 {
		c.watchReads()
	}
	s.mu.Unlock()
	if !orphan && c.lapsed.Load() {
		c.letAllGo()
	}
}

// takeUp takes a piece out of its shard, which is locked. The caller owns it.
func (c *coordinator) takeUp(s *flightShard, p *piece) {
	delete(s.by, p.ID.Number)
	s.list(p).remove(p)
	p.place = nowhere
	c.flying.Add(-1)
}

// count notes that a piece is in a list, and since when it has been under way.
func (c *coordinator) count(p *piece) {
	c.flying.Add(1)
	if p.began == 0 {
		p.began = c.tick.Load()
	}
	if !c.ticking.Load() && c.ticking.CompareAndSwap(false, true) {
		c.clock.AfterFunc(c.times.Command/ageTicks, c.onTick)
	}
}

// A command's age is counted in ticks, which is cheaper than to look at the
// clock for each. One that is ageMax ticks old is at least Command*14/16 old
// and less than Command.
const (
	ageTicks = 16
	ageMax   = ageTicks - 1
)

// take finds the piece that server is to answer for, and takes it up.
func (c *coordinator) take(id placement.OpID, server placement.Server) *piece {
	if id.Coordinator != uint32(c.self) || id.Incarnation != c.incarnation.Load() {
		return nil
	}
	s := c.shard(id.Number)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.by[id.Number]
	if p == nil || p.server != server || p.local {
		return nil
	}
	c.takeUp(s, p)
	return p
}

// lost: the message of an attempt has not left and never will.
func (c *coordinator) lost(id placement.OpID, server placement.Server) {
	if p := c.take(id, server); p != nil {
		c.copies.end(p, c, false)
		if !p.cancelling {
			p.open = p.wasOpen
		}
		p.shun = server
		c.wait(p)
	}
}

// receiveReply gets another server's answer.
func (c *coordinator) receiveReply(from placement.Server, m *wire.Message) {
	c.copies.note(from, m.Load)
	p := c.take(m.Op, from)
	if p == nil {
		return // too late, or of an attempt that was given up
	}
	p.Status, p.Bad, p.At, p.Head, p.VerHere, p.VVerHere = m.Status, m.Bad, m.From, m.Head, m.Ver, m.VVer
	if p.Kind == replica.Read && p.Status == wire.OK && !p.gather(m) {
		p.Status = wire.Damaged
	}
	c.settle(p)
}

// gather takes the blocks of a read from its answer. It reports false if they
// are not what was asked for, or damaged.
func (p *piece) gather(m *wire.Message) bool {
	want := p.span.mask()
	if m.From != p.From || m.To != p.To || m.Mask&m.Zeros != 0 || m.Mask|m.Zeros != want || !m.Verify() {
		return false
	}
	ref, off := 0, 0
	for i := range placement.BlocksPerChunk {
		switch bit := placement.Mask(1) << i; {
		case m.Zeros&bit != 0:
			p.Bufs.Add(p.v.c.pool.Zero(), i*placement.BlockSize, placement.BlockSize)
		case m.Mask&bit != 0:
			for n := placement.BlockSize; n > 0; {
				x := m.Data[ref]
				k := min(n, x.Len-off)
				p.Bufs.Add(x.Buf, x.Off+off, k)
				n -= k
				if off += k; off == x.Len {
					ref, off = ref+1, 0
				}
			}
		}
	}
	return true
}

// settle goes on after an answer. The caller owns the piece.
func (c *coordinator) settle(p *piece) {
	c.copies.end(p, c, p.Status == wire.OK)
	if p.second && p.Status != wire.OK {
		p.end(statusError(p.Status))
		return
	}
	switch p.Status {
	case wire.OK, wire.Miscompare, wire.NoSpace, wire.Invalid, wire.Medium:
		p.end(p.outcome())
		return
	case wire.Canceled:
		if !p.cancelling {
			p.end(ErrBusy)
			return
		}
		c.canceled(p)
		return
	}
	p.Bufs.Release()
	p.Again, p.shun = true, p.server
	if !p.cancelling {
		p.open = p.wasOpen // not taken, but where the contrary is said below
	}
	switch p.Status {
	case wire.Redirect, wire.MissingHere:
		c.counts.redirects.Add(1)
		if p.hint = p.Head; p.hint == p.server {
			p.hint = 0
			if !p.writes() && !p.wide { // the head itself can't: it is to ask the others, and to know if nobody can
				p.hint, p.wide = p.server, true
			}
		}
		if p.hint != 0 && p.tries < redirectsMax {
			p.tries++
			c.send(p)
			return
		}
	case wire.OldVVer:
		if p.v.state.Load().vver > p.VVer {
			c.send(p)
			return
		}
	case wire.TooOld, wire.Damaged:
	default:
		p.open = p.writes()
		if err := c.hopeless(p); err != nil {
			p.end(&unreachableError{err})
			return
		}
	}
	c.wait(p)
}

// hopeless says why nobody will ever do what this node could not: its disk, which
// has the only copy, has failed.
func (c *coordinator) hopeless(p *piece) error {
	h := c.here.Load()
	if p.server != c.self || h == nil || !p.v.state.Load().routes.of(p.v.family, p.span.chunk).alone() {
		return nil
	}
	return h.Failed()
}

// redirectsMax is how often a piece goes where it is told to at once. Beyond,
// it waits a little each time.
const redirectsMax = 3
