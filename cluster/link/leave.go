package link

import "petal/placement"

// The side of R9 that is out of sync. What it has in doubt, its tail, may or
// may not have been committed by the others. It keeps it until the head says,
// bucket by bucket, which records both have in common: those are committed, the
// others given up. What lies beneath them is right but for what the head wrote
// since, which is in its marks.

// leave asks to be let in when the brick is quiet.
func (m *Machine) leave() {
	m.each(func(_ placement.Bucket, b *bucket) {
		m.forList(b, func(s *slot) { s.marking = false })
		for m.broken(FaultKeepTail) && b.first != 0 {
			m.commit(b)
		}
	})
	m.marking = 0
	m.become(Out)
	m.rejoin()
}

// restart asks again: the head, or the connection to it, is a new one.
func (m *Machine) restart() {
	m.uncut()
	m.become(Leaving)
	m.settle(0)
}

func (m *Machine) uncut() { m.each(func(_ placement.Bucket, b *bucket) { b.cut = 0 }) }

// rejoin asks the head to be let in, and tells it how far this member is. Without
// a lease it does not ask: it would be excluded again at once, and what it needs to
// get one (R5) comes after that. When it has one, it asks. Whose brick has failed
// has nothing to ask for until that is mended.
func (m *Machine) rejoin() {
	m.session++
	m.whole = false
	if m.failed || !m.grant.live && !m.broken(FaultNoLease) {
		return
	}
	m.sendList(m.cfg.Head, Msg{Kind: MsgRejoin, Session: m.session}, m.lasts())
}

// mended lets a member ask, perhaps again, that is out and whose brick is well: what
// it did not take before it will be told with the cut.
func (m *Machine) mended() {
	if m.state == Out {
		m.failed = false
		m.rejoin()
	}
}

// receiveCut takes a part of what this member lacks of a bucket: while it is
// let in (R9), or in R10 from a member whose index was gone (R11).
func (m *Machine) receiveCut(from placement.Member, msg *Msg) {
	b := m.touch(msg.Bucket)
	switch {
	case b.storing || m.state == Opening && m.marking != 0:
		return
	case m.state == Out && from == m.cfg.Head && msg.Session == m.session:
	case m.state == Opening && m.cfg.InSync.Has(from) && (m.Head() || from == m.cfg.Head) && msg.Session == 0 && b.last.Before(msg.Stamp):
	default:
		return
	}
	// What both have in common is committed before the blocks go missing.
	if msg.First {
		m.commitUpTo(b, msg.Prev)
		m.discard(b)
	}
	m.emit(Effect{Kind: EffectStoreCut, Bucket: msg.Bucket})
	if !msg.Last {
		return
	}
	b.aside = msg.Stamp
	b.storing = true
	m.storing++
	m.seal(msg.Bucket, b)
	if m.broken(FaultAckCutEarly) {
		m.send(from, Msg{Kind: MsgAck, Bucket: msg.Bucket, Stamp: msg.Stamp})
		b.cut, b.last = b.cut.With(m.o.Self), msg.Stamp
	}
}

// discard gives up the bucket's records in doubt.
func (m *Machine) discard(b *bucket) {
	m.forList(b, func(s *slot) {
		if !s.leaving {
			s.leaving = true
			m.discarding++
			m.emit(Effect{Kind: EffectDiscard, Rec: s.rec})
		}
	})
	b.last, b.have[m.o.Self] = b.committed, b.committed
}

// seal has the cut's stamp made durable, when nothing of the tail is left that
// it would make count as committed.
func (m *Machine) seal(n placement.Bucket, b *bucket) {
	if b.storing && (b.first == 0 || m.broken(FaultSealEarly)) {
		m.emit(Effect{Kind: EffectSealCut, Bucket: n, Stamp: b.aside})
	}
}

// discarded is the brick's word that a record is given up. They may come in any
// order; the list goes when the whole of it may.
func (m *Machine) discarded(r Record) {
	b := m.look(r.Bucket)
	if b == nil {
		return
	}
	s := m.find(b.first, r.Stamp)
	if s == nil || !s.leaving {
		return
	}
	s.leaving, s.left = false, true
	m.discarding--
	all := true
	m.forList(b, func(s *slot) { all = all && s.left })
	if !all {
		return
	}
	for b.first != 0 {
		m.shift(b)
	}
	m.seal(r.Bucket, b)
	m.settle(0)
}

// cutStored is the brick's word that a Cut is durable: from here on this member
// follows the bucket.
func (m *Machine) cutStored(n placement.Bucket) {
	b := m.look(n)
	if b == nil || !b.storing {
		return
	}
	b.storing = false
	m.storing--
	b.last, b.committed, b.have[m.o.Self] = b.aside, b.aside, b.aside
	b.aside = placement.Stamp{}
	if m.state == Out {
		b.cut = b.cut.With(m.o.Self)
	}
	m.grown(n, b, 0)
	m.settle(0)
}
