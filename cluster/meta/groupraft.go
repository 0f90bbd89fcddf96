package meta

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/placement"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// election is when this server takes the leader for gone. Raft's own timers draw
// from a source that no seed reaches, so followers don't run them: after
// Times.Election without word from a leader they forget it, and after a random
// time between that and twice that they stand for election.
type election struct {
	heard    time.Duration // when the leader was last heard of, or a vote given
	patience time.Duration
	forgot   bool
	led      time.Duration // when somebody was last seen to lead, or this process began
}

// armElection begins to wait anew.
func (g *Group) armElection() {
	e := g.cfg.Times.Election
	g.election.heard, g.election.forgot = g.now(), false
	g.election.patience = e + time.Duration(g.cfg.Rand.Int64N(int64(e)))
}

// tickRaft runs raft's time: a leader's is raft's own, a follower's is election.
func (g *Group) tickRaft() {
	if g.leaderID() != 0 {
		g.election.led = g.now()
	}
	if g.isLeader() {
		g.raft(func() error { g.rn.Tick(); return nil })
		return
	}
	since := g.now() - g.election.heard
	if since >= g.cfg.Times.Election && !g.election.forgot {
		g.election.forgot = true
		g.raft(func() error { return g.rn.ForgetLeader() })
	}
	if since >= g.election.patience {
		g.armElection()
		g.election.forgot = true
		if g.view.conf.Has(g.cfg.Self) {
			g.raft(func() error { return g.rn.Campaign() })
		}
	}
}

func (g *Group) isLeader() bool { return g.rn.BasicStatus().RaftState == raft.StateLeader }

// leaderID is who leads as far as this server knows, 0 if nobody.
func (g *Group) leaderID() placement.Server { return placement.Server(g.rn.BasicStatus().Lead) }

// raft calls the library. It panics where its own invariants are broken, which
// others can bring about by sending nonsense, and a lost disk too: then the
// group fails, not the process.
func (g *Group) raft(f func() error) {
	if g.failed != nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			g.cfg.Log.Error("raft gives up", "why", fmt.Sprint(r), "stack", string(debug.Stack()))
			g.fail(fmt.Errorf("meta: raft: %v", r))
		}
	}()
	if err := f(); err != nil {
		g.cfg.Log.Debug("raft", "error", err)
	}
}

// receiveRaft takes a raft message. data is the content of its snapshot, if it
// has one.
func (g *Group) receiveRaft(from placement.Server, body, data []byte) {
	var m raftpb.Message
	if proto.Unmarshal(body, &m) != nil || !g.sane(from, &m) {
		return
	}
	if m.GetType() == raftpb.MsgSnap {
		if data == nil {
			return // the data of a snapshot come in pieces
		}
		m.Snapshot.Data = data
	}
	if m.GetType() == raftpb.MsgReadIndex && g.behind() {
		return // it asks again
	}
	if m.GetType() == raftpb.MsgHeartbeat && m.GetCommit() > g.lastIndex() {
		g.fail(refuse(ErrOld, fmt.Sprintf("the log of server %d", g.cfg.Self), fmt.Sprintf("it ends with entry %d, and the leader knows that it had %d", g.lastIndex(), m.GetCommit()),
			"the directory was lost or set back: remove this server from the cluster and let it join again"))
		return
	}
	before := g.rn.BasicStatus().HardState
	g.raft(func() error { return g.rn.Step(&m) })
	if g.failed != nil {
		return
	}
	after := g.rn.BasicStatus()
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		if after.Lead == uint64(from) {
			g.armElection()
		}
	}
	if before.GetTerm() != after.HardState.GetTerm() || before.GetVote() != after.HardState.GetVote() {
		g.armElection()
	}
}

func (g *Group) lastIndex() uint64 {
	// Raft may have entries that are not in storage yet; they are newer.
	last, _ := g.storage.LastIndex()
	for _, w := range g.wal.queue {
		if n := len(w.m.GetEntries()); n > 0 {
			last = max(last, w.m.GetEntries()[n-1].GetIndex())
		}
		if w.state != nil {
			last = max(last, w.state.index)
		}
	}
	for _, m := range g.wal.held {
		last = max(last, m.GetSnapshot().GetMetadata().GetIndex())
		if n := len(m.GetEntries()); n > 0 {
			last = max(last, m.GetEntries()[n-1].GetIndex())
		}
	}
	return last
}

