package meta

import (
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
				mine := h.applied.Link(l)
				if mine.Ver < c.Ver && mine.InSync.Has(placement.Member(m)) {
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
	seeds := uint64(12)
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
	if renew(inc-1) != 0 || renew(inc+1) != 0 {
		t.Error("a process that is not its latest gets one")
	}
	g.ReportDead(id, inc)
	if renew(inc) != 0 {
		t.Error("a process that has ended gets one")
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
