package meta

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

func linkThing(l placement.LinkID) string { return "link " + l.String() }

func linkID(gmap, position uint32) placement.LinkID {
	return placement.LinkID{GMap: gmap, Position: position}
}

// placementFor returns the placement that a new disk gets: over all servers
// that hold data now. The newest one of the same servers and scheme is used
// again, so that links stay few.
func (n *State) placementFor(scheme string) (uint32, error) {
	servers := n.present()
	if scheme == "" {
		scheme = "stripe"
		if len(servers) >= 2 {
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
		return 0, refuse(ErrInvalid, "scheme "+scheme, fmt.Sprintf("it needs %d servers that hold data, there are %d", kind.Copies(), len(servers)),
			"let more servers join, or choose a scheme with fewer copies")
	case err != nil:
		return 0, refuse(ErrInvalid, "scheme "+scheme, err.Error(), "")
	}
	n.gmaps[g.ID] = g
	n.nextGMap++
	return g.ID, nil
}

// goneAfter is how long a server has to be down, with the default times, until
// new disks are made without it: as long as it keeps its vote.
const goneAfter = 5 * time.Minute

// present returns the servers that a new disk is to lie on: those that hold data,
// without those that have long been down. So the disks of a server that is lost
// for good can be copied to new ones.
func (n *State) present() []*Server {
	after := goneAfter.Milliseconds() * int64(cmp.Or(n.times, 1000)) / 1000
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

// linkForChange returns a copy of a link.
func (n *State) linkForChange(gmap, position uint32) (*Link, error) {
	l := n.LinkInfo(linkID(gmap, position))
	if l.Ver == 0 {
		return nil, refuse(ErrNotFound, linkThing(linkID(gmap, position)), "", "see `petal link list`")
	}
	return &l, nil
}

// linkAt is linkForChange if the link still has that version.
func (n *State) linkAt(gmap, position uint32, ver uint64) (*Link, error) {
	l, err := n.linkForChange(gmap, position)
	if err == nil && l.Ver != ver {
		return nil, refuse(ErrStale, linkThing(l.ID), fmt.Sprintf("it has version %d, not %d", l.Ver, ver), "")
	}
	return l, err
}

// renew gives a link a new version, under which nothing is served until R10 has
// run. All that was said about the old one is over.
func (n *State) renew(l *Link) {
	l.Ver++
	l.Fenced, l.Confirmed = 0, 0
	l.Filling &= l.InSync
	l.Blank &^= l.InSync
	l.Changed = unixMs(n.now)
	n.judge(l)
	n.links[l.ID] = l
}

// judge notes since when a link has had a member that lacks something.
func (n *State) judge(l *Link) {
	switch all := placement.MembersOf(len(n.LinkServers(l.ID))); {
	case l.InSync == all && l.Filling == 0:
		l.Degraded = unixMs(0)
	case l.Degraded.IsZero():
		l.Degraded = unixMs(max(n.now, 1))
	}
}

// headOf chooses who orders the writes: the present head if it may, else the
// first on the ring that lacks nothing, else the first.
func (l *Link) headOf() placement.Member {
	switch whole := l.InSync &^ l.Filling; {
	case l.InSync.Has(l.Head):
		return l.Head
	case whole != 0:
		return whole.First()
	}
	return l.InSync.First()
}

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
	back, err := n.witness(srv, c, bricks)
	if err != nil {
		return err
	}
	if back {
		if err := n.blank(srv, c.AcceptLoss); err != nil {
			return err
		}
	}
	srv.Incarnation++
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
	n.event("member", srv.ID, "server %s starts (process %d)", n.label(srv.ID), srv.Incarnation)
	return nil
}

// witness compares what bricks know of the past with the state (R14). A state
// that is older was restored from a backup: the server must not start. Bricks
// that are older were set back or replaced: back is true, and what they hold is
// worth nothing.
func (n *State) witness(srv *Server, c *metapb.Start, bricks []ID) (back bool, err error) {
	const advice = "put back the cluster state that belongs to these bricks"
	thing := fmt.Sprintf("the state that server %s is part of", n.label(srv.ID))
	if c.Witnessed > srv.Incarnation {
		return false, refuse(ErrOld, thing, fmt.Sprintf("it knows of %d starts, the bricks of %d: it is older than the data", srv.Incarnation, c.Witnessed), advice)
	}
	for _, seen := range c.Links {
		l := n.LinkInfo(linkID(seen.Gmap, seen.Position))
		if l.Ver != 0 && seen.Ver > l.Ver {
			return false, refuse(ErrOld, thing, fmt.Sprintf("%s has version %d in it, and the bricks have seen %d: it is older than the data", linkThing(l.ID), l.Ver, seen.Ver), advice)
		}
	}
	if !c.HasWitness || srv.Kind == Witness {
		return false, nil
	}
	replaced := len(srv.Bricks) > 0 && !slices.Equal(srv.Bricks, bricks)
	return c.Witnessed < srv.Confirmed || replaced, nil
}

// blank takes a server whose bricks are not what they were out of every link.
func (n *State) blank(srv *Server, acceptLoss bool) error {
	var only []string
	for _, id := range n.LinksOf(srv.ID) {
		m, _ := n.MemberOf(id, srv.ID)
		l := n.LinkInfo(id)
		l.Blank = l.Blank.With(m)
		switch {
		case l.InSync == placement.Members(0).With(m):
			// What the others have is older, and of another history: none of it counts.
			only = append(only, id.String())
			l.Blank = placement.MembersOf(len(n.LinkServers(id))).Without(m)
			n.links[id] = &l // reopenLinks gives it its new version
			continue
		case l.InSync.Has(m):
			l.InSync = l.InSync.Without(m)
			l.Head = l.headOf()
			n.renew(&l)
		default:
			n.links[id] = &l
		}
	}
	if len(only) > 0 && !acceptLoss {
		return refuse(ErrOld, fmt.Sprintf("the bricks of server %s", n.label(srv.ID)),
			fmt.Sprintf("they are older than they were or not the same, and links %s have no other copy in sync: acknowledged writes would be lost", someOf(only)),
			"put back the right disks, or accept the loss: `petal serve --accept-loss`, or `petal link force` on another copy")
	}
	if len(only) > 0 {
		n.event("loss", srv.ID, "bricks of server %s are older than they were or not the same, and it had the only copy of links %s: accepted as loss; older data of the other servers is given up, too", n.label(srv.ID), someOf(only))
	}
	n.event("link", srv.ID, "bricks of server %s are older than they were or not the same: what they hold counts as nothing and is copied anew", n.label(srv.ID))
	return nil
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
	n.event("lease", srv.ID, "server %s has a lease again after it had lapsed", n.label(srv.ID))
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
		return refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("server %s is no member of it", n.label(server)), "")
	}
	n.renew(l)
	return nil
}

