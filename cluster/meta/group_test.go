package meta

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"petal/cluster/meta/metapb"
	"petal/journal/vfs"
	"petal/placement"
)

// leased waits until every running server has a lease.
func (w *world) leased() {
	w.t.Helper()
	w.until(10*time.Second, "all have leases", func() bool {
		for _, h := range w.hosts {
			if h.group == nil {
				continue
			}
			if _, ok := h.group.Lease(); !ok {
				return false
			}
		}
		return true
	})
}

// of makes a world with a cluster of n data servers.
func clusterWorld(t testing.TB, seed uint64, n int) *world {
	w := newWorld(t, seed)
	w.bootstrap()
	for id := 2; id <= n; id++ {
		w.join(placement.Server(id), metapb.ServerKind_DATA)
	}
	w.voters(votersFor(n))
	w.leased()
	return w
}

func (w *world) isolate(id placement.Server, on bool) {
	for other := placement.Server(1); other <= 16; other++ {
		w.cut[[2]placement.Server{id, other}] = on
		w.cut[[2]placement.Server{other, id}] = on
	}
}

// state is the newest one anywhere.
func (w *world) state() *State {
	var best *State
	for _, h := range w.hosts {
		if h.group == nil {
			continue
		}
		if s := h.group.State(); best == nil || s.Index() > best.Index() {
			best = s
		}
	}
	return best
}

// TestVotersGrow goes from one voter to three and five, and back as they leave.
func TestVotersGrow(t *testing.T) {
	w := newWorld(t, 3)
	w.bootstrap()
	w.join(2, metapb.ServerKind_DATA)
	w.run(3 * time.Second)
	w.voters(1)
	w.join(3, metapb.ServerKind_WITNESS)
	w.voters(3)
	w.join(4, metapb.ServerKind_DATA)
	w.run(3 * time.Second)
	w.voters(3)
	w.join(5, metapb.ServerKind_DATA)
	w.voters(5)
	w.leased()
	w.must(1, leave("n5"))
	w.hosts[5].group.GiveUp()
	w.voters(3)
	w.until(5*time.Second, "server 5 is gone", func() bool { return w.state().Server(5) == nil })
	w.crash(5)
	w.must(4, disk("a", 1))
	w.run(2 * time.Second)
	delete(w.hosts, 5)
	w.sameState()
	for _, e := range w.state().Events() {
		if e.Time.Year() < 2027 {
			t.Errorf("event %+v", e)
		}
	}
}

// TestDeadVoterIsReplaced: after Times.Replace a learner votes in its place, and
// then another failure is survived.
func TestDeadVoterIsReplaced(t *testing.T) {
	w := clusterWorld(t, 4, 4)
	conf := w.state().Conf()
	dead := conf.Voters[1]
	spare := conf.Learners[0]
	w.crash(dead)
	w.run(w.times.Replace - 5*time.Second)
	if !slices.Contains(w.state().Conf().Voters, dead) {
		t.Fatal("it was replaced before its time")
	}
	w.run(15 * time.Second)
	conf = w.state().Conf()
	if slices.Contains(conf.Voters, dead) || !slices.Contains(conf.Voters, spare) || len(conf.Voters) != 3 {
		t.Fatalf("voters %v", conf.Voters)
	}
	lead := w.leader()
	w.crash(lead)
	w.until(5*time.Second, "a leader after the second death", func() bool { l := w.leader(); return l != 0 && l != lead })
	w.must(spare, disk("a", 1))
	// Both come back and take part.
	for _, id := range []placement.Server{dead, lead} {
		w.open(id)
		w.begin(id)
	}
	w.leased()
	w.run(2 * time.Second)
	w.sameState()
}

