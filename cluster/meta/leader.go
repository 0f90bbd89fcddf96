package meta

import (
	"maps"
	"slices"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"

	"go.etcd.io/raft/v3"
)

// leadership is what a leader knows beside the log, from its election on. The
// next one finds it out anew.
type leadership struct {
	leading    bool
	term       uint64
	elected    time.Duration
	granted    map[placement.Server]time.Duration // last lease of this term
	process    map[placement.Server]uint64        // that got it
	ended      map[placement.Server]uint64        // processes known to serve no more: released or dead
	unreached  map[placement.Server][]uint32      // by each server, as it said with its last renewal
	batch      []renewal
	armed      bool // the batch has a round to come
	rounds     map[uint64]*round
	round      uint64
	blocks     []block
	blocked    map[placement.Server]uint64 // counts beginnings and ends of blocks
	complaints []complaint
	slow       slowness
	since      map[placement.LinkID]versionSeen
	processes  map[placement.Server]versionSeen // ver: the incarnation
	busy       bool                             // a command of the controller is on its way
	confNext   time.Duration                    // no change of voters before
}

// renewal is a Renew that waits for its quorum round.
type renewal struct {
	server      placement.Server
	incarnation uint64
	sent        int64
	blocked     uint64 // of the server, when the round began
}

type round struct {
	began time.Duration
	all   []renewal
}

// block keeps a server from getting a lease while a proposal is under way that
// counts on its having none. Otherwise it could hold one that is not yet
// through with that proposal.
type block struct {
	origin          uint32
	session, number uint64
	servers         []placement.Server
}

type versionSeen struct {
	ver   uint64
	since time.Duration
}

// roleChanged begins or ends the lead.
func (g *Group) roleChanged() {
	st := g.rn.BasicStatus()
	term := st.HardState.GetTerm()
	switch leads := st.RaftState == raft.StateLeader; {
	case leads && (!g.leader.leading || g.leader.term != term):
		g.leader = leadership{leading: true, term: term, elected: g.now(),
			granted: map[placement.Server]time.Duration{}, unreached: map[placement.Server][]uint32{}, process: map[placement.Server]uint64{}, ended: map[placement.Server]uint64{}, rounds: map[uint64]*round{},
			round: g.leader.round, blocked: map[placement.Server]uint64{}, since: map[placement.LinkID]versionSeen{}, processes: map[placement.Server]versionSeen{}}
		for id, incarnation := range g.dead {
			if srv := g.view.servers[id]; srv != nil && srv.Incarnation == incarnation {
				g.leader.ended[id] = incarnation
			}
		}
		g.cfg.Log.Info("leads the cluster", "term", term)
	case !leads && g.leader.leading:
		g.leader = leadership{round: g.leader.round}
		g.sends = nil
		g.cfg.Log.Info("no longer leads the cluster", "term", term)
	}
}

// leads reports whether this server leads, in the term that it knows.
func (g *Group) leads() bool {
	if st := g.rn.BasicStatus(); g.leader.leading && (st.RaftState != raft.StateLeader || st.HardState.GetTerm() != g.leader.term) {
		g.roleChanged()
	}
	return g.leader.leading
}

// receiveRenew gathers requests for the next quorum round, which begins after
// all of them have come.
func (g *Group) receiveRenew(from placement.Server, m *metapb.Renew) {
	if !g.leads() || !g.current(from, m.Incarnation) {
		return
	}
	l := &g.leader
	l.unreached[from] = m.Unreached
	l.batch = slices.DeleteFunc(l.batch, func(r renewal) bool { return r.server == from })
	l.batch = append(l.batch, renewal{server: from, incarnation: m.Incarnation, sent: m.SentNs})
	if !g.live(from) {
		g.beginRound() // it stands still until then
		return
	}
	if !l.armed {
		l.armed = true
		g.cfg.Clock.AfterFunc(g.cfg.Times.Collect, func() { g.enter(g.beginRound) })
	}
}

// current reports whether a process is a member's latest and has not ended.
func (g *Group) current(id placement.Server, incarnation uint64) bool {
	srv := g.view.servers[id]
	return srv != nil && srv.Incarnation == incarnation && incarnation > 0 && g.leader.ended[id] < incarnation
}

func (g *Group) beginRound() {
	l := &g.leader
	if l.armed = false; !g.leads() || len(l.batch) == 0 || g.behind() {
		return // askAgain will, when what an earlier leader decided is applied
	}
	l.round++
	r := &round{began: g.now(), all: l.batch}
	for i := range r.all {
		r.all[i].blocked = l.blocked[r.all[i].server]
	}
	l.rounds[l.round], l.batch = r, nil
	context := g.readContext(readForLeases, l.round)
	g.raft(func() error { g.rn.ReadIndex(context); return nil })
}

