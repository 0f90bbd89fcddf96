package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// encodeCluster puts servers, placements, links and what belongs to them into p.
func (s *State) encodeCluster(p *metapb.State) {
	p.Name, p.TimesPermille, p.NextServer, p.NextGmap, p.NextEvent = s.name, s.times, uint32(s.nextServer), s.nextGMap, s.nextEvent
	p.CaCertificate, p.SealedCaKey = s.caCert, s.caKey
	p.Conf = s.conf.encode()
	for _, v := range s.Servers() {
		srv := &metapb.Server{Id: uint32(v.ID), Name: v.Name, Incarnation: v.Incarnation, Site: v.Site, Kind: metapb.ServerKind(v.Kind), Addresses: v.Addresses, Portals: v.Portals,
			Confirmed: v.Confirmed, Release: v.Release, DownSinceMs: toMs(v.Down), Leaving: v.Leaving, JoinedMs: toMs(v.Joined), FailedMs: toMs(v.Failed)}
		for _, b := range v.Bricks {
			srv.Bricks = append(srv.Bricks, b[:])
		}
		p.Servers = append(p.Servers, srv)
	}
	for _, g := range s.GMaps() {
		table := make([]byte, 0, 2*len(g.Table))
		for _, at := range g.Table {
			table = binary.LittleEndian.AppendUint16(table, at)
		}
		p.Gmaps = append(p.Gmaps, &metapb.GMap{Id: g.ID, Scheme: g.Scheme.String(), Copies: uint32(g.Copies), Ring: numbers(g.Ring), Table: table})
	}
	for _, id := range slices.SortedFunc(maps.Keys(s.links), compareLinks) {
		l := s.links[id]
		p.Links = append(p.Links, &metapb.Link{Gmap: id.GMap, Position: id.Position, Ver: l.Ver, InSync: uint32(l.InSync), Head: uint32(l.Head), Filling: uint32(l.Filling),
			Fenced: uint32(l.Fenced), Confirmed: uint32(l.Confirmed), Blank: uint32(l.Blank), ChangedMs: toMs(l.Changed), DegradedMs: toMs(l.Degraded)})
	}
	for _, id := range slices.Sorted(maps.Keys(s.sessions)) {
		v := s.sessions[id]
		p.Sessions = append(p.Sessions, &metapb.Session{Server: uint32(id), Session: v.session, Floor: v.floor, Numbers: v.numbers})
	}
	for _, k := range slices.Sorted(maps.Keys(s.tokens)) {
		t := s.tokens[k]
		p.Tokens = append(p.Tokens, &metapb.Token{Hash: bytes.Clone(t.Hash[:]), CreatedMs: toMs(t.Created), ExpiresMs: toMs(t.Expires), UsesLeft: t.UsesLeft, UsedBy: t.UsedBy})
	}
	for _, e := range s.events {
		p.Events = append(p.Events, &metapb.Event{Number: e.Number, UnixMs: toMs(e.Time), Kind: e.Kind, Server: uint32(e.Server), Text: e.Text})
	}
}

// decodeCluster is the inverse of encodeCluster.
func (s *State) decodeCluster(p *metapb.State) error {
	s.name, s.times, s.nextServer, s.nextGMap, s.nextEvent = p.Name, p.TimesPermille, placement.Server(p.NextServer), p.NextGmap, p.NextEvent
	s.caCert, s.caKey, s.conf = p.CaCertificate, p.SealedCaKey, confOf(p.Conf)
	for _, v := range p.Servers {
		srv := &Server{ID: placement.Server(v.Id), Name: v.Name, Incarnation: v.Incarnation, Site: v.Site, Kind: kindOf(v.Kind), Addresses: v.Addresses, Portals: v.Portals,
			Confirmed: v.Confirmed, Release: max(v.Release, 1), Down: unixMs(v.DownSinceMs), Leaving: v.Leaving, Joined: unixMs(v.JoinedMs), Failed: unixMs(v.FailedMs)}
		for _, b := range v.Bricks {
			id, err := idOf(b, "brick id")
			if err != nil {
				return err
			}
			srv.Bricks = append(srv.Bricks, id)
		}
		s.servers[srv.ID] = srv
	}
	for _, g := range p.Gmaps {
		if err := s.decodeGMap(g); err != nil {
			return err
		}
	}
	for _, l := range p.Links {
		if err := s.decodeLink(l); err != nil {
			return err
		}
	}
	for _, v := range p.Sessions {
		s.sessions[placement.Server(v.Server)] = session{session: v.Session, floor: v.Floor, numbers: v.Numbers}
	}
	for _, t := range p.Tokens {
		if len(t.Hash) != 32 {
			return fmt.Errorf("meta: token with a hash of %d bytes", len(t.Hash))
		}
		k := Token{Created: unixMs(t.CreatedMs), Expires: unixMs(t.ExpiresMs), UsesLeft: t.UsesLeft, UsedBy: t.UsedBy}
		copy(k.Hash[:], t.Hash)
		s.tokens[string(t.Hash)] = k
	}
	for _, e := range p.Events {
		s.events = append(s.events, &Event{Number: e.Number, Time: unixMs(e.UnixMs), Kind: e.Kind, Server: placement.Server(e.Server), Text: e.Text})
	}
	return nil
}

