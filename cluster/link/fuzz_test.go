package link

import (
	"testing"
	"time"

	"petal/placement"
)

// hostile keeps the invariants from being held against a machine whose peers lie.
const hostile Fault = 1 << 31

// FuzzMachine gives a machine any messages at all, from members that lie, among
// events of an honest shell: nothing may make it panic, or keep more than a few
// buckets' worth of what it was told.
func FuzzMachine(f *testing.F) {
	for self := byte(0); self < 3; self++ {
		all := []byte{self, 3}
		for k := byte(0); k < 16; k++ {
			all = append(all, k, k*7, 1, self, 2, k, 3, 1, 1, 0xff)
		}
		f.Add(all)
	}
	f.Add([]byte{1, 2, 0, 1, 3, 0, 3, 1, 9, 4, 0, 2, 9, 9, 9, 9, 7, 5, 1, 1, 5, 5, 5, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		take := func() byte {
			if len(b) == 0 {
				return 0
			}
			c := b[0]
			b = b[1:]
			return c
		}
		copies := int(take())%placement.MaxCopies + 1
		m := New(Options{Self: placement.Member(int(take()) % copies), Copies: copies, Complain: time.Second, Window: 4, Fault: hostile})
		h := &honest{m: m, take: take}
		for len(b) > 0 {
			h.event(copies)
		}
		if len(m.slots) > 16 {
			t.Fatalf("%d records in flight with a window of 4", len(m.slots))
		}
	})
}

// honest is a shell that does what the machine says, sooner or later.
type honest struct {
	m    *Machine
	take func() byte
	ver  uint64
	now  time.Duration
	todo []Event
}

func (h *honest) step(ev Event) {
	for _, e := range h.m.Step(&ev, h.now) {
		switch e.Kind {
		case EffectWitness:
			h.todo = append(h.todo, Event{Kind: EventWitnessed, Ver: e.Ver})
		case EffectDropMarks:
			h.todo = append(h.todo, Event{Kind: EventDropped})
		case EffectDiscard:
			h.todo = append(h.todo, Event{Kind: EventDiscarded, Rec: e.Rec})
		case EffectMark:
			h.todo = append(h.todo, Event{Kind: EventMarked, Rec: e.Rec})
		case EffectSendCut:
			h.todo = append(h.todo, Event{Kind: EventCutSent, Member: e.Member, Bucket: e.Bucket, Session: e.Session})
		case EffectSealCut:
			h.todo = append(h.todo, Event{Kind: EventCutStored, Bucket: e.Bucket})
		}
	}
}

func (h *honest) stamp() placement.Stamp {
	return placement.Stamp{Ver: uint64(h.take() % 8), Seq: uint64(h.take() % 8)}
}

func (h *honest) event(copies int) {
	take := h.take
	switch take() % 8 {
	case 0:
		h.ver += uint64(take() % 3)
		in := placement.Members(take()) & placement.MembersOf(copies)
		if in == 0 {
			in = 1
		}
		h.step(Event{Kind: EventConfig, Config: placement.Config{Ver: h.ver, InSync: in, Head: in.First()}, Index: h.ver})
	case 1:
		h.step(Event{Kind: EventLease, Until: h.now + time.Duration(take()%4)*time.Second, Index: h.ver})
	case 2:
		kind := EventUp
		if take()&1 != 0 {
			kind = EventDown
		}
		h.step(Event{Kind: kind, Member: placement.Member(take())})
	case 3:
		if s, x, v := h.m.Admit(placement.Bucket(take()), h.now); v == Take {
			h.append(Record{Bucket: placement.Bucket(take() % 4), Stamp: s, Excluded: x})
		}
	case 4:
		h.now += time.Duration(take()) * 10 * time.Millisecond
		h.step(Event{Kind: EventTick})
	case 5:
		if len(h.todo) > 0 {
			i := int(take()) % len(h.todo)
			ev := h.todo[i]
			h.todo = append(h.todo[:i], h.todo[i+1:]...)
			h.step(ev)
		}
	default:
		h.message()
	}
}

// append is what a shell does with a record that it was told to take.
func (h *honest) append(r Record) {
	if s, _, v := h.m.Admit(r.Bucket, h.now); v != Take || s != r.Stamp {
		return
	}
	h.step(Event{Kind: EventAppended, Rec: r})
	h.todo = append(h.todo, Event{Kind: EventDurable, Rec: r})
}

func (h *honest) message() {
	take := h.take
	msg := &Msg{
		Kind: MsgKind(take() % 12), Ver: h.ver, Bucket: placement.Bucket(take() % 4), Stamp: h.stamp(), Prev: h.stamp(), Committed: h.stamp(),
		Excluded: placement.Members(take()), Session: uint64(take() % 3),
	}
	flags := take()
	msg.First, msg.Last = flags&1 != 0, flags&2 != 0
	if flags&4 != 0 {
		msg.Bucket += placement.Buckets - 2
	}
	for range flags >> 3 & 3 {
		msg.List = append(msg.List, Entry{placement.Bucket(take()) << 6, h.stamp()})
	}
	from := placement.Member(take() % 4)
	if msg.Kind == MsgReplicate || msg.Kind == MsgRecover {
		if h.m.Accept(from, msg) == Take {
			r := Record{Bucket: msg.Bucket, Stamp: msg.Stamp, Excluded: msg.Excluded}
			h.step(Event{Kind: EventAppended, Rec: r, Committed: msg.Committed})
			h.todo = append(h.todo, Event{Kind: EventDurable, Rec: r})
			return
		}
	}
	h.step(Event{Kind: EventMessage, Member: from, Msg: msg})
}