// TestFarBehindFollower gets a snapshot in pieces, also over a network that loses
// every fifth message.
func TestFarBehindFollower(t *testing.T) {
	w := clusterWorld(t, 5, 3)
	victim := w.leader()%3 + 1
	other := victim%3 + 1
	w.crash(victim)
	var d ID
	for i := range 3 {
		s := w.must(other, disk(fmt.Sprintf("d%d", i), byte(i+1)))
		d = s.Disk(fmt.Sprintf("d%d", i)).ID
		big := make([]byte, MaxReservation)
		w.must(other, &metapb.Command{Kind: &metapb.Command_SwapReservation{SwapReservation: &metapb.SwapReservation{Disk: d[:], Value: big}}})
	}
	for i := range 300 {
		big := make([]byte, 60<<10)
		w.must(other, &metapb.Command{Kind: &metapb.Command_SwapReservation{SwapReservation: &metapb.SwapReservation{Disk: d[:], Version: uint64(i + 1), Value: big}}})
	}
	lead := w.hosts[w.leader()].group
	if first, _ := lead.storage.FirstIndex(); first < 50 {
		t.Fatalf("the leader still has the log from %d: the test shows nothing", first)
	}
	kept := 0
	first, _ := lead.storage.FirstIndex()
	last, _ := lead.storage.LastIndex()
	entries, _ := lead.storage.Entries(first, last+1, 1<<40)
	for _, e := range entries {
		kept += len(e.GetData())
	}
	if most := keepBytes + 8<<20; kept > most {
		t.Errorf("%d bytes of entries in memory, more than %d", kept, most)
	}
	w.loss = 0.2
	flips := 0
	w.seen = func(_, to placement.Server, body []byte) { // damages what is under way: the middle of a piece, which stays a message
		if at := len(body) / 2; to == victim && flips < 3 && len(body) > pieceBytes && body[at] == 0 {
			flips++
			body[at] = 1
		}
	}
	h := w.open(victim)
	w.until(60*time.Second, "the victim has everything", func() bool { return h.group.State().Reservation(d).Version == 301 })
	w.loss, w.seen = 0, nil
	w.begin(victim)
	w.leased()
	w.sameState()
	if flips == 0 {
		t.Error("no piece was damaged: the test shows less than it says")
	}
	// What it got is durable.
	w.crash(victim)
	h = w.open(victim)
	if got := h.group.State().Reservation(d).Version; got != 301 {
		t.Fatalf("after a crash the victim knows version %d", got)
	}
	w.begin(victim)
	w.run(time.Second)
	w.sameState()
}

// TestLostDirectory: a server whose directory was emptied, or set back, does not
// pretend: it fails with words that tell what to do, and the others go on.
func TestLostDirectory(t *testing.T) {
	w := clusterWorld(t, 15, 3)
	id := w.leader()%3 + 1
	w.must(id, disk("a", 1))
	w.run(time.Second)
	w.crash(id)
	w.hosts[id].fs = vfs.NewMemory(256 << 20)
	h := w.open(id)
	w.until(5*time.Second, "it fails", func() bool { return h.group.Err() != nil })
	var e *Error
	if err := h.group.Err(); !errors.As(err, &e) || e.Kind != ErrOld || !strings.Contains(e.Hint(), "join again") {
		t.Fatal(err)
	}
	if _, err := w.propose(id, disk("b", 2)); err == nil {
		t.Error("it takes commands")
	}
	h.group = nil
	h.process++
	w.must(w.leader(), disk("b", 2))
}

// TestNoQuorum: a server that the majority can't hear says so in time, and
// which.
func TestNoQuorum(t *testing.T) {
	w := clusterWorld(t, 6, 3)
	for _, id := range []placement.Server{w.leader(), w.leader()%3 + 1} {
		w.isolate(id, true)
		for _, what := range []string{"propose", "read"} {
			began := w.now
			var err error
			done := false
			g := w.hosts[id].group
			f := func(_ *State, e error) { err, done = e, true }
			if what == "read" {
				g.ReadIndexAsync(f)
			} else {
				g.ProposeAsync(disk("x", 200), f)
			}
			w.until(w.times.Lease+2*w.times.Tick, "an answer", func() bool { return done })
			var e *Error
			if !errors.As(err, &e) || e.Kind != ErrNoQuorum || !strings.Contains(e.Error(), fmt.Sprintf("n%d", id)) || e.Hint() == "" {
				t.Fatalf("%s at server %d: %v", what, id, err)
			}
			if took := w.now - began; took >= w.times.Lease {
				t.Errorf("%s: an answer after %v", what, took)
			}
		}
		w.isolate(id, false)
		w.leased()
	}
	w.run(2 * time.Second)
	w.sameState()
}

// TestProposalsTakeEffectOnce: over a network that loses, doubles by resending,
// and with leaders that die, every proposal that is answered took effect once.
func TestProposalsTakeEffectOnce(t *testing.T) {
	for seed := range uint64(4) {
		w := clusterWorld(t, 100+seed, 3)
		d := w.must(1, disk("a", 1)).Disk("a").ID
		w.loss = 0.1
		// Slow enough that proposals are sent again though the first try got there.
		w.delay = func() time.Duration { return time.Duration(w.rnd.Int64N(int64(300 * time.Millisecond))) }
		acked, open := 0, 0
		for i := range 60 {
			id := placement.Server(i%3 + 1)
			if w.hosts[id].group == nil {
				w.open(id)
				w.begin(id)
			}
			if i%20 == 10 {
				victim := w.leader()
				if victim != 0 && victim != id {
					w.crash(victim)
				}
			}
			var done bool
			var err error
			w.hosts[id].group.ProposeAsync(&metapb.Command{Kind: &metapb.Command_BumpVver{BumpVver: &metapb.BumpVVer{Disk: d[:]}}}, func(_ *State, e error) { done, err = true, e })
			w.until(10*time.Second, "an answer", func() bool { return done })
			if err == nil {
				acked++
			} else {
				open++
			}
		}
		w.loss = 0
		w.delay = func() time.Duration { return time.Millisecond }
		for id := placement.Server(1); id <= 3; id++ {
			if w.hosts[id].group == nil {
				w.open(id)
				w.begin(id)
			}
		}
		w.run(3 * time.Second)
		w.sameState()
		if got := int(w.state().DiskByID(d).Resets); got < acked || got > acked+open {
			t.Errorf("seed %d: %d took effect, %d were acknowledged and %d left open", seed, got, acked, open)
		}
		if acked < 20 {
			t.Errorf("seed %d: only %d of 60 were acknowledged: the test shows little", seed, acked)
		}
	}
}

