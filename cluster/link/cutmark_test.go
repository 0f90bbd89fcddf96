package link

import (
	"testing"
	"time"

	"petal/placement"
)

// TestNoCutWhileMarking: R10 with a third member out. While the marks of a record
// in doubt are on their way to the disk a member takes part in no exchange: a Cut
// would make it give up what both have, since it may not commit it yet.
func TestNoCutWhileMarking(t *testing.T) {
	m := New(Options{Self: 1, Copies: 3, Complain: 2 * time.Second})
	rec := Record{Bucket: 5, Stamp: placement.Stamp{Ver: 1, Seq: 1}, Ref: 1}
	m.Restore(5, placement.Stamp{}, []Record{rec})
	var marks []Record
	sent, discarded := 0, 0
	step := func(ev Event) {
		for _, e := range m.Step(&ev, time.Second) {
			switch e.Kind {
			case EffectMark:
				marks = append(marks, e.Rec)
			case EffectSend:
				if e.Msg.Kind == MsgSummary {
					sent++
				}
			case EffectDiscard:
				discarded++
			}
		}
	}
	step(Event{Kind: EventUp, Member: 0})
	step(Event{Kind: EventConfig, Config: placement.Config{Ver: 2, InSync: 0b011, Head: 0}, Index: 1})
	step(Event{Kind: EventWitnessed, Ver: 2})
	step(Event{Kind: EventDropped})
	step(Event{Kind: EventMessage, Member: 0, Msg: &Msg{Kind: MsgAsk, Ver: 2}})
	if m.State() != Opening || len(marks) != 1 || sent != 0 {
		t.Fatalf("%s, %d marks, %d summaries", m.State(), len(marks), sent)
	}
	cut := Msg{Kind: MsgCut, Ver: 2, Bucket: 5, Prev: rec.Stamp, Stamp: placement.Stamp{Ver: 1, Seq: 400}, First: true, Last: true}
	step(Event{Kind: EventMessage, Member: 0, Msg: &cut})
	if discarded != 0 {
		t.Error("gives up what both have")
	}
	step(Event{Kind: EventMarked, Rec: marks[0]})
	if sent != 1 {
		t.Errorf("%d summaries when the marks are durable", sent)
	}
	step(Event{Kind: EventMessage, Member: 0, Msg: &cut})
	step(Event{Kind: EventCutStored, Bucket: 5})
	step(Event{Kind: EventMessage, Member: 0, Msg: &Msg{Kind: MsgOpened, Ver: 2}})
	if m.State() != Open || discarded != 0 {
		t.Errorf("is %s, with %d records given up", m.State(), discarded)
	}
}

// TestNextJoinerIsAsked: one member is let in at a time. If it goes away, another
// that has asked meanwhile, and was not heard, is asked.
func TestNextJoinerIsAsked(t *testing.T) {
	p := newPair(t, 3)
	p.openAll()
	m := p.m[0]
	ask := func(ev Event) (asked placement.Members) {
		for _, e := range m.Step(&ev, p.now) {
			switch {
			case e.Kind == EffectSend && e.Msg.Kind == MsgAsk:
				asked = asked.With(e.Member)
			case e.Kind == EffectWitness:
				defer m.Step(&Event{Kind: EventWitnessed, Ver: e.Ver}, p.now)
			}
		}
		return asked
	}
	p.write(0, 1) // else all would be cut at once
	p.durable(0)
	p.durable(1)
	p.durable(2)
	ask(Event{Kind: EventConfig, Config: placement.Config{Ver: 2, InSync: 1}, Index: 2})
	rejoin := func(from placement.Member) Event {
		return Event{Kind: EventMessage, Member: from, Msg: &Msg{Kind: MsgRejoin, Ver: 2, Session: 1, First: true, Last: true}}
	}
	ask(rejoin(1))
	ask(rejoin(2))
	if m.State() != Open || !m.Joining() {
		t.Fatalf("%s, joining %t", m.State(), m.Joining())
	}
	if asked := ask(Event{Kind: EventDown, Member: 1}); !asked.Has(2) {
		t.Errorf("asked %#x", asked)
	}
}
