package meta

import (
	"fmt"
	"time"

	"petal/cluster/meta/metapb"
	"petal/cluster/times"
	"petal/placement"
)

// The lease (DESIGN A.2): a server admits writes, serves reads and acknowledges
// alone only under one (R5).
//
//	server                             leader                        quorum
//	t0: Renew ------------------------> collects for Times.Collect
//	                                    ReadIndex, begun now -------> still the leader?
//	                                    grants at g <---------------- yes, at index i
//	    <----------------------- Grant  takes it for ended at g + Guard
//	valid until t0 + Lease,
//	once i is applied (M15)
//
// t0 is before g, so where the lease is held it always ends first. The quorum
// round keeps a deposed leader from granting: whoever was elected later was
// elected after the round, and excludes nobody by time before Guard has passed
// since. A server whose lease is about to be used against it gets none meanwhile
// (leader.go, block).

// ownLease is this server's side.
type ownLease struct {
	incarnation uint64 // of this process; 0: it asks for no lease yet
	released    bool   // it asks for none any more
	gaveUp      bool   // because it was told to
	renewed     time.Duration
	asked       bool             // renewed is set
	lead        placement.Server // who led when askAgain last looked
	until       time.Duration    // what counts; 0: none
	end         times.Timer      // of until: a lapse is told at once, not at the next tick
	granted     time.Duration    // until, as far as it was granted; it counts when index is applied
	index       uint64
	lapsed      bool // links need new versions before a lease counts again
	reopening   bool
	offset      time.Duration // calendar against clock
	jumped      time.Duration // when it was last said that they jumped; 0: never
}

// leaseView is the lease as those know it who were told.
type leaseView struct{ until time.Duration }

// Lease returns until when, by Clock, this server's lease lasts, and whether it
// does now. It does not block.
func (g *Group) Lease() (until time.Duration, ok bool) {
	v := g.lease.Load()
	if v == nil {
		return 0, false
	}
	return v.until, g.now() < v.until
}

// Serve begins to ask for leases, as the process with that incarnation (the
// answer to Start).
func (g *Group) Serve(incarnation uint64) {
	g.enter(func() {
		g.mine.incarnation, g.mine.released = incarnation, false
		g.renew()
	})
}

// GiveUp gives the lease back and hands over the lead: nobody needs to wait until
// it ends. Whoever calls it must have stopped serving. There is no way back
// but a new process.
func (g *Group) GiveUp() {
	g.enter(func() {
		if g.mine.released {
			return
		}
		g.mine.released, g.mine.gaveUp, g.mine.renewed = true, true, g.now()
		g.dropLease()
		g.sendRelease()
		g.handOver()
	})
}

func (g *Group) sendRelease() {
	m := &metapb.Release{Incarnation: g.mine.incarnation}
	switch lead := g.leaderID(); lead {
	case 0:
	case g.cfg.Self:
		g.receiveRelease(lead, m)
	default:
		g.send(lead, &metapb.Message{Kind: &metapb.Message_Release{Release: m}})
	}
}

// tickLease renews and watches the lease.
func (g *Group) tickLease() {
	l := &g.mine
	if off := g.wallOffset(); (off - l.offset).Abs() > g.cfg.Times.Renewal {
		// A jump of one clock against the other: one of them has lost time (A.2).
		g.cfg.Log.Warn("a clock jumped; the lease is dropped", "by", off-l.offset)
		g.noteJump(off - l.offset)
		l.offset = off
		g.dropLease()
	} else {
		l.offset = off
	}
	g.endLease()
	if l.released && l.gaveUp && g.now()-l.renewed >= g.cfg.Times.Renewal {
		l.renewed = g.now()
		g.sendRelease() // the first may have got lost, or nobody led
	}
	if !l.asked || g.now()-l.renewed >= g.cfg.Times.Renewal {
		g.renew()
	}
}

// noteJump has a jump of the clock written down, but not each one of a clock that
// jumps all the time.
func (g *Group) noteJump(by time.Duration) {
	l := &g.mine
	if l.incarnation == 0 || l.jumped != 0 && g.now()-l.jumped < g.cfg.Times.Replace/5 {
		return
	}
	l.jumped = g.now()
	g.note("clock", fmt.Sprintf("a clock of server %s jumped by %v: it gives up its lease and serves again under the next; see what sets its time", g.view.NameOf(g.cfg.Self), by.Round(time.Millisecond)))
}

