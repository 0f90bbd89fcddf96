package meta

import (
	"fmt"
	"slices"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// situation is what the controller decides from: the agreed state and what the
// leader knows beside it. The controller is a function of it; the leader
// proposes what comes out, one command at a time, and looks again when it is
// applied.
type situation struct {
	state *State
	now   time.Duration
	// over: it surely holds no lease. live: it surely did a moment ago.
	// Servers may be neither. missed: it is over, and should have been live by now.
	over, live, missed func(placement.Server) bool
	complaints         []complaint
	// rests: it gets no lease for a while, because it is slow.
	rests func(placement.Server) bool
	// stable says since when a link has had its present version.
	stable  func(placement.LinkID) time.Duration
	command time.Duration // Times.Command
}

// complaint is a head's word that it can't replicate to another member, or a
// member's of itself, that its disk has failed.
type complaint struct {
	link        placement.LinkID
	ver         uint64
	from, about placement.Member
	by          placement.Server // who leads the link
	on          placement.Server // who does not answer
	at          time.Duration
}

// next returns the next command, nil if all is as it should be.
func (v *situation) next() *metapb.Command {
	if r := v.reconfigure(); r != nil {
		return &metapb.Command{Kind: &metapb.Command_Reconfigure{Reconfigure: r}}
	}
	if f := v.fence(); f != nil {
		return &metapb.Command{Kind: &metapb.Command_Fence{Fence: f}}
	}
	if r := v.heads(); r != nil {
		return &metapb.Command{Kind: &metapb.Command_Reconfigure{Reconfigure: r}}
	}
	return nil
}

// reconfigure excludes those who must not be waited for any longer, and notes
// who went down or came up.
func (v *situation) reconfigure() *metapb.Reconfigure {
	r := &metapb.Reconfigure{}
	for _, id := range v.state.Links() {
		if ch := v.exclude(id); ch != nil {
			r.Links = append(r.Links, ch)
		}
	}
	for _, srv := range v.state.Servers() {
		switch {
		case srv.Down.IsZero() && v.missed(srv.ID):
			r.Down = append(r.Down, uint32(srv.ID))
		case !srv.Down.IsZero() && v.live(srv.ID):
			r.Up = append(r.Up, uint32(srv.ID))
		}
	}
	if len(r.Links)+len(r.Down)+len(r.Up) == 0 {
		return nil
	}
	return r
}

// exclude is R6: a member is taken out only if its lease is over or it has
// itself confirmed that it stopped, and only in favour of one that is live,
// leased and in sync. Otherwise the link waits for it.
func (v *situation) exclude(id placement.LinkID) *metapb.LinkChange {
	l := v.state.LinkInfo(id)
	var gone, stopped, reserve, alive placement.Members
	reason, why := "its lease is over", "it can't be reached by the others"
	for i, srv := range v.state.LinkServers(id) {
		m := placement.Member(i)
		switch {
		case !l.InSync.Has(m):
		case v.over(srv):
			if gone = gone.With(m); v.rests != nil && v.rests(srv) {
				reason = "it is far slower than the others, and rests"
			}
		case v.failed(id, l.Ver, m):
			stopped, why = stopped.With(m), "its disk has failed"
		case (l.Fenced & l.Confirmed).Has(m):
			stopped = stopped.With(m)
			if v.live(srv) {
				reserve = reserve.With(m)
			}
		case v.live(srv):
			alive = alive.With(m)
		}
	}
	switch {
	case gone == 0 && stopped == reserve && alive != 0 && alive&^l.Filling == 0 && reserve&^l.Filling != 0:
		// What the one misses that was to stay, it may only get from the one that was
		// to go: nobody goes, and the next fence is the other's (D.7).
		return &metapb.LinkChange{Gmap: id.GMap, Position: id.Position, Ver: l.Ver, InSync: uint32(l.InSync), Head: uint32((reserve &^ l.Filling).First()),
			Reason: "who was to go on has come to miss blocks"}
	case alive != 0 && stopped != 0:
		gone, reason = gone|stopped, why
	case alive == 0: // one that was to go is all that is left: it has everything
		alive = reserve
	}
	if gone == 0 || alive == 0 {
		return nil
	}
	stay := l.InSync &^ gone
	head := l.Head
	if !alive.Has(head) || l.Filling.Has(head) {
		head = alive.First()
		if whole := alive &^ l.Filling; whole != 0 {
			head = whole.First()
		}
	}
	return &metapb.LinkChange{Gmap: id.GMap, Position: id.Position, Ver: l.Ver, InSync: uint32(stay), Head: uint32(head), Reason: reason}
}

// failed reports whether a member has said of itself that its disk has failed:
// it serves the link no more under that version (R6).
func (v *situation) failed(id placement.LinkID, ver uint64, m placement.Member) bool {
	return slices.ContainsFunc(v.complaints, func(c complaint) bool { return c.link == id && c.ver == ver && c.from == m && c.about == m })
}

// fence begins the exclusion of a member that can't be replicated to though
// both are alive (A.2): the one of the two that misses blocks, which the other
// alone may have (D.7), else the one that has more complaints from others, else
// the one that does not lead.
func (v *situation) fence() *metapb.Fence {
	for _, c := range v.complaints {
		l := v.state.LinkInfo(c.link)
		if l.Ver != c.ver || c.from == c.about || l.Fenced != 0 || !l.InSync.Has(c.from) || !l.InSync.Has(c.about) || !v.live(c.by) || !v.live(c.on) {
			continue
		}
		victim, who, other := c.about, c.on, c.by
		from, about := l.Filling.Has(c.from), l.Filling.Has(c.about)
		if from && !about || from == about && v.blamed(c.by, c.on) > v.blamed(c.on, c.by) {
			victim, who, other = c.from, c.by, c.on
		}
		return &metapb.Fence{Gmap: c.link.GMap, Position: c.link.Position, Ver: c.ver, Member: uint32(victim),
			Reason: fmt.Sprintf("it and server %s can't reach each other", v.state.NameOf(other)) + v.others(who, other)}
	}
	return nil
}

// blamed counts the servers, but for one, that complain of a server.
func (v *situation) blamed(id, but placement.Server) int { return len(v.blamers(id, but)) }

func (v *situation) blamers(id, but placement.Server) []placement.Server {
	var out []placement.Server
	for _, c := range v.complaints {
		if c.on == id && c.by != but && !slices.Contains(out, c.by) {
			out = append(out, c.by)
		}
	}
	return out
}

func (v *situation) others(who, but placement.Server) string {
	if n := v.blamed(who, but); n > 0 {
		return fmt.Sprintf(", and %d more complain of it", n)
	}
	return ""
}

// heads gives links back to the first server of their ring, so that the load is
// even again, once it is in sync, misses nothing, and the link has been quiet.
func (v *situation) heads() *metapb.Reconfigure {
	r := &metapb.Reconfigure{}
	for _, id := range v.state.Links() {
		l := v.state.LinkInfo(id)
		if l.Head == 0 || !l.InSync.Has(0) || l.Filling.Has(0) || l.Fenced != 0 || v.now-v.stable(id) < v.command {
			continue
		}
		quiet := true
		for i, srv := range v.state.LinkServers(id) {
			if l.InSync.Has(placement.Member(i)) && !v.live(srv) {
				quiet = false
			}
		}
		if quiet {
			r.Links = append(r.Links, &metapb.LinkChange{Gmap: id.GMap, Position: id.Position, Ver: l.Ver, InSync: uint32(l.InSync), Head: 0, Reason: "back to the order of the ring"})
		}
	}
	if len(r.Links) == 0 {
		return nil
	}
	return r
}
