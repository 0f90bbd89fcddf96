package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// network carries messages between the processes of the machines, as package
// peer does: for each pair a data connection of three ordered classes that is
// up or down as a whole, and a best-effort way for the raft class.
//
//	         dial              both greeted                  cut, death, time-out
//	closed --------> dialling --------------> up at both ----------------------> closed at each, not at once
//
// What is under way on a connection when it closes is lost, at either end from
// its own moment on; nothing of an old connection arrives on a new one.
type network struct {
	e     *engine
	rng   *rand.Rand
	edges map[[2]placement.Server]*edge // of each ordered pair
	ends  []*endpoint                   // living processes', by server
	conns map[[2]placement.Server]*conn // of each pair, lower server first

	scale float64 // of time-outs
	stats struct{ sent, delivered, lost, bytes, downs uint64 }
}

// edge is the way from one machine to another.
type edge struct {
	cut     bool // nothing arrives: it is held until the cut or the connection ends
	cutRaft bool // the same for the raft class
	slow    time.Duration
	lossy   float64 // part of the raft class that vanishes
}

// conn is a data connection. Side 0 is the lower server's.
type conn struct {
	ends   [2]*endpoint
	up     [2]bool
	closed [2]bool
	ways   [2]way // from side 0, from side 1
	fate   uint64 // of the time-out that was planned last
}

// way is what is under way from one side of a connection.
type way struct {
	last [wire.Classes]time.Duration // when the latest message of a class arrives
	held []func()                    // behind a cut
}

// limits of the simulated transport.
const (
	queueBytes  = 8 << 20
	dialEvery   = 20 * time.Millisecond
	noticeLeast = 150 * time.Millisecond  // until a silent connection is given up
	noticeMost  = 2200 * time.Millisecond // what a silent peer is given at most
)

func newNetwork(e *engine, scale float64) *network {
	return &network{e: e, scale: scale, rng: e.rng("network"), edges: map[[2]placement.Server]*edge{}, conns: map[[2]placement.Server]*conn{}}
}

// scaled draws a time-out.
func (n *network) scaled(least, most time.Duration) time.Duration {
	return time.Duration(float64(between(n.rng, least, most)) * n.scale)
}

// edge returns the way from a to b.
func (n *network) edge(a, b placement.Server) *edge {
	k := [2]placement.Server{a, b}
	if n.edges[k] == nil {
		n.edges[k] = &edge{}
	}
	return n.edges[k]
}

// endpoint is one process's transport.
type endpoint struct {
	n           *network
	m           *machine
	life        *life
	self        placement.Server
	incarnation uint64
	pool        *slab.Pool
	handler     handler
	peers       []placement.Server
	queued      map[placement.Server]int64
	raftLast    map[placement.Server]time.Duration
	closed      bool
}

// handler is what a process's transport tells it: see cluster.Handler.
type handler interface {
	Receive(from placement.Server, incarnation uint64, m *wire.Message)
	Up(peer placement.Server, incarnation uint64)
	Down(peer placement.Server)
}

// attach makes the transport of a process.
func (n *network) attach(m *machine, l *life, self placement.Server, pool *slab.Pool, h handler) *endpoint {
	p := &endpoint{n: n, m: m, life: l, self: self, pool: pool, handler: h, queued: map[placement.Server]int64{}, raftLast: map[placement.Server]time.Duration{}}
	n.ends = slices.DeleteFunc(n.ends, func(o *endpoint) bool { return o.self == self })
	n.ends = append(n.ends, p)
	slices.SortFunc(n.ends, func(a, b *endpoint) int { return int(a.self) - int(b.self) })
	return p
}

// setPeers says whom to talk to.
func (p *endpoint) setPeers(peers []placement.Server) {
	p.peers = slices.Clone(peers)
	slices.Sort(p.peers)
	for _, o := range p.n.ends {
		if c := p.n.conns[pair(p.self, o.self)]; c != nil && !slices.Contains(p.peers, o.self) {
			p.n.teardown(c, 0, time.Millisecond)
		}
		p.n.dial(p, o)
	}
}

// SetIncarnation lets the data connections come up.
func (p *endpoint) SetIncarnation(incarnation uint64) {
	p.incarnation = incarnation
	for _, o := range p.n.ends {
		p.n.dial(p, o)
	}
}

// Close ends what the process sends and gets.
func (p *endpoint) Close() error {
	p.n.detach(p, 0, time.Millisecond)
	return nil
}

// detach ends an endpoint; the others notice after a while.
func (n *network) detach(p *endpoint, least, most time.Duration) {
	p.closed = true
	n.ends = slices.DeleteFunc(n.ends, func(o *endpoint) bool { return o == p })
	for _, o := range slices.Clone(n.ends) {
		if c := n.conns[pair(p.self, o.self)]; c != nil {
			side := c.side(p)
			c.closed[side] = true
			n.closeSide(c, 1-side, between(n.rng, least, most))
		}
	}
}

func pair(a, b placement.Server) [2]placement.Server {
	return [2]placement.Server{min(a, b), max(a, b)}
}

func (c *conn) side(p *endpoint) int {
	if c.ends[0] == p {
		return 0
	}
	return 1
}

