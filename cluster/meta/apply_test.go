package meta

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// Whatever is proposed: states stay immutable, a refused command changes
// nothing and says why, the invariants hold, and a replica that goes through snapshots comes
// to the same states.
func TestApply(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := (&State{}).clone()
		pairs := map[retiredKey]ID{}
		d := drawn{t}
		first := initCmd()
		first.GetInit().Release = Release
		s, replica := must(t, s, first), must(t, s, first)
		for _, c := range []*metapb.Command{join("n2", nil), join("n3", nil), start(2), diskOf("d0", 1, "mirror"), diskOf("d1", 2, "mirror3")}[:d.n(0, 5, "beginning")] {
			s, replica = must(t, s, c), must(t, replica, c)
		}
		s.conf = Conf{Voters: []placement.Server{1}}
		replica.conf = s.conf
		for range d.n(1, 80, "commands") {
			before := encoded(s)
			cmd := d.command(s)
			next, err := apply(s, cmd)
			if encoded(s) != before {
				t.Fatalf("%v modified the state it was applied to", cmd)
			}
			again, rerr := apply(replica, cmd)
			if fmt.Sprint(err) != fmt.Sprint(rerr) {
				t.Fatalf("%v: %v here and %v there", cmd, err, rerr)
			}
			if err != nil {
				var e *Error
				if next != s || !errors.As(err, &e) || e.Thing == "" {
					t.Fatalf("%v: refused with %v and another state", cmd, err)
				}
				continue
			}
			checkState(t, next, pairs)
			checkLinks(t, s, next)
			s, replica = next, again
			if d.n(0, 4, "snapshot") == 0 {
				replica = reread(t, replica)
			}
			if encoded(s) != encoded(replica) {
				t.Fatalf("%v: the replicas differ", cmd)
			}
		}
		if encoded(reread(t, s)) != encoded(s) {
			t.Fatal("decode(encode(s)) differs from s")
		}
	})
}