// sane refuses what no group sends: raft trusts its peers.
func (g *Group) sane(from placement.Server, m *raftpb.Message) bool {
	if m.GetFrom() != uint64(from) || m.GetTo() != uint64(g.cfg.Self) {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		prev, term := m.GetIndex(), m.GetLogTerm()
		for _, e := range m.GetEntries() {
			if e.GetIndex() != prev+1 || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
				return false
			}
			prev, term = e.GetIndex(), e.GetTerm()
		}
		return m.GetTerm() > 0
	case raftpb.MsgSnap:
		meta := m.GetSnapshot().GetMetadata()
		return m.GetTerm() > 0 && meta.GetIndex() > 0 && meta.GetTerm() > 0 && meta.GetTerm() <= m.GetTerm() && meta.GetConfState() != nil
	case raftpb.MsgHeartbeat, raftpb.MsgAppResp, raftpb.MsgHeartbeatResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
		return m.GetTerm() > 0
	case raftpb.MsgReadIndex:
		return len(m.GetEntries()) == 1
	case raftpb.MsgReadIndexResp:
		return true
	}
	return false
}

// pump does what raft wants done, until it wants nothing more, and then has the
// watchers and those who wait told.
func (g *Group) pump() {
	for g.failed == nil && g.rn.HasReady() {
		var rd raft.Ready
		g.raft(func() error { rd = g.rn.Ready(); return nil })
		if g.failed != nil {
			break
		}
		if rd.SoftState != nil {
			g.roleChanged()
			g.askAgain()
		}
		for _, rs := range rd.ReadStates {
			g.readState(rs)
		}
		for _, m := range rd.Messages {
			g.dispatch(m)
		}
	}
	g.tell()
}

// dispatch brings a message of raft's where it belongs.
func (g *Group) dispatch(m *raftpb.Message) {
	switch {
	case g.failed != nil:
	case m.GetTo() == raft.LocalAppendThread:
		g.persist(m)
	case m.GetTo() == raft.LocalApplyThread:
		g.applyEntries(m.GetEntries())
		for _, r := range m.GetResponses() {
			g.dispatch(r)
		}
	case m.GetTo() == uint64(g.cfg.Self):
		g.raft(func() error { return g.rn.Step(m) })
	case m.GetType() == raftpb.MsgSnap:
		g.sendSnapshot(m)
	default:
		body, err := proto.Marshal(m)
		if err != nil {
			g.cfg.Log.Error("raft message", "error", err)
			return
		}
		g.send(placement.Server(m.GetTo()), &metapb.Message{Kind: &metapb.Message_Raft{Raft: body}})
	}
}

// applyEntries applies committed entries.
func (g *Group) applyEntries(entries []*raftpb.Entry) {
	if g.behind() {
		defer func() {
			if g.failed == nil && !g.behind() {
				g.askAgain()
			}
		}()
	}
	for _, e := range entries {
		if g.failed != nil || e.GetIndex() <= g.view.index {
			continue
		}
		switch e.GetType() {
		case raftpb.EntryNormal:
			g.applyNormal(e)
		case raftpb.EntryConfChange:
			var cc raftpb.ConfChange
			if err := proto.Unmarshal(e.GetData(), &cc); err != nil {
				g.fail(fmt.Errorf("meta: entry %d: %w", e.GetIndex(), err))
				return
			}
			g.applyConf(e, cc.AsV2())
		case raftpb.EntryConfChangeV2:
			var cc raftpb.ConfChangeV2
			if err := proto.Unmarshal(e.GetData(), &cc); err != nil {
				g.fail(fmt.Errorf("meta: entry %d: %w", e.GetIndex(), err))
				return
			}
			g.applyConf(e, &cc)
		}
	}
}

// applyConf applies a change of raft's members.
func (g *Group) applyConf(e *raftpb.Entry, cc *raftpb.ConfChangeV2) {
	g.raft(func() error {
		cs := g.rn.ApplyConfChange(cc)
		n := g.view.clone()
		n.now = n.confTime(cc.GetContext())
		n.setConf(confOfRaft(cs))
		n.now = 0
		n.index, n.term = e.GetIndex(), e.GetTerm()
		g.view = n
		return nil
	})
}