// dial opens the connection of two processes if it can be; else it tries again
// as long as both live and want it.
func (n *network) dial(a, b *endpoint) {
	if a == b || !n.wanted(a, b) || n.conns[pair(a.self, b.self)] != nil {
		return
	}
	if a.self > b.self {
		a, b = b, a
	}
	c := &conn{ends: [2]*endpoint{a, b}}
	n.conns[pair(a.self, b.self)] = c
	n.greet(c)
}

func (n *network) wanted(a, b *endpoint) bool {
	return !a.closed && !b.closed && !a.life.over && !b.life.over && a.incarnation != 0 && b.incarnation != 0 &&
		slices.Contains(a.peers, b.self) && slices.Contains(b.peers, a.self)
}

// greet tries to bring a connection up.
func (n *network) greet(c *conn) {
	n.e.after(between(n.rng, dialEvery/2, dialEvery*2), nil, nil, func() {
		a, b := c.ends[0], c.ends[1]
		if !n.wanted(a, b) {
			// One has died. Its next process may be up already, and have found this
			// connection in its way.
			delete(n.conns, pair(a.self, b.self))
			n.redial(pair(a.self, b.self))
			return
		}
		if n.edge(a.self, b.self).cut || n.edge(b.self, a.self).cut || a.m.paused() || b.m.paused() {
			n.greet(c)
			return
		}
		for side := range 2 {
			n.e.after(between(n.rng, 0, 2*time.Millisecond), c.ends[side].m, c.ends[side].life, func() { n.open(c, side) })
		}
	})
}

// open tells one side that the connection is up. What the other has sent already
// waits for that.
func (n *network) open(c *conn, side int) {
	if c.closed[side] || c.closed[1-side] {
		n.closeSide(c, side, 0)
		return
	}
	c.up[side] = true
	p, o := c.ends[side], c.ends[1-side]
	if n.e.tracing() {
		n.e.tracef("net: %d is connected with %d of incarnation %d", p.self, o.self, o.incarnation)
	}
	p.handler.Up(o.self, o.incarnation)
	n.release(c, 1-side)
	p.m.kick()
}

// release lets what side has sent and is held go on, if it may.
func (n *network) release(c *conn, side int) {
	to := 1 - side
	if !c.up[to] || n.edge(c.ends[side].self, c.ends[to].self).cut {
		return
	}
	held := c.ways[side].held
	c.ways[side].held = nil
	for _, f := range held {
		f()
	}
}

// teardown closes both sides, each in its own time.
func (n *network) teardown(c *conn, least, most time.Duration) {
	for side := range 2 {
		n.closeSide(c, side, between(n.rng, least, most))
	}
}

// closeSide lets a side notice after d that the connection is lost. When both
// have, another one can be made.
func (n *network) closeSide(c *conn, side int, d time.Duration) {
	p := c.ends[side]
	n.e.after(d, p.m, nil, func() {
		if !c.closed[side] {
			c.closed[side] = true
			n.stats.downs++
			if c.up[side] && !p.closed && !p.life.over {
				if n.e.tracing() {
					n.e.tracef("net: %d lost its connection with %d", p.self, c.ends[1-side].self)
				}
				p.handler.Down(c.ends[1-side].self)
				p.m.kick()
			}
		}
		if k := pair(c.ends[0].self, c.ends[1].self); c.closed[0] && c.closed[1] && n.conns[k] == c {
			delete(n.conns, k)
			n.redial(k)
		}
	})
}

func (n *network) redial(k [2]placement.Server) {
	var found [2]*endpoint
	for _, p := range n.ends {
		for i := range k {
			if p.self == k[i] {
				found[i] = p
			}
		}
	}
	if found[0] != nil && found[1] != nil {
		n.dial(found[0], found[1])
	}
}

// Send never calls back: what happens, happens in a later event.
func (p *endpoint) Send(to placement.Server, m *wire.Message) bool {
	if p.life.over || p.closed {
		return false
	}
	if m.Kind.Class() == wire.ClassRaft {
		return p.sendRaft(to, m)
	}
	c := p.n.conns[pair(p.self, to)]
	if to == p.self || c == nil {
		return false
	}
	side := c.side(p)
	if !c.up[side] || c.closed[side] || p.queued[to] > queueBytes {
		return false
	}
	frame, sent := p.encode(to, m), p.n.e.now
	p.queued[to] += int64(len(frame))
	p.n.carry(c, side, m.Kind.Class(), frame, sent)
	return true
}

func (p *endpoint) encode(to placement.Server, m *wire.Message) []byte {
	m.Sent = p.m.clock.now().Truncate(time.Microsecond)
	frame, err := m.AppendFrame(nil)
	if err != nil {
		panic(fmt.Sprintf("sim: server %d sends what no transport takes: %v\n%s", p.self, err, outline(m)))
	}
	p.n.stats.sent++
	p.n.stats.bytes += uint64(len(frame))
	if p.n.e.tracing() {
		p.n.e.tracef("%d > %d %v", p.self, to, outline(m))
	}
	return frame
}