// grant gives leases: a quorum has confirmed since the requests came that this
// server leads.
func (g *Group) grant(number, index uint64) {
	l := &g.leader
	r := l.rounds[number]
	if r == nil || !g.leads() {
		return
	}
	delete(l.rounds, number)
	live := g.liveServers()
	for _, q := range r.all {
		if g.rests(q.server) || g.isBlocked(q.server) || l.blocked[q.server] != q.blocked || !g.current(q.server, q.incarnation) {
			continue
		}
		l.granted[q.server], l.process[q.server] = g.now(), q.incarnation
		m := &metapb.Grant{SentNs: q.sent, Incarnation: q.incarnation, Index: index, Term: l.term, Live: live, Better: g.better(q.server, live)}
		if q.server == g.cfg.Self {
			g.receiveGrant(g.cfg.Self, m)
			continue
		}
		g.send(q.server, &metapb.Message{Kind: &metapb.Message_Grant{Grant: m}})
	}
}

// live reports whether a server's latest process has a lease of this leader's, as
// far as can be told.
func (g *Group) live(id placement.Server) bool {
	srv := g.view.servers[id]
	return srv != nil && g.leader.process[id] == srv.Incarnation && g.leader.ended[id] < srv.Incarnation && g.now() < g.leader.granted[id]+g.cfg.Times.Lease
}

// liveServers are those that have a lease; none as long as that is not known of
// all, after an election.
func (g *Group) liveServers() []uint32 {
	var out []uint32
	if g.now() < g.leader.elected+g.cfg.Times.Lease {
		return nil
	}
	for _, v := range g.view.Servers() {
		if g.live(v.ID) {
			out = append(out, uint32(v.ID))
		}
	}
	return out
}

// better reports whether another server with data, and with portals that can take
// over from its own, reaches all of the live, while this one does not.
func (g *Group) better(id placement.Server, live []uint32) bool {
	self := g.view.servers[id]
	all := func(id placement.Server) bool {
		return !slices.ContainsFunc(g.leader.unreached[id], func(x uint32) bool { return slices.Contains(live, x) })
	}
	return !all(id) && slices.ContainsFunc(live, func(x uint32) bool {
		v := g.view.servers[placement.Server(x)]
		return v != nil && v.ID != id && v.Kind == Data && !v.Leaving && all(v.ID) && (v.public() || self != nil && !self.public())
	})
}

// over reports whether a server surely holds no lease (R6): its last one has
// ended, counted from the election if an earlier leader may have given it, or
// its process has.
func (g *Group) over(id placement.Server) bool {
	srv := g.view.servers[id]
	if srv == nil || srv.Incarnation == 0 || g.leader.ended[id] >= srv.Incarnation {
		return true
	}
	return g.now() >= g.lastHeard(id)+g.cfg.Times.Guard
}

// lastHeard is when a server got its last lease, or the election.
func (g *Group) lastHeard(id placement.Server) time.Duration {
	return max(g.leader.elected, g.leader.granted[id])
}

func (g *Group) receiveRelease(from placement.Server, m *metapb.Release) {
	if g.leads() && g.current(from, m.Incarnation) {
		g.leader.ended[from] = m.Incarnation
	}
}

// ReportDead tells all members that a server's process has ended, so that nobody
// waits for its lease, nor for its lead. Only who has seen it end may say so: a
// supervisor on the same host (R6).
func (g *Group) ReportDead(server placement.Server, incarnation uint64) {
	g.enter(func() {
		m := &metapb.Death{Server: uint32(server), Incarnation: incarnation}
		for _, v := range g.view.Servers() { // whoever leads next has to know it, too
			if v.ID != g.cfg.Self && v.ID != server {
				g.send(v.ID, &metapb.Message{Kind: &metapb.Message_Death{Death: m}})
			}
		}
		g.receiveDeath(m)
	})
}

func (g *Group) receiveDeath(m *metapb.Death) {
	id := placement.Server(m.Server)
	if srv := g.view.servers[id]; srv == nil || m.Incarnation == 0 || srv.Incarnation != m.Incarnation {
		return
	}
	g.dead[id] = m.Incarnation
	switch {
	case g.leads():
		g.leader.ended[id] = m.Incarnation
	case id == g.leaderID():
		g.leaderDied(id)
	}
}

