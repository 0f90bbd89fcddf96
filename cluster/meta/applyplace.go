package meta

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"petal/placement"
)

// placementFor returns the placement that a new disk gets: over all servers
// that hold data now. The newest one of the same servers and scheme is used
// again, so that links stay few. Without a scheme a disk is mirrored if there is
// more than one server, whether or not they are up: that a disk has but one copy
// for ever, because somebody was down when it was made, has to be said.
func (n *State) placementFor(scheme string) (uint32, error) {
	servers := n.present()
	if scheme == "" {
		scheme = "stripe"
		if len(n.DataServers()) >= 2 {
			scheme = "mirror"
		}
	}
	kind, err := placement.ParseScheme(scheme)
	if err != nil {
		return 0, refuse(ErrInvalid, fmt.Sprintf("scheme %q", scheme), "", "use stripe, mirror or mirror3")
	}
	var places []placement.Place
	for _, v := range servers {
		places = append(places, placement.Place{Server: v.ID, Site: v.Site})
	}
	for _, g := range slices.Backward(n.GMaps()) {
		if g.Scheme == kind && sameServers(g.Ring, servers) {
			return g.ID, nil
		}
	}
	g, err := placement.New(n.nextGMap, kind, places)
	switch {
	case errors.Is(err, placement.ErrTooFewServers):
		return 0, n.tooFew(kind, servers)
	case err != nil:
		return 0, refuse(ErrInvalid, "scheme "+scheme, err.Error(), "")
	}
	n.gmaps[g.ID] = g
	n.nextGMap++
	return g.ID, nil
}

// tooFew refuses a scheme that has more copies than there are servers for them.
func (n *State) tooFew(kind placement.Scheme, present []*Server) error {
	why := fmt.Sprintf("it needs %d servers that hold data, there are %d", kind.Copies(), len(present))
	fewer := "choose fewer copies: --scheme stripe (one)"
	if kind.Copies() > 2 && len(present) >= 2 {
		fewer += " or mirror (two)"
	}
	var gone []string
	for _, v := range n.DataServers() {
		if !slices.Contains(present, v) {
			gone = append(gone, n.NameOf(v.ID))
		}
	}
	if len(gone) == 0 {
		return refuse(ErrInvalid, "scheme "+kind.String(), why, "let more servers join, or "+fewer)
	}
	return refuse(ErrInvalid, "scheme "+kind.String(), why+" beside those that have long been down ("+someOf(gone)+")",
		"start "+someOf(gone)+" or let others join; or "+fewer)
}

// goneAfter is how long a server has to be down, with the default times, until
// new disks are made without it: as long as it keeps its vote.
const goneAfter = 5 * time.Minute

// goneAfter is the constant, by the cluster's own times.
func (n *State) goneAfter() time.Duration {
	return goneAfter * time.Duration(cmp.Or(n.times, 1000)) / 1000
}

// present returns the servers that a new disk is to lie on: those that hold data,
// without those that have long been down. So the disks of a server that is lost
// for good can be copied to new ones.
func (n *State) present() []*Server {
	after := n.goneAfter().Milliseconds()
	return slices.DeleteFunc(n.DataServers(), func(v *Server) bool { return !v.Down.IsZero() && n.now-v.Down.UnixMilli() >= after })
}

func sameServers(ring []placement.Server, servers []*Server) bool {
	if len(ring) != len(servers) {
		return false
	}
	for _, v := range servers {
		if !slices.Contains(ring, v.ID) {
			return false
		}
	}
	return true
}

// dropGMap forgets a placement that no family has any more, and its links.
func (n *State) dropGMap(id uint32) {
	for _, f := range n.families {
		if f.GMap == id {
			return
		}
	}
	delete(n.gmaps, id)
	for l := range n.links {
		if l.GMap == id {
			delete(n.links, l)
		}
	}
}