func must(t *rapid.T, s *State, c *metapb.Command) *State {
	n, err := apply(s, c)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// reread takes a state through its snapshot.
func reread(t *rapid.T, s *State) *State {
	b, err := s.marshal(snapshotFormat)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// checkLinks: every link has somebody in sync who leads it, and no configuration
// changes without a new version.
func checkLinks(t *rapid.T, old, s *State) {
	for _, id := range s.Links() {
		l := s.LinkInfo(id)
		all := placement.MembersOf(len(s.LinkServers(id)))
		if l.Ver == 0 || l.InSync == 0 || !l.InSync.Has(l.Head) || (l.InSync|l.Filling|l.Fenced|l.Confirmed|l.Blank)&^all != 0 {
			t.Fatalf("%v: %+v of members %#x", id, l, all)
		}
		if l.Filling&^l.InSync != 0 || l.Fenced&^l.InSync != 0 || l.Confirmed&^l.Fenced != 0 || l.Fenced == l.InSync {
			t.Fatalf("%v: %+v", id, l)
		}
		if l.Blank&l.InSync != 0 && l.Blank&l.InSync != l.InSync {
			t.Fatalf("%v: a blank member beside a good one: %+v", id, l)
		}
		if (l.InSync == all && l.Filling == 0) != l.Degraded.IsZero() {
			t.Fatalf("%v: members %#x of %#x, filling %#x, and degraded since %v", id, l.InSync, all, l.Filling, l.Degraded)
		}
		was := old.LinkInfo(id)
		if l.Ver != was.Ver && l.Fenced != 0 {
			t.Fatalf("%v: a fence outlives its version: %+v", id, l)
		}
		if was.Ver > 0 && (l.Ver < was.Ver || l.Ver == was.Ver && l.Config != was.Config) {
			t.Fatalf("%v: from %+v to %+v without a new version", id, was, l)
		}
	}
	for _, e := range s.events {
		if e.Text == "" || strings.Contains(e.Text, "%!") {
			t.Fatalf("event %+v", e)
		}
	}
}

// cluster makes the state of a cluster of n data servers, all started.
func clusterOf(t *testing.T, n int) *State {
	t.Helper()
	first := initCmd()
	first.GetInit().Release = Release
	cmds := []*metapb.Command{first, start(1)}
	for i := 2; i <= n; i++ {
		cmds = append(cmds, &metapb.Command{Kind: &metapb.Command_Join{Join: &metapb.Join{Name: fmt.Sprintf("n%d", i), Release: Release}}}, start(i))
	}
	s := build(t, cmds...)
	s.conf = Conf{Voters: []placement.Server{1}}
	return s
}

func start(server int) *metapb.Command {
	return &metapb.Command{Kind: &metapb.Command_Start{Start: &metapb.Start{Server: uint32(server), Release: Release}}}
}

func (s *State) with(t *testing.T, cmds ...*metapb.Command) *State {
	t.Helper()
	for _, c := range cmds {
		n, err := apply(s, c)
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		s = n
	}
	return s
}

func refused(t *testing.T, s *State, c *metapb.Command, kind Kind, words ...string) {
	t.Helper()
	_, err := apply(s, c)
	if !errors.Is(err, kind) {
		t.Fatalf("%v: %v, want %q", c, err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+" / "+HintOf(err), w) {
			t.Errorf("%v: %q does not say %q", c, err.Error()+" / "+HintOf(err), w)
		}
	}
}

func diskOf(name string, id byte, scheme string) *metapb.Command {
	c := createCmd(name, id, "")
	c.GetCreateDisk().Scheme = scheme
	return c
}

func TestSchemes(t *testing.T) {
	s := clusterOf(t, 1).with(t, diskOf("a", 1, ""))
	if g := s.GMap(s.Family(s.Disk("a").Family).GMap); g.Scheme != placement.Stripe {
		t.Errorf("a disk on one server is a %v", g.Scheme)
	}
	refused(t, s, diskOf("b", 2, "mirror"), ErrInvalid, "2 servers", "there are 1", "join")
	s = clusterOf(t, 3).with(t, diskOf("a", 1, ""), diskOf("b", 2, "mirror"), diskOf("c", 3, "mirror3"), diskOf("d", 4, "mirror"))
	gmaps := map[string]uint32{}
	for _, d := range s.Disks() {
		gmaps[d.Name] = s.Family(d.Family).GMap
	}
	if s.GMap(gmaps["a"]).Scheme != placement.Mirror || gmaps["a"] != gmaps["b"] || gmaps["a"] != gmaps["d"] || gmaps["c"] == gmaps["a"] {
		t.Errorf("placements %v", gmaps)
	}
	// The last family takes its placement along, when every server has freed its part.
	s = s.with(t, deleteCmd("c"))
	fam := s.Families()[2].ID
	for i := 1; i <= 3; i++ {
		if s.GMap(gmaps["c"]) == nil {
			t.Fatalf("the placement went after %d of 3", i-1)
		}
		s = s.with(t, &metapb.Command{Kind: &metapb.Command_FamilyFreed{FamilyFreed: &metapb.FamilyFreed{Family: uint32(fam), Server: uint32(i)}}})
	}
	if s.GMap(gmaps["c"]) != nil || s.Family(fam) != nil || s.GMap(gmaps["a"]) == nil {
		t.Error("the family or its placement stays, or another went")
	}
}

func join(name string, hash []byte) *metapb.Command {
	return &metapb.Command{UnixMs: 1000, Kind: &metapb.Command_Join{Join: &metapb.Join{Name: name, Release: Release, TokenHash: hash}}}
}

func TestJoinTokens(t *testing.T) {
	hash := make([]byte, 32)
	token := &metapb.Command{UnixMs: 10, Kind: &metapb.Command_CreateToken{CreateToken: &metapb.CreateToken{Hash: hash, ExpiresMs: 2000, Uses: 1}}}
	s := clusterOf(t, 1)
	refused(t, s, join("x", hash), ErrNotFound, "token", "cluster token")
	s = s.with(t, token)
	late := join("x", hash)
	late.UnixMs = 2000
	refused(t, s, late, ErrInvalid, "expired", "1970-01-01T00:00:02Z")
	s = s.with(t, join("x", hash))
	refused(t, s, join("y", hash), ErrInUse, "used by x")
	// The newcomer never got the answer: it asks again and is the same.
	again := s.with(t, join("x", hash))
	if len(again.Servers()) != 2 || again.ServerByName("x").ID != s.ServerByName("x").ID {
		t.Error("asking again made another server")
	}
	s = s.with(t, start(2))
	refused(t, s, join("x", hash), ErrExists, "server 2")
	same := join("z", nil)
	same.GetJoin().Addresses = []string{"h:1"}
	s = s.with(t, same)
	other := join("v", nil)
	other.GetJoin().Addresses = []string{"h:1"}
	refused(t, s, other, ErrInUse, "h:1", "server z")
}

func TestReleases(t *testing.T) {
	s := clusterOf(t, 2)
	far := join("far", nil)
	far.GetJoin().Release = Release + 2
	refused(t, s, far, ErrInvalid, "at most one apart")
	old := start(2)
	old.GetStart().Release = Release - 1
	s = s.with(t, old)
	// One member can't do the newer commands: nobody may.
	refused(t, s, &metapb.Command{Kind: &metapb.Command_Note{Note: &metapb.Note{Kind: "x", Text: "y"}}}, ErrInvalid, "n2", "upgrade")
	s.with(t, start(2)).with(t, &metapb.Command{Kind: &metapb.Command_Note{Note: &metapb.Note{Kind: "x", Text: "y"}}})
	times := join("slow", nil)
	times.GetJoin().TimesPermille = 2000
	s = s.with(t, start(2))
	s.times = 1000
	refused(t, s, times, ErrInvalid, "its times are 2 times", "the cluster's 1 times", "scale = 1", "and stay")
}

func leave(name string) *metapb.Command {
	return &metapb.Command{Kind: &metapb.Command_Leave{Leave: &metapb.Leave{Name: name}}}
}

func TestLeave(t *testing.T) {
	s := clusterOf(t, 1)
	refused(t, s, leave("n1"), ErrInUse, "last one", "disks would be lost")
	s = clusterOf(t, 3)
	refused(t, s, leave("n1"), ErrInUse, "only voter", "agreed on")
	s = s.with(t, diskOf("a", 1, "mirror"))
	s = s.with(t, diskOf("b", 2, "mirror3")) // of which n3 is to hold no last copy
	refused(t, s, leave("n3"), ErrInUse, "copies of disks a, b")
	if only := s.DisksOnlyOn(3); only != "no disk" {
		t.Errorf("n3 alone has %s", only)
	}
	l := s.LinksOf(3)[0]
	m, _ := s.MemberOf(l, 3)
	s = s.with(t, reconfigure(s, l, placement.Members(0).With(m), m))
	refused(t, s, leave("n3"), ErrInUse, "last copy of 1 of its 5 links", "disks a would be lost")
	if only := s.DisksOnlyOn(3); only != "disks a" {
		t.Errorf("n3 alone has %s", only)
	}
	s = s.with(t, deleteCmd("a")).with(t, deleteCmd("b"))
	s.conf.Learners = []placement.Server{2, 3}
	s = s.with(t, leave("n3"))
	if v := s.Server(3); v == nil || !v.Leaving {
		t.Fatalf("server 3: %+v", v)
	}
	n := s.clone()
	n.setConf(Conf{Voters: []placement.Server{1}, Learners: []placement.Server{2}})
	if n.Server(3) != nil {
		t.Error("raft let go of it and it is still a member")
	}
}

func reconfigure(s *State, l placement.LinkID, in placement.Members, head placement.Member) *metapb.Command {
	return &metapb.Command{UnixMs: 77, Kind: &metapb.Command_Reconfigure{Reconfigure: &metapb.Reconfigure{Links: []*metapb.LinkChange{
		{Gmap: l.GMap, Position: l.Position, Ver: s.Link(l).Ver, InSync: uint32(in), Head: uint32(head), Reason: "test"}}}}}
}

// TestReconfigureCompares: a change that was decided upon an older version does
// nothing, and takes no other along.
func TestReconfigureCompares(t *testing.T) {
	s := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror"))
	links := s.Links()
	c := reconfigure(s, links[0], 1, 0)
	c.GetReconfigure().Links = append(c.GetReconfigure().Links, reconfigure(s, links[1], 2, 1).GetReconfigure().Links...)
	s = s.with(t, reconfigure(s, links[0], 3, 1)) // another head meanwhile
	n := s.with(t, c)
	if n.Link(links[0]) != s.Link(links[0]) || n.Link(links[1]).InSync != 2 {
		t.Errorf("%v, %v", n.Link(links[0]), n.Link(links[1]))
	}
	refused(t, n, c, ErrStale)
	for _, m := range []*metapb.Command{rejoined(links[1], 1, 0), {Kind: &metapb.Command_Fence{Fence: &metapb.Fence{Gmap: 1, Position: 0, Ver: 1, Member: 1}}},
		{Kind: &metapb.Command_FenceConfirm{FenceConfirm: &metapb.FenceConfirm{Gmap: 1, Position: 0, Ver: 1, Member: 1}}}} {
		refused(t, n, m, ErrStale, "not 1")
	}
}

func rejoined(l placement.LinkID, ver uint64, m placement.Member) *metapb.Command {
	return &metapb.Command{Kind: &metapb.Command_Rejoined{Rejoined: &metapb.Rejoined{Gmap: l.GMap, Position: l.Position, Ver: ver, Member: uint32(m)}}}
}

// TestWitness is R14, at start.
func TestWitness(t *testing.T) {
	begin := func(server int, witnessed uint64, brick byte) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_Start{Start: &metapb.Start{Server: uint32(server), Release: Release, HasWitness: true, Witnessed: witnessed, Bricks: [][]byte{append(make([]byte, 15), brick)}}}}
	}
	confirm := func(server int, inc uint64) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_Confirm{Confirm: &metapb.Confirm{Server: uint32(server), Incarnation: inc}}}
	}
	s := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror"), begin(2, 0, 9), confirm(2, 2))
	// The state is older than the disk.
	refused(t, s, begin(2, 5, 9), ErrOld, "knows of 2 starts", "of 5", "older than the data")
	seen := begin(2, 2, 9)
	seen.GetStart().Links = []*metapb.SeenLink{{Gmap: 1, Position: 0, Ver: 99}}
	refused(t, s, seen, ErrOld, "link 1.0", "99")
	// A crash between the start and its note on the disk is no rollback.
	ok := s.with(t, begin(2, 2, 9)).with(t, begin(2, 2, 9))
	for _, l := range ok.LinksOf(2) {
		if c := ok.Link(l); c.InSync != 3 {
			t.Errorf("%v: %+v after two starts", l, c)
		}
	}
	// A disk that was set back is out of date everywhere; so is another disk.
	for what, cmd := range map[string]*metapb.Command{"set back": begin(2, 1, 9), "replaced": begin(2, 0, 8)} {
		back := s.with(t, cmd)
		for _, l := range back.LinksOf(2) {
			m, _ := back.MemberOf(l, 2)
			info := back.LinkInfo(l)
			if info.InSync.Has(m) || !info.Blank.Has(m) || info.Ver <= s.Link(l).Ver || info.Head == m {
				t.Errorf("%s: %v: %+v", what, l, info)
			}
		}
	}
	// Where it has the only copy, that has to be said.
	l := s.LinksOf(2)[0]
	m, _ := s.MemberOf(l, 2)
	s = s.with(t, reconfigure(s, l, placement.Members(0).With(m), m))
	refused(t, s, begin(2, 1, 9), ErrOld, l.String(), "would be lost", "link force")
	loss := begin(2, 1, 9)
	loss.GetStart().AcceptLoss = true
	s = s.with(t, loss)
	if i := s.LinkInfo(l); i.InSync != placement.Members(0).With(m) || i.Blank != placement.Members(0).With(1-m) {
		t.Errorf("%+v: the older data of the other member count", i)
	}
	if !slices.ContainsFunc(s.Events(), func(e *Event) bool { return e.Kind == "loss" }) {
		t.Error("no event tells of the loss")
	}
}