func (n *network) delay(from, to placement.Server) time.Duration {
	d := between(n.rng, 40*time.Microsecond, 250*time.Microsecond)
	if n.rng.IntN(50) == 0 {
		d *= 20
	}
	if slow := n.edge(from, to).slow; slow > 0 {
		d += between(n.rng, slow/2, 2*slow)
	}
	return d
}

// carry brings a frame to the other side, behind what was sent before in its
// class.
func (n *network) carry(c *conn, side int, class wire.Class, frame []byte, sent time.Duration) {
	from, to := c.ends[side], c.ends[1-side]
	w := &c.ways[side]
	at := max(w.last[class], n.e.now+n.delay(from.self, to.self))
	w.last[class] = at
	n.e.after(at-n.e.now, to.m, nil, func() { n.arrive(c, side, frame, sent) })
}

func (n *network) arrive(c *conn, side int, frame []byte, sent time.Duration) {
	from, to := c.ends[side], c.ends[1-side]
	switch {
	case c.closed[1-side] || to.closed || to.life.over:
		from.queued[to.self] -= int64(len(frame))
		n.stats.lost++
	case !c.up[1-side] || n.edge(from.self, to.self).cut || len(c.ways[side].held) > 0:
		c.ways[side].held = append(c.ways[side].held, func() { n.arrive(c, side, frame, sent) })
	default:
		from.queued[to.self] -= int64(len(frame))
		n.deliver(from, to, frame, sent, from.incarnation)
	}
}

// deliver hands a frame to its receiver.
func (n *network) deliver(from, to *endpoint, frame []byte, sent time.Duration, incarnation uint64) {
	var m wire.Message
	size, err := m.DecodeFrame(frame, to.pool)
	if err != nil || size != len(frame) {
		panic(fmt.Sprintf("sim: server %d sent what can't be decoded: %v", from.self, err))
	}
	under := n.e.now - sent
	m.Age = under + under/32 + 500*time.Microsecond
	n.stats.delivered++
	n.e.note(uint64(m.Kind) | uint64(to.self)<<8 | uint64(size)<<32)
	if n.e.tracing() {
		n.e.tracef("%d < %d %v", to.self, from.self, outline(&m))
	}
	to.handler.Receive(from.self, incarnation, &m)
	m.Data.Release()
	to.m.kick()
}

// sendRaft carries the raft class: in order for each pair, but anything may be
// lost, and nobody is told.
func (p *endpoint) sendRaft(to placement.Server, m *wire.Message) bool {
	n := p.n
	if !slices.Contains(p.peers, to) {
		return false
	}
	frame, sent, incarnation := p.encode(to, m), n.e.now, p.incarnation
	edge := n.edge(p.self, to)
	if edge.cutRaft || n.rng.Float64() < edge.lossy {
		n.stats.lost++
		return true
	}
	at := max(p.raftLast[to], n.e.now+n.delay(p.self, to))
	p.raftLast[to] = at
	var goal *endpoint
	for _, o := range n.ends {
		if o.self == to {
			goal = o
		}
	}
	if goal == nil {
		n.stats.lost++
		return false
	}
	n.e.after(at-n.e.now, goal.m, goal.life, func() {
		if goal.closed || n.edge(p.self, to).cutRaft {
			n.stats.lost++
			return
		}
		n.deliver(p, goal, frame, sent, incarnation)
	})
	return true
}

// cut stops what goes from a to b, raft class included or not. Data connections
// through it are given up after a while unless it heals before.
func (n *network) cut(a, b placement.Server, raftToo bool) {
	edge := n.edge(a, b)
	edge.cut, edge.cutRaft = true, edge.cutRaft || raftToo
	if c := n.conns[pair(a, b)]; c != nil {
		c.fate++
		fate := c.fate
		n.e.after(n.scaled(noticeLeast, noticeMost), nil, nil, func() {
			if c.fate == fate && (n.edge(a, b).cut || n.edge(b, a).cut) {
				n.teardown(c, 0, time.Duration(float64(noticeMost)*n.scale))
			}
		})
	}
}

// heal ends a cut and lets go what it held.
func (n *network) heal(a, b placement.Server) {
	edge := n.edge(a, b)
	*edge = edge0
	if c := n.conns[pair(a, b)]; c != nil {
		side := 0
		if c.ends[0].self != a {
			side = 1
		}
		n.release(c, side)
	}
}

var edge0 edge

// reset loses the connection of a pair: whatever is under way is gone.
func (n *network) reset(a, b placement.Server) {
	if c := n.conns[pair(a, b)]; c != nil {
		n.teardown(c, 0, 30*time.Millisecond)
	}
}

// silent makes the others give up their connections with a machine that says
// nothing until then.
func (n *network) silent(m *machine, until time.Duration) {
	for _, o := range n.ends {
		c := n.conns[pair(m.id, o.self)]
		if o.self == m.id || c == nil {
			continue
		}
		c.fate++
		fate := c.fate
		n.e.after(n.scaled(noticeLeast, noticeMost), nil, nil, func() {
			if c.fate == fate && n.e.now < until {
				n.teardown(c, 0, time.Duration(float64(noticeMost)*n.scale))
			}
		})
	}
}
