package cluster

import (
	"sync"
	"time"

	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// memNet is a network in memory: what package peer promises, on goroutines. Whatever
// is sent takes memDelay. A cut edge carries nothing and ends its connection.
type memNet struct {
	mu    sync.Mutex
	ports map[placement.Server]*memPort
	cuts  map[[2]placement.Server]bool
}

func newMemNet() *memNet {
	return &memNet{ports: map[placement.Server]*memPort{}, cuts: map[[2]placement.Server]bool{}}
}

// memPort is a process's end.
type memPort struct {
	net         *memNet
	self        placement.Server
	pool        *slab.Pool
	h           Handler
	incarnation uint64
	up          map[placement.Server]bool

	mu     sync.Mutex
	more   *sync.Cond
	queue  []arrival
	closed bool
	ended  chan struct{}
}

const memDelay = 100 * time.Microsecond

// arrival is what is to happen at a process, and when.
type arrival struct {
	at time.Time
	do func()
}

// port plugs a process in.
func (n *memNet) port(self placement.Server, pool *slab.Pool, h Handler) *memPort {
	p := &memPort{net: n, self: self, pool: pool, h: h, up: map[placement.Server]bool{}, ended: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	n.mu.Lock()
	n.ports[self] = p
	n.mu.Unlock()
	go p.run()
	return p
}

func (p *memPort) run() {
	defer close(p.ended)
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.more.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		a := p.queue[0]
		p.queue = p.queue[1:]
		p.mu.Unlock()
		// Virtual time, as a packet takes it; no timer that is over as it is made, see
		// virtualClock.AfterFunc.
		if wait := time.Until(a.at); wait > 0 {
			<-time.After(wait)
		}
		a.do()
	}
}

func (p *memPort) post(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, arrival{time.Now().Add(memDelay), f})
	p.more.Signal()
}

func edgeOf(a, b placement.Server) [2]placement.Server {
	return [2]placement.Server{min(a, b), max(a, b)}
}

// Send implements Transport.
func (p *memPort) Send(to placement.Server, m *wire.Message) bool {
	n := p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.ports[to]
	raft := m.Kind.Class() == wire.ClassRaft
	if q == nil || n.ports[p.self] != p || n.cuts[edgeOf(p.self, to)] || !raft && !p.up[to] {
		return false
	}
	frame, err := m.AppendFrame(nil)
	if err != nil {
		panic(err)
	}
	from, incarnation := p.self, p.incarnation
	q.post(func() {
		got := new(wire.Message)
		if _, err := got.DecodeFrame(frame, q.pool); err != nil {
			panic(err)
		}
		q.h.Receive(from, incarnation, got)
		got.Data.Release()
	})
	return true
}

// SetPeers implements Transport: this network knows everybody.
func (p *memPort) SetPeers([]Peer) {}

// SetIncarnation implements Transport.
func (p *memPort) SetIncarnation(i uint64) {
	n := p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	p.incarnation = i
	for _, q := range n.ports {
		n.connect(p, q)
	}
}

// connect brings a connection up if both ends are there. mu is held.
func (n *memNet) connect(p, q *memPort) {
	if p == q || p.incarnation == 0 || q.incarnation == 0 || n.cuts[edgeOf(p.self, q.self)] || p.up[q.self] {
		return
	}
	p.up[q.self], q.up[p.self] = true, true
	ps, pi, qs, qi := p.self, p.incarnation, q.self, q.incarnation
	p.post(func() { p.h.Up(qs, qi) })
	q.post(func() { q.h.Up(ps, pi) })
}

// disconnect ends a connection. mu is held.
func (n *memNet) disconnect(p, q *memPort) {
	if !p.up[q.self] {
		return
	}
	delete(p.up, q.self)
	delete(q.up, p.self)
	p.post(func() { p.h.Down(q.self) })
	q.post(func() { q.h.Down(p.self) })
}

// cut takes an edge away, or gives it back.
func (n *memNet) cut(a, b placement.Server, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[edgeOf(a, b)] = on
	p, q := n.ports[a], n.ports[b]
	switch {
	case p == nil || q == nil:
	case on:
		n.disconnect(p, q)
	default:
		n.connect(p, q)
	}
}

// Close implements Transport: the process is gone, whatever it had to say.
func (p *memPort) Close() error {
	n := p.net
	n.mu.Lock()
	if n.ports[p.self] == p {
		delete(n.ports, p.self)
	}
	for _, q := range n.ports {
		n.disconnect(p, q)
	}
	n.mu.Unlock()
	p.mu.Lock()
	p.closed = true
	p.more.Signal()
	p.mu.Unlock()
	<-p.ended
	return nil
}
