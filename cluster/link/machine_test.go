package link

import (
	"testing"
	"time"

	"petal/placement"
)

// pair is a link of members whose shells do at once what effects say, with
// bricks that are durable when told.
type pair struct {
	t    *testing.T
	m    []*Machine
	now  time.Duration
	recs [][]Record // durable wanted

	lossy bool // messages get lost
}

func newPair(t *testing.T, n int) *pair {
	p := &pair{t: t, recs: make([][]Record, n)}
	for i := range n {
		p.m = append(p.m, New(Options{Self: placement.Member(i), Copies: n, Admission: time.Second, Complain: 2 * time.Second}))
	}
	return p
}

func (p *pair) step(i int, ev Event) {
	fx := append([]Effect(nil), p.m[i].Step(&ev, p.now)...)
	for _, e := range fx {
		switch e.Kind {
		case EffectWitness:
			p.step(i, Event{Kind: EventWitnessed, Ver: e.Ver})
		case EffectDropMarks:
			p.step(i, Event{Kind: EventDropped})
		case EffectSend:
			if p.lossy {
				continue
			}
			p.deliver(i, int(e.Member), e)
		}
	}
}

func (p *pair) deliver(from, to int, e Effect) {
	msg := e.Msg
	if msg.Kind == MsgReplicate || msg.Kind == MsgRecover {
		if p.m[to].Accept(placement.Member(from), &msg) == Take {
			r := Record{Bucket: msg.Bucket, Stamp: msg.Stamp, Excluded: msg.Excluded}
			p.step(to, Event{Kind: EventAppended, Rec: r, Committed: msg.Committed})
			p.recs[to] = append(p.recs[to], r)
			return
		}
	}
	p.step(to, Event{Kind: EventMessage, Member: placement.Member(from), Msg: &msg})
}

func (p *pair) durable(i int) {
	r := p.recs[i][0]
	p.recs[i] = p.recs[i][1:]
	p.step(i, Event{Kind: EventDurable, Rec: r})
}

func (p *pair) write(i int, b placement.Bucket) Record {
	s, x, v := p.m[i].Admit(b, p.now)
	if v != Take {
		p.t.Fatalf("admit: %s", v)
	}
	r := Record{Bucket: b, Stamp: s, Excluded: x}
	p.step(i, Event{Kind: EventAppended, Rec: r})
	p.recs[i] = append(p.recs[i], r)
	return r
}

func (p *pair) openAll() {
	for i := range p.m {
		for j := range p.m {
			if i != j {
				p.step(i, Event{Kind: EventUp, Member: placement.Member(j)})
			}
		}
	}
	for i := range p.m {
		p.step(i, Event{Kind: EventConfig, Config: placement.Config{Ver: 1, InSync: placement.MembersOf(len(p.m))}, Index: 1})
		p.step(i, Event{Kind: EventLease, Until: time.Hour, Index: 1})
	}
	for i, m := range p.m {
		if m.State() != Open {
			p.t.Fatalf("member %d is %s", i, m.State())
		}
	}
}

func TestHealthyPath(t *testing.T) {
	for n := 1; n <= 3; n++ {
		p := newPair(t, n)
		p.openAll()
		r := p.write(0, 7)
		if r.Stamp != (placement.Stamp{Ver: 1, Seq: 1}) || r.Excluded != 0 {
			t.Fatalf("first record is %+v", r)
		}
		for i := range n {
			if got := p.m[0].look(7).committed; got != (placement.Stamp{}) {
				t.Fatalf("%d copies: committed %s with %d durable", n, got, i)
			}
			p.durable(n - 1 - i)
		}
		if got := p.m[0].look(7).committed; got != r.Stamp {
			t.Fatalf("%d copies: committed %s", n, got)
		}
		if v := p.m[n-1].MayRead(7, true, 0); n > 1 && v != GoToHead {
			t.Fatalf("a read in doubt: %s", v)
		}
		p.step(0, Event{Kind: EventTick})
		if got := p.m[n-1].look(7).committed; got != r.Stamp {
			t.Fatalf("%d copies: the last member knows %s", n, got)
		}
	}
}
