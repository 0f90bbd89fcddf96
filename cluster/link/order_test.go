package link

import (
	"bytes"
	"testing"

	"petal/placement"
)

func at(ver, seq uint64) placement.Stamp { return placement.Stamp{Ver: ver, Seq: seq} }

// TestOtherVersionsCountForNothing: R1. A message of another version changes
// nothing and is answered by nothing, whatever it says and wherever the member
// stands.
func TestOtherVersionsCountForNothing(t *testing.T) {
	config := func(ver uint64, in placement.Members) Event {
		return Event{Kind: EventConfig, Config: placement.Config{Ver: ver, InSync: in, Head: in.First()}, Index: ver}
	}
	for name, lead := range map[string]func(p *pair) (who, from int){
		"open, head":        func(p *pair) (int, int) { return 0, 1 },
		"open, not head":    func(p *pair) (int, int) { return 1, 0 },
		"opening, head":     func(p *pair) (int, int) { p.step(0, config(3, 3)); return 0, 1 },
		"opening, not head": func(p *pair) (int, int) { p.step(1, config(3, 3)); return 1, 0 },
		"out of sync":       func(p *pair) (int, int) { p.step(1, config(3, 1)); return 1, 0 },
	} {
		p := newPair(t, 2)
		p.openAll()
		p.step(0, config(2, 3))
		p.step(1, config(2, 3))
		p.write(0, 1) // in doubt at both
		for i := range 2 {
			p.durableOnly(i)
		}
		who, from := lead(p)
		m := p.m[who]
		before := m.AppendState(nil)
		for _, ver := range []uint64{m.Config().Ver - 1, m.Config().Ver + 1} {
			for kind := MsgReplicate; kind <= MsgRejoin; kind++ {
				msg := Msg{Kind: kind, Ver: ver, Bucket: 1, Stamp: at(2, 2), Prev: at(2, 1), Committed: at(2, 1), First: true, Last: true, List: []Entry{{1, at(2, 1)}}}
				if kind == MsgAck {
					msg.Stamp = at(2, 1)
				}
				want := OldVer
				if ver > m.Config().Ver {
					want = NewerVer
				}
				if v := m.Accept(placement.Member(from), &msg); (kind == MsgReplicate || kind == MsgRecover) && v != want {
					t.Errorf("%s: %s of ver %d at ver %d: %s", name, kind, ver, m.Config().Ver, v)
				}
				fx := m.Step(&Event{Kind: EventMessage, Member: placement.Member(from), Msg: &msg}, p.now)
				if len(fx) != 0 || !bytes.Equal(m.AppendState(nil), before) {
					t.Errorf("%s: %s of ver %d at ver %d: %v", name, kind, ver, m.Config().Ver, fx)
				}
			}
		}
	}
}

// durableOnly makes the next record durable, without a word to the others.
func (p *pair) durableOnly(i int) {
	r := p.recs[i][0]
	p.recs[i] = p.recs[i][1:]
	p.m[i].Step(&Event{Kind: EventDurable, Rec: r}, p.now)
}

// TestOnlyTheNextRecord: R3. A member takes the next record of a bucket from its
// head, and no other; one that it has it acknowledges again.
func TestOnlyTheNextRecord(t *testing.T) {
	p := newPair(t, 3)
	p.openAll()
	p.write(0, 1)
	for i, c := range []struct {
		at   int
		from placement.Member
		s    placement.Stamp
		want Verdict
	}{
		{1, 0, at(1, 2), Take},
		{1, 0, at(1, 1), Duplicate},
		{1, 0, at(1, 3), Gap},
		{1, 0, at(2, 1), Gap},
		{1, 0, at(0, 9), Gap},
		{1, 0, at(1, 0), Gap},
		{1, 2, at(1, 2), Gap}, // not the head
		{0, 1, at(1, 2), Gap}, // to the head
	} {
		if v := p.m[c.at].Accept(c.from, &Msg{Kind: MsgReplicate, Ver: 1, Bucket: 1, Stamp: c.s}); v != c.want {
			t.Errorf("%d: %s from %d at %d: %s, want %s", i, c.s, c.from, c.at, v, c.want)
		}
	}
	for _, i := range []int{1, 0} { // the head last, else it opens with the others
		p.m[i].Step(&Event{Kind: EventConfig, Config: placement.Config{Ver: 2, InSync: 7}, Index: 2}, p.now)
		if v := p.m[i].Accept(0, &Msg{Kind: MsgReplicate, Ver: 2, Bucket: 1, Stamp: at(2, 1)}); i == 1 && v != NotOpen {
			t.Errorf("before the link is open: %s", v)
		}
	}
}