// confTime is when a leader proposed a change of members: it says so in the
// context. The second half of a joint change is raft's own and has none; it
// follows the first at once and takes the time of the last event.
func (n *State) confTime(context []byte) int64 {
	switch {
	case len(context) == 8:
		return int64(binary.LittleEndian.Uint64(context))
	case len(n.events) > 0:
		return toMs(n.events[len(n.events)-1].Time)
	}
	return 0
}

// applyNormal applies a proposal and remembers its outcome for whoever waits here.
func (g *Group) applyNormal(e *raftpb.Entry) {
	n, p, outcome := applyEntryTo(g.view, e.GetTerm(), e.GetIndex(), e.GetData())
	g.view = n
	if p == nil {
		return
	}
	g.decided(p)
	if placement.Server(p.Origin) == g.cfg.Self && p.Session == g.wal.session {
		g.answer(p.Number, n, outcome)
	}
}

// errAgain is the outcome of a proposal that took effect before.
var errAgain = fmt.Errorf("meta: applied before")

// applyEntryTo returns the state after an entry. Nothing but its arguments
// decides. p is nil if the entry holds no proposal; err is why it changed
// nothing but, perhaps, the events.
func applyEntryTo(s *State, term, index uint64, data []byte) (n *State, p *metapb.Proposal, err error) {
	keep := func(s *State) *State {
		c := *s
		c.term, c.index = term, index
		return &c
	}
	if len(data) == 0 {
		return keep(s), nil, nil
	}
	p = &metapb.Proposal{}
	if proto.Unmarshal(data, p) != nil || p.Command == nil {
		return keep(s), nil, nil
	}
	seen, fresh := s.sessions[placement.Server(p.Origin)].take(p)
	if !fresh {
		return keep(s), p, errAgain
	}
	n, err = apply(s, p.Command)
	if err != nil {
		n = s.clone()
		n.refused(p.Command, err)
	}
	if n.servers[placement.Server(p.Origin)] != nil { // one that has left needs no memory
		n.sessions[placement.Server(p.Origin)] = seen
	}
	n.term, n.index = term, index
	return n, p, err
}

// adoptState takes the state of a leader's snapshot.
func (g *Group) adoptState(s *State) {
	if s.index <= g.view.index {
		return
	}
	g.view = s
	g.proposalsAfterSnapshot()
}

// setConf notes raft's members, and lets go of those who wanted to leave.
func (n *State) setConf(c Conf) {
	old := n.conf
	n.conf = c
	for _, v := range n.Servers() {
		switch {
		case c.Voter(v.ID) && !old.Voter(v.ID):
			n.event("voter", v.ID, "server %s votes", n.NameOf(v.ID))
		case !c.Voter(v.ID) && old.Voter(v.ID):
			n.event("voter", v.ID, "server %s no longer votes", n.NameOf(v.ID))
		}
	}
	n.forget()
}

// tell gives the newest state to the watchers, and after them the answers to
// those who wait for it.
func (g *Group) tell() {
	if g.told != g.view {
		s, watchers := g.view, g.watchers
		g.told = s
		g.later(func() {
			g.state.Store(s)
			for _, f := range watchers {
				f(s)
			}
		})
		g.leaseApplied()
		g.readsApplied()
	}
	for _, f := range g.answers {
		g.later(f)
	}
	g.answers = nil
}

// raftLogger writes raft's own words where they belong. Its Panic and Fatal
// panic: (*Group).raft catches that.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) Debug(v ...any)                 {}
func (l raftLogger) Debugf(format string, v ...any) {}
func (l raftLogger) Info(v ...any)                  {}
func (l raftLogger) Infof(format string, v ...any)  {}
func (l raftLogger) Warning(v ...any)               { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Warningf(format string, v ...any) {
	l.log.Debug("raft: " + fmt.Sprintf(format, v...))
}
func (l raftLogger) Error(v ...any)                 { l.log.Warn("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Errorf(format string, v ...any) { l.log.Warn("raft: " + fmt.Sprintf(format, v...)) }
func (l raftLogger) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