// TestStartBumpsEveryLink: also those where the server is out of sync, so that a
// Rejoined of its former life comes too late.
func TestStartBumpsEveryLink(t *testing.T) {
	s := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror"))
	l := s.LinksOf(2)[0]
	m, _ := s.MemberOf(l, 2)
	s = s.with(t, reconfigure(s, l, placement.MembersOf(2).Without(m), 1-m))
	late := rejoined(l, s.Link(l).Ver, m)
	n := s.with(t, start(2))
	for _, id := range s.Links() {
		_, member := s.MemberOf(id, 2)
		if bumped := n.Link(id).Ver > s.Link(id).Ver; bumped != member || n.Link(id).InSync != s.Link(id).InSync {
			t.Errorf("%v: %+v, before %+v", id, n.Link(id), s.Link(id))
		}
	}
	refused(t, n, late, ErrStale)
}

// TestForceLinkOfThree: what the others have is not compared with the forced copy,
// whether they were in sync or not.
func TestForceLinkOfThree(t *testing.T) {
	s := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror3"))
	l := placement.LinkID{GMap: 1, Position: 0}
	s = s.with(t, reconfigure(s, l, 1, 0))
	owner := uint32(s.LinkServers(l)[0])
	s = s.with(t, &metapb.Command{Kind: &metapb.Command_ForceLink{ForceLink: &metapb.ForceLink{Gmap: 1, Position: 0, Member: 1, AcceptLoss: true, Over: []uint32{owner}, Who: "root"}}})
	if i := s.LinkInfo(l); i.InSync != 2 || i.Blank != 5 {
		t.Errorf("%+v", i)
	}
}