// TestResendAfterReconnect: R3. What was under way when a connection broke comes
// again on the next one, from the first record that is not acknowledged on, in
// order; and is committed when the member has it.
func TestResendAfterReconnect(t *testing.T) {
	p := newPair(t, 2)
	p.openAll()
	p.write(0, 1)
	p.durable(0)
	p.durable(1)
	down := func(i int) { p.m[i].Step(&Event{Kind: EventDown, Member: placement.Member(1 - i)}, p.now) }
	p.lossy = true
	for range 3 {
		p.write(0, 1)
		p.durable(0)
	}
	p.lossy = false
	down(0)
	down(1)
	p.step(1, Event{Kind: EventUp, Member: 0})
	p.step(0, Event{Kind: EventUp, Member: 1})
	if len(p.recs[1]) != 3 || p.recs[1][0].Stamp != at(1, 2) || p.recs[1][2].Stamp != at(1, 4) {
		t.Fatalf("the member has got %v", p.recs[1])
	}
	for range 3 {
		p.durable(1)
	}
	if got := p.m[0].look(1).committed; got != at(1, 4) {
		t.Errorf("committed up to %s", got)
	}
}

// TestAcknowledgedAndNoMore: R2. A word on more than has been sent counts for
// nothing: a record that is sent later is not committed by it.
func TestAcknowledgedAndNoMore(t *testing.T) {
	p := newPair(t, 2)
	p.openAll()
	p.write(0, 1)
	p.step(0, Event{Kind: EventMessage, Member: 1, Msg: &Msg{Kind: MsgAck, Ver: 1, Bucket: 1, Stamp: at(1, 9)}})
	p.write(0, 1)
	p.durable(0)
	p.durable(0)
	if got := p.m[0].look(1).committed; got != at(0, 0) {
		t.Errorf("committed up to %s, with nothing durable at the other member", got)
	}
}

// TestNothingOpensOverWhatIsGivenUp: R9. A record that is being given up may
// neither be counted for this member's nor be committed with the union.
func TestNothingOpensOverWhatIsGivenUp(t *testing.T) {
	p := newPair(t, 2)
	p.openAll()
	r := p.write(0, 1)
	p.durableOnly(0)
	p.durableOnly(1)
	m, ver := p.m[1], uint64(2)
	config := func(in placement.Members) []Effect {
		ver++
		fx := m.Step(&Event{Kind: EventConfig, Config: placement.Config{Ver: ver, InSync: in}, Index: ver}, p.now)
		m.Step(&Event{Kind: EventWitnessed, Ver: ver}, p.now)
		m.Step(&Event{Kind: EventDropped}, p.now)
		return fx
	}
	config(1)                                                                                       // out of sync, with the record as its tail
	cut := Msg{Kind: MsgCut, Ver: ver, Bucket: 1, Stamp: at(2, 1), Session: m.session, First: true} // a first part
	m.Step(&Event{Kind: EventMessage, Member: 0, Msg: &cut}, p.now)
	config(3)
	if m.State() != Settling {
		t.Fatalf("%s while a record is being given up", m.State())
	}
	m.Step(&Event{Kind: EventDiscarded, Rec: r}, p.now)
	if m.State() != Opening {
		t.Errorf("%s when it is given up", m.State())
	}
}