// leaderDied has this server, which followed it, wait for the leader no longer.
// The first of the living voters stands for election at once, each further one a
// little later, in case that those before it do not. Should the leader be alive
// after all, they hear of it again: an election is never unsafe, only idle.
func (g *Group) leaderDied(id placement.Server) {
	g.armElection()
	g.election.forgot = true
	g.raft(func() error { return g.rn.ForgetLeader() })
	if !g.view.conf.Voter(g.cfg.Self) {
		return
	}
	before := 0
	for _, v := range g.view.conf.Voters {
		if srv := g.view.servers[v]; v < g.cfg.Self && v != id && srv != nil && srv.Down.IsZero() && g.dead[v] != srv.Incarnation {
			before++
		}
	}
	g.election.patience = time.Duration(before) * g.cfg.Times.Election / 4
	g.tickRaft()
}

// handOver gives the lead to the voter that has most of the log and is alive.
func (g *Group) handOver() {
	if !g.leads() {
		return
	}
	best, most := placement.Server(0), uint64(0)
	for _, id := range g.view.conf.Voters {
		if pr, ok := g.rn.Status().Progress[uint64(id)]; ok && id != g.cfg.Self && g.live(id) && (best == 0 || pr.Match > most) {
			best, most = id, pr.Match
		}
	}
	if best != 0 {
		g.raft(func() error { g.rn.TransferLeader(uint64(best)); return nil })
	}
}

// admit looks at a proposal before it goes into the leader's log. Those that
// count on somebody having no lease are completed with who has none, and these
// get none until it is decided. It reports whether it has changed p.
func (g *Group) admit(p *metapb.Proposal) (changed bool, err error) {
	switch k := p.Command.Kind.(type) {
	case *metapb.Command_Reconfigure, *metapb.Command_Fence:
		if placement.Server(p.Origin) != g.cfg.Self || p.Session != g.wal.session {
			return false, refuse(ErrInvalid, "command", "only the leader proposes it", "")
		}
		if r := p.Command.GetReconfigure(); r != nil {
			g.block(p, g.losers(r))
		}
	case *metapb.Command_Rejoined:
		// It could not serve, and would be taken out again at once.
		id := linkID(k.Rejoined.Gmap, k.Rejoined.Position)
		if servers := g.view.LinkServers(id); int(k.Rejoined.Member) < len(servers) && !g.live(servers[k.Rejoined.Member]) {
			return false, refuse(ErrNotYet, linkThing(id), g.view.NameOf(servers[k.Rejoined.Member])+" has no lease", "")
		}
	case *metapb.Command_ForceLink:
		k.ForceLink.Over = numbers(g.overServers())
		g.block(p, g.overServers())
		return true, nil
	case *metapb.Command_CompleteBarrier:
		k.CompleteBarrier.Over = numbers(g.overServers())
		g.block(p, g.overServers())
		return true, nil
	}
	return false, nil
}

func (g *Group) overServers() []placement.Server {
	var out []placement.Server
	if g.view.term != g.leader.term {
		return nil // not up to date: an earlier leader may have decided otherwise
	}
	for _, v := range g.view.Servers() {
		if g.over(v.ID) {
			out = append(out, v.ID)
		}
	}
	return out
}

// losers returns the servers that a Reconfigure takes out of a link.
func (g *Group) losers(r *metapb.Reconfigure) []placement.Server {
	out := map[placement.Server]bool{}
	for _, ch := range r.Links {
		id := linkID(ch.Gmap, ch.Position)
		in := g.view.Link(id).InSync
		for m, srv := range g.view.LinkServers(id) {
			if (in &^ placement.Members(ch.InSync)).Has(placement.Member(m)) {
				out[srv] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(out))
}

func (g *Group) block(p *metapb.Proposal, servers []placement.Server) {
	g.leader.blocks = append(g.leader.blocks, block{p.Origin, p.Session, p.Number, servers})
	for _, id := range servers {
		g.leader.blocked[id]++
	}
}

func (g *Group) isBlocked(id placement.Server) bool {
	return slices.ContainsFunc(g.leader.blocks, func(b block) bool { return slices.Contains(b.servers, id) })
}

// decided ends the blocks of a proposal that was applied; undo of one that never
// got into the log.
func (g *Group) decided(p *metapb.Proposal) {
	g.leader.blocks = slices.DeleteFunc(g.leader.blocks, func(b block) bool {
		mine := b.origin == p.Origin && b.session == p.Session && b.number == p.Number
		if mine {
			for _, id := range b.servers {
				g.leader.blocked[id]++
			}
		}
		return mine
	})
}

func (g *Group) undo(p *metapb.Proposal) { g.decided(p) }
