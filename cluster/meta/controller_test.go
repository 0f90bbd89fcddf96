package meta

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"

	"go.etcd.io/raft/v3/raftpb"
)

// The controller's tables are in words. A cluster of three with one mirrored
// disk has the links
//
//	1.0 of servers 1 and 2    1.1 of 2 and 3    1.2 of 3 and 1
//
// Servers are "live" (have a lease), "over" (surely have none), or neither.
func situationOf(t *testing.T, s *State, live, over []placement.Server, complaints ...complaint) *situation {
	return &situation{state: s, now: time.Hour, complaints: complaints, command: 4 * time.Second,
		live:   func(id placement.Server) bool { return slices.Contains(live, id) },
		over:   func(id placement.Server) bool { return slices.Contains(over, id) },
		missed: func(id placement.Server) bool { return slices.Contains(over, id) && s.Server(id).Incarnation > 0 },
		stable: func(placement.LinkID) time.Duration { return 0 }}
}

// words tells a command in a line.
func words(c *metapb.Command) string {
	if c == nil {
		return "nothing"
	}
	if f := c.GetFence(); f != nil {
		return fmt.Sprintf("fence %d of %d.%d v%d", f.Member, f.Gmap, f.Position, f.Ver)
	}
	var b strings.Builder
	r := c.GetReconfigure()
	for _, l := range r.Links {
		fmt.Fprintf(&b, "%d.%d v%d in %b head %d; ", l.Gmap, l.Position, l.Ver, l.InSync, l.Head)
	}
	for _, id := range r.Down {
		fmt.Fprintf(&b, "down %d; ", id)
	}
	for _, id := range r.Up {
		fmt.Fprintf(&b, "up %d; ", id)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestController(t *testing.T) {
	type ids = []placement.Server
	link := func(p uint32) placement.LinkID { return placement.LinkID{GMap: 1, Position: p} }
	base := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror"))
	set := func(s *State, p uint32, in placement.Members, head placement.Member) *State {
		return s.with(t, reconfigure(s, link(p), in, head))
	}
	rejoined := func(s *State, p, m uint32) *State {
		return s.with(t, &metapb.Command{Kind: &metapb.Command_Rejoined{Rejoined: &metapb.Rejoined{Gmap: 1, Position: p, Ver: s.Link(link(p)).Ver, Member: m}}})
	}
	fenced := func(s *State, p, m uint32, confirmed bool) *State {
		s = s.with(t, &metapb.Command{Kind: &metapb.Command_Fence{Fence: &metapb.Fence{Gmap: 1, Position: p, Ver: s.Link(link(p)).Ver, Member: m}}})
		if confirmed {
			s = s.with(t, &metapb.Command{Kind: &metapb.Command_FenceConfirm{FenceConfirm: &metapb.FenceConfirm{Gmap: 1, Position: p, Ver: s.Link(link(p)).Ver, Member: m}}})
		}
		return s
	}
	down := func(s *State, id uint32) *State {
		return s.with(t, &metapb.Command{UnixMs: 5, Kind: &metapb.Command_Reconfigure{Reconfigure: &metapb.Reconfigure{Down: []uint32{id}}}})
	}
	complains := func(s *State, p uint32, from, about placement.Member) complaint {
		m := s.LinkServers(link(p))
		return complaint{link: link(p), ver: s.Link(link(p)).Ver, from: from, about: about, by: m[from], on: m[about]}
	}
	filling := rejoined(set(base, 0, 2, 1), 0, 0)
	filled := filling.with(t, &metapb.Command{Kind: &metapb.Command_Filled{Filled: &metapb.Filled{Gmap: 1, Position: 0, Member: 0, Incarnation: 1}}})
	other := complains(base, 2, 0, 1) // server 3 complains of 1 too
	for _, c := range []struct {
		name       string
		s          *State
		live, over ids
		complaints []complaint
		want       string
	}{
		{"all is well", base, ids{1, 2, 3}, nil, nil, "nothing"},
		{"a lease that may still hold is waited for (R6)", base, ids{1, 3}, nil, nil, "nothing"},
		{"a dead server leaves its links", base, ids{1, 3}, ids{2}, nil, "1.0 v1 in 1 head 0; 1.1 v1 in 10 head 1; down 2"},
		{"a dead server is known to be", down(set(set(base, 0, 1, 0), 1, 2, 1), 2), ids{1, 3}, ids{2}, nil, "nothing"},
		{"nobody is left for the link of the two dead (R6a)", base, ids{1}, ids{2, 3}, nil, "1.0 v1 in 1 head 0; 1.2 v1 in 10 head 1; down 2; down 3"},
		{"in favour of one whose lease is not known of: not (R6a)", base, ids{1}, ids{2}, nil, "1.0 v1 in 1 head 0; down 2"},
		{"the only one in sync is waited for, dead or not", set(base, 0, 1, 0), ids{2, 3}, ids{1}, nil, "1.2 v1 in 1 head 0; down 1"},
		{"one that is back is told of", down(base, 2), ids{1, 2, 3}, nil, nil, "up 2"},
		{"whoever misses blocks can be the survivor", filling, ids{1, 3}, ids{2}, nil, "1.0 v3 in 1 head 0; 1.1 v1 in 10 head 1; down 2"},
		{"the lead stays while the first misses blocks", filling, ids{1, 2, 3}, nil, nil, "nothing"},
		{"the lead goes back to the first that has all", filled, ids{1, 2, 3}, nil, nil, "1.0 v3 in 11 head 0"},
		{"not while a member is silent", filled, ids{1, 3}, nil, nil, "nothing"},
		{"a complaint fences the one complained of", base, ids{1, 2, 3}, nil, []complaint{complains(base, 0, 0, 1)}, "fence 1 of 1.0 v1"},
		{"unless others complain of the head", base, ids{1, 2, 3}, nil, []complaint{complains(base, 0, 0, 1), other}, "fence 0 of 1.0 v1"},
		{"who misses blocks is fenced, whoever complains (D.7)", filling, ids{1, 2, 3}, nil, []complaint{complains(filling, 0, 0, 1)}, "fence 0 of 1.0 v3"},
		{"even if others complain of the one that has them", filling, ids{1, 2, 3}, nil, []complaint{complains(filling, 0, 1, 0), complains(filling, 1, 1, 0)}, "fence 0 of 1.0 v3"},
		{"a complaint of the dead counts for nothing", base, ids{2, 3}, nil, []complaint{complains(base, 0, 0, 1)}, "nothing"},
		{"a complaint of an older version counts for nothing", set(set(base, 0, 1, 0), 1, 2, 1), ids{1, 2, 3}, nil, []complaint{complains(base, 0, 0, 1)}, "nothing"},
		{"a failed disk says so itself, and is out", base, ids{1, 2, 3}, nil, []complaint{complains(base, 0, 1, 1)}, "1.0 v1 in 1 head 0"},
		{"the head's disk fails", base, ids{1, 2, 3}, nil, []complaint{complains(base, 0, 0, 0)}, "1.0 v1 in 10 head 1"},
		{"the only copy's disk fails", set(base, 0, 1, 0), ids{1, 2, 3}, nil, []complaint{complains(set(base, 0, 1, 0), 0, 0, 0)}, "nothing"},
		{"a failed disk is no survivor", base, ids{1, 3}, ids{2}, []complaint{complains(base, 0, 0, 0)}, "1.1 v1 in 10 head 1; down 2"},
		{"one is fenced once", fenced(base, 0, 1, false), ids{1, 2, 3}, nil, []complaint{complains(base, 0, 0, 1)}, "nothing"},
		{"its word that it stopped ends it", fenced(base, 0, 1, true), ids{1, 2, 3}, nil, nil, "1.0 v1 in 1 head 0"},
		{"so does the end of its lease", fenced(base, 0, 1, false), ids{1, 3}, ids{2}, nil, "1.0 v1 in 1 head 0; 1.1 v1 in 10 head 1; down 2"},
		{"the head is fenced: the other leads", fenced(base, 0, 0, true), ids{1, 2, 3}, nil, nil, "1.0 v1 in 10 head 1"},
		{"the survivor dies first: the fenced one goes on", fenced(base, 0, 1, true), ids{2, 3}, ids{1}, nil, "1.0 v1 in 10 head 1; 1.2 v1 in 1 head 0; down 1"},
		{"who was to go on misses blocks: nobody goes (D.7)", rejoined(fenced(base, 0, 1, true), 0, 0), ids{1, 2, 3}, nil, nil, "1.0 v1 in 11 head 1"},
		{"both miss some", rejoined(rejoined(fenced(base, 0, 1, true), 0, 0), 0, 1), ids{1, 2, 3}, nil, nil, "1.0 v1 in 1 head 0"},
		{"stopped, and its lease is not known of", fenced(base, 0, 1, true), ids{1, 3}, nil, nil, "1.0 v1 in 1 head 0"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			got := words(situationOf(t, c.s, c.live, c.over, c.complaints...).next())
			if got != c.want {
				t.Fatalf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestControllerThreeCopies(t *testing.T) {
	s := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror3"))
	type ids = []placement.Server
	for _, c := range []struct {
		name       string
		live, over ids
		want       string
	}{
		{"two of three die", ids{1}, ids{2, 3}, "1.0 v1 in 1 head 0; 1.1 v1 in 100 head 2; 1.2 v1 in 10 head 1; down 2; down 3"},
		{"one dies, one may live", ids{1}, ids{2}, "1.0 v1 in 101 head 0; 1.1 v1 in 110 head 2; 1.2 v1 in 11 head 1; down 2"},
	} {
		if got := words(situationOf(t, s, c.live, c.over).next()); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestVoters: who votes next. A case is "voters|learners|newcomers", with d for
// down and l for leaving behind the number, w for a witness; all of one site
// unless given as 3@b.
func TestVoters(t *testing.T) {
	for _, c := range []struct{ name, now, want string }{
		{"one alone", "1||", "nothing"},
		{"newcomers learn first", "1||2 3", "learn 2 3"},
		{"two members have one voter", "1|2|", "nothing"},
		{"three have three", "1|2 3|", "vote 2 3"},
		{"of three one is not alive yet: wait", "1|2 3d|", "nothing"},
		{"a witness makes the third", "1|2 3w|", "vote 2 3"},
		{"four have three", "1|2 3 4|", "vote 2 3"},
		{"four, one of them a witness", "1|2 3 4w|", "vote 2 4"},
		{"five have five", "1 2 3|4 5|", "vote 4 5"},
		{"five with four alive have three", "1 2 3|4 5d|", "nothing"},
		{"a dead voter is replaced", "1 2 3d|4|", "vote 4 learn 3"},
		{"a dead voter is kept while nobody can replace it", "1 2 3d|4d|", "nothing"},
		{"two dead voters of five are replaced", "1 2 3 4d 5d|6 7|", "vote 6 7 learn 4 5"},
		{"one of two dead can be replaced", "1 2 3 4d 5d|6|", "vote 6 learn 5"},
		{"a voter that leaves is replaced", "1 2 3l|4|", "vote 4 remove 3"},
		{"one of three leaves: two members have one voter", "1 2 3l||", "learn 2 remove 3"},
		{"one of five leaves: four have three", "1 2 3 4 5l||", "learn 4 remove 5"},
		{"a learner leaves", "1|2l|", "remove 2"},
		{"the leader leaves", "1l 2 3|4|", "vote 4 remove 1"},
		{"voters are spread over sites", "1@a|2@a 3@b 4@c 5@a|", "vote 2 3 4 5"},
		{"three voters over three sites", "1@a|2@a 3@b 4@c|", "vote 3 4"},
		{"the third site wins over the lower number", "1@a 2@b|3@a 4@c|", "vote 4"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			e := electorateOf(t, c.now)
			got := describe(e.change())
			if got != c.want {
				t.Fatalf("%q: %s, want %s", c.now, got, c.want)
			}
		})
	}
}

func electorateOf(t *testing.T, now string) *electorate {
	t.Helper()
	s := (&State{}).clone()
	var down []placement.Server
	for i, part := range strings.Split(now, "|") {
		for _, word := range strings.Fields(part) {
			v := &Server{Site: "x", Incarnation: 1}
			word, site, ok := strings.Cut(word, "@")
			if ok {
				v.Site = site
			}
			fmt.Sscanf(word, "%d", &v.ID)
			v.Leaving = strings.Contains(word, "l")
			if strings.Contains(word, "w") {
				v.Kind = Witness
			}
			if strings.Contains(word, "d") {
				down = append(down, v.ID)
			}
			s.servers[v.ID] = v
			switch i {
			case 0:
				s.conf.Voters = append(s.conf.Voters, v.ID)
			case 1:
				s.conf.Learners = append(s.conf.Learners, v.ID)
			}
		}
	}
	alive := func(id placement.Server) bool { return !slices.Contains(down, id) }
	return &electorate{state: s, self: 1, live: alive, ready: alive, replace: 5 * time.Minute,
		silent: func(id placement.Server) time.Duration {
			if alive(id) {
				return time.Second
			}
			return 5 * time.Minute
		}}
}

func describe(cc *raftpb.ConfChangeV2) string {
	if cc == nil {
		return "nothing"
	}
	verbs := map[raftpb.ConfChangeType]string{raftpb.ConfChangeAddNode: "vote", raftpb.ConfChangeAddLearnerNode: "learn", raftpb.ConfChangeRemoveNode: "remove"}
	var out []string
	for _, kind := range []raftpb.ConfChangeType{raftpb.ConfChangeAddNode, raftpb.ConfChangeAddLearnerNode, raftpb.ConfChangeRemoveNode} {
		var ids []uint64
		for _, c := range cc.Changes {
			if c.GetType() == kind {
				ids = append(ids, c.GetNodeId())
			}
		}
		if slices.Sort(ids); len(ids) > 0 {
			out = append(out, verbs[kind]+" "+strings.Trim(fmt.Sprint(ids), "[]"))
		}
	}
	if len(cc.Changes) > 1 && cc.GetTransition() != raftpb.ConfChangeTransitionJointImplicit {
		return "not jointly: " + strings.Join(out, " ")
	}
	return strings.Join(out, " ")
}
