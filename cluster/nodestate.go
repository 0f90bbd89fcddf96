package cluster

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"petal/cluster/meta"
	"petal/cluster/wire"
	"petal/placement"
)

// changed takes a new agreed state: it brings everything here up to it, in an
// order that matters. Reservations first: when their watchers have returned, no
// command is handed to a volume any more that the old value allows and the new
// one does not. Then the volumes learn the vver that goes with the new value; so
// no command of the old value is sent under the new vver.
func (n *Node) changed(s *meta.State) {
	n.applying.Lock()
	if s.Index() < n.State().Index() { // the first one, which OpenWith tells by hand, may come late
		n.applying.Unlock()
		return
	}
	n.state.Store(s)
	n.setPeers(peersOf(s, n.self))
	n.tellReservations(s)
	gone := n.updateVolumes(s)
	if st := n.store.Load(); st != nil {
		st.replica.Apply(s)
	}
	n.applying.Unlock()
	n.coord.wake()
	n.barriers.wake()
	n.drop(s, gone)
	n.mu.Lock()
	watchers := n.watchers
	n.mu.Unlock()
	for _, f := range watchers {
		f(s)
	}
}

func (n *Node) tellReservations(s *meta.State) {
	n.mu.Lock()
	var told []*Reservations
	for _, id := range slices.SortedFunc(maps.Keys(n.reserves), compareIDs) {
		if s.DiskByID(id) == nil {
			delete(n.reserves, id)
			continue
		}
		told = append(told, n.reserves[id])
	}
	n.mu.Unlock()
	for _, r := range told {
		r.changed(s)
	}
}

// updateVolumes tells the volumes what is new, and returns those whose disk is
// gone.
func (n *Node) updateVolumes(s *meta.State) (gone []*Volume) {
	var ids []placement.Server
	for _, srv := range s.Servers() {
		ids = append(ids, srv.ID)
	}
	n.coord.copies.grow(ids)
	n.mu.Lock()
	defer n.mu.Unlock()
	kept := map[uint32]*routes{}
	for _, g := range s.GMaps() {
		r := newRoutes(s, g)
		if old := n.routes[g.ID]; old != nil && old.same(r) {
			r = old
		}
		kept[g.ID] = r
	}
	n.routes = kept
	for _, id := range slices.SortedFunc(maps.Keys(n.volumes), compareIDs) {
		v := n.volumes[id]
		if d := s.DiskByID(id); d != nil {
			v.update(d, kept[s.Family(d.Family).GMap])
			continue
		}
		gone = append(gone, v)
		delete(n.volumes, id)
	}
	return gone
}

func compareIDs(a, b meta.ID) int { return slices.Compare(a[:], b[:]) }

func sortedKeys[V any](m map[placement.LinkID]V) []placement.LinkID {
	return slices.SortedFunc(maps.Keys(m), func(a, b placement.LinkID) int {
		return cmp.Or(cmp.Compare(a.GMap, b.GMap), cmp.Compare(a.Position, b.Position))
	})
}

// setPeers tells the transport who there is, if that has changed.
func (n *Node) setPeers(list []Peer) {
	if n.net == nil {
		return
	}
	n.mu.Lock()
	same := slices.EqualFunc(list, n.members, func(a, b Peer) bool {
		return a.Server == b.Server && a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses)
	})
	if len(list) == 0 && len(n.members) > 0 && n.State().ClusterID() == (meta.ID{}) {
		same = true // not known yet; those of the identity stay
	}
	if !same {
		n.members = list
	}
	n.mu.Unlock()
	if !same {
		n.net.SetPeers(list)
	}
}

// leaseChanged is told by the group, after the watchers have seen the state that
// the lease counts from.
func (n *Node) leaseChanged(until time.Duration, index uint64) {
	n.applying.Lock()
	n.mu.Lock()
	n.lease = lease{until, index}
	n.mu.Unlock()
	if st := n.store.Load(); st != nil {
		st.replica.SetLease(until, index)
	}
	n.applying.Unlock()
	n.coord.wake()
	n.tellLease()
}

