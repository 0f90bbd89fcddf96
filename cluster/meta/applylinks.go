package meta

import (
	"fmt"
	"slices"
	"strings"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

func linkThing(l placement.LinkID) string { return "link " + l.String() }

func linkID(gmap, position uint32) placement.LinkID {
	return placement.LinkID{GMap: gmap, Position: position}
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
			n.event("link", v.ID, "%s on without server %s: %s", links, n.NameOf(v.ID), why)
		}
	}
	if heads > 0 {
		links := "one link is led again by the first server of its ring"
		if heads > 1 {
			links = fmt.Sprintf("%d links are led again by the first servers of their rings", heads)
		}
		n.event("link", 0, "%s", links)
	}
	return nil
}

// mark notes who is down and who is up.
func (n *State) mark(down, up []uint32) {
	for _, id := range down {
		if srv, err := n.serverForChange(id); err == nil && srv.Down.IsZero() {
			srv.Down = unixMs(max(n.now, 1))
			n.servers[srv.ID] = srv
			n.event("member", srv.ID, "server %s does not answer", n.NameOf(srv.ID))
		}
	}
	for _, id := range up {
		if srv, err := n.serverForChange(id); err == nil && !srv.Down.IsZero() {
			srv.Down = unixMs(0)
			n.servers[srv.ID] = srv
			n.event("member", srv.ID, "server %s answers again", n.NameOf(srv.ID))
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
			return refuse(ErrNotFound, linkThing(l.ID), fmt.Sprintf("%s is not fenced there", n.NameOf(who)), "")
		}
		n.renew(l)
		return nil
	}
	if !l.InSync.Has(m) || l.Fenced|placement.Members(0).With(m) == l.InSync|l.Fenced {
		return refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("%s is its only member in sync", n.NameOf(who)), "")
	}
	l.Fenced = l.Fenced.With(m)
	n.links[l.ID] = l
	n.event("link", who, "%s is taken from server %s: %s", linkThing(l.ID), n.NameOf(who), c.Reason)
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
			n.event("link", who, "server %s has lost a part of %s and copies it from the others", n.NameOf(who), linkThing(l.ID))
		}
		return nil
	}
	l.InSync, l.Filling = l.InSync.With(m), l.Filling.With(m)
	n.renew(l)
	n.event("link", who, "server %s takes part in %s again and copies what it misses", n.NameOf(who), linkThing(l.ID))
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
	n.event("link", who, "server %s has all of %s", n.NameOf(who), linkThing(l.ID))
	return nil
}

// forceLink gives a link to a copy that lacks acknowledged writes, because those
// who have them are gone. They are Blank from then on: who was out may have newer
// data than this one, of which nobody has marks.
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
	lost, err := n.forcible(l, m, c.Over)
	if err != nil {
		return err
	}
	if !c.AcceptLoss {
		return refuse(ErrInvalid, linkThing(l.ID), lost+" would be lost", "bring that server back; or, if it is gone for ever, say --accept-loss")
	}
	l.Blank = placement.MembersOf(len(servers)).Without(m)
	l.InSync, l.Head = placement.Members(0).With(m), m
	n.renew(l)
	n.event("loss", servers[m], "%s was forced to server %s by %q: %s are lost", linkThing(l.ID), n.NameOf(servers[m]), strings.ToValidUTF8(c.Who[:min(len(c.Who), maxWho)], ""), lost)
	return nil
}

// maxWho bounds what an event says of who did it, in bytes.
const maxWho = 100

// forcible says what would be lost if member m's copy were taken for the truth. It
// refuses what loses nothing that is not to be had otherwise: over are those that
// surely serve nothing any more.
func (n *State) forcible(l *Link, m placement.Member, over []uint32) (lost string, err error) {
	servers := n.LinkServers(l.ID)
	alone := l.InSync == placement.Members(0).With(m) && l.Filling.Has(m) // and the one it copied from is gone
	var has []string
	for i, id := range servers {
		if i == int(m) || !alone && !l.InSync.Has(placement.Member(i)) {
			continue
		}
		has = append(has, n.NameOf(id))
		switch {
		case slices.Contains(over, uint32(id)):
		case l.InSync.Has(m) && l.Degraded.IsZero():
			return "", refuse(ErrInvalid, linkThing(l.ID), "it is whole", "nothing needs to be forced")
		case alone:
			return "", refuse(ErrInUse, linkThing(l.ID), fmt.Sprintf("server %s may be alive, and have what server %s misses", n.NameOf(id), n.NameOf(servers[m])), "wait until it has caught up, or is taken for dead")
		default:
			return "", refuse(ErrInUse, linkThing(l.ID), fmt.Sprintf("server %s has all its data and may be alive", n.NameOf(id)), "wait until it is taken for dead, or stop it")
		}
	}
	since, who := l.Degraded.Format("2006-01-02 15:04:05 MST"), strings.Join(has, ", ")
	switch {
	case alone:
		return fmt.Sprintf("the blocks that it has not copied since %s, which only %s had,", since, who), nil
	case l.InSync.Has(m):
		return "", refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("server %s is in sync", n.NameOf(servers[m])), "nothing needs to be forced: start it, and the link opens")
	case l.Blank.Has(m):
		return "", refuse(ErrInvalid, linkThing(l.ID), fmt.Sprintf("what server %s has of it counts as nothing: its brick was replaced or set back, or another copy was taken for the truth", n.NameOf(servers[m])),
			"force another server's copy, if `petal link list` shows one; else what lies there is lost: restore the disks from a backup into new ones")
	}
	return fmt.Sprintf("writes acknowledged since %s that only %s had", since, who), nil
}
