package meta

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// TestRefusalsAreTold: who was refused what is an event, once an hour for the
// same reason; nothing else changes.
func TestRefusalsAreTold(t *testing.T) {
	s := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	number := uint64(0)
	// try proposes what is to be refused, and returns the event that comes of it.
	try := func(at int64, cmd *metapb.Command) string {
		t.Helper()
		number++
		cmd.UnixMs = at
		data, err := proto.Marshal(&metapb.Proposal{Origin: 1, Session: 1, Number: number, Floor: number, Command: cmd})
		if err != nil {
			t.Fatal(err)
		}
		next, _, err := applyEntryTo(s, s.term, s.index, data)
		if err == nil {
			t.Fatalf("%v was accepted", cmd)
		}
		without := next.clone()
		without.events, without.nextEvent, without.sessions = s.events, s.nextEvent, s.sessions
		if encoded(without) != encoded(s) {
			t.Errorf("%v: refused, and it has changed something", cmd)
		}
		text := ""
		if e := next.Events(); next.nextEvent == s.nextEvent+1 {
			last := e[len(e)-1]
			if text = last.Text; last.Kind != "refused" || last.Time.UnixMilli() != at {
				t.Errorf("event %+v", last)
			}
		}
		s = next
		return text
	}
	old := start(2)
	old.GetStart().Witnessed = 9
	force := &metapb.Command{Kind: &metapb.Command_ForceLink{ForceLink: &metapb.ForceLink{Gmap: s.Links()[0].GMap, AcceptLoss: true, Who: "me"}}}
	for _, c := range []struct {
		cmd  *metapb.Command
		want string
	}{
		{join("new", make([]byte, 32)), `server "new" was not let in: join token: not found`},
		{old, "server n2 may not start: the state that server n2 is part of: out of date"},
		{&metapb.Command{Kind: &metapb.Command_Leave{Leave: &metapb.Leave{Name: "n2"}}}, `server "n2" was not removed: server "n2": in use: it holds copies`},
		{force, "was not forced to another copy: "},
		{diskOf("b", 2, "mirror3"), `disk "b" was not made: scheme mirror3: invalid: it needs 3 servers`},
	} {
		const noon = 1_800_000_000_000
		if got := try(noon, c.cmd); !strings.Contains(got, c.want) {
			t.Errorf("event %q, want %q", got, c.want)
		}
		if got := try(noon+onceIn.Milliseconds()/2, c.cmd); got != "" {
			t.Errorf("told twice: %q", got)
		}
		if got := try(noon+onceIn.Milliseconds()+1, c.cmd); !strings.Contains(got, c.want) {
			t.Errorf("an hour later: event %q, want %q", got, c.want)
		}
	}
	// What only its author needs to know.
	if got := try(5, diskOf("a", 3, "mirror")); got != "" {
		t.Errorf("a name that is taken is an event: %q", got)
	}
}

// TestForceOfNothing: a copy that counts as nothing is not taken for the truth:
// not only the writes since then would be lost, but all of the link.
func TestForceOfNothing(t *testing.T) {
	s := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	l := placement.LinkID{GMap: 1, Position: 0}
	servers := s.LinkServers(l)
	for _, id := range s.LinksOf(servers[1]) {
		m, _ := s.MemberOf(id, servers[1])
		s = s.with(t, reconfigure(s, id, placement.MembersOf(2).Without(m), 1-m))
	}
	force := &metapb.Command{UnixMs: 99, Kind: &metapb.Command_ForceLink{ForceLink: &metapb.ForceLink{Gmap: 1, Position: 0, Member: 1, AcceptLoss: true, Over: []uint32{uint32(servers[0])}, Who: "root"}}}
	s.with(t, force)
	for i, brick := range []ID{{9: 9}, {8: 8}} { // another brick than it had
		s = s.with(t, &metapb.Command{UnixMs: int64(50 + i), Kind: &metapb.Command_Start{Start: &metapb.Start{Server: uint32(servers[1]), Release: Release, Bricks: [][]byte{brick[:]}, HasWitness: true, AcceptLoss: i > 0}}})
	}
	refused(t, s, force, ErrInvalid, "counts as nothing", "brick was replaced", "backup")
}