func (n *Node) leaseNow() lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lease
}

// Leased reports whether this node serves under a live lease (R5): without one
// it can't know whether the others have gone on without it, and its sessions
// must end.
func (n *Node) Leased() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.isLeased()
}

func (n *Node) isLeased() bool {
	return n.phase == serving && n.failure == nil && !n.closed && n.lease.until > n.env.Clock.Now()
}

// OnLease registers f to be called after Leased has changed, in order, after the
// watchers have seen the state. It must return soon.
func (n *Node) OnLease(f func(leased bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onLease = append(n.onLease, f)
}

func (n *Node) tellLease() {
	n.mu.Lock()
	now := n.isLeased()
	if now == n.leased {
		n.mu.Unlock()
		return
	}
	n.leased = now
	n.coord.lapsed.Store(!now)
	told := n.onLease
	n.mu.Unlock()
	for _, f := range told {
		f(now)
	}
	if !now {
		n.coord.letAllGo()
		n.barriers.lapse()
	}
}

// peerTable is who is connected, so that a member that opens later is told.
type peerTable struct {
	mu sync.Mutex
	up []peerUp
}

type peerUp struct {
	server      placement.Server
	incarnation uint64
}

func (t *peerTable) set(p placement.Server, incarnation uint64, up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.up = slices.DeleteFunc(slices.Clone(t.up), func(x peerUp) bool { return x.server == p })
	if up {
		t.up = append(t.up, peerUp{p, incarnation})
	}
}

func (t *peerTable) list() []peerUp {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.up
}

// agreement carries the group's messages.
type agreement struct{ n *Node }

// Send implements meta.Transport.
func (a agreement) Send(to placement.Server, body []byte) bool {
	return a.n.net != nil && a.n.net.Send(to, &wire.Message{Kind: wire.Raft, Body: body})
}

// Up, Down and Receive implement Handler.
func (n *Node) Up(peer placement.Server, incarnation uint64) {
	n.applying.Lock()
	n.up.set(peer, incarnation, true)
	if s := n.store.Load(); s != nil {
		s.replica.Up(peer, incarnation)
	}
	n.applying.Unlock()
	n.coord.peerUp(peer)
}

// Down: see Handler.
func (n *Node) Down(peer placement.Server) {
	n.applying.Lock()
	n.up.set(peer, 0, false)
	if s := n.store.Load(); s != nil {
		s.replica.Down(peer)
	}
	n.applying.Unlock()
	n.coord.peerDown(peer)
}

// Receive: see Handler.
func (n *Node) Receive(from placement.Server, incarnation uint64, m *wire.Message) {
	group := n.heard.Load()
	if group == nil {
		return // raft's are all that can come so early, and it says everything again
	}
	switch m.Kind {
	case wire.Raft:
		group.Receive(from, append([]byte(nil), m.Body...))
	case wire.Reply:
		n.coord.receiveReply(from, m)
	case wire.CancelReply:
		n.coord.cancelEnd(from, m.Op, m.Status, m.Head)
	case wire.MappedReply:
		n.coord.receiveMapped(from, m)
	case wire.Barrier:
		n.barrierFor(from, m)
	case wire.BarrierDone:
		n.barriers.receive(from, m)
	case wire.Sessions:
		n.tellSessions(from, m.Index)
	case wire.SessionsHere:
		n.sessions.receive(from, m)
	default:
		if s := n.store.Load(); s != nil {
			s.replica.Receive(from, incarnation, m)
			return
		}
		n.refuse(from, m)
	}
}

// refuse answers what asks a member that has not opened yet.
func (n *Node) refuse(from placement.Server, m *wire.Message) {
	reply := wire.Message{Op: m.Op, Status: wire.NotReady, Link: m.Link, Key: m.Key}
	switch m.Kind {
	case wire.Write, wire.Read, wire.Zero, wire.CompareAndWrite:
		reply.Kind = wire.Reply
	case wire.Cancel:
		reply.Kind = wire.CancelReply
	case wire.Mapped:
		reply.Kind = wire.MappedReply
	default:
		return
	}
	n.net.Send(from, &reply)
}
