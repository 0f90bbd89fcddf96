package replica

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"petal/cluster/link"
	"petal/cluster/meta"
	"petal/placement"
)

// Apply takes a new agreed state. States come in the order of their index, the
// first not before this process's own start is in it. It, SetLease, Up and Down
// are called one at a time.
func (s *Server) Apply(st *meta.State) { s.apply(viewOf(st, s.c.Self)) }

// viewOf takes from the agreed state what concerns a server.
func viewOf(st *meta.State, self placement.Server) *view {
	v := &view{index: st.Index(), disks: map[diskKey]*diskView{}, families: map[placement.Family]uint32{}, gmaps: map[uint32]*placement.GMap{}}
	for _, g := range st.GMaps() {
		v.gmaps[g.ID] = g
		for _, id := range g.Links(nil, self) {
			v.links = append(v.links, linkOf(st.LinkInfo(id), g, self))
		}
	}
	slices.SortFunc(v.links, func(a, b linkView) int { return compareLinks(a.id, b.id) })
	for _, f := range st.Families() {
		v.families[f.ID] = f.GMap
	}
	for _, d := range st.Disks() {
		f := st.Family(d.Family)
		if f == nil || st.GMap(f.GMap) == nil {
			continue
		}
		v.disks[diskKey{d.Family, d.Node}] = &diskView{vver: d.VVer, lineage: f.Lineage(d.Node), gmap: st.GMap(f.GMap)}
	}
	return v
}

func linkOf(i meta.Link, g *placement.GMap, self placement.Server) linkView {
	m, _ := g.MemberOf(i.ID.Position, self)
	return linkView{
		id: i.ID, servers: g.Members(i.ID.Position), self: m,
		config: i.Config, filling: i.Filling, blank: i.Blank, fenced: i.Fenced.Has(m),
	}
}

func compareLinks(a, b placement.LinkID) int {
	return cmp.Or(cmp.Compare(a.GMap, b.GMap), cmp.Compare(a.Position, b.Position))
}

// apply makes v what this server goes by. Operations that were admitted before
// are told to the barriers; those that come from here on are held against v.
func (s *Server) apply(v *view) {
	s.mu.Lock()
	old := s.view.Load()
	if v.index < old.index {
		s.mu.Unlock()
		return
	}
	var fresh []*seat
	for i := range v.links {
		if l := s.sit(&v.links[i]); l != nil {
			fresh = append(fresh, l)
		}
	}
	up, lease := maps.Clone(s.up), s.lease
	for _, d := range v.disks {
		d.seats = make([]*seat, len(d.gmap.Ring))
		for p := range d.seats {
			d.seats[p] = s.seats[placement.LinkID{GMap: d.gmap.ID, Position: uint32(p)}]
		}
	}
	s.view.Store(v)
	s.mu.Unlock()
	for _, l := range fresh {
		l.begin(up, lease)
	}
	for i := range v.links {
		s.seat(v.links[i].id).configure(&v.links[i], v.index)
	}
	s.retryAhead()
	s.retryBarriers()
	s.leave(v)
}

// leave lets go of links that are no more. One of which something is under way
// still is left for the next time.
func (s *Server) leave(v *view) {
	for _, l := range s.all() {
		if slices.ContainsFunc(v.links, func(x linkView) bool { return x.id == l.id }) {
			continue
		}
		l.lock()
		over := l.used == 0 && len(l.barriers) == 0
		if over {
			l.close()
		}
		l.unlock()
		if !over {
			continue
		}
		s.mu.Lock()
		delete(s.seats, l.id)
		s.order = slices.DeleteFunc(slices.Clone(s.order), func(x *seat) bool { return x == l })
		s.mu.Unlock()
		s.c.Store.Discard(l.id, func(placement.Bucket) bool { return false }, nil, func(error) {})
	}
}

// sit makes the seat of a link that is new, and returns it. s.mu is held.
func (s *Server) sit(v *linkView) *seat {
	if s.seats[v.id] != nil {
		return nil
	}
	l := newSeat(s, v)
	l.restore(s.c.Recovery)
	s.seats[v.id] = l
	s.order = append(slices.Clone(s.order), l)
	slices.SortFunc(s.order, func(a, b *seat) int { return compareLinks(a.id, b.id) })
	return l
}

// begin tells a new seat what the server knows. s.mu is not held: what a seat
// does about it may want it.
func (l *seat) begin(up map[placement.Server]uint64, lease leaseGrant) {
	l.lock()
	for m, server := range l.servers {
		if _, ok := up[server]; ok && placement.Member(m) != l.self {
			l.peer(placement.Member(m), true)
		}
	}
	if l.leased = lease.until; l.leased != 0 {
		l.step(&link.Event{Kind: link.EventLease, Until: lease.until, Index: lease.index})
	}
	l.unlock()
}

// seat returns the seat in a link, or nil.
func (s *Server) seat(id placement.LinkID) *seat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seats[id]
}

// all returns the seats, in order.
func (s *Server) all() []*seat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order
}

// SetLease tells until when this server holds a lease, and the raft index from
// which on that counts (R5); until 0: it has none.
func (s *Server) SetLease(until time.Duration, index uint64) {
	s.mu.Lock()
	s.lease = leaseGrant{until, index}
	s.mu.Unlock()
	for _, l := range s.all() {
		l.lock()
		l.leased = until
		l.step(&link.Event{Kind: link.EventLease, Until: until, Index: index})
		l.unlock()
	}
}

// configure tells the machine what is agreed about its link.
func (l *seat) configure(v *linkView, index uint64) {
	l.lock()
	if v.blank.Has(l.self) && l.blankAt != v.config.Ver {
		l.discardAll(v)
		l.unlock()
		return
	}
	l.configured(v, index)
	l.unlock()
}

func (l *seat) configured(v *linkView, index uint64) {
	if v.config.Ver > l.ver {
		l.ver, l.since = v.config.Ver, l.s.now()
		l.avail = [placement.MaxCopies]space{}
		l.dropFetches()
		l.pulls.hope()
	}
	l.blank, l.filling = v.blank, v.filling
	l.step(&link.Event{Kind: link.EventConfig, Config: v.config, Index: index})
	l.verNow.Store(l.ver)
	l.headNow.Store(uint64(l.servers[l.m.Config().Head]))
	if v.fenced {
		l.step(&link.Event{Kind: link.EventFence, Ver: v.config.Ver})
	}
	if l.m.State() != link.Open && l.m.State() != link.Opening && l.m.State() != link.Settling {
		l.stirred = true // who waits for it to open is told
	}
	l.unseal()
	l.recount()
	l.checkBarriers()
	l.pulls.wake()
}
