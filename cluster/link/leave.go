package link

import (
	"time"

	"petal/placement"
)

// The side of R9 that is out of sync. What it has in doubt may or may not have
// been committed by the others, and they may have committed other records
// since. So before it asks to be let in, its blocks become missing, durably,
// and then the records are given up. The order matters: a crash in between
// repeats it, and no one else has to remember what was in the tail.

// leave discards the tail when the brick is quiet, then asks to be let in.
func (m *Machine) leave(now time.Duration) {
	if m.marking != 0 {
		m.each(func(_ placement.Bucket, b *bucket) {
			m.forList(b, func(s *slot) { s.marking = false })
		})
		m.marking = 0
	}
	m.each(func(_ placement.Bucket, b *bucket) {
		b.cut = 0
		for m.broken(FaultKeepTail) && b.first != 0 {
			m.commit(b)
		}
		m.forList(b, func(s *slot) {
			if !s.leaving {
				s.leaving = true
				m.discarding++
				m.emit(Effect{Kind: EffectDiscard, Rec: s.rec})
			}
		})
	})
	if m.discarding == 0 {
		m.become(Out)
		m.rejoin()
	}
}

// discarded is the brick's word that a record of the tail is given up. They
// may come in any order; the list goes when the whole of it may.
func (m *Machine) discarded(r Record, now time.Duration) {
	b := m.look(r.Bucket)
	if b == nil {
		return
	}
	s := m.find(b.first, r.Stamp)
	if s == nil || !s.leaving {
		return
	}
	s.leaving = false
	m.discarding--
	if m.discarding > 0 {
		return
	}
	m.each(func(_ placement.Bucket, b *bucket) {
		for b.first != 0 {
			m.shift(b)
		}
		b.last, b.have[m.o.Self] = b.committed, b.committed
	})
	if m.state == Leaving {
		m.become(Out)
		m.rejoin()
		return
	}
	m.settle(now)
}

// restart begins again to be let in. If nothing came since the last attempt, or
// all that came is known to be committed, it just asks again. Otherwise what
// came is a tail, and must not be given up under this ver: the head may have
// proposed to let this member in, and the proposal may be agreed to at any time;
// then what this member acknowledged counts. A new ver voids the proposal.
func (m *Machine) restart() {
	m.forgetCuts()
	if m.used == 0 || m.broken(FaultDiscardAgain) {
		m.become(Leaving)
		m.settle(0)
		return
	}
	m.stalled = true
	m.propose(ProposeReopen, m.o.Self)
}

func (m *Machine) forgetCuts() {
	m.session++
	m.whole = false
	m.each(func(_ placement.Bucket, b *bucket) { b.cut = 0 })
}

// rejoin asks the head to be let in, and tells it how far this member is.
func (m *Machine) rejoin() {
	m.forgetCuts()
	m.sendList(m.cfg.Head, Msg{Kind: MsgRejoin, Session: m.session}, m.lasts())
}

// receiveCut takes a part of what this member lacks of a bucket: while it is
// let in (R9), or in R10 from a member whose index was gone (R11).
func (m *Machine) receiveCut(from placement.Member, msg *Msg) {
	b := m.touch(msg.Bucket)
	switch {
	case m.state == Out && !m.stalled && from == m.cfg.Head && msg.Session == m.session:
	case m.state == Opening && m.cfg.InSync.Has(from) && (m.Head() || from == m.cfg.Head) && msg.Session == 0 && b.last.Before(msg.Stamp):
	default:
		return
	}
	if b.storing {
		return
	}
	// What is here was committed by whoever sends the cut; it comes before the
	// blocks go missing, not after.
	if msg.First {
		for b.first != 0 && m.slots[b.first-1].durable && !m.slots[b.first-1].marking {
			m.commit(b)
		}
	}
	if b.first != 0 {
		return
	}
	m.emit(Effect{Kind: EffectStoreCut, Bucket: msg.Bucket, Stamp: msg.Stamp, Last: msg.Last})
	if !msg.Last {
		return
	}
	b.last, b.committed = msg.Stamp, msg.Stamp
	b.storing = true
	m.storing++
	if m.state == Out {
		b.cut = b.cut.With(m.o.Self)
	}
	if m.broken(FaultAckCutEarly) {
		m.send(from, Msg{Kind: MsgAck, Bucket: msg.Bucket, Stamp: b.committed})
	}
}

// cutStored is the brick's word that a Cut is durable, so what came after it
// may be acknowledged.
func (m *Machine) cutStored(n placement.Bucket, now time.Duration) {
	b := m.look(n)
	if b == nil || !b.storing {
		return
	}
	b.storing = false
	m.storing--
	b.have[m.o.Self] = b.committed
	for i := b.first; i != 0 && m.slots[i-1].durable; i = m.slots[i-1].next {
		b.have[m.o.Self] = m.slots[i-1].rec.Stamp
	}
	m.grown(n, b, now)
	m.settle(now)
}
