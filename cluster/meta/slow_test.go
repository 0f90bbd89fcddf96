package meta

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// TestSlowServerRests: a server that two call slow, itself one of them, gets no
// lease for a while, leaves its links, and comes back; and not if there is any doubt
// (DESIGN A.2).
func TestSlowServerRests(t *testing.T) {
	type voice struct{ by, on placement.Server }
	for _, c := range []struct {
		name   string
		voices []voice // 9 is the victim, 8 its predecessor on the ring, 7 another
		early  bool
		alone  bool // its data are on no other
		rests  bool
	}{
		{"two voices", []voice{{8, 9}, {9, 9}}, false, false, true},
		{"one voice, said twice", []voice{{8, 9}, {8, 9}}, false, false, false},
		{"another is slow too", []voice{{8, 9}, {9, 9}, {7, 7}}, false, false, false},
		{"too soon after the last, or an election", []voice{{8, 9}, {9, 9}}, true, false, false},
		{"nobody else has all that it has", []voice{{8, 9}, {9, 9}}, false, true, false},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			w := clusterWorld(t, 17, 4)
			w.must(1, diskOf("a", 1, "mirror"))
			w.leaseOracle()
			lead := w.leader()
			victim := lead%4 + 1
			names := map[placement.Server]placement.Server{9: victim, 8: (victim+2)%4 + 1, 7: victim%4 + 1}
			if c.alone {
				s := w.state()
				for _, l := range s.LinksOf(victim) {
					m, _ := s.MemberOf(l, victim)
					w.must(lead, &metapb.Command{Kind: &metapb.Command_Rejoined{Rejoined: &metapb.Rejoined{Gmap: l.GMap, Position: l.Position, Ver: s.Link(l).Ver, Member: uint32(1 - m)}}})
				}
			}
			g := w.hosts[lead].group
			if !c.early {
				g.leader.slow.next = w.hosts[lead].Now()
			}
			voters := len(w.state().Conf().Voters)
			say := func() {
				for _, v := range c.voices {
					by, on := names[v.by], names[v.on]
					for _, l := range w.state().Links() {
						from, ok := w.state().MemberOf(l, by)
						about, ok2 := w.state().MemberOf(l, on)
						if ok && ok2 {
							w.hosts[by].group.ComplainSlow(l, w.state().Link(l).Ver, from, about)
						}
					}
				}
			}
			out := func() bool {
				for _, l := range w.state().LinksOf(victim) {
					if m, _ := w.state().MemberOf(l, victim); w.state().Link(l).InSync.Has(m) {
						return false
					}
				}
				return true
			}
			say()
			w.run(4 * time.Second)
			if out() != c.rests {
				t.Fatalf("it is out: %t", out())
			}
			if !c.rests {
				return
			}
			if !slices.ContainsFunc(w.state().Events(), func(e *Event) bool { return strings.Contains(e.Text, "far slower than the others") }) {
				t.Error("no event says why")
			}
			for range 10 {
				w.run(5 * time.Second)
				if w.hosts[victim].serving() {
					t.Fatal("it has a lease")
				}
			}
			g.leader.slow.until = w.hosts[lead].Now() + time.Second // the rest of it
			w.until(5*time.Second, "it has a lease again", func() bool { return w.hosts[victim].serving() })
			say() // it is as slow as before
			w.run(5 * time.Second)
			if !w.hosts[victim].serving() || len(w.state().Conf().Voters) != voters {
				t.Error("it must rest again at once, or has lost its vote")
			}
		})
	}
}