// TestForceOfOneThatCopies: a member in sync that still misses blocks, which only
// one that is gone has, may be taken for the truth: those blocks are lost then. Not
// while that one may come back.
func TestForceOfOneThatCopies(t *testing.T) {
	s := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	l := placement.LinkID{GMap: 1, Position: 0}
	source := uint32(s.LinkServers(l)[0])
	force := func(accept bool, over ...uint32) *metapb.Command {
		return &metapb.Command{UnixMs: 99, Kind: &metapb.Command_ForceLink{ForceLink: &metapb.ForceLink{Gmap: 1, Position: 0, Member: 1, AcceptLoss: accept, Over: over, Who: "root"}}}
	}
	s = s.with(t, reconfigure(s, l, 1, 0))
	s = s.with(t, &metapb.Command{UnixMs: 80, Kind: &metapb.Command_Rejoined{Rejoined: &metapb.Rejoined{Gmap: 1, Position: 0, Ver: s.Link(l).Ver, Member: 1}}})
	s = s.with(t, reconfigure(s, l, 2, 1)) // the source is gone, and member 1 has not copied all
	refused(t, s, force(true), ErrInUse, "may be alive, and have what server n2 misses")
	refused(t, s, force(false, source), ErrInvalid, "has not copied", "only n1 had", "--accept-loss")
	ver := s.Link(l).Ver
	s = s.with(t, force(true, source))
	if i := s.LinkInfo(l); i.InSync != 2 || i.Head != 1 || i.Blank != 1 || i.Filling != 2 || i.Ver != ver+1 {
		t.Errorf("%+v", i)
	}
	if last := s.Events()[len(s.Events())-1]; last.Kind != "loss" || !strings.Contains(last.Text, "that it has not copied") {
		t.Errorf("%+v", last)
	}
	// One in sync that misses nothing is not forced, whoever else is gone.
	s = s.with(t, &metapb.Command{Kind: &metapb.Command_Filled{Filled: &metapb.Filled{Gmap: 1, Position: 0, Member: 1, Incarnation: 1}}})
	refused(t, s, force(true, source), ErrInvalid, "is in sync", "nothing needs to be forced")
}

