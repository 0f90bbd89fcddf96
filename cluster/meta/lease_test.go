package meta

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// trouble has a world of n servers suffer for some time: cuts, one way or both,
// isolation, crashes, slow and lossy networks, slow disks, unwell servers.
func (w *world) trouble(n int, d time.Duration) {
	end := w.now + d
	for w.now < end {
		id := placement.Server(w.rnd.IntN(n) + 1)
		other := placement.Server(w.rnd.IntN(n) + 1)
		h := w.hosts[id]
		switch w.rnd.IntN(12) {
		case 0, 1:
			if lead := w.leader(); lead != 0 && w.rnd.IntN(2) == 0 {
				id = lead
			}
			w.isolate(id, true)
			w.run(time.Duration(w.rnd.Int64N(int64(6 * time.Second))))
			w.isolate(id, false)
		case 2, 3:
			w.cut[[2]placement.Server{id, other}] = true
		case 4:
			clear(w.cut)
		case 5:
			if h.group != nil {
				w.crash(id)
			}
		case 6, 7, 8:
			for id := placement.Server(1); int(id) <= n; id++ {
				if h := w.hosts[id]; h.group == nil {
					w.open(id)
				}
			}
		case 9:
			w.loss = []float64{0, 0, 0.05, 0.3}[w.rnd.IntN(4)]
		case 10:
			most := []time.Duration{400 * time.Microsecond, 10 * time.Millisecond, 80 * time.Millisecond, 700 * time.Millisecond}[w.rnd.IntN(4)]
			w.delay = func() time.Duration { return 50*time.Microsecond + time.Duration(w.rnd.Int64N(int64(most))) }
		case 11:
			h.healthy = !h.healthy
		}
		w.run(time.Duration(w.rnd.Int64N(int64(1500 * time.Millisecond))))
		w.restarted()
	}
	clear(w.cut)
	w.loss = 0
	w.delay = func() time.Duration {
		return 50*time.Microsecond + time.Duration(w.rnd.Int64N(int64(400*time.Microsecond)))
	}
	for id := placement.Server(1); int(id) <= n; id++ {
		h := w.hosts[id]
		h.healthy = true
		if h.group == nil {
			w.open(id)
		}
	}
	w.restarted()
}

// restarted has processes that have none yet ask for their incarnation.
func (w *world) restarted() {
	for id := placement.Server(1); int(id) <= 16; id++ {
		if h := w.hosts[id]; h != nil && h.group != nil && h.incarnation == 0 && !h.starting {
			h.starting = true
			h.begin()
		}
	}
}

// begin asks for an incarnation until there is one.
func (h *host) begin() {
	p, g := h.process, h.group
	g.ProposeAsync(start(int(h.id)), func(s *State, err error) {
		switch {
		case h.process != p:
		case err != nil:
			h.w.after(10*time.Millisecond, func() {
				if h.process == p {
					h.begin()
				}
			})
		default:
			h.incarnation = s.Server(h.id).Incarnation
			g.Serve(h.incarnation)
		}
	})
}

// serving reports whether a server may act on what it knows: it has a lease, as
// it sees it.
func (h *host) serving() bool {
	if h.group == nil || h.applied == nil {
		return false
	}
	_, ok := h.group.Lease()
	return ok
}

// leaseOracle watches that nobody acts on an old configuration while another
// may act on a new one: as soon as a configuration without X is applied anywhere, X
// either holds no lease, or knows.
func (w *world) leaseOracle() {
	seen := map[placement.LinkID]uint64{}
	old := w.check
	w.check = func() {
		if old != nil {
			old()
		}
		newest := w.state()
		if newest == nil {
			return
		}
		for _, l := range newest.Links() {
			c := newest.Link(l)
			if seen[l] == c.Ver {
				continue
			}
			seen[l] = c.Ver
			for m, id := range newest.LinkServers(l) {
				if c.InSync.Has(placement.Member(m)) {
					continue
				}
				h := w.hosts[id]
				if !h.serving() {
					continue
				}
				mine := h.applied.LinkInfo(l)
				if mine.Ver < c.Ver && (mine.InSync &^ mine.Fenced).Has(placement.Member(m)) {
					w.t.Fatalf("at %v: link %v v%d goes on without server %d, which serves it under v%d until %v (now %v)\n%s", w.now, l, c.Ver, id, mine.Ver, h.until, h.Now(), w.describe())
				}
			}
		}
	}
}

