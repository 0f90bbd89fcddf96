package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/placement"

	"go.etcd.io/raft/v3"
)

// proposals are those of this server that have no answer yet. They are sent to
// the leader again until they turn up in the log: the session in each lets one
// take effect once, however often it got there.
type proposals struct {
	next    uint64      // number of the next one, from 1
	waiting []*proposal // by number
}

type proposal struct {
	number   uint64
	cmd      *metapb.Command
	done     func(*State, error)
	deadline time.Duration
	resend   time.Duration    // no sooner than that, unless the leader changes
	leader   placement.Server // that has it
	term     uint64
}

// maxProposals bounds what a server proposes at a time.
const maxProposals = 4096

// ProposeAsync is Propose; done is called once, as a callback of the group.
func (g *Group) ProposeAsync(cmd *metapb.Command, done func(*State, error)) {
	g.mu.Lock()
	defer g.unlock()
	g.propose(cmd, done)
}

func (g *Group) propose(cmd *metapb.Command, done func(*State, error)) {
	if err := g.proposable(cmd); err != nil {
		g.later(func() { done(nil, err) })
		return
	}
	if cmd.UnixMs == 0 {
		cmd.UnixMs = g.unixMs()
	}
	g.proposals.next++
	p := &proposal{number: g.proposals.next, cmd: cmd, done: done, deadline: g.now() + g.patience()}
	g.proposals.waiting = append(g.proposals.waiting, p)
	g.trySend(p)
}

// patience is how long those who ask wait for a majority. With what it takes to
// look at the clock and to bring the answer, that is Times.Lease at most. Where
// nobody has led for longer than an election takes, less of it helps as much.
func (g *Group) patience() time.Duration {
	if g.leaderID() == 0 && g.now()-g.election.led >= 2*g.cfg.Times.Election {
		return g.cfg.Times.Lease / 2
	}
	return g.cfg.Times.Lease - 2*g.cfg.Times.Tick
}

// note has something written into the events. Nobody waits for it; without a
// majority it is only in the log.
func (g *Group) note(kind, text string) {
	cmd := &metapb.Command{Kind: &metapb.Command_Note{Note: &metapb.Note{Kind: kind, Server: uint32(g.cfg.Self), Text: text}}}
	g.propose(cmd, func(_ *State, err error) {
		if err != nil {
			g.cfg.Log.Info("an event was not written down", "event", text, "error", err)
		}
	})
}

func (g *Group) proposable(cmd *metapb.Command) error {
	switch {
	case g.failed != nil:
		return g.failed
	case g.view.clusterID == (ID{}):
		return refuse(ErrNotFound, "cluster", "this server is in none yet", "make one with `petal cluster init`, or join one with `petal node join`")
	case len(g.proposals.waiting) >= maxProposals:
		return refuse(ErrInUse, "proposals", fmt.Sprintf("%d wait for an answer", len(g.proposals.waiting)), "try again")
	case proto.Size(cmd) > maxCommand:
		return refuse(ErrInvalid, "command", fmt.Sprintf("of %d bytes", proto.Size(cmd)), fmt.Sprintf("at most %d", maxCommand))
	}
	if _, err := proto.Marshal(cmd); err != nil {
		return refuse(ErrInvalid, "command", err.Error(), "use text in UTF-8")
	}
	return nil
}

// maxCommand is the greatest size of a command: it fits a message and a log record.
const maxCommand = MaxReservation + 64<<10

// marshal returns the entry of a proposal.
func (g *Group) marshal(p *proposal) []byte {
	b, err := proto.Marshal(&metapb.Proposal{Origin: uint32(g.cfg.Self), Session: g.wal.session, Number: p.number, Floor: g.proposals.waiting[0].number, Command: p.cmd})
	if err != nil {
		panic("meta: a command can't be marshalled: " + err.Error()) // proposable has tried it
	}
	return b
}

// trySend brings a proposal to the leader, if there is one.
func (g *Group) trySend(p *proposal) {
	lead := g.leaderID()
	if lead == 0 {
		return
	}
	p.leader, p.term, p.resend = lead, g.rn.BasicStatus().HardState.GetTerm(), g.now()+g.cfg.Times.Election
	if lead != g.cfg.Self {
		g.send(lead, &metapb.Message{Kind: &metapb.Message_Propose{Propose: &metapb.Propose{Proposal: g.marshal(p)}}})
		return
	}
	if err := g.offer(g.marshal(p)); err != nil {
		g.answer(p.number, nil, err)
	}
}