// reconfigure takes members out of links and moves heads: the controller's
// word, who sees to R6. A link that has changed meanwhile is left alone.
func (n *State) reconfigure(c *metapb.Reconfigure) error {
	out := map[placement.Server]int{}
	changed, heads := 0, 0
	var why string
	for _, ch := range c.Links {
		l, err := n.linkForChange(ch.Gmap, ch.Position)
		if err != nil {
			return err
		}
		if l.Ver != ch.Ver {
			continue
		}
		next := placement.Members(ch.InSync)
		if ch.InSync > 0xff || ch.Head > placement.MaxCopies || next == 0 || next&^l.InSync != 0 || !next.Has(placement.Member(ch.Head)) {
			return refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("from members %#x to %#x with head %d", uint8(l.InSync), ch.InSync, ch.Head), "")
		}
		for m, id := range n.LinkServers(l.ID) {
			if (l.InSync &^ next).Has(placement.Member(m)) {
				out[id]++
			}
		}
		if next == l.InSync && l.Head != placement.Member(ch.Head) {
			heads++
		}
		l.InSync, l.Head = next, placement.Member(ch.Head)
		n.renew(l)
		changed++
		if why == "" {
			why = ch.Reason
		}
	}
	if changed == 0 && len(c.Links) > 0 && len(c.Down)+len(c.Up) == 0 {
		return refuse(ErrStale, "links", "all of them", "")
	}
	n.mark(c.Down, c.Up)
	for _, v := range n.Servers() {
		if out[v.ID] > 0 {
			links := "one link goes"
			if out[v.ID] > 1 {
				links = fmt.Sprintf("%d links go", out[v.ID])
			}
			n.event("link", v.ID, "%s on without server %s: %s", links, n.label(v.ID), why)
		}
	}
	if heads > 0 {
		n.event("link", 0, "%d links are led again by the first server of their ring", heads)
	}
	return nil
}