// TestFillingInSync: a member in sync that comes to miss blocks while the link
// opens says so under the same version; and is whole only by a word of that
// version.
func TestFillingInSync(t *testing.T) {
	s := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror"))
	l := placement.LinkID{GMap: 1, Position: 0}
	ver, who := s.Link(l).Ver, s.LinkServers(l)[1]
	s = s.with(t, rejoined(l, ver, 1))
	if i := s.LinkInfo(l); i.Ver != ver || i.Filling != 2 || i.InSync != 3 || i.Degraded.IsZero() {
		t.Fatalf("%+v", i)
	}
	filled := func(ver uint64) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_Filled{Filled: &metapb.Filled{Gmap: 1, Position: 0, Member: 1, Incarnation: s.Server(who).Incarnation, Ver: ver}}}
	}
	again := s.with(t, reconfigure(s, l, 1, 0))
	again = again.with(t, rejoined(l, again.Link(l).Ver, 1))
	refused(t, again, filled(ver), ErrStale)
	if i := s.with(t, filled(ver)).LinkInfo(l); i.Filling != 0 || !i.Degraded.IsZero() {
		t.Errorf("%+v", i)
	}
}

// TestTwoMachinesOfOneName: a newcomer may ask again before it has been started;
// another machine that has its name may not.
func TestTwoMachinesOfOneName(t *testing.T) {
	s := clusterOf(t, 1)
	ask := func(addr string) *metapb.Command {
		c := join("x", nil)
		c.GetJoin().Addresses = []string{addr}
		return c
	}
	s = s.with(t, ask("10.0.0.2:1"))
	id := s.ServerByName("x").ID
	refused(t, s, ask("10.0.0.3:1"), ErrExists, "10.0.0.2:1", "a name of its own")
	if again := s.with(t, ask("10.0.0.2:1")); len(again.Servers()) != len(s.Servers()) || again.ServerByName("x").ID != id {
		t.Error("asking again made another server")
	}
}

