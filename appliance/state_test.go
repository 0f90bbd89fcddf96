package appliance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"petal/appliance/api"
	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/times"
	"petal/journal/vfs"
	"petal/placement"
)

// still is a bubble's clock; a test that waits for nothing sees no time pass.
type still struct{ began time.Time }

func (c still) Now() time.Duration { return time.Since(c.began) }

func (c still) AfterFunc(d time.Duration, f func()) times.Timer { return time.AfterFunc(d, f) }

type nobody struct{}

func (nobody) Send(placement.Server, []byte) bool { return false }

// TestHealthOfAState: what health is judged by is what is agreed: of each member of
// each link whether it is up, in sync, and has a brick; and who votes.
func TestHealthOfAState(t *testing.T) { synctest.Test(t, healthOfAState) }

func healthOfAState(t *testing.T) {
	g, err := meta.OpenGroup(meta.Config{FS: vfs.NewMemory(64 << 20), Dir: "meta", Self: 1, Clock: still{time.Now().Add(-time.Hour)},
		Times: times.Default(), Transport: nobody{}, Rand: rand.New(rand.NewPCG(1, 1)), Wall: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Bootstrap(&metapb.Init{ClusterId: append(make([]byte, 15), 1), ServerName: "n1", Release: meta.Release, Addresses: []string{"h1:1"}}); err != nil {
		t.Fatal(err)
	}
	agree := func(cmds ...*metapb.Command) (s *meta.State) {
		t.Helper()
		for _, c := range cmds {
			if s, err = g.Propose(context.Background(), c); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	start := func(id uint32) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_Start{Start: &metapb.Start{Server: id, Release: meta.Release}}}
	}
	join := func(name string) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_Join{Join: &metapb.Join{Name: name, Release: meta.Release}}}
	}
	down := func(who ...uint32) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_Reconfigure{Reconfigure: &metapb.Reconfigure{Down: who}}}
	}
	says := func(s *meta.State, c api.Cluster, words ...string) {
		t.Helper()
		got := clusterProblems(s, c, time.Minute)
		if len(got) != len(words) {
			t.Errorf("problems %q, want those of %q", got, words)
			return
		}
		for i, w := range words {
			if !strings.Contains(got[i], w) {
				t.Errorf("problem %q, want %q", got[i], w)
			}
		}
	}
	healthy := func(s *meta.State, state string, served int, why, risks string) {
		t.Helper()
		h := diskHealth(s, s.Disk("d"))
		if h.State != state || h.Served != served || !strings.Contains(strings.Join(h.Why, "; "), why) || riskWords(h.Risks) != risks {
			t.Errorf("%+v, want %s, %d, %q, %q", h, state, served, why, risks)
		}
		if list := unwell(s, true); (len(list) == 0) != (state == "healthy") {
			t.Errorf("disks that are not healthy: %+v", list)
		}
	}
	well := api.Cluster{Quorum: true, Lease: true, Voters: []string{"n1"}}
	s := agree(start(1))
	says(s, well)
	if v := viewVotes(s); v != nil {
		t.Errorf("alone: %v", v)
	}
	s = agree(join("n2"), start(2))
	says(s, well, "two nodes and no third vote: the loss of n1 stops both")
	s = agree(join("n3"), start(3), &metapb.Command{Kind: &metapb.Command_CreateDisk{CreateDisk: &metapb.CreateDisk{Id: append(make([]byte, 15), 1), Name: "d", Size: 1 << 20, BlockSize: 512, Scheme: "mirror"}}})
	says(s, well, "only n1 votes: its loss would stop the whole cluster")
	says(s, api.Cluster{CutOff: []string{"n2", "n3"}}, "no quorum: this node hears from no majority of the voters n1 (h1:1)", "no lease", "this node does not reach n2 and n3, which another node does")
	healthy(s, "healthy", 100, "", "n1 100")
	if !spareVoters(s) {
		t.Error("nobody could vote in another's place")
	}

	s = agree(exclude(s, 2), down(2))
	if h := diskHealth(s, s.Disk("d")); h.Since == nil || len(h.Risks) != 2 || !h.Risks[0].Majority || h.Risks[1].Majority {
		t.Errorf("since %v, risks %+v: n1 alone votes", h.Since, h.Risks)
	}
	healthy(s, "degraded", 100, "n2 is down", "n1 100 lost; n3 33 lost")
	s = agree(&metapb.Command{Kind: &metapb.Command_BrickFailed{BrickFailed: &metapb.BrickFailed{Server: 3, Incarnation: s.Server(3).Incarnation, Why: "test"}}})
	healthy(s, "unavailable", 67, "the brick of n3 has failed", "n1 100 lost")
	s = agree(down(1, 3))
	if v := viewVotes(s); !slices.Equal(v, []voteView{{"n1", true}}) || spareVoters(s) {
		t.Errorf("all are down: voters %v, others could vote: %t", v, spareVoters(s))
	}
	healthy(s, "unavailable", 0, "n1 is down", "")
}

// exclude takes a server out of all links where another one is in sync.
func exclude(s *meta.State, who placement.Server) *metapb.Command {
	r := &metapb.Reconfigure{}
	for _, id := range s.LinksOf(who) {
		m, _ := s.MemberOf(id, who)
		l := s.Link(id)
		if in := l.InSync.Without(m); in != l.InSync && in != 0 {
			r.Links = append(r.Links, &metapb.LinkChange{Gmap: id.GMap, Position: id.Position, Ver: l.Ver, InSync: uint32(in), Head: uint32(in.First()), Reason: fmt.Sprint("without ", who)})
		}
	}
	return &metapb.Command{Kind: &metapb.Command_Reconfigure{Reconfigure: r}}
}