// offer puts a proposal into the leader's log. It returns an error if it never
// will be there; nil may also mean that it has to be sent again.
func (g *Group) offer(data []byte) error {
	var m metapb.Proposal
	if err := proto.Unmarshal(data, &m); err != nil || m.Command == nil {
		return refuse(ErrInvalid, "proposal", "it makes no sense", "")
	}
	changed, err := g.admit(&m)
	if err != nil {
		return err
	}
	if changed {
		if data, err = proto.Marshal(&m); err != nil {
			return err
		}
	}
	g.raft(func() error {
		err := g.rn.Propose(data)
		if err != nil {
			g.undo(&m)
		}
		return err
	})
	return nil
}

func (g *Group) receivePropose(from placement.Server, m *metapb.Propose) {
	var p metapb.Proposal
	if proto.Unmarshal(m.Proposal, &p) != nil || placement.Server(p.Origin) != from || !g.isLeader() || g.view.servers[from] == nil {
		return // who was removed has no say
	}
	err := g.offer(m.Proposal)
	var e *Error
	if errors.As(err, &e) {
		g.send(from, &metapb.Message{Kind: &metapb.Message_Refused{Refused: &metapb.Refused{Session: p.Session, Number: p.Number,
			Kind: string(e.Kind), Thing: e.Thing, Why: e.Why, Advice: e.Advice}}})
	}
}

func (g *Group) receiveRefused(m *metapb.Refused) {
	if m.Session == g.wal.session {
		g.answer(m.Number, nil, &Error{Kind: Kind(m.Kind), Thing: m.Thing, Why: m.Why, Advice: m.Advice})
	}
}

// answer ends the wait of a proposal.
func (g *Group) answer(number uint64, s *State, err error) {
	i := slices.IndexFunc(g.proposals.waiting, func(p *proposal) bool { return p.number == number })
	if i < 0 {
		return
	}
	p := g.proposals.waiting[i]
	g.proposals.waiting = slices.Delete(g.proposals.waiting, i, i+1)
	switch {
	case errors.Is(err, errAgain): // the first time was in a snapshot that this server got
		s, err = nil, g.unknown(p)
	case err != nil:
		s = nil
	}
	g.answers = append(g.answers, func() { p.done(s, err) })
}

// unknown says that nobody can tell what became of a proposal.
func (g *Group) unknown(*proposal) error {
	return refuse(ErrNoQuorum, "command", "it was decided while this server was out of touch: nobody remembers how", "look at the present state")
}

// proposalsAfterSnapshot answers those that the snapshot has decided.
func (g *Group) proposalsAfterSnapshot() {
	seen := g.view.sessions[g.cfg.Self]
	for _, p := range slices.Clone(g.proposals.waiting) {
		if seen.session == g.wal.session && seen.has(p.number) {
			g.answer(p.number, nil, errAgain)
		}
	}
}

// tickProposals sends again what may have got lost, and gives up what is too old.
func (g *Group) tickProposals() {
	now, lead, term := g.now(), g.leaderID(), g.rn.BasicStatus().HardState.GetTerm()
	for _, p := range slices.Clone(g.proposals.waiting) {
		switch {
		case now >= p.deadline:
			g.answer(p.number, nil, g.noQuorum())
		case lead != 0 && (p.leader != lead || p.term != term || now >= p.resend):
			g.trySend(p)
		}
	}
}

func (g *Group) failProposals(err error) {
	for _, p := range g.proposals.waiting {
		g.answers = append(g.answers, func() { p.done(nil, err) })
	}
	for _, r := range g.reads.waiting {
		g.answers = append(g.answers, func() { r.done(nil, err) })
	}
	g.proposals.waiting, g.reads.waiting = nil, nil
}

// noQuorum says why nothing can be agreed upon now.
func (g *Group) noQuorum() error {
	why := "it knows of no leader"
	if lead := g.leaderID(); lead != 0 {
		why = fmt.Sprintf("server %s leads, and did not answer", g.view.NameOf(lead))
		if lead == g.cfg.Self {
			why = "it leads, and the other voters do not answer"
		}
	}
	var names []string
	for _, id := range g.view.conf.Voters {
		names = append(names, g.view.NameOf(id))
	}
	return refuse(ErrNoQuorum, "server "+g.view.NameOf(g.cfg.Self), fmt.Sprintf("%s; most of the voters %s must be up and in touch", why, someOf(names)),
		"see `petal cluster status` there; the command may still take effect")
}