func TestForceLink(t *testing.T) {
	s := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	l := placement.LinkID{GMap: 1, Position: 0}
	force := func(accept bool, over ...uint32) *metapb.Command {
		return &metapb.Command{UnixMs: 99, Kind: &metapb.Command_ForceLink{ForceLink: &metapb.ForceLink{Gmap: 1, Position: 0, Member: 1, AcceptLoss: accept, Over: over, Who: "root"}}}
	}
	refused(t, s, force(true), ErrInvalid, "it is whole", "nothing needs to be forced")
	s = s.with(t, reconfigure(s, l, 1, 0)) // member 0 alone
	owner := uint32(s.LinkServers(l)[0])
	refused(t, s, force(true), ErrInUse, "may be alive")
	refused(t, s, force(false, owner), ErrInvalid, "1970-01-01 00:00:00 UTC", "would be lost", "--accept-loss")
	s = s.with(t, force(true, owner))
	if i := s.LinkInfo(l); i.InSync != 2 || i.Head != 1 || i.Blank != 1 {
		t.Fatalf("%+v", i)
	}
	last := s.Events()[len(s.Events())-1]
	if last.Kind != "loss" || !strings.Contains(last.Text, `"root"`) {
		t.Errorf("%+v", last)
	}
	// Whoever comes back gets everything anew.
	s = s.with(t, &metapb.Command{Kind: &metapb.Command_Rejoined{Rejoined: &metapb.Rejoined{Gmap: 1, Position: 0, Ver: s.Link(l).Ver, Member: 0}}})
	if i := s.LinkInfo(l); i.Blank != 0 || i.InSync != 3 || i.Filling != 1 {
		t.Errorf("%+v", i)
	}
}

