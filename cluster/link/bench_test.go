//go:build !invariants

package link

import (
	"testing"
	"time"

	"petal/placement"
)

// mirrored is a head and a member that are open, and one write through both:
// what the hot path is.
func mirrored(t testing.TB) (write func(placement.Bucket)) {
	var m [2]*Machine
	ev := new(Event)
	step := func(i int, e Event) []Effect { *ev = e; return m[i].Step(ev, 0) }
	for i := range m {
		m[i] = New(Options{Self: placement.Member(i), Copies: 2, Complain: time.Second})
		step(i, Event{Kind: EventConfig, Config: placement.Config{Ver: 1, InSync: 3}, Index: 1})
		step(i, Event{Kind: EventLease, Until: time.Hour, Index: 1})
		step(i, Event{Kind: EventUp, Member: placement.Member(1 - i)})
		step(i, Event{Kind: EventWitnessed, Ver: 1})
		step(i, Event{Kind: EventDropped})
	}
	msg := &Msg{Kind: MsgSummary, Ver: 1, First: true, Last: true}
	step(0, Event{Kind: EventMessage, Member: 1, Msg: msg})
	msg.Kind = MsgOpened
	step(1, Event{Kind: EventMessage, Member: 0, Msg: msg})
	return func(b placement.Bucket) {
		s, x, v := m[0].Admit(b, 0)
		r := Record{Bucket: b, Stamp: s, Excluded: x}
		out := step(0, Event{Kind: EventAppended, Rec: r})
		if v != Take || len(out) != 1 {
			t.Fatalf("admit: %s, %d effects", v, len(out))
		}
		*msg = out[0].Msg
		if v := m[1].Accept(0, msg); v != Take {
			t.Fatalf("accept: %s", v)
		}
		step(1, Event{Kind: EventAppended, Rec: r, Committed: msg.Committed})
		out = step(1, Event{Kind: EventDurable, Rec: r})
		*msg = out[0].Msg
		step(0, Event{Kind: EventDurable, Rec: r})
		out = step(0, Event{Kind: EventMessage, Member: 1, Msg: msg})
		if len(out) != 1 || out[0].Kind != EffectCommit {
			t.Fatal("not committed")
		}
		if s.Seq%64 == 0 {
			for _, e := range step(0, Event{Kind: EventTick}) {
				*msg = e.Msg
				step(1, Event{Kind: EventMessage, Msg: msg})
			}
		}
	}
}

// BenchmarkMirroredWrite is all that both members' machines do for one write.
func BenchmarkMirroredWrite(b *testing.B) {
	write := mirrored(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		write(placement.Bucket(i % placement.Buckets))
		i += 7
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	write := mirrored(t)
	for i := range 2 * placement.Buckets {
		write(placement.Bucket(i % placement.Buckets))
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() { write(placement.Bucket(i % 512)); i++ }); n != 0 {
		t.Fatalf("%v allocations a write", n)
	}
}
