package link

import (
	"testing"
	"time"

	"petal/placement"
)

// TestLease: when a lease counts, when it is too short, and that its end is a
// restart (R5).
func TestLease(t *testing.T) {
	p := newPair(t, 1)
	m := p.m[0]
	want := func(at time.Duration, admit, read Verdict) {
		t.Helper()
		if _, _, v := m.Admit(0, at); v != admit {
			t.Errorf("at %v: admit: %s, want %s", at, v, admit)
		}
		if v := m.MayRead(0, false, at); v != read {
			t.Errorf("at %v: read: %s, want %s", at, v, read)
		}
	}
	p.step(0, Event{Kind: EventConfig, Config: placement.Config{Ver: 1, InSync: 1}, Index: 5})
	p.step(0, Event{Kind: EventLease, Until: 3 * time.Second, Index: 7})
	want(0, NotOpen, NotOpen) // index 7 is not applied: the grant does not count yet
	p.step(0, Event{Kind: EventLease, Until: 4 * time.Second, Index: 9})
	p.step(0, Event{Kind: EventConfig, Config: placement.Config{Ver: 1, InSync: 1}, Index: 7})
	want(0, Take, Serve)
	want(2*time.Second, NoLease, Serve) // less than the admission window is left
	want(3*time.Second, NoLease, NoLease)
	if !m.StillMayRead(1, 3*time.Second-1) || m.StillMayRead(1, 3*time.Second) || m.StillMayRead(0, 0) {
		t.Error("a read after its lease, or its ver")
	}
	// A renewal that comes too late finds a restart, whatever it says.
	p.now = 3 * time.Second
	p.step(0, Event{Kind: EventLease, Until: time.Minute, Index: 7})
	want(4*time.Second, NotOpen, NotOpen)
	p.step(0, Event{Kind: EventConfig, Config: placement.Config{Ver: 2, InSync: 1}, Index: 8})
	want(4*time.Second, Take, Serve)
}

// TestSoloAcknowledgesUnderALease: a record that becomes durable after the end
// of the lease is in doubt until the next ver.
func TestSoloAcknowledgesUnderALease(t *testing.T) {
	p := newPair(t, 1)
	p.openAll()
	p.step(0, Event{Kind: EventLease})
	p.step(0, Event{Kind: EventConfig, Config: placement.Config{Ver: 2, InSync: 1}, Index: 2})
	p.step(0, Event{Kind: EventLease, Until: 10 * time.Second, Index: 2})
	r := p.write(0, 1)
	p.now = 10 * time.Second
	p.durable(0)
	if got := p.m[0].look(1).committed; got == r.Stamp || p.m[0].State() != Closed {
		t.Fatalf("committed %s while %s", got, p.m[0].State())
	}
	p.step(0, Event{Kind: EventConfig, Config: placement.Config{Ver: 3, InSync: 1}, Index: 3})
	if p.m[0].State() != Opening {
		t.Fatalf("%s without a lease", p.m[0].State())
	}
	p.step(0, Event{Kind: EventLease, Until: time.Minute, Index: 3})
	if got := p.m[0].look(1).committed; got != r.Stamp {
		t.Fatalf("committed %s", got)
	}
}

// proposals are what m proposes at a tick.
func proposals(m *Machine, now time.Duration) (all []Effect) {
	for _, e := range m.Step(&Event{Kind: EventTick}, now) {
		if e.Kind == EffectPropose {
			all = append(all, e)
		}
	}
	return all
}

// TestComplaint: of who does not acknowledge, and of nobody else (A.2).
func TestComplaint(t *testing.T) {
	p := newPair(t, 3)
	p.openAll()
	if got := proposals(p.m[0], time.Minute); len(got) != 0 {
		t.Fatalf("an idle head proposes %+v", got)
	}
	p.now = time.Minute
	p.write(0, 1)
	p.durable(0)
	p.durable(1)
	if got := proposals(p.m[0], time.Minute+1999*time.Millisecond); len(got) != 0 {
		t.Fatalf("too early: %+v", got)
	}
	got := proposals(p.m[0], time.Minute+2*time.Second)
	if len(got) != 1 || got[0].What != ProposeComplain || got[0].Member != 2 || got[0].Ver != 1 {
		t.Fatalf("proposes %+v", got)
	}
	p.durable(2)
	if got := proposals(p.m[0], 2*time.Minute); len(got) != 0 {
		t.Fatalf("after the acknowledgement: %+v", got)
	}
}