// TestEmptyBrick: an empty brick in the place of a lost one is no truth where
// another server has a copy that counts, however much is accepted: that copy has to
// be taken first. Where nobody has all, the loss has to be accepted.
func TestEmptyBrick(t *testing.T) {
	begin := func(id placement.Server, brick byte, witnessed uint64, accept bool) *metapb.Command {
		return &metapb.Command{UnixMs: 60, Kind: &metapb.Command_Start{Start: &metapb.Start{Server: uint32(id), Release: Release, Bricks: [][]byte{append(make([]byte, 15), brick)},
			HasWitness: true, Witnessed: witnessed, AcceptLoss: accept}}}
	}
	base := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	l := placement.LinkID{GMap: 1, Position: 0}
	owner, other := base.LinkServers(l)[0], base.LinkServers(l)[1]
	base = base.with(t, begin(owner, 7, 0, false))
	inc := base.Server(owner).Incarnation
	base = base.with(t, &metapb.Command{Kind: &metapb.Command_Confirm{Confirm: &metapb.Confirm{Server: uint32(owner), Incarnation: inc}}})
	alone := base
	for _, id := range base.LinksOf(owner) {
		m, _ := base.MemberOf(id, owner)
		alone = alone.with(t, reconfigure(alone, id, placement.Members(0).With(m), m))
	}
	for what, brick := range map[string]byte{"another": 8, "made anew": 7} {
		refused(t, alone, begin(owner, brick, 0, false), ErrOld, "copies that lack the last writes only", "petal link force 1.0 --node n2")
		refused(t, alone, begin(owner, brick, 0, true), ErrOld, "throw these away", "petal link force 1.0 --node n2 --accept-loss")
		// What the hint says works.
		s := alone
		for _, id := range s.LinksOf(owner) {
			m, _ := s.MemberOf(id, other)
			s = s.with(t, &metapb.Command{Kind: &metapb.Command_ForceLink{ForceLink: &metapb.ForceLink{Gmap: id.GMap, Position: id.Position, Member: uint32(m), AcceptLoss: true, Over: []uint32{uint32(owner)}, Who: "root"}}})
		}
		s = s.with(t, begin(owner, brick, 0, false))
		if i := s.LinkInfo(l); i.InSync != 2 || i.Blank != 1 {
			t.Errorf("%s brick: %+v", what, i)
		}
	}
	// One that was set back has data, and may be the better copy: that is the operator's choice.
	refused(t, alone, begin(owner, 7, inc-1, false), ErrOld, "would be lost", "link force")
	if i := alone.with(t, begin(owner, 7, inc-1, true)).LinkInfo(l); i.InSync != 1 || i.Blank != 2 {
		t.Errorf("set back: %+v", i)
	}
	// The other one is back and in sync, and misses blocks that only the owner had.
	copies := alone
	for _, id := range alone.LinksOf(owner) {
		m, _ := alone.MemberOf(id, owner)
		copies = copies.with(t, rejoined(id, copies.Link(id).Ver, 1-m))
		copies = copies.with(t, reconfigure(copies, id, placement.Members(0).With(1-m), 1-m))
	}
	for _, witnessed := range []uint64{0, inc - 1} {
		refused(t, copies, begin(owner, 7, witnessed, false), ErrOld, "nobody else has all of links 1.0", "--accept-loss")
		s := copies.with(t, begin(owner, 7, witnessed, true))
		if i := s.LinkInfo(l); i.InSync != 2 || i.Blank != 1 || i.Filling != 2 {
			t.Errorf("its source is blank: %+v", i)
		}
		if !slices.ContainsFunc(s.Events(), func(e *Event) bool { return e.Kind == "loss" }) {
			t.Error("no event tells of the loss")
		}
	}
	// With a whole copy elsewhere nothing needs to be accepted.
	whole := alone
	for _, id := range alone.LinksOf(owner) {
		m, _ := alone.MemberOf(id, owner)
		whole = whole.with(t, rejoined(id, whole.Link(id).Ver, 1-m))
		whole = whole.with(t, &metapb.Command{Kind: &metapb.Command_Filled{Filled: &metapb.Filled{Gmap: id.GMap, Position: id.Position, Member: uint32(1 - m), Incarnation: 1}}})
	}
	if i := whole.with(t, begin(owner, 8, 0, true)).LinkInfo(l); i.InSync != 2 || i.Blank != 1 {
		t.Errorf("an empty brick beside a whole copy: %+v", i)
	}
}

// TestBrickFailed: that a process serves nothing of its brick is known to all until
// the next one starts.
func TestBrickFailed(t *testing.T) {
	s := clusterOf(t, 2)
	failed := func(incarnation uint64) *metapb.Command {
		return &metapb.Command{UnixMs: 77, Kind: &metapb.Command_BrickFailed{BrickFailed: &metapb.BrickFailed{Server: 2, Incarnation: incarnation, Why: "input/output error"}}}
	}
	refused(t, s, failed(9), ErrStale)
	s = s.with(t, failed(1))
	if at := s.Server(2).Failed; at.UnixMilli() != 77 {
		t.Errorf("failed at %v", at)
	}
	if last := s.Events()[len(s.Events())-1]; last.Kind != "brick" || !strings.Contains(last.Text, "n2 has failed") || !strings.Contains(last.Text, "input/output error") {
		t.Errorf("%+v", last)
	}
	b, err := s.marshal(snapshotFormat)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := unmarshal(b); err != nil || encoded(read) != encoded(s) || read.Server(2).Failed.UnixMilli() != 77 {
		t.Errorf("a snapshot forgets it: %v", err)
	}
	if again := s.with(t, failed(1)); len(again.Events()) != len(s.Events()) {
		t.Error("told twice")
	}
	if s = s.with(t, start(2)); !s.Server(2).Failed.IsZero() {
		t.Error("the next process has failed before it began")
	}
}