// decodeGMap also reads what one node alone wrote: no table, since its ring had
// one server.
func (s *State) decodeGMap(g *metapb.GMap) error {
	if len(g.Table)%2 != 0 || len(g.Table) > 2*placement.Buckets {
		return fmt.Errorf("meta: gmap %d has a table of %d bytes", g.Id, len(g.Table))
	}
	table := make([]uint16, 0, placement.Buckets)
	for at := 0; at < len(g.Table); at += 2 {
		table = append(table, binary.LittleEndian.Uint16(g.Table[at:]))
	}
	if len(table) == 0 && len(g.Ring) == 1 {
		table = table[:placement.Buckets]
	}
	scheme, err := placement.ParseScheme(g.Scheme)
	if err != nil {
		return err
	}
	m, err := placement.Restore(g.Id, scheme, servers(g.Ring), table)
	if err != nil {
		return err
	}
	s.gmaps[g.Id] = m
	s.nextGMap = max(s.nextGMap, g.Id+1)
	return nil
}

func (s *State) decodeLink(l *metapb.Link) error {
	id := linkID(l.Gmap, l.Position)
	all := placement.MembersOf(len(s.LinkServers(id)))
	in := placement.Members(l.InSync)
	if all == 0 || l.Ver == 0 || in == 0 || l.InSync&^uint32(all) != 0 || l.Head >= placement.MaxCopies || !in.Has(placement.Member(l.Head)) ||
		(l.Filling|l.Fenced|l.Confirmed|l.Blank)&^uint32(all) != 0 {
		return fmt.Errorf("meta: %s with version %d, members %#x, head %d", linkThing(id), l.Ver, l.InSync, l.Head)
	}
	s.links[id] = &Link{ID: id, Config: placement.Config{Ver: l.Ver, InSync: in, Head: placement.Member(l.Head)}, Filling: placement.Members(l.Filling),
		Fenced: placement.Members(l.Fenced), Confirmed: placement.Members(l.Confirmed), Blank: placement.Members(l.Blank), Changed: unixMs(l.ChangedMs), Degraded: unixMs(l.DegradedMs)}
	return nil
}

func (c *Conf) encode() *metapb.Conf {
	return &metapb.Conf{Voters: wide(c.Voters), Learners: wide(c.Learners), VotersOutgoing: wide(c.Outgoing), LearnersNext: wide(c.LearnersNext), AutoLeave: c.AutoLeave}
}

func confOf(p *metapb.Conf) Conf {
	return Conf{Voters: narrow(p.GetVoters()), Learners: narrow(p.GetLearners()), Outgoing: narrow(p.GetVotersOutgoing()), LearnersNext: narrow(p.GetLearnersNext()), AutoLeave: p.GetAutoLeave()}
}

func numbers(ids []placement.Server) []uint32 { return convert[uint32](ids) }

func servers(ids []uint32) []placement.Server { return convert[placement.Server](ids) }

func wide(ids []placement.Server) []uint64 { return convert[uint64](ids) }

func narrow(ids []uint64) []placement.Server { return convert[placement.Server](ids) }

// convert turns one kind of number into another. None is longer than a Server.
func convert[B, A ~uint32 | ~uint64](ids []A) []B {
	if len(ids) == 0 {
		return nil
	}
	out := make([]B, len(ids))
	for i, id := range ids {
		out[i] = B(id)
	}
	return out
}