// TestBarrierCompletion: M13, M17 and what lies between.
func TestBarrierCompletion(t *testing.T) {
	s := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	d := s.Disk("a")
	s = s.with(t, &metapb.Command{Kind: &metapb.Command_BumpVver{BumpVver: &metapb.BumpVVer{Disk: d.ID[:]}}})
	if n := s.Disk("a"); n.VVer != d.VVer+1 || n.Revoked != n.VVer || n.Resets != 1 {
		t.Fatalf("%+v", n)
	}
	links := s.Links()
	answer := func(l placement.LinkID, m placement.Member) Answer {
		return Answer{Link: l, Ver: s.Link(l).Ver, Member: m}
	}
	all := []Answer{answer(links[0], 0), answer(links[0], 1), answer(links[1], 0), answer(links[1], 1)}
	if got := s.Outstanding(d.ID, all); got != nil {
		t.Errorf("all have answered and %v are outstanding", got)
	}
	if got := s.Outstanding(d.ID, all[:3]); len(got) != 1 || got[0] != links[1] {
		t.Errorf("outstanding: %v", got)
	}
	complete := func(answers []Answer, over ...uint32) *metapb.Command {
		c := &metapb.CompleteBarrier{Disk: d.ID[:], Vver: d.VVer + 1, Over: over}
		for _, a := range answers {
			c.Answers = append(c.Answers, &metapb.BarrierAnswer{Gmap: a.Link.GMap, Position: a.Link.Position, Ver: a.Ver, Member: uint32(a.Member)})
		}
		return &metapb.Command{Kind: &metapb.Command_CompleteBarrier{CompleteBarrier: c}}
	}
	// M13: one without lease has to be excluded while the other lives.
	refused(t, s, complete(all[:3], 2), ErrNotYet, "link "+links[1].String())
	// M17: nobody has a lease, so the links get new versions.
	n := s.with(t, complete(all[:2], 1, 2))
	if n.Link(links[0]) != s.Link(links[0]) || n.Link(links[1]).Ver != s.Link(links[1]).Ver+1 {
		t.Errorf("%v, %v", n.Link(links[0]), n.Link(links[1]))
	}
	// Answers under an older version do not count.
	moved := s.with(t, start(1))
	if got := moved.Outstanding(d.ID, all); len(got) != 2 {
		t.Errorf("after new versions %v are outstanding", got)
	}
}

// TestEvents: they are bounded and numbered.
func TestEvents(t *testing.T) {
	s := clusterOf(t, 1)
	for i := range MaxEvents + 50 {
		s = s.with(t, &metapb.Command{UnixMs: int64(i), Kind: &metapb.Command_Note{Note: &metapb.Note{Kind: "test", Text: fmt.Sprint(i) + strings.Repeat("é", 400)}}})
	}
	e := s.Events()
	if len(e) != MaxEvents || e[len(e)-1].Number != e[0].Number+MaxEvents-1 || len(e[0].Text) > maxEventText {
		t.Errorf("%d events from %d to %d of %d bytes", len(e), e[0].Number, e[len(e)-1].Number, len(e[0].Text))
	}
}