// take says whether a proposal is new, and the memory with it.
func (s session) take(p *metapb.Proposal) (session, bool) {
	if p.Session < s.session || p.Session == s.session && s.has(p.Number) {
		return s, false
	}
	n := session{session: p.Session, floor: p.Floor}
	if p.Session == s.session {
		n.floor = max(s.floor, p.Floor)
		n.numbers = slices.DeleteFunc(slices.Clone(s.numbers), func(x uint64) bool { return x < n.floor })
	}
	if at, had := slices.BinarySearch(n.numbers, p.Number); !had && p.Number >= n.floor {
		n.numbers = slices.Insert(n.numbers, at, p.Number)
	}
	if over := len(n.numbers) - maxProposals; over > 0 { // no group sends that
		n.numbers = n.numbers[over:]
		n.floor = n.numbers[0]
	}
	return n, true
}

func (s session) has(number uint64) bool {
	_, in := slices.BinarySearch(s.numbers, number)
	return in || number < s.floor
}

// reads are the calls of ReadIndex that have no answer yet.
type reads struct {
	next    uint64
	waiting []*read // by number
}

type read struct {
	number   uint64
	done     func(*State, error)
	deadline time.Duration
	again    time.Duration
	index    uint64 // once raft has said so
}

// ReadIndexAsync is ReadIndex; done is called once.
func (g *Group) ReadIndexAsync(done func(*State, error)) {
	g.mu.Lock()
	defer g.unlock()
	if g.failed != nil {
		err := g.failed
		g.later(func() { done(nil, err) })
		return
	}
	g.reads.next++
	r := &read{number: g.reads.next, done: done, deadline: g.now() + g.patience()}
	g.reads.waiting = append(g.reads.waiting, r)
	g.askIndex(r)
}

// readContext names a question for all servers and times: server, session,
// number.
func (g *Group) readContext(kind byte, number uint64) []byte {
	b := []byte{kind}
	b = binary.LittleEndian.AppendUint32(b, uint32(g.cfg.Self))
	b = binary.LittleEndian.AppendUint64(b, g.wal.session)
	return binary.LittleEndian.AppendUint64(b, number)
}

// Kinds of questions.
const (
	readByCaller byte = 1 + iota
	readForLeases
)

func (g *Group) askIndex(r *read) {
	r.again = g.now() + g.cfg.Times.Election/2
	if g.leaderID() != 0 && !g.behind() {
		g.raft(func() error { g.rn.ReadIndex(g.readContext(readByCaller, r.number)); return nil })
	}
}

// behind reports whether this server leads and has not applied an entry of its
// term yet. Until then it may not know of all that was committed, and raft alone does not
// mind where there is one voter: what it calls committed is what was on its disk.
func (g *Group) behind() bool {
	st := g.rn.BasicStatus()
	return st.RaftState == raft.StateLeader && g.view.term != st.HardState.GetTerm()
}

// askAgain brings everything that waits for a leader to the one that has become
// known, or ready.
func (g *Group) askAgain() {
	for _, p := range slices.Clone(g.proposals.waiting) {
		if lead := g.leaderID(); lead != 0 && p.leader != lead {
			g.trySend(p)
		}
	}
	for _, r := range g.reads.waiting {
		if r.index == 0 {
			g.askIndex(r)
		}
	}
	if lead := g.leaderID(); !g.mine.asked || lead != g.mine.lead { // it counts none as alive before they have asked
		g.mine.lead = lead
		g.renew()
	}
	if g.leads() {
		g.beginRound()
	}
}

// readState is raft's answer: the index that was committed when the question
// reached a leader that a quorum has confirmed since.
func (g *Group) readState(rs raft.ReadState) {
	c := rs.RequestCtx
	if len(c) != 21 || binary.LittleEndian.Uint32(c[1:]) != uint32(g.cfg.Self) || binary.LittleEndian.Uint64(c[5:]) != g.wal.session {
		return
	}
	number := binary.LittleEndian.Uint64(c[13:])
	if c[0] == readForLeases {
		g.grant(number, rs.Index)
		return
	}
	for _, r := range g.reads.waiting {
		if r.number == number && r.index == 0 {
			r.index = max(rs.Index, 1)
		}
	}
	g.readsApplied()
}

// readsApplied answers those whose index is applied.
func (g *Group) readsApplied() {
	s := g.view
	g.reads.waiting = slices.DeleteFunc(g.reads.waiting, func(r *read) bool {
		if r.index == 0 || r.index > s.index {
			return false
		}
		g.answers = append(g.answers, func() { r.done(s, nil) })
		return true
	})
}

func (g *Group) tickReads() {
	now := g.now()
	g.reads.waiting = slices.DeleteFunc(g.reads.waiting, func(r *read) bool {
		if now >= r.deadline {
			err := g.noQuorum()
			g.answers = append(g.answers, func() { r.done(nil, err) })
			return true
		}
		if r.index == 0 && now >= r.again {
			g.askIndex(r)
		}
		return false
	})
}