// TestExclusionByTime: a server that dies leaves its links about Guard later,
// one that gives up at once, and one that is reported dead at once.
func TestExclusionByTime(t *testing.T) {
	for _, c := range []struct {
		name     string
		how      func(*world, placement.Server)
		from, to time.Duration
	}{
		{"dies", func(w *world, id placement.Server) { w.crash(id) }, 1500 * time.Millisecond, 2600 * time.Millisecond},
		{"gives up", func(w *world, id placement.Server) {
			w.hosts[id].group.GiveUp()
			w.run(10 * time.Millisecond)
			w.crash(id)
		}, 0, 120 * time.Millisecond},
		{"gives up unheard", func(w *world, id placement.Server) {
			w.isolate(id, true)
			w.hosts[id].group.GiveUp()
			w.run(time.Second)
			w.isolate(id, false)
		}, time.Second, 1500 * time.Millisecond},
		{"reported", func(w *world, id placement.Server) {
			inc := w.hosts[id].incarnation
			w.crash(id)
			w.hosts[id%4+1].group.ReportDead(id, inc)
		}, 0, 120 * time.Millisecond},
		{"reported leader", func(w *world, id placement.Server) {
			inc := w.hosts[id].incarnation
			w.crash(id)
			w.hosts[id%4+1].group.ReportDead(id, inc)
		}, 0, 250 * time.Millisecond},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			w := clusterWorld(t, 7, 4)
			w.must(1, diskOf("a", 1, "mirror"))
			w.run(200 * time.Millisecond) // all have heard of it
			victim := w.leader()
			if c.name != "reported leader" {
				victim = victim%4 + 1
			}
			began := w.now
			c.how(w, victim)
			in := func() int {
				s, n := w.state(), 0
				for _, l := range s.LinksOf(victim) {
					if m, _ := s.MemberOf(l, victim); s.Link(l).InSync.Has(m) {
						n++
					}
				}
				return n
			}
			w.until(10*time.Second, "it is out of its links", func() bool { return in() == 0 })
			if took := w.now - began; took < c.from || took > c.to {
				t.Errorf("it took %v, want %v to %v", took, c.from, c.to)
			}
			if s := w.state(); s.Server(victim).Down.IsZero() {
				t.Error("nobody noted that it is down")
			}
			// It comes back, out of sync; nothing is served by it before it has rejoined.
			if w.hosts[victim].group != nil {
				w.crash(victim)
			}
			w.open(victim)
			w.begin(victim)
			w.until(5*time.Second, "it is up", func() bool { return w.state().Server(victim).Down.IsZero() })
			if in() != 0 {
				t.Error("a restart put it in sync")
			}
		})
	}
}

// TestHealth: a server that says it is unwell loses its lease and its links; when
// it is well again its links, where it is still in sync, have new versions (R5, M16).
func TestHealth(t *testing.T) {
	w := clusterWorld(t, 8, 3)
	w.must(1, diskOf("a", 1, "stripe")) // nobody else has it: no exclusion
	id := w.leader()%3 + 1
	h := w.hosts[id]
	l := w.state().LinksOf(id)[0]
	before := w.state().Link(l)
	h.healthy = false
	w.until(3*time.Second, "its lease ends", func() bool { _, ok := h.group.Lease(); return !ok })
	w.run(3 * time.Second)
	if got := w.state().Link(l); got != before {
		t.Errorf("%v, before %v: the only copy is waited for", got, before)
	}
	h.healthy = true
	w.until(3*time.Second, "it has a lease again", func() bool { _, ok := h.group.Lease(); return ok })
	if got := h.applied.Link(l); got.Ver <= before.Ver {
		t.Errorf("a lease after a lapse, and the link still has version %d (R5)", got.Ver)
	}
}
