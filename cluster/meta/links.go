package meta

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"petal/placement"
)

// Link is what is agreed upon about a link: its configuration, and what became
// of members that are not simply in or out.
type Link struct {
	ID placement.LinkID
	placement.Config
	// Filling are in sync but still miss blocks, and know which (R9).
	Filling placement.Members
	// Fenced ones are about to be excluded though they have a lease: from the
	// moment they apply this they serve nothing of the link, as if they had no
	// lease for it. Confirmed ones have said that they have stopped. Any new Ver
	// ends both.
	Fenced, Confirmed placement.Members
	// Blank ones are out of sync, and what they have of the link is worth nothing:
	// a disk that was set back or replaced (R14), or a link that was forced. They
	// discard it, and get everything when they rejoin.
	Blank    placement.Members
	Changed  time.Time // of Ver; zero if it never did
	Degraded time.Time // since when a member has been out of sync or filling; zero: none is
}

// GMap returns a placement, or nil.
func (s *State) GMap(id uint32) *placement.GMap { return s.gmaps[id] }

// GMaps returns all placements by id.
func (s *State) GMaps() []*placement.GMap {
	return slices.SortedFunc(maps.Values(s.gmaps), func(a, b *placement.GMap) int { return cmp.Compare(a.ID, b.ID) })
}

// Link returns the configuration of a link; the zero Config if there is no
// such link.
func (s *State) Link(id placement.LinkID) placement.Config {
	if l := s.links[id]; l != nil {
		return l.Config
	}
	n := len(s.LinkServers(id))
	if n == 0 {
		return placement.Config{}
	}
	return placement.Config{Ver: 1, InSync: placement.MembersOf(n)}
}

// LinkInfo returns all that is agreed upon about a link; its Ver is 0 if there
// is no such link.
func (s *State) LinkInfo(id placement.LinkID) Link {
	if l := s.links[id]; l != nil {
		return *l
	}
	return Link{ID: id, Config: s.Link(id)}
}

// LinkServers returns the members of a link in the order of placement.Member,
// nil if there is no such link. The caller must not change the slice.
func (s *State) LinkServers(id placement.LinkID) []placement.Server {
	g := s.gmaps[id.GMap]
	if g == nil {
		return nil
	}
	return g.Members(id.Position)
}

// Links returns the ids of all links, by gmap and position.
func (s *State) Links() []placement.LinkID {
	var out []placement.LinkID
	for _, g := range s.GMaps() {
		for p := range g.Ring {
			out = append(out, placement.LinkID{GMap: g.ID, Position: uint32(p)})
		}
	}
	return out
}

// LinksOf returns the ids of the links that a server is a member of, by gmap
// and position.
func (s *State) LinksOf(id placement.Server) []placement.LinkID {
	var out []placement.LinkID
	for _, g := range s.GMaps() {
		out = g.Links(out, id)
	}
	slices.SortFunc(out, compareLinks)
	return out
}

// MemberOf returns a server's place in a link; false if it has none.
func (s *State) MemberOf(l placement.LinkID, id placement.Server) (placement.Member, bool) {
	g := s.gmaps[l.GMap]
	if g == nil {
		return 0, false
	}
	return g.MemberOf(l.Position, id)
}

func compareLinks(a, b placement.LinkID) int {
	return cmp.Or(cmp.Compare(a.GMap, b.GMap), cmp.Compare(a.Position, b.Position))
}