// TestChangesAreTold: the diary tells of every disk and target that is made,
// changed or deleted, and of nothing that was refused.
func TestChangesAreTold(t *testing.T) {
	s := clusterOf(t, 1)
	const iqn = "iqn.2026-11.petal:a"
	size, yes := uint64(2<<20), true
	for _, c := range []struct {
		cmd  *metapb.Command
		want string
	}{
		{&metapb.Command{Kind: &metapb.Command_CreateDisk{CreateDisk: &metapb.CreateDisk{Name: "d", Id: make([]byte, 16), Size: 1 << 20, BlockSize: 512}}}, "disk d of 1048576 bytes is made"},
		{&metapb.Command{Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: "d", Size: &size}}}, "disk d of 1048576 bytes has 2097152 now"},
		{&metapb.Command{Kind: &metapb.Command_CreateTarget{CreateTarget: &metapb.CreateTarget{Name: iqn}}}, "target " + iqn + " is made"},
		{&metapb.Command{Kind: &metapb.Command_MapLun{MapLun: &metapb.MapLun{Target: iqn, Disk: "d", Number: 3}}}, "disk d is LUN 3 of " + iqn},
		{&metapb.Command{Kind: &metapb.Command_SetAcl{SetAcl: &metapb.SetAcl{Target: iqn, Acl: []string{"iqn.2026-11.host:a"}}}}, "who may log in to " + iqn + " is changed: 1 are named"},
		{&metapb.Command{Kind: &metapb.Command_SetAcl{SetAcl: &metapb.SetAcl{Target: iqn}}}, "every initiator may log in to " + iqn},
		{&metapb.Command{Kind: &metapb.Command_SetChap{SetChap: &metapb.SetChap{Target: iqn}}}, iqn + " asks for no CHAP any more"},
		{&metapb.Command{Kind: &metapb.Command_SetChap{SetChap: &metapb.SetChap{Target: iqn, Chap: &metapb.Chap{User: "u", SealedSecret: []byte("sealed")}}}}, "the CHAP names and secrets of " + iqn + " are changed"},
		{&metapb.Command{Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: "d", WriteBack: &yes}}}, "writes to disk d are acknowledged before they are durable now"},
		{&metapb.Command{Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: "d", ReadOnly: &yes}}}, "disk d refuses writes now"},
		{&metapb.Command{Kind: &metapb.Command_UnmapLun{UnmapLun: &metapb.UnmapLun{Target: iqn, Number: 3}}}, "disk d is no longer LUN 3 of " + iqn},
		{&metapb.Command{Kind: &metapb.Command_DeleteTarget{DeleteTarget: &metapb.DeleteTarget{Name: iqn}}}, "target " + iqn + " is deleted"},
		{&metapb.Command{Kind: &metapb.Command_DeleteDisk{DeleteDisk: &metapb.DeleteDisk{Name: "d"}}}, "disk d of 2097152 bytes is deleted"},
	} {
		before := s.nextEvent
		s = s.with(t, c.cmd)
		if last := s.Events()[len(s.Events())-1]; s.nextEvent != before+1 || last.Text != c.want {
			t.Errorf("%d events, the last: %q, want %q", s.nextEvent-before, last.Text, c.want)
		}
		if again, err := apply(s, c.cmd); err != nil && again.nextEvent != s.nextEvent {
			t.Errorf("%v was refused and is told of", c.cmd)
		}
	}
}

// TestDisksWithoutTheGone: a server that has long been down gets no new disks, so
// that what it held can be copied away from it; one that is briefly down does,
// and one whose absence would leave too few.
func TestDisksWithoutTheGone(t *testing.T) {
	s := clusterOf(t, 3)
	down := reconfigure(s, placement.LinkID{}, 0, 0)
	down.GetReconfigure().Links, down.GetReconfigure().Down = nil, []uint32{3}
	s = s.with(t, diskOf("before", 1, "mirror"), down)
	soon, late := diskOf("soon", 2, "mirror"), diskOf("late", 3, "mirror")
	soon.UnixMs, late.UnixMs = down.UnixMs+goneAfter.Milliseconds()-1, down.UnixMs+goneAfter.Milliseconds()
	s = s.with(t, soon, late)
	ring := func(disk string) []placement.Server { return s.GMap(s.Family(s.Disk(disk).Family).GMap).Ring }
	if len(ring("before")) != 3 || len(ring("soon")) != 3 || slices.Contains(ring("late"), 3) || len(ring("late")) != 2 {
		t.Errorf("before on %v, soon on %v, late on %v", ring("before"), ring("soon"), ring("late"))
	}
	three := diskOf("three", 4, "mirror3")
	three.UnixMs = late.UnixMs
	refused(t, s, three, ErrInvalid, "there are 2")
	s = s.with(t, deleteCmd("before"), deleteCmd("soon"))
	s.conf.Learners = []placement.Server{3}
	s.with(t, leave("n3"))
}

// TestResizeFromAnotherSize: of two who resize a disk at once, through two nodes,
// one is told that it has changed.
func TestResizeFromAnotherSize(t *testing.T) {
	s := clusterOf(t, 1).with(t, diskOf("a", 4, "stripe"))
	was := s.Disk("a").Size
	size := func(to, from uint64) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: "a", Size: &to, AllowShrink: true, IfSize: &from}}}
	}
	s = s.with(t, size(was/2, was))
	refused(t, s, size(was*2, was), ErrStale, "look at it again")
	if got := s.with(t, size(was, was/2)).Disk("a").Size; got != was {
		t.Errorf("%d bytes, want %d", got, was)
	}
}
