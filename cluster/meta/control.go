package meta

import (
	"encoding/binary"
	"slices"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// maxComplaints bounds what a leader remembers of them.
const maxComplaints = 4096

// Complain tells the leader that this server, as member from, which leads the
// link under that version, has not been able to replicate to member about for
// Times.Complain; or, of itself, that its disk has failed and that it serves the link
// no more. It is to be said again as long as it is so.
func (g *Group) Complain(link placement.LinkID, ver uint64, from, about placement.Member) {
	g.complain(&metapb.Complaint{Gmap: link.GMap, Position: link.Position, Ver: ver, From: uint32(from), About: uint32(about)})
}

// ComplainSlow tells the leader that member about, which may be this server
// itself, makes records durable, but far too slowly.
func (g *Group) ComplainSlow(link placement.LinkID, ver uint64, from, about placement.Member) {
	g.complain(&metapb.Complaint{Gmap: link.GMap, Position: link.Position, Ver: ver, From: uint32(from), About: uint32(about), Slow: true})
}

func (g *Group) complain(m *metapb.Complaint) {
	g.enter(func() {
		switch lead := g.leaderID(); lead {
		case 0:
		case g.cfg.Self:
			g.receiveComplaint(lead, m)
		default:
			g.send(lead, &metapb.Message{Kind: &metapb.Message_Complaint{Complaint: m}})
		}
	})
}

func (g *Group) receiveComplaint(from placement.Server, m *metapb.Complaint) {
	link := linkID(m.Gmap, m.Position)
	servers := g.view.LinkServers(link)
	if !g.leads() || int(m.From) >= len(servers) || int(m.About) >= len(servers) || servers[m.From] != from {
		return
	}
	c := complaint{link: link, ver: m.Ver, from: placement.Member(m.From), about: placement.Member(m.About), by: from, on: servers[m.About], at: g.now()}
	l := &g.leader
	if m.Slow {
		l.slow.hear(c)
		return
	}
	l.complaints = slices.DeleteFunc(l.complaints, func(o complaint) bool { return o.link == c.link && o.from == c.from && o.about == c.about })
	if len(l.complaints) < maxComplaints {
		l.complaints = append(l.complaints, c)
	}
}

// tickLeader has the controller look at the situation.
func (g *Group) tickLeader() {
	if !g.leads() {
		return
	}
	l := &g.leader
	now := g.now()
	for n, r := range l.rounds {
		if now-r.began > g.cfg.Times.Lease {
			delete(l.rounds, n)
		}
	}
	l.complaints = slices.DeleteFunc(l.complaints, func(c complaint) bool { return now-c.at > g.cfg.Times.Complain*3/2 })
	g.tickSlow()
	if l.busy || g.view.term != l.term {
		return // an earlier leader's word is still to be applied
	}
	if cmd := g.situation().next(); cmd != nil {
		g.command(cmd)
		return
	}
	if now < l.confNext {
		return
	}
	if cc := g.electorate().change(); cc != nil {
		l.confNext = now + g.cfg.Times.Election
		cc.Context = binary.LittleEndian.AppendUint64(nil, uint64(g.unixMs()))
		g.raft(func() error { return g.rn.ProposeConfChange(cc) })
	}
}

// command proposes what the controller wants, and looks no further until it is
// decided.
func (g *Group) command(cmd *metapb.Command) {
	term := g.leader.term
	g.leader.busy = true
	g.propose(cmd, func(_ *State, err error) {
		g.enter(func() {
			if g.leader.term == term {
				g.leader.busy = false
			}
			if err != nil {
				g.cfg.Log.Info("the controller's command was refused", "command", cmd.String(), "error", err)
			}
		})
	})
}

func (g *Group) situation() *situation {
	l := &g.leader
	return &situation{state: g.view, now: g.now(), over: g.over, live: g.live, rests: g.rests, missed: g.missed, complaints: l.complaints, stable: g.stableSince,
		command: g.cfg.Times.Command}
}

// missed reports whether a server should have been heard of: it surely holds no
// lease, and its process has had the time to ask for one.
func (g *Group) missed(id placement.Server) bool {
	srv := g.view.servers[id]
	if srv == nil || srv.Incarnation == 0 {
		return false
	}
	seen, ok := g.leader.processes[id]
	if !ok || seen.ver != srv.Incarnation {
		seen = versionSeen{srv.Incarnation, g.now()}
		g.leader.processes[id] = seen
	}
	return g.over(id) && (g.leader.ended[id] >= srv.Incarnation || g.now() >= seen.since+g.cfg.Times.Guard)
}

// stableSince is when the leader first saw a link with its present version.
func (g *Group) stableSince(id placement.LinkID) time.Duration {
	ver := g.view.Link(id).Ver
	seen, ok := g.leader.since[id]
	if !ok || seen.ver != ver {
		seen = versionSeen{ver, g.now()}
		g.leader.since[id] = seen
	}
	return seen.since
}

// readyLag is how many entries a learner may be behind and still become a voter.
const readyLag = 64

func (g *Group) electorate() *electorate {
	status := g.rn.Status()
	return &electorate{state: g.view, self: g.cfg.Self, live: g.live, replace: g.cfg.Times.Replace,
		ready: func(id placement.Server) bool {
			pr, ok := status.Progress[uint64(id)]
			return ok && pr.Match+readyLag >= status.HardState.GetCommit()
		},
		silent: func(id placement.Server) time.Duration {
			heard := g.lastHeard(id)
			if s := &g.leader.slow; id == s.resting { // it was told to be
				heard = max(heard, min(s.until, g.now()))
			}
			return g.now() - heard
		}}
}

// Status is how a group is, for people.
type Status struct {
	Self, Leader placement.Server // Leader 0: none known
	Term         uint64
	Applied      uint64 // index
	Quorum       bool   // this server has heard of a leader within the last election time
	Conf         Conf
	Leases       []LeaseStatus // on the leader only: by server
	Err          error
}

// LeaseStatus is what the leader knows of a server's lease.
type LeaseStatus struct {
	Server placement.Server
	Live   bool          // it has one
	Over   bool          // it surely has none
	Since  time.Duration // since the last grant, or the election
}

// Status returns how the group is. It does not wait for others.
func (g *Group) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	st := g.rn.BasicStatus()
	s := Status{Self: g.cfg.Self, Leader: placement.Server(st.Lead), Term: st.HardState.GetTerm(), Applied: g.view.index, Conf: g.view.conf, Err: g.failed}
	s.Quorum = s.Leader != 0 && g.failed == nil
	if g.leader.leading {
		for _, srv := range g.view.Servers() {
			s.Leases = append(s.Leases, LeaseStatus{Server: srv.ID, Live: g.live(srv.ID), Over: g.over(srv.ID), Since: g.now() - g.lastHeard(srv.ID)})
		}
	}
	return s
}
