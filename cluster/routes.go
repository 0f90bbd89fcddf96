package cluster

import (
	"slices"

	"petal/cluster/meta"
	"petal/placement"
)

// routes says where the chunks of a gmap's disks are, as far as this node
// knows: a hint for the first try, since every member checks for itself (R1).
type routes struct {
	table *[placement.Buckets]uint16 // position by bucket
	links []route                    // by position
}

// route is one link.
type route struct {
	link placement.LinkID
	placement.Config
	servers []placement.Server // members, head candidate first
}

// head is who orders the link's writes.
func (r *route) head() placement.Server { return r.servers[r.Head] }

// alone reports whether the link never has more than one copy.
func (r *route) alone() bool { return len(r.servers) == 1 }

// of returns the link of a family's chunk.
func (r *routes) of(f placement.Family, c placement.Chunk) *route {
	return &r.links[r.table[placement.BucketOf(f, c)]]
}

// newRoutes returns the routes of a gmap under a state.
func newRoutes(s *meta.State, g *placement.GMap) *routes {
	r := &routes{table: &g.Table, links: make([]route, len(g.Ring))}
	for p := range r.links {
		id := placement.LinkID{GMap: g.ID, Position: uint32(p)}
		r.links[p] = route{link: id, Config: s.Link(id), servers: s.LinkServers(id)}
	}
	return r
}

// same reports whether two routes say the same.
func (r *routes) same(o *routes) bool {
	return slices.EqualFunc(r.links, o.links, func(a, b route) bool {
		return a.link == b.link && a.Config == b.Config && slices.Equal(a.servers, b.servers)
	})
}

// holds reports whether a server is in sync.
func (r *route) holds(id placement.Server) bool {
	i := slices.Index(r.servers, id)
	return i >= 0 && r.InSync.Has(placement.Member(i))
}

// only reports whether a server has the only copy of everything.
func (r *routes) only(id placement.Server) bool {
	return len(r.links) == 1 && r.links[0].alone() && r.links[0].head() == id
}