// TestLeaseEndsBeforeExclusion: in whatever trouble, with clocks that drift by one
// percent, nobody is excluded while it may serve; and once the trouble is over
// everybody has a lease and the same state.
func TestLeaseEndsBeforeExclusion(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 3
	}
	if n, err := strconv.Atoi(os.Getenv("PETAL_SEEDS")); err == nil {
		seeds = uint64(n)
	}
	excluded, lapses := 0, 0
	for seed := range seeds {
		w := newWorld(t, 1000+seed)
		w.drift = func(id placement.Server) float64 { return []float64{0.99, 1.01, 1, 1.01, 0.99}[(uint64(id)+seed)%5] }
		w.bootstrap()
		n := 3 + int(seed%3)
		for id := 2; id <= n; id++ {
			w.join(placement.Server(id), 0)
		}
		w.voters(votersFor(n))
		w.leased()
		w.must(1, diskOf("a", 1, "mirror"))
		w.must(1, diskOf("b", 2, "mirror3"))
		w.leaseOracle()
		w.monotone()
		w.rejoin()
		w.trouble(n, 40*time.Second)
		w.leased()
		w.until(10*time.Second, "everybody answers", func() bool {
			for _, v := range w.state().Servers() {
				if !v.Down.IsZero() {
					return false
				}
			}
			return true
		})
		w.run(time.Second)
		w.sameState()
		for _, e := range w.state().Events() {
			if e.Kind == "link" {
				excluded++
			}
		}
		for _, h := range w.hosts {
			lapses += h.lapses
			if err := h.group.Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if excluded < int(seeds) || lapses < int(seeds) {
		t.Errorf("%d exclusions and %d lapses in %d worlds: the test shows little", excluded, lapses, seeds)
	}
}

// TestGrantWaitsForExclusion: a process that has just started asks for its first
// lease while its exclusion is on its way. It must not get one from before that:
// it would serve what it is no longer part of.
func TestGrantWaitsForExclusion(t *testing.T) {
	w := clusterWorld(t, 9, 3)
	w.must(1, diskOf("a", 1, "mirror"))
	w.leaseOracle()
	lead := w.leader()
	id := lead%3 + 1
	w.crash(id)
	w.run(1500 * time.Millisecond)
	h := w.open(id)
	s := w.must(id, start(int(id)))
	g := w.hosts[lead].group
	w.until(3*time.Second, "its exclusion is on its way", func() bool { return g.leader.busy })
	// From here on its disk is slow: the exclusion commits without it.
	h.slow = time.Second
	h.group.Serve(s.Server(id).Incarnation)
	granted := false
	w.until(5*time.Second, "it has a lease", func() bool { granted = h.serving(); return granted })
	w.run(3 * time.Second)
	for _, l := range w.state().LinksOf(id) {
		if m, _ := w.state().MemberOf(l, id); w.state().Link(l).InSync.Has(m) {
			t.Fatalf("%v: it was not excluded: the test shows nothing", l)
		}
	}
}

// TestOldProcessGetsNoLease: renewals of a process that another has followed, or
// that has ended, are not heard.
func TestOldProcessGetsNoLease(t *testing.T) {
	w := clusterWorld(t, 11, 3)
	lead := w.leader()
	id := lead%3 + 1
	g := w.hosts[lead].group
	inc := w.hosts[id].incarnation
	w.crash(id)
	renew := func(incarnation uint64) time.Duration {
		was := g.leader.granted[id]
		g.enter(func() { g.receiveRenew(id, &metapb.Renew{SentNs: 1, Incarnation: incarnation}) })
		w.run(200 * time.Millisecond)
		return g.leader.granted[id] - was
	}
	if renew(inc) == 0 {
		t.Error("its latest process gets none")
	}
	if !g.live(id) {
		t.Error("it has a lease and is not live")
	}
	w.must(lead, start(int(id)))
	inc++
	if g.live(id) {
		t.Error("a process that has no lease yet is live by that of the one before")
	}
	if renew(inc) == 0 || !g.live(id) {
		t.Error("the next process gets none")
	}
	if renew(inc-1) != 0 || renew(inc+1) != 0 {
		t.Error("a process that is not its latest gets one")
	}
	g.ReportDead(id, inc)
	if renew(inc) != 0 {
		t.Error("a process that has ended gets one")
	}
}

// TestSupersededProcess: when another process has got the server's incarnation, the
// one before it serves nothing any more.
func TestSupersededProcess(t *testing.T) {
	w := clusterWorld(t, 12, 3)
	h := w.hosts[2]
	w.must(1, start(2))
	w.until(time.Second, "its lease ends", func() bool { return !h.serving() })
	w.run(5 * time.Second)
	if h.serving() {
		t.Error("it has a lease again")
	}
}

// TestFencing: a head that can't replicate to a member has it fenced, and it is
// excluded when it has said that it stopped, or when its lease is over.
func TestFencing(t *testing.T) {
	for _, confirms := range []bool{true, false} {
		w := clusterWorld(t, 13, 3)
		w.must(1, diskOf("a", 1, "mirror"))
		w.leaseOracle()
		l := placement.LinkID{GMap: 1, Position: 0}
		members := w.state().LinkServers(l)
		head, other := w.hosts[members[0]], w.hosts[members[1]]
		stop := false
		var complain func()
		complain = func() {
			head.group.Complain(l, w.state().Link(l).Ver, 0, 1)
			if !stop {
				w.after(time.Second, complain)
			}
		}
		complain()
		w.until(time.Second, "it is fenced", func() bool { return other.applied.LinkInfo(l).Fenced == 2 })
		if c := w.state().Link(l); c.InSync != 3 || c.Ver != 1 {
			t.Fatalf("%+v before it has stopped", c)
		}
		began := w.now
		if confirms {
			w.must(members[1], &metapb.Command{Kind: &metapb.Command_FenceConfirm{FenceConfirm: &metapb.FenceConfirm{Gmap: 1, Position: 0, Ver: 1, Member: 1}}})
		} else {
			w.run(3 * time.Second)
			if c := w.state().Link(l); c.InSync != 3 {
				t.Fatalf("%+v: excluded with a lease and without its word", c)
			}
			w.isolate(members[1], true)
			began = w.now
		}
		w.until(4*time.Second, "it is excluded", func() bool { return w.state().Link(l).InSync == 1 })
		stop = true
		took := w.now - began
		if confirms && took > 100*time.Millisecond || !confirms && (took < 1800*time.Millisecond || took > 3*time.Second) {
			t.Errorf("confirms %v: it took %v", confirms, took)
		}
		if i := w.state().LinkInfo(l); i.Fenced != 0 || i.Head != 0 {
			t.Errorf("%+v", i)
		}
		for _, id := range w.state().LinksOf(members[1]) {
			if confirms && id != l && w.state().Link(id).InSync != 3 {
				t.Errorf("%v: %+v: another link was touched", id, w.state().Link(id))
			}
		}
	}
}

// TestOnlyTheLeaderReconfigures: nobody else may take members out of links, and
// what counts on ended leases is the leader's word, whatever the command says.
func TestOnlyTheLeaderReconfigures(t *testing.T) {
	w := clusterWorld(t, 14, 3)
	w.must(1, diskOf("a", 1, "mirror"))
	s := w.state()
	l := s.Links()[0]
	other := w.leader()%3 + 1
	if _, err := w.propose(other, reconfigure(s, l, 1, 0)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a follower takes a member out: %v", err)
	}
	d := s.Disk("a")
	all := []uint32{1, 2, 3}
	if _, err := w.propose(other, &metapb.Command{Kind: &metapb.Command_CompleteBarrier{CompleteBarrier: &metapb.CompleteBarrier{Disk: d.ID[:], Vver: d.VVer, Over: all}}}); !errors.Is(err, ErrNotYet) {
		t.Errorf("a barrier is complete without answers: %v", err)
	}
	force := &metapb.ForceLink{Gmap: l.GMap, Position: l.Position, Member: 1, AcceptLoss: true, Over: all}
	victim := s.LinkServers(l)[1]
	w.crash(victim)
	w.until(5*time.Second, "it is excluded", func() bool { return w.state().Link(l).InSync == 1 })
	other = w.leader()
	if _, err := w.propose(other, &metapb.Command{Kind: &metapb.Command_ForceLink{ForceLink: force}}); !errors.Is(err, ErrInUse) {
		t.Errorf("a link is forced while its only good member lives: %v", err)
	}
	// The other member dies too: of the third's view, the barrier can be completed and the link forced.
	w.open(victim)
	w.begin(victim)
	w.leased()
	good := s.LinkServers(l)[0]
	w.crash(good)
	w.run(4 * time.Second)
	other = good%3 + 1
	before := w.state().Link(l)
	if _, err := w.propose(other, &metapb.Command{Kind: &metapb.Command_ForceLink{ForceLink: force}}); err != nil {
		t.Fatalf("the link is not forced: %v", err)
	}
	if c := w.state().Link(l); c.InSync != 2 || c.Ver <= before.Ver {
		t.Errorf("%+v", c)
	}
}

// TestLeaseCountsFromItsRequest: a grant that was long under way counts from when
// it was asked for.
func TestLeaseCountsFromItsRequest(t *testing.T) {
	w := clusterWorld(t, 10, 3)
	w.must(1, diskOf("a", 1, "mirror"))
	w.leaseOracle()
	lead := w.leader()
	id := lead%3 + 1
	h := w.hosts[id]
	fast := w.delay
	w.delay = func() time.Duration { return 400 * time.Millisecond }
	w.run(time.Second)
	until := h.until
	w.until(3*time.Second, "another grant arrives", func() bool { return h.until != until })
	// Request and grant were 400 ms under way each.
	if left := h.until - h.Now(); left > w.times.Lease-800*time.Millisecond {
		t.Errorf("%v of the lease are left on arrival", left)
	}
	w.isolate(id, true)
	w.delay = fast
	w.until(10*time.Second, "it is excluded", func() bool {
		l := w.state().LinksOf(id)[0]
		m, _ := w.state().MemberOf(l, id)
		return !w.state().Link(l).InSync.Has(m)
	})
}

// rejoin has servers that are out of sync come back from time to time, as
// replicas would.
func (w *world) rejoin() {
	w.after(time.Duration(w.rnd.Int64N(int64(3*time.Second))), func() {
		w.rejoin()
		for id := placement.Server(1); int(id) <= 16; id++ {
			h := w.hosts[id]
			if h == nil || !h.serving() {
				continue
			}
			for _, l := range h.applied.LinksOf(id) {
				m, _ := h.applied.MemberOf(l, id)
				c := h.applied.Link(l)
				head := h.applied.LinkServers(l)[c.Head]
				if hh := w.hosts[head]; c.InSync.Has(m) || !hh.serving() || hh.applied.Link(l) != c {
					continue
				}
				w.hosts[head].group.ProposeAsync(rejoined(l, c.Ver, m), func(*State, error) {})
			}
		}
	})
}

// monotone watches that no watcher's state ever goes back, and that states of one
// index are equal everywhere.
func (w *world) monotone() {
	last := map[placement.Server][2]uint64{}
	known := map[uint64]string{}
	old := w.check
	w.check = func() {
		if old != nil {
			old()
		}
		for id := placement.Server(1); int(id) <= 16; id++ {
			h := w.hosts[id]
			if h == nil || h.group == nil {
				continue
			}
			s := h.group.State()
			was := last[id]
			if was[0] == uint64(h.process) && was[1] == s.Index() {
				continue
			}
			if was[0] == uint64(h.process) && s.Index() < was[1] {
				w.t.Fatalf("server %d went from state %d to %d", id, was[1], s.Index())
			}
			last[id] = [2]uint64{uint64(h.process), s.Index()}
			sum := fmt.Sprint(s.term, s.Conf(), len(s.Events()), s.nextEvent)
			for _, l := range s.Links() {
				sum += fmt.Sprint(s.LinkInfo(l))
			}
			if k, ok := known[s.Index()]; ok && k != sum {
				w.t.Fatalf("state %d is not the same everywhere:\n%s\n%s", s.Index(), k, sum)
			}
			known[s.Index()] = sum
		}
	}
}

// TestNewProcessIsNotMissedAtOnce: a server that starts long after the leader was
// elected has the time of a guard to get its first lease before it counts as down.
func TestNewProcessIsNotMissedAtOnce(t *testing.T) {
	w := clusterWorld(t, 13, 3)
	lead := w.leader()
	id := lead%3 + 1
	g := w.hosts[lead].group
	w.crash(id)
	w.until(10*time.Second, "it is down", func() bool { return !g.State().Server(id).Down.IsZero() })
	g.enter(func() { delete(g.leader.granted, id) }) // as if it had never had one
	w.must(lead, start(int(id)))
	up := g.view.clone()
	up.mark(nil, []uint32{uint32(id)})
	began := g.now()
	g.enter(func() { g.view = up })
	w.until(10*time.Second, "it is down again", func() bool { return !g.State().Server(id).Down.IsZero() || !g.view.Server(id).Down.IsZero() })
	if took := g.now() - began; took < g.cfg.Times.Guard {
		t.Errorf("a process that has just started is down after %v", took)
	}
}
