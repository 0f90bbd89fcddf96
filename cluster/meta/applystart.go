package meta

import (
	"fmt"
	"slices"
	"strings"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// start gives a server process its incarnation and its links new versions: a
// restart loses what was not durable, so R10 comes before any service. What the
// bricks know of the past is compared with the state (R14).
func (n *State) start(c *metapb.Start) error {
	srv, err := n.serverForChange(c.Server)
	if err != nil {
		return err
	}
	if err := n.compatible(fmt.Sprintf("server %q", srv.Name), srv.ID, max(c.Release, 1), c.TimesPermille); err != nil {
		return err
	}
	if err := n.addressesFree(srv, c.Addresses); err != nil {
		return err
	}
	bricks := make([]ID, 0, len(c.Bricks))
	for _, b := range c.Bricks {
		id, err := idOf(b, "brick id")
		if err != nil {
			return err
		}
		bricks = append(bricks, id)
	}
	past, err := n.witness(srv, c, bricks)
	if err != nil {
		return err
	}
	if past != asKnown {
		if err := n.blank(srv, past, c.AcceptLoss); err != nil {
			return err
		}
	}
	srv.Incarnation++
	srv.Failed = unixMs(0)
	srv.Bricks, srv.Release = bricks, max(c.Release, 1)
	if len(c.Addresses) > 0 {
		srv.Addresses = slices.Clone(c.Addresses)
	}
	if len(c.Portals) > 0 {
		srv.Portals = slices.Clone(c.Portals)
	}
	if err := checkServer(srv.Name, srv.Site, srv.Addresses, srv.Portals); err != nil {
		return err
	}
	if n.times == 0 {
		n.times = c.TimesPermille
	}
	n.servers[srv.ID] = srv
	n.reopenLinks(srv.ID, true)
	n.event("member", srv.ID, "server %s starts (process %d)", n.NameOf(srv.ID), srv.Incarnation)
	return nil
}

// pastOf is what bricks are, held against what the state knows of them (R14).
type pastOf uint8

const (
	asKnown pastOf = iota
	setBack        // the same brick, and it has forgotten
	empty          // another one, or one that never served: nothing of what was there
)

// witness compares what bricks know of the past with the state (R14). A state
// that is older was restored from a backup: the server must not start. Bricks
// that are older were set back or replaced: what they hold is worth nothing.
func (n *State) witness(srv *Server, c *metapb.Start, bricks []ID) (past pastOf, err error) {
	const advice = "put back the cluster state that belongs to these bricks"
	thing := fmt.Sprintf("the state that server %s is part of", n.NameOf(srv.ID))
	if c.Witnessed > srv.Incarnation {
		return 0, refuse(ErrOld, thing, fmt.Sprintf("it knows of %d starts, the bricks of %d: it is older than the data", srv.Incarnation, c.Witnessed), advice)
	}
	for _, seen := range c.Links {
		l := n.LinkInfo(linkID(seen.Gmap, seen.Position))
		if l.Ver != 0 && seen.Ver > l.Ver {
			return 0, refuse(ErrOld, thing, fmt.Sprintf("%s has version %d in it, and the bricks have seen %d: it is older than the data", linkThing(l.ID), l.Ver, seen.Ver), advice)
		}
	}
	switch {
	case !c.HasWitness || srv.Kind == Witness:
		return asKnown, nil
	case len(srv.Bricks) > 0 && !slices.Equal(srv.Bricks, bricks), c.Witnessed == 0 && srv.Confirmed > 0:
		return empty, nil
	case c.Witnessed < srv.Confirmed:
		return setBack, nil
	}
	return asKnown, nil
}

// blank takes a server whose bricks are not what they were out of every link in
// which somebody else has everything. Where nobody has, acknowledged writes are
// lost with what these bricks held: that has to be accepted. And not even then
// does an empty brick win over another server's copy, however old that is.
func (n *State) blank(srv *Server, past pastOf, acceptLoss bool) error {
	var only []placement.LinkID
	var others []string // commands that take what others have
	for _, id := range n.LinksOf(srv.ID) {
		m, _ := n.MemberOf(id, srv.ID)
		l, self := n.LinkInfo(id), placement.Members(0).With(m)
		was := l.InSync
		if last := was&^l.Filling&^self == 0 && !l.Blank.Has(m); last {
			only = append(only, id)
			if old := placement.MembersOf(len(n.LinkServers(id))) &^ self &^ l.Blank; past == empty && was == self && old != 0 {
				others = append(others, fmt.Sprintf("`petal link force %v --node %s --accept-loss`", id, n.NameOf(n.LinkServers(id)[old.First()])))
			}
		}
		switch {
		case was == self:
			// What the others have is older, and of another history: none of it counts.
			l.Blank = placement.MembersOf(len(n.LinkServers(id))).Without(m)
			n.links[id] = &l // reopenLinks gives it its new version
		case was.Has(m):
			l.Blank = l.Blank.With(m)
			l.InSync = was.Without(m)
			l.Head = l.headOf()
			n.renew(&l)
		default:
			l.Blank = l.Blank.With(m)
			n.links[id] = &l
		}
	}
	thing := fmt.Sprintf("the bricks of server %s", n.NameOf(srv.ID))
	switch {
	case len(others) > 0:
		return refuse(ErrOld, thing, fmt.Sprintf("they are empty, and of what they held other servers still have copies that lack the last writes only, or what they had not copied yet when they fell out (%d links): to begin with empty bricks would throw these away", len(others)),
			"take those copies first, on a node that runs, then start this one: "+strings.Join(others[:min(len(others), maxCommands)], ", ")+more(len(others)-maxCommands))
	case len(only) > 0 && !acceptLoss:
		return refuse(ErrOld, thing, fmt.Sprintf("they are older than they were or not the same, and nobody else has all of links %s: acknowledged writes to %s would be lost", someOf(linkNames(only)), n.disksText(only)),
			"put back the right disks, or accept the loss: `petal serve --accept-loss`, or `petal link force` on another copy (`petal link list`)")
	case len(only) > 0:
		n.event("loss", srv.ID, "bricks of server %s are older than they were or not the same, and nobody else had all of links %s: accepted as loss of writes to %s; older data of the other servers is given up, too", n.NameOf(srv.ID), someOf(linkNames(only)), n.disksText(only))
	}
	n.event("link", srv.ID, "bricks of server %s are older than they were or not the same: what they hold counts as nothing and is copied anew", n.NameOf(srv.ID))
	return nil
}

// maxCommands bounds how many commands a hint spells out.
const maxCommands = 4

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and so on for %d more (`petal link list`)", n)
}