// mark notes who is down and who is up.
func (n *State) mark(down, up []uint32) {
	for _, id := range down {
		if srv, err := n.serverForChange(id); err == nil && srv.Down.IsZero() {
			srv.Down = unixMs(max(n.now, 1))
			n.servers[srv.ID] = srv
			n.event("member", srv.ID, "server %s does not answer", n.label(srv.ID))
		}
	}
	for _, id := range up {
		if srv, err := n.serverForChange(id); err == nil && !srv.Down.IsZero() {
			srv.Down = unixMs(0)
			n.servers[srv.ID] = srv
			n.event("member", srv.ID, "server %s answers again", n.label(srv.ID))
		}
	}
}

// member returns a link of that version and checks the member's number.
func (n *State) member(gmap, position uint32, ver uint64, member uint32) (*Link, placement.Member, error) {
	l, err := n.linkAt(gmap, position, ver)
	if err != nil {
		return nil, 0, err
	}
	if int(member) >= len(n.LinkServers(l.ID)) {
		return nil, 0, refuse(ErrNotFound, fmt.Sprintf("member %d of %s", member, linkThing(l.ID)), "", "")
	}
	return l, placement.Member(member), nil
}

// fence is the first of two steps that exclude a member which still has a
// lease: it is told to stop. Lifted, everybody goes on under a new version.
func (n *State) fence(c *metapb.Fence) error {
	l, m, err := n.member(c.Gmap, c.Position, c.Ver, c.Member)
	if err != nil {
		return err
	}
	who := n.LinkServers(l.ID)[m]
	if c.Lift {
		if !l.Fenced.Has(m) {
			return refuse(ErrNotFound, linkThing(l.ID), fmt.Sprintf("%s is not fenced there", n.label(who)), "")
		}
		n.renew(l)
		return nil
	}
	if !l.InSync.Has(m) || l.Fenced|placement.Members(0).With(m) == l.InSync|l.Fenced {
		return refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("%s is its only member in sync", n.label(who)), "")
	}
	l.Fenced = l.Fenced.With(m)
	n.links[l.ID] = l
	n.event("link", who, "%s is taken from server %s: %s", linkThing(l.ID), n.label(who), c.Reason)
	return nil
}

func (n *State) fenceConfirm(c *metapb.FenceConfirm) error {
	l, m, err := n.member(c.Gmap, c.Position, c.Ver, c.Member)
	if err != nil {
		return err
	}
	if !l.Fenced.Has(m) {
		return refuse(ErrStale, linkThing(l.ID), "nobody asked", "")
	}
	l.Confirmed = l.Confirmed.With(m)
	n.links[l.ID] = l
	return nil
}