// TestRecoveredInOrder: R3, R10. Of what others send while the link opens, only
// what follows the last record here is taken.
func TestRecoveredInOrder(t *testing.T) {
	p := newPair(t, 2)
	p.openAll()
	p.write(0, 1)
	p.m[1].Step(&Event{Kind: EventConfig, Config: placement.Config{Ver: 3, InSync: 3}, Index: 3}, p.now)
	p.durableOnly(1)
	p.m[1].Step(&Event{Kind: EventWitnessed, Ver: 3}, p.now)
	p.m[1].Step(&Event{Kind: EventDropped}, p.now)
	for i, c := range []struct {
		prev, s placement.Stamp
		want    Verdict
	}{
		{at(1, 1), at(1, 2), Take},
		{at(1, 1), at(2, 1), Take},
		{at(1, 2), at(1, 3), Gap},
		{at(0, 0), at(1, 2), Gap},
		{at(0, 0), at(1, 1), Duplicate},
		{at(1, 1), at(3, 1), Gap}, // a new one is no recovered one
	} {
		if v := p.m[1].Accept(0, &Msg{Kind: MsgRecover, Ver: 3, Bucket: 1, Stamp: c.s, Prev: c.prev}); v != c.want {
			t.Errorf("%d: %s after %s: %s, want %s", i, c.s, c.prev, v, c.want)
		}
	}
}

// TestNotShownBeforeTheHeadHasIt: R4. A record that is durable at a member and
// not at the head is not committed there, whatever record follows it.
func TestNotShownBeforeTheHeadHasIt(t *testing.T) {
	p := newPair(t, 2)
	p.openAll()
	first := p.write(0, 1)
	p.durable(1)
	p.write(0, 1)
	if got := p.m[1].look(1).committed; got != at(0, 0) {
		t.Errorf("the member has committed %s, the head nothing", got)
	}
	p.durable(0)
	p.write(0, 1)
	if got := p.m[1].look(1).committed; got != first.Stamp {
		t.Errorf("the member has committed %s, the head %s", got, first.Stamp)
	}
}

// TestNothingBeforeItsCut: R9. Who is out of sync takes records of a bucket from
// when it has stored its cut on; the cut of an earlier attempt is none.
func TestNothingBeforeItsCut(t *testing.T) {
	p := newPair(t, 2)
	p.openAll()
	m := p.m[1]
	m.Step(&Event{Kind: EventConfig, Config: placement.Config{Ver: 2, InSync: 1}, Index: 2}, p.now)
	for m.dropping > 0 {
		m.Step(&Event{Kind: EventDropped}, p.now)
	}
	accepts := func(b placement.Bucket) Verdict {
		return m.Accept(0, &Msg{Kind: MsgReplicate, Ver: 2, Bucket: b, Stamp: at(2, 1)})
	}
	if v := accepts(1); m.State() != Out || v != OutOfDate {
		t.Fatalf("%s, before any cut: %s", m.State(), v)
	}
	cut := Msg{Kind: MsgCut, Ver: 2, Bucket: 1, Stamp: at(1, 5), Session: m.session, First: true, Last: true}
	m.Step(&Event{Kind: EventMessage, Member: 0, Msg: &cut}, p.now)
	if v := accepts(1); v != OutOfDate {
		t.Errorf("before the cut is stored: %s", v)
	}
	m.Step(&Event{Kind: EventCutStored, Bucket: 1}, p.now)
	if v := accepts(1); v != Take {
		t.Errorf("of the bucket that is cut: %s", v)
	}
	if v := accepts(2); v != OutOfDate {
		t.Errorf("of another one: %s", v)
	}
	m.Step(&Event{Kind: EventMessage, Member: 0, Msg: &Msg{Kind: MsgAsk, Ver: 2}}, p.now) // the head begins anew
	if v := accepts(1); v != OutOfDate {
		t.Errorf("after the attempt: %s", v)
	}
}