// endLease ends the lease if it is over.
func (g *Group) endLease() {
	if l := &g.mine; l.until > 0 && g.now() >= l.until {
		g.dropLease()
	}
}

// wallOffset is the calendar against the clock; it may drift slowly.
func (g *Group) wallOffset() time.Duration {
	if g.cfg.Wall == nil {
		return 0
	}
	return time.Duration(g.cfg.Wall().UnixNano()) - g.now()
}

// renew asks the leader for a lease that begins now.
func (g *Group) renew() {
	l := &g.mine
	lead := g.leaderID()
	if l.incarnation == 0 || l.released || lead == 0 {
		return
	}
	if h := g.cfg.Healthy; h != nil && !h() {
		return
	}
	l.renewed, l.asked = g.now(), true
	m := &metapb.Renew{SentNs: int64(l.renewed), Incarnation: l.incarnation, Applied: g.view.index}
	if f := g.cfg.Unreached; f != nil {
		for _, id := range f() {
			m.Unreached = append(m.Unreached, uint32(id))
		}
	}
	if lead == g.cfg.Self {
		g.receiveRenew(lead, m)
		return
	}
	g.send(lead, &metapb.Message{Kind: &metapb.Message_Renew{Renew: m}})
}

// receiveGrant takes a lease, to count once the index of its quorum round is
// applied.
func (g *Group) receiveGrant(from placement.Server, m *metapb.Grant) {
	l := &g.mine
	sent := time.Duration(m.SentNs)
	if m.Incarnation != l.incarnation || l.released || sent > l.renewed || sent+g.cfg.Times.Lease <= l.granted {
		return
	}
	l.granted, l.index = sent+g.cfg.Times.Lease, m.Index
	if f := g.cfg.OnLive; f != nil && len(m.Live) > 0 {
		var live []placement.Server
		for _, id := range m.Live {
			live = append(live, placement.Server(id))
		}
		g.later(func() { f(live, m.Better) })
	}
	g.leaseApplied()
}

// leaseApplied lets the latest grant count if its index is applied (M15), and
// after a lapse only under new versions of the links (R5, M16).
func (g *Group) leaseApplied() {
	l := &g.mine
	if srv := g.view.servers[g.cfg.Self]; l.incarnation > 0 && (srv == nil || srv.Incarnation > l.incarnation) {
		g.superseded()
		return
	}
	if l.granted <= l.until || l.granted <= g.now() || l.index > g.view.index || g.view.servers[g.cfg.Self].Incarnation != l.incarnation {
		return
	}
	if l.until > 0 && g.now() >= l.until {
		granted := l.granted
		g.dropLease() // it had ended before this one came
		l.granted = granted
	}
	if l.lapsed {
		g.reopen()
		return
	}
	l.until = l.granted
	if l.end != nil {
		l.end.Stop()
	}
	l.end = g.cfg.Clock.AfterFunc(l.until-g.now(), func() { g.enter(g.endLease) })
	until, index := l.until, l.index
	g.later(func() {
		g.lease.Store(&leaseView{until})
		if f := g.cfg.OnLease; f != nil {
			f(until, index)
		}
	})
}

// superseded ends the lease for good: another process has taken this server's
// place, or it is no member any more.
func (g *Group) superseded() {
	if g.mine.released {
		return
	}
	g.cfg.Log.Error("this process no longer is the server's", "process", g.mine.incarnation)
	g.mine.released = true
	g.dropLease()
}

// reopen gets the new versions.
func (g *Group) reopen() {
	l := &g.mine
	if l.reopening {
		return
	}
	l.reopening = true
	cmd := &metapb.Command{Kind: &metapb.Command_Reopen{Reopen: &metapb.Reopen{Server: uint32(g.cfg.Self), Incarnation: l.incarnation}}}
	g.propose(cmd, func(_ *State, err error) {
		g.enter(func() {
			l.reopening = false
			if err != nil {
				g.cfg.Log.Info("the links could not be reopened", "error", err)
				return // the next grant tries again
			}
			l.lapsed = false
			g.leaseApplied()
		})
	})
}

// dropLease ends the lease at once.
func (g *Group) dropLease() {
	l := &g.mine
	l.granted = 0
	if l.until == 0 {
		return
	}
	l.until, l.lapsed = 0, true
	l.end.Stop()
	g.later(func() {
		g.lease.Store(nil)
		if f := g.cfg.OnLease; f != nil {
			f(0, 0)
		}
	})
}