// rejoined is the end of R9's first part: the member gets every write, and
// knows what it misses. Of a member in sync it says that it has come to miss
// blocks while the link was opening (R10, R11): it serves when that is agreed on.
func (n *State) rejoined(c *metapb.Rejoined) error {
	l, m, err := n.member(c.Gmap, c.Position, c.Ver, c.Member)
	if err != nil {
		return err
	}
	who := n.LinkServers(l.ID)[m]
	if l.InSync.Has(m) {
		if !l.Filling.Has(m) {
			l.Filling = l.Filling.With(m)
			n.judge(l)
			n.links[l.ID] = l
			n.event("link", who, "server %s has lost a part of %s and copies it from the others", n.label(who), linkThing(l.ID))
		}
		return nil
	}
	l.InSync, l.Filling = l.InSync.With(m), l.Filling.With(m)
	n.renew(l)
	n.event("link", who, "server %s takes part in %s again and copies what it misses", n.label(who), linkThing(l.ID))
	return nil
}

// filled is the end of R9: the member misses nothing.
func (n *State) filled(c *metapb.Filled) error {
	l, err := n.linkForChange(c.Gmap, c.Position)
	if err != nil {
		return err
	}
	servers := n.LinkServers(l.ID)
	if int(c.Member) >= len(servers) || !l.Filling.Has(placement.Member(c.Member)) {
		return refuse(ErrStale, linkThing(l.ID), fmt.Sprintf("member %d was not filling", c.Member), "")
	}
	if c.Ver != 0 && c.Ver != l.Ver { // it may have come to miss something since
		return refuse(ErrStale, linkThing(l.ID), fmt.Sprintf("version %d has followed version %d", l.Ver, c.Ver), "")
	}
	who := servers[c.Member]
	if _, err := n.process(uint32(who), c.Incarnation); err != nil {
		return err
	}
	l.Filling = l.Filling.Without(placement.Member(c.Member))
	n.judge(l)
	n.links[l.ID] = l
	n.event("link", who, "server %s has all of %s", n.label(who), linkThing(l.ID))
	return nil
}

// forceLink gives a link to a copy that may lack acknowledged writes, because
// those who have them are gone. They are Blank from then on.
func (n *State) forceLink(c *metapb.ForceLink) error {
	l, err := n.linkForChange(c.Gmap, c.Position)
	if err != nil {
		return err
	}
	servers := n.LinkServers(l.ID)
	if int(c.Member) >= len(servers) {
		return refuse(ErrNotFound, fmt.Sprintf("member %d of %s", c.Member, linkThing(l.ID)), "", "see `petal link list`")
	}
	m := placement.Member(c.Member)
	var has []string
	for i, id := range servers {
		if i == int(m) || !l.InSync.Has(placement.Member(i)) {
			continue
		}
		has = append(has, n.label(id))
		if !slices.Contains(c.Over, uint32(id)) {
			return refuse(ErrInUse, linkThing(l.ID), fmt.Sprintf("server %s has all its data and may be alive", n.label(id)), "wait until it is taken for dead, or stop it")
		}
	}
	since := l.Degraded
	switch {
	case l.InSync.Has(m):
		return refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("server %s is in sync", n.label(servers[m])), "nothing needs to be forced: start it, and the link opens")
	case !c.AcceptLoss:
		return refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("writes acknowledged since %s are only on %s and would be lost", since.Format("2006-01-02 15:04:05 MST"), strings.Join(has, ", ")),
			"bring that server back; or, if it is gone for ever, say --accept-loss")
	}
	// Others that were out may have newer data than this one, of which nobody has
	// marks.
	l.Blank = placement.MembersOf(len(servers)).Without(m)
	l.InSync, l.Head = placement.Members(0).With(m), m
	n.renew(l)
	who := c.Who
	if len(who) > maxEventKind {
		who = who[:maxEventKind]
	}
	n.event("loss", servers[m], "%s was forced to server %s by %q: writes acknowledged since %s that only %s had are lost", linkThing(l.ID), n.label(servers[m]), who,
		since.Format("2006-01-02 15:04:05 MST"), strings.Join(has, ", "))
	return nil
}
