package peer

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// Peers is this server's end of the connections with all others. All methods may
// be called from any goroutine, but Close not from a Handler's method.
type Peers struct {
	opt    Options
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // goroutines that accept, shake hands and dial

	// table is replaced, not changed: Send looks into it without a lock.
	table       atomic.Pointer[map[placement.Server]*peer]
	incarnation atomic.Uint64
	started     chan struct{} // closed once there is an incarnation
	sessions    atomic.Uint64
	strangers   strangers

	mu        sync.Mutex
	members   map[placement.Server]Peer
	removed   map[placement.Server]bool   // were members
	moved     map[placement.Server]string // where members say that they are, if nobody dials them
	stopping  map[placement.Server]bool   // were removed, and something of theirs is under way
	listeners []net.Listener
	closed    bool
}

// New listens and begins to connect with those that SetPeers names. It returns an
// error if options are missing or an address can't be listened on.
func New(opt Options) (*Peers, error) {
	if err := opt.defaults(); err != nil {
		return nil, err
	}
	p := &Peers{opt: opt, listeners: slices.Clone(opt.Listeners), members: map[placement.Server]Peer{}, removed: map[placement.Server]bool{}, moved: map[placement.Server]string{}, stopping: map[placement.Server]bool{}, started: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if p.incarnation.Store(opt.Incarnation); opt.Incarnation != 0 {
		close(p.started)
	}
	p.table.Store(&map[placement.Server]*peer{})
	p.strangers.init()
	// Session numbers have to grow over restarts, also of a process that has not
	// got its incarnation yet.
	p.sessions.Store(uint64(time.Now().UnixMicro()))
	for _, addr := range opt.Listen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			p.Close()
			return nil, err
		}
		p.listeners = append(p.listeners, l)
	}
	for _, l := range p.listeners {
		p.wg.Go(func() { p.accept(l) })
	}
	return p, nil
}

// Addrs are the addresses that are listened on.
func (p *Peers) Addrs() (addrs []net.Addr) {
	for _, l := range p.listeners {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// Start tells the incarnation that raft has given to this start of the server.
// Before, only the raft class connects: it is what the incarnation comes by. A
// process has one: later calls do nothing.
func (p *Peers) Start(incarnation uint64) {
	if incarnation == 0 || !p.incarnation.CompareAndSwap(0, incarnation) {
		return
	}
	close(p.started)
	for _, peer := range *p.table.Load() {
		peer.bundle[bundleData].kick()
	}
}

// SetPeers says who the members are; this server itself may be among them. Those
// who are no longer are cut off: nothing is sent to them any more when SetPeers
// returns, and Down follows.
func (p *Peers) SetPeers(peers []Peer) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	members := map[placement.Server]Peer{}
	for _, m := range peers {
		if m.Server != p.opt.Self {
			members[m.Server] = m
			delete(p.removed, m.Server)
		}
	}
	for id := range p.members {
		if _, still := members[id]; !still {
			p.removed[id] = true
			delete(p.moved, id)
		}
	}
	p.members = members
	table := maps.Clone(*p.table.Load())
	var gone []*peer
	for id, old := range table {
		if p.removed[id] {
			gone = append(gone, old)
			delete(table, id)
		}
	}
	for id := range members {
		if table[id] == nil && !p.stopping[id] {
			table[id] = p.newPeer(id)
		}
	}
	p.table.Store(&table)
	for _, old := range gone {
		// Not here: the caller may have been called by the very connection that
		// is to end.
		p.stopping[old.id] = true
		p.wg.Go(func() { p.retire(old) })
	}
	p.mu.Unlock()
	for _, peer := range table {
		peer.bundle[bundleData].kick()
		peer.bundle[bundleRaft].kick()
	}
}

// retire ends a peer. If it has become a member again meanwhile, its new
// connections begin only now: Up comes after Down.
func (p *Peers) retire(old *peer) {
	old.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.stopping, old.id)
	if _, again := p.members[old.id]; again && !p.closed {
		table := maps.Clone(*p.table.Load())
		table[old.id] = p.newPeer(old.id)
		p.table.Store(&table)
	}
}

// newPeer makes a peer and, if it is ours to dial, those who do. Called with mu
// held.
func (p *Peers) newPeer(id placement.Server) *peer {
	peer := &peer{all: p, id: id}
	for i := range peer.bundle {
		b := newBundle(peer, i)
		peer.bundle[i] = b
		if p.opt.Self > id {
			p.wg.Go(b.dialAlways)
		} else if b.which == bundleRaft {
			p.wg.Go(b.inquireAlways)
		}
	}
	return peer
}

// lookup returns the peer that says Hello, or nil. Somebody who has a certificate
// of this cluster but is not known as a member may talk raft: he may have joined
// while this server was away, and be the one who can tell it so.
func (p *Peers) lookup(id placement.Server, class wire.Class) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.removed[id] || p.stopping[id] {
		return nil
	}
	if _, member := p.members[id]; !member && (class != wire.ClassRaft || len(p.members)+strangeMembersMax <= len(*p.table.Load()) || p.opt.Gone != nil && p.opt.Gone(id)) {
		return nil
	}
	table := *p.table.Load()
	if table[id] == nil {
		table = maps.Clone(table)
		table[id] = p.newPeer(id)
		p.table.Store(&table)
	}
	return table[id]
}

// strangeMembersMax is how many servers are talked to that are not known as
// members.
const strangeMembersMax = 64

func (p *Peers) addrs(id placement.Server) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	addrs := p.members[id].Addrs
	if now := p.moved[id]; now != "" && !slices.Contains(addrs, now) {
		return append(slices.Clone(addrs), now)
	}
	return addrs
}

// Send queues m for a server and never waits. It returns false if it is not
// connected or m can't be sent: then m is not sent, nor ever will be. The caller
// may reuse m at once, but the memory that Data refers to must not change until
// it has been written.
func (p *Peers) Send(to placement.Server, m *wire.Message) bool {
	peer := (*p.table.Load())[to]
	class := m.Kind.Class()
	if peer == nil || class >= wire.Classes {
		return false
	}
	if err := m.Check(); err != nil {
		p.opt.Log.Error("message not sent", "to", to, "err", err)
		return false
	}
	m.Sent = p.opt.Clock.Now()
	return peer.bundle[bundleOf[class]].send(class, m)
}

// Connected reports whether messages of a class go to a server at present.
func (p *Peers) Connected(to placement.Server, class wire.Class) bool {
	peer := (*p.table.Load())[to]
	return peer != nil && class < wire.Classes && peer.bundle[bundleOf[class]].ready[class].Load() != nil
}

// Close cuts all connections and returns when nothing is under way any more:
// Down has been told, and no method of the handler runs or will.
func (p *Peers) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return errors.New("peer: closed")
	}
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	for _, l := range p.listeners {
		l.Close()
	}
	p.strangers.closeAll()
	for _, peer := range *p.table.Load() {
		peer.stop()
	}
	p.wg.Wait()
	return nil
}

func (p *peer) stop() {
	for _, b := range p.bundle {
		b.stop()
	}
}