// TestRemovedServerHasNoSay: who was taken out can still connect, with a
// certificate that has not run out, and is not heard.
func TestRemovedServerHasNoSay(t *testing.T) {
	w := clusterWorld(t, 16, 4)
	victim := w.leader()%4 + 1
	name := w.state().Server(victim).Name
	w.crash(victim)
	w.must(w.leader(), &metapb.Command{Kind: &metapb.Command_Leave{Leave: &metapb.Leave{Name: name}}})
	w.until(20*time.Second, "it is no member", func() bool { return w.state().Server(victim) == nil })
	g := w.hosts[w.leader()].group
	cmd := &metapb.Command{Kind: &metapb.Command_CreateTarget{CreateTarget: &metapb.CreateTarget{Name: "iqn.2026-01.example:x"}}}
	say := func(from placement.Server) {
		body, err := proto.Marshal(&metapb.Message{Kind: &metapb.Message_Propose{Propose: &metapb.Propose{Proposal: marshalled(t, &metapb.Proposal{Origin: uint32(from), Session: 77, Number: 1, Command: cmd})}}})
		if err != nil {
			t.Fatal(err)
		}
		g.Receive(from, body)
		w.run(time.Second)
	}
	say(victim)
	if len(w.state().Targets()) != 0 {
		t.Error("a removed server has its way")
	}
	for id := placement.Server(1); id <= 4 && len(w.state().Targets()) == 0; id++ {
		if id != victim {
			say(id)
		}
	}
	if len(w.state().Targets()) != 1 {
		t.Error("nobody has: the test shows nothing")
	}
}

func marshalled(t *testing.T, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRejoinNeedsALease: a member without a lease is not taken in, for it would
// be taken out again at once, and so on for ever.
func TestRejoinNeedsALease(t *testing.T) {
	w := clusterWorld(t, 15, 3)
	w.must(1, diskOf("a", 1, "mirror"))
	l := w.state().Links()[0]
	victim, other := w.state().LinkServers(l)[1], w.state().LinkServers(l)[0]
	w.crash(victim)
	w.until(5*time.Second, "it is excluded", func() bool { return w.state().Link(l).InSync == 1 })
	w.open(victim) // a process, which asks for no lease
	ver := w.state().Link(l).Ver
	if _, err := w.propose(other, rejoined(l, ver, 1)); !errors.Is(err, ErrNotYet) {
		t.Errorf("without a lease: %v", err)
	}
	w.begin(victim)
	w.leased()
	ver = w.state().Link(l).Ver
	if _, err := w.propose(other, rejoined(l, ver, 1)); err != nil {
		t.Errorf("with one: %v", err)
	}
}

// TestSlowAndFencedRests: a disk so slow that it seemed to stand still: its server
// has been fenced from one link and stays out of it, and nobody but itself is left
// to call it slow.
func TestSlowAndFencedRests(t *testing.T) {
	for _, c := range []struct {
		name         string
		itself, rest bool
	}{{"calls itself slow", true, true}, {"says nothing", false, false}} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			w := clusterWorld(t, 17, 4)
			w.must(1, diskOf("a", 1, "mirror"))
			lead := w.leader()
			victim := lead%4 + 1
			g := w.hosts[lead].group
			g.leader.slow.next = w.hosts[lead].Now()
			var follows, leads placement.LinkID // links of the victim
			for _, l := range w.state().LinksOf(victim) {
				if m, _ := w.state().MemberOf(l, victim); m == 0 {
					leads = l
				} else {
					follows = l
				}
			}
			m, _ := w.state().MemberOf(follows, victim)
			g.enter(func() {
				g.propose(&metapb.Command{Kind: &metapb.Command_Reconfigure{Reconfigure: &metapb.Reconfigure{Links: []*metapb.LinkChange{{Gmap: follows.GMap, Position: follows.Position,
					Ver: w.state().Link(follows).Ver, InSync: uint32(placement.MembersOf(2).Without(m)), Head: uint32(1 - m), Reason: "test"}}}}}, func(*State, error) {})
			})
			rested := func() bool {
				return slices.ContainsFunc(w.state().Events(), func(e *Event) bool { return strings.Contains(e.Text, "far slower than the others") })
			}
			for at := time.Duration(0); at < 2*slowWindow*w.times.Complain; at += time.Second {
				if c.itself {
					self, _ := w.state().MemberOf(leads, victim)
					w.hosts[victim].group.ComplainSlow(leads, w.state().Link(leads).Ver, self, self)
				}
				w.run(time.Second)
				if rested() && at < slowWindow*w.times.Complain/2 {
					t.Fatalf("it rests after %v", at)
				}
			}
			if rested() != c.rest {
				t.Errorf("it rests: %t", rested())
			}
		})
	}
}