// TestBrickFailure: a record that cannot be made durable ends the member's part.
func TestBrickFailure(t *testing.T) {
	p := newPair(t, 2)
	p.openAll()
	p.write(0, 1)
	p.step(1, Event{Kind: EventDurable, Rec: p.recs[1][0], Failed: true})
	if p.m[1].State() != Closed {
		t.Fatalf("member is %s", p.m[1].State())
	}
	if got := proposals(p.m[1], 0); len(got) != 1 || got[0].What != ProposeComplain || got[0].Member != 1 {
		t.Fatalf("proposes %+v", got)
	}
}

// TestFailedBrickStaysOut: who has been excluded for its brick does not ask to be
// let in, even if it lacks nothing: it could not keep what comes.
func TestFailedBrickStaysOut(t *testing.T) {
	for _, failed := range []bool{false, true} {
		p := newPair(t, 2)
		p.openAll()
		m := p.m[1]
		if failed {
			m.Step(&Event{Kind: EventDurable, Failed: true}, 0)
		}
		ver, asks := m.Config().Ver+1, 0
		for _, ev := range []Event{
			{Kind: EventConfig, Config: placement.Config{Ver: ver, InSync: placement.Members(0).With(0)}, Index: 2},
			{Kind: EventDropped},
			{Kind: EventMessage, Member: 0, Msg: &Msg{Kind: MsgAsk, Ver: ver}},
		} {
			for _, e := range m.Step(&ev, p.now) {
				if e.Kind == EffectSend && e.Msg.Kind == MsgRejoin {
					asks++
				}
			}
		}
		if (asks == 0) != failed {
			t.Errorf("brick failed %v: it asks %d times", failed, asks)
		}
	}
}

// TestWindow: a head has no more in flight than it may.
func TestWindow(t *testing.T) {
	p := newPair(t, 2)
	p.m[0].o.Window = 3
	p.openAll()
	for range 3 {
		p.write(0, 1)
	}
	if _, _, v := p.m[0].Admit(2, 0); v != Held {
		t.Fatalf("the fourth: %s", v)
	}
	p.durable(0)
	p.durable(1)
	if _, _, v := p.m[0].Admit(2, 0); v != Take {
		t.Fatalf("after a commit: %s", v)
	}
}

// TestRestoreStopsAtAGap: what is behind a gap was acknowledged by nobody (R3).
func TestRestoreStopsAtAGap(t *testing.T) {
	st := func(v, s uint64) placement.Stamp { return placement.Stamp{Ver: v, Seq: s} }
	for _, c := range []struct {
		committed placement.Stamp
		prepared  []placement.Stamp
		kept      int
	}{
		{st(3, 4), []placement.Stamp{st(3, 5), st(3, 6)}, 2},
		{st(3, 4), []placement.Stamp{st(3, 6)}, 0},
		{st(3, 4), []placement.Stamp{st(3, 5), st(4, 1), st(4, 3)}, 2},
		{st(3, 4), []placement.Stamp{st(5, 1)}, 1},
		{st(0, 0), []placement.Stamp{st(2, 2)}, 0},
	} {
		m := New(Options{Copies: 2})
		var recs []Record
		for _, s := range c.prepared {
			recs = append(recs, Record{Bucket: 9, Stamp: s})
		}
		if kept := m.Restore(9, c.committed, recs); kept != c.kept {
			t.Errorf("%s then %v: keeps %d, want %d", c.committed, c.prepared, kept, c.kept)
		}
	}
}

// TestIllegalEdgePanics names both states.
func TestIllegalEdgePanics(t *testing.T) {
	defer func() {
		if got := recover(); got != "link: idle to open" {
			t.Errorf("got %v", got)
		}
	}()
	New(Options{Copies: 1}).become(Open)
}
