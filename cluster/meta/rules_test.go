package meta

import (
	"slices"
	"strings"
	"testing"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// TestNoGrantWhileExcluded: R6, whatever comes first. A process that has just
// started asks for its first lease while its exclusion is on its way to the disks
// of all others. A grant of that time would count before the exclusion is known.
func TestNoGrantWhileExcluded(t *testing.T) {
	shown := 0
	for slow := 100 * time.Millisecond; slow < 180*time.Millisecond; slow += 20 * time.Millisecond {
		w := clusterWorld(t, 9, 3)
		w.must(1, diskOf("a", 1, "mirror"))
		w.leaseOracle()
		lead := w.leader()
		id := lead%3 + 1
		w.crash(id)
		w.run(1500 * time.Millisecond)
		h := w.open(id)
		process := w.must(id, start(int(id))).Server(id).Incarnation
		g := w.hosts[lead].group
		for _, other := range w.hosts {
			other.slow = slow
		}
		excluding := func() bool { return g.isBlocked(id) }
		w.until(3*time.Second, "its exclusion is on its way", excluding)
		h.slow = 2 * time.Second // it will be long in learning of it
		h.group.Serve(process)
		w.run(20 * time.Millisecond)
		if excluding() {
			shown++
			if g.leader.process[id] == process {
				t.Error("it has a lease from before its exclusion")
			}
		}
		w.until(10*time.Second, "it has a lease", h.serving) // and leaseOracle watches
		w.run(3 * time.Second)
	}
	if shown == 0 {
		t.Error("the exclusion always was through at once: the test shows nothing")
	}
}

// TestDeathOfAnotherProcess: R6. Word that a process has ended, or that it has
// given its lease back, counts for that process only.
func TestDeathOfAnotherProcess(t *testing.T) {
	w := clusterWorld(t, 11, 3)
	lead := w.leader()
	id := lead%3 + 1
	g, h := w.hosts[lead].group, w.hosts[id]
	w.must(lead, start(int(id))) // the next process
	inc := h.incarnation + 1
	h.group.enter(func() { h.group.mine.incarnation, h.group.mine.released = inc, false })
	w.until(2*time.Second, "it has a lease", func() bool { return g.live(id) })
	for _, other := range []uint64{inc - 1, inc + 1} {
		g.ReportDead(id, other)
		g.enter(func() { g.receiveRelease(id, &metapb.Release{Incarnation: other}) })
		if g.over(id) || !g.live(id) {
			t.Errorf("process %d has ended, and process %d counts as over", other, inc)
		}
	}
	g.enter(func() { g.receiveRelease(id, &metapb.Release{Incarnation: inc}) })
	if !g.over(id) || g.live(id) {
		t.Error("its own word does not count")
	}
}

// TestLateGrantIsALapse: R5. A lease has ended, and the next grant comes before
// anybody has noticed: it counts under new versions only.
func TestLateGrantIsALapse(t *testing.T) {
	w := clusterWorld(t, 16, 3)
	w.must(2, diskOf("a", 1, "stripe"))
	lead := w.leader()
	id := lead%3 + 1
	h := w.hosts[id]
	ver := func() uint64 { return h.applied.Link(h.applied.LinksOf(id)[0]).Ver }
	before, lapses := ver(), h.lapses
	w.run(300 * time.Millisecond)
	h.group.enter(func() {
		// As if no tick had come for two seconds: the machine slept.
		l := &h.group.mine
		l.until = h.Now() - time.Millisecond
		h.group.receiveGrant(lead, &metapb.Grant{SentNs: int64(l.renewed), Incarnation: l.incarnation, Index: h.group.view.index})
	})
	if h.lapses != lapses+1 || h.serving() {
		t.Fatalf("%d lapses, before %d; serving: %t", h.lapses, lapses, h.serving())
	}
	w.until(2*time.Second, "it has a lease again", h.serving)
	if ver() <= before {
		t.Errorf("version %d, before the lapse %d", ver(), before)
	}
}

// TestFailedDiskOfAnotherVersion: R6. A member's word that its disk has failed is
// about the version that it served. Under the next it may be whole again.
func TestFailedDiskOfAnotherVersion(t *testing.T) {
	s := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	l := placement.LinkID{GMap: 1}
	c := complaint{link: l, ver: s.Link(l).Ver, from: 1, about: 1, by: 2, on: 2}
	all := []placement.Server{1, 2}
	if got := words(situationOf(t, s, all, nil, c).next()); got != "1.0 v1 in 1 head 0" {
		t.Errorf("a failed disk: %s", got)
	}
	s = s.with(t, start(2))
	if got := words(situationOf(t, s, all, nil, c).next()); got != "nothing" {
		t.Errorf("it has failed before the start: %s", got)
	}
}

// TestHeadMissesNothing: D.7. Of those who are left, one that has everything leads.
func TestHeadMissesNothing(t *testing.T) {
	s := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror3"))
	l := placement.LinkID{GMap: 1}
	servers := s.LinkServers(l)
	s = s.with(t, reconfigure(s, l, 0b101, 0)).with(t, rejoined(l, 2, 1)) // member 1 is back, and copies
	got := situationOf(t, s, servers[1:], servers[:1]).exclude(l)
	if got == nil || got.InSync != 0b110 || got.Head != 2 {
		t.Errorf("%+v", got)
	}
}

// TestRevocationMovesTheDisk: B. Reservations that take rights away, and nothing
// else of theirs, give the disk a new vver, and say since when rights are gone.
func TestRevocationMovesTheDisk(t *testing.T) {
	s := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	d := s.Disk("a")
	for version, revokes := range []bool{false, true, false, true} {
		before := s.Disk("a")
		s = s.with(t, &metapb.Command{Kind: &metapb.Command_SwapReservation{SwapReservation: &metapb.SwapReservation{
			Disk: d.ID[:], Version: uint64(version), Value: []byte{byte(version + 1)}, Revokes: revokes}}})
		now := s.Disk("a")
		if moved := now.VVer == before.VVer+1; moved != revokes || !moved && now.VVer != before.VVer || revokes != (now.Revoked > before.Revoked) || revokes && now.Revoked != now.VVer {
			t.Errorf("revokes %t: vver %d revoked %d, before %d and %d", revokes, now.VVer, now.Revoked, before.VVer, before.Revoked)
		}
	}
}

// TestNoLeaseWhileABarrierCountsOnIt: M17. A barrier is completed over servers
// that have no lease: they get none until that is decided. Who has just been
// elected, and does not know yet what an earlier leader decided, counts nobody so.
func TestNoLeaseWhileABarrierCountsOnIt(t *testing.T) {
	w := clusterWorld(t, 21, 3)
	d := w.must(1, diskOf("a", 1, "mirror")).Disk("a")
	lead := w.leader()
	id := lead%3 + 1
	w.crash(id)
	w.run(3 * time.Second)
	g := w.hosts[lead].group
	p := &metapb.Proposal{Origin: uint32(lead), Session: 1, Number: 99, Command: &metapb.Command{Kind: &metapb.Command_CompleteBarrier{CompleteBarrier: &metapb.CompleteBarrier{Disk: d.ID[:]}}}}
	g.enter(func() {
		if over := g.overServers(); len(over) != 1 || over[0] != id {
			t.Fatalf("without a lease: %v", over)
		}
		g.leader.term++
		if over := g.overServers(); len(over) != 0 {
			t.Errorf("by the state of another term, %v have none", over)
		}
		g.leader.term--
		if _, err := g.admit(p); err != nil || !g.isBlocked(id) || g.isBlocked(lead) {
			t.Errorf("while it is under way: %v, %t, %t", err, g.isBlocked(id), g.isBlocked(lead))
		}
		g.decided(p)
		if g.isBlocked(id) {
			t.Error("it gets no lease any more")
		}
	})
}

// TestFilledOfAFormerLife: R9. A process has nothing missing, says so, and ends;
// its successor may miss blocks again by the time that this is agreed on.
func TestFilledOfAFormerLife(t *testing.T) {
	s := clusterOf(t, 2).with(t, diskOf("a", 1, "mirror"))
	l := placement.LinkID{GMap: 1}
	s = s.with(t, reconfigure(s, l, 1, 0)).with(t, rejoined(l, 2, 1)).with(t, start(2))
	filled := func(incarnation uint64) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_Filled{Filled: &metapb.Filled{Gmap: 1, Position: 0, Member: 1, Incarnation: incarnation}}}
	}
	now := s.Server(2).Incarnation
	refused(t, s, filled(now-1), ErrStale)
	if i := s.with(t, filled(now)).LinkInfo(l); i.Filling != 0 {
		t.Errorf("by its own word: %+v", i)
	}
}