// reopenLinks gives the links of a server new versions: those in which it is in
// sync, or all. A process that begins needs all: a Rejoined that was proposed in
// its former life must not let it in when it has lost what that counted on.
func (n *State) reopenLinks(id placement.Server, all bool) {
	for _, l := range n.LinksOf(id) {
		m, _ := n.MemberOf(l, id)
		if info := n.LinkInfo(l); all || info.InSync.Has(m) {
			n.renew(&info)
		}
	}
}

// confirm notes that the bricks bear witness of an incarnation: from now on
// bricks that don't have been set back (R14).
func (n *State) confirm(c *metapb.Confirm) error {
	srv, err := n.process(c.Server, c.Incarnation)
	if err != nil {
		return err
	}
	srv.Confirmed = c.Incarnation
	n.servers[srv.ID] = srv
	return nil
}

// brickFailed notes that a process serves nothing of its brick any more, so that
// everybody can tell how the disks are. What becomes of its links is the
// controller's business.
func (n *State) brickFailed(c *metapb.BrickFailed) error {
	srv, err := n.process(c.Server, c.Incarnation)
	if err != nil {
		return err
	}
	if !srv.Failed.IsZero() {
		return nil
	}
	srv.Failed = unixMs(max(n.now, 1))
	n.servers[srv.ID] = srv
	n.event("brick", srv.ID, "the brick of server %s has failed, and is served no more until the server is started again: %s", n.NameOf(srv.ID), c.Why)
	return nil
}

// process returns a copy of a server if that process is its latest.
func (n *State) process(server uint32, incarnation uint64) (*Server, error) {
	srv, err := n.serverForChange(server)
	if err == nil && srv.Incarnation != incarnation {
		return nil, refuse(ErrStale, serverThing(srv.ID), fmt.Sprintf("process %d has followed process %d", srv.Incarnation, incarnation), "")
	}
	return srv, err
}

// reopen is R5: a lapsed lease is a restart.
func (n *State) reopen(c *metapb.Reopen) error {
	srv, err := n.process(c.Server, c.Incarnation)
	if err != nil {
		return err
	}
	if c.Ver != 0 {
		return n.reopenLink(srv.ID, c)
	}
	n.reopenLinks(srv.ID, false)
	n.event("lease", srv.ID, "server %s has a lease again after it had lapsed", n.NameOf(srv.ID))
	return nil
}

// reopenLink is for a member that can't go on under a version, for a reason of
// its own: R10 settles it, whether it is in sync or about to be.
func (n *State) reopenLink(server placement.Server, c *metapb.Reopen) error {
	l, err := n.linkAt(c.Gmap, c.Position, c.Ver)
	if err != nil {
		return err
	}
	if _, member := n.MemberOf(l.ID, server); !member {
		return refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("server %s is no member of it", n.NameOf(server)), "")
	}
	n.renew(l)
	return nil
}
