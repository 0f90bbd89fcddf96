package placement

import (
	"errors"
	"fmt"
	"slices"
)

// Scheme says how many copies a GMap keeps.
type Scheme uint8

// The schemes. Their numbers and names are part of formats.
const (
	Stripe  Scheme = 1 + iota // one copy: losing a server loses data
	Mirror                    // two copies, on neighbours of the ring
	Mirror3                   // three copies, on three neighbours of the ring
)

var schemeNames = [...]string{Stripe: "stripe", Mirror: "mirror", Mirror3: "mirror3"}

func (s Scheme) String() string {
	if s.Copies() == 0 {
		return fmt.Sprintf("scheme %d", uint8(s))
	}
	return schemeNames[s]
}

// ParseScheme returns the scheme of a name.
func ParseScheme(name string) (Scheme, error) {
	for s := Stripe; int(s) < len(schemeNames); s++ {
		if schemeNames[s] == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("placement: no scheme is called %q; there are stripe, mirror and mirror3", name)
}

// Copies is the number of copies that the scheme keeps, and the least number of
// servers that it needs; 0 of a scheme that is none.
func (s Scheme) Copies() int {
	if s < Stripe || int(s) >= len(schemeNames) {
		return 0
	}
	return int(s)
}

// MaxRing is the greatest number of servers of a GMap: it bounds how many
// servers a barrier asks and what the death of neighbours can hit.
const MaxRing = 64

// Errors of New, Grow and Restore, to be found with errors.Is; the texts say
// what is wrong and what would help.
var (
	ErrTooFewServers  = errors.New("placement: too few servers")
	ErrTooManyServers = errors.New("placement: too many servers")
	ErrInvalidGMap    = errors.New("placement: invalid gmap")
)

// Place is a server and the site where it stands. Servers without a site are
// all in one.
type Place struct {
	Server Server
	Site   string
}

// GMap says which servers hold which buckets (DESIGN section 2, F): chained
// declustering. It never changes; growth makes another one.
//
//	bucket  0 1 2 3 4 5 ...        Table: bucket -> position of the ring
//	        | | | | | |
//	ring    A B C D A B ...        the first copy, which is the head candidate
//	        B C D A B C ...        the second copy: the next on the ring
//
// All methods may be used concurrently; none of them allocates but Links.
type GMap struct {
	ID     uint32
	Scheme Scheme
	Copies int             // of each bucket: Scheme.Copies()
	Ring   []Server        // no server twice; don't change it
	Table  [Buckets]uint16 // position in Ring, of each bucket

	twice []Server // Ring and its beginning again, so that every link is a slice of it
}

// New places the buckets evenly on servers, in any order: buckets in a row lie
// on servers in a row, and neighbours of the ring stand in different sites as
// far as sites allow. Equal arguments, in any order, give equal maps.
func New(id uint32, scheme Scheme, servers []Place) (*GMap, error) {
	if err := checkRing(id, scheme, servers); err != nil {
		return nil, err
	}
	g := newGMap(id, scheme, orderRing(servers, scheme.Copies()))
	for b := range g.Table {
		g.Table[b] = uint16(b % len(g.Ring))
	}
	return g, nil
}

// Restore makes a GMap again from what was kept of it. It takes its own copy of
// ring and table, and trusts neither.
func Restore(id uint32, scheme Scheme, ring []Server, table []uint16) (*GMap, error) {
	places := make([]Place, 0, min(len(ring), MaxRing+1))
	for _, s := range ring[:min(len(ring), MaxRing+1)] {
		places = append(places, Place{Server: s})
	}
	if err := checkRing(id, scheme, places); err != nil {
		return nil, err
	}
	if len(table) != Buckets {
		return nil, fmt.Errorf("%w: gmap %d has a table of %d buckets, not %d", ErrInvalidGMap, id, len(table), Buckets)
	}
	g := newGMap(id, scheme, slices.Clone(ring))
	for b, p := range table {
		if int(p) >= len(ring) {
			return nil, fmt.Errorf("%w: gmap %d has bucket %d at position %d of a ring of %d", ErrInvalidGMap, id, b, p, len(ring))
		}
		g.Table[b] = p
	}
	return g, nil
}

func newGMap(id uint32, scheme Scheme, ring []Server) *GMap {
	copies := scheme.Copies()
	return &GMap{
		ID: id, Scheme: scheme, Copies: copies, Ring: ring,
		twice: append(slices.Clone(ring), ring[:copies-1]...),
	}
}

func checkRing(id uint32, scheme Scheme, servers []Place) error {
	switch n := len(servers); {
	case id == 0:
		return fmt.Errorf("%w: no gmap has the number 0", ErrInvalidGMap)
	case scheme.Copies() == 0:
		return fmt.Errorf("%w: gmap %d has the unknown %v", ErrInvalidGMap, id, scheme)
	case n < scheme.Copies():
		return fmt.Errorf("%w: %v keeps %d copies, each on another server, and there are %d servers with disks; add servers or choose a scheme with fewer copies",
			ErrTooFewServers, scheme, scheme.Copies(), n)
	case n > MaxRing:
		return fmt.Errorf("%w: a ring has at most %d; use several gmaps", ErrTooManyServers, MaxRing)
	}
	for i, p := range servers {
		if p.Server == 0 {
			return fmt.Errorf("%w: gmap %d names the server 0, which is none", ErrInvalidGMap, id)
		}
		if slices.ContainsFunc(servers[:i], func(q Place) bool { return q.Server == p.Server }) {
			return fmt.Errorf("%w: gmap %d names the server %d twice", ErrInvalidGMap, id, p.Server)
		}
	}
	return nil
}

// Position is the ring position of a bucket's first copy.
func (g *GMap) Position(b Bucket) uint32 { return uint32(g.Table[b]) }

// LinkOf returns the link that a bucket belongs to.
func (g *GMap) LinkOf(b Bucket) LinkID { return LinkID{GMap: g.ID, Position: uint32(g.Table[b])} }

// Members returns the servers of the link at a position, in the order of Member:
// the head candidate first. Don't change the slice. It is nil if there is no
// such position.
func (g *GMap) Members(position uint32) []Server {
	if uint64(position) >= uint64(len(g.Ring)) {
		return nil
	}
	return g.twice[position : int(position)+g.Copies : int(position)+g.Copies]
}

// MemberOf returns which member of the link at a position a server is; false if
// none.
func (g *GMap) MemberOf(position uint32, s Server) (Member, bool) {
	for i, m := range g.Members(position) {
		if m == s {
			return Member(i), true
		}
	}
	return 0, false
}

// Links appends to dst the links that a server is a member of: first the one that
// it is the head candidate of, then those before it on the ring. None, if it is
// not on the ring.
func (g *GMap) Links(dst []LinkID, s Server) []LinkID {
	at := slices.Index(g.Ring, s)
	if at < 0 {
		return dst
	}
	n := len(g.Ring)
	for i := range g.Copies {
		dst = append(dst, LinkID{GMap: g.ID, Position: uint32((at - i + n) % n)})
	}
	return dst
}