// TestBrickReplacedBeforeItWasConfirmed: R14. Another brick is another brick, even
// if the agreed state does not know yet that the first one bears witness.
func TestBrickReplacedBeforeItWasConfirmed(t *testing.T) {
	begin := func(brick byte) *metapb.Command {
		return &metapb.Command{Kind: &metapb.Command_Start{Start: &metapb.Start{Server: 2, Release: Release, HasWitness: true, Bricks: [][]byte{append(make([]byte, 15), brick)}}}}
	}
	s := clusterOf(t, 3).with(t, diskOf("a", 1, "mirror"), begin(1))
	for brick, blank := range []bool{1: false, 2: true} {
		if brick == 0 {
			continue
		}
		now := s.with(t, begin(byte(brick)))
		for _, l := range now.LinksOf(2) {
			m, _ := now.MemberOf(l, 2)
			if i := now.LinkInfo(l); i.Blank.Has(m) != blank || i.InSync.Has(m) == blank {
				t.Errorf("brick %d: %v: %+v", brick, l, i)
			}
		}
	}
}

// TestClockJump: when the calendar jumps against the clock, one of them has lost
// time: the lease is dropped, and the next counts under new versions only.
func TestClockJump(t *testing.T) {
	w := clusterWorld(t, 16, 3)
	w.must(2, diskOf("a", 1, "stripe"))
	h := w.hosts[2]
	ver := func() uint64 { return h.applied.Link(h.applied.LinksOf(2)[0]).Ver }
	before, lapses := ver(), h.lapses
	h.jump = 200 * time.Millisecond // that much may be a correction
	w.run(time.Second)
	if h.lapses != lapses {
		t.Error("a small correction costs the lease")
	}
	h.jump = time.Second
	w.until(200*time.Millisecond, "the lease is dropped", func() bool { return !h.serving() })
	w.until(2*time.Second, "there is another", h.serving)
	if ver() <= before {
		t.Errorf("version %d, before %d", ver(), before)
	}
	w.until(time.Second, "it is told", func() bool {
		return slices.ContainsFunc(h.applied.Events(), func(e *Event) bool {
			return e.Kind == "clock" && e.Server == 2 && strings.Contains(e.Text, "jumped by 800ms")
		})
	})
}
