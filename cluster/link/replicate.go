package link

import (
	"time"

	"petal/placement"
)

// appended is a record that the brick took, after Admit or Accept.
func (m *Machine) appended(r Record, committed placement.Stamp, now time.Duration) {
	b := m.touch(r.Bucket)
	if m.o.Fault != 0 && !b.last.Before(r.Stamp) {
		m.insertAt(b, r) // FaultNoOrder only
		return
	}
	b.cut = m.joined(b)
	m.goBack(r.Bucket, b)
	if m.state == Out {
		b.cut = b.cut.With(m.o.Self)
	}
	m.push(b, r)
	switch {
	case m.Head() && m.state == Open:
		m.replicate(r, b, now)
	case m.state == Open || m.state == Out:
		m.loosen(r, b)
		m.commitUpTo(b, committed)
	}
}

// replicate sends a record of the head's to all who must keep it.
func (m *Machine) replicate(r Record, b *bucket, now time.Duration) {
	for k := m.keepers(b).Without(m.o.Self); k != 0; k = k.Without(k.First()) {
		w := &m.wait[k.First()]
		if w.records == 0 {
			w.since = now
		}
		w.records++
		// Who is let in takes nothing before it has stored the cut.
		if !b.awaited || m.cfg.InSync.Has(k.First()) {
			m.sendRecord(k.First(), r, b)
		}
	}
}

// loosen notes that the head is letting somebody in: if it does not come to the
// end of it, this member's records do not say who lacks them.
func (m *Machine) loosen(r Record, b *bucket) {
	b.loose |= m.absent().Without(m.o.Self) &^ r.Excluded
}

func (m *Machine) sendRecord(to placement.Member, r Record, b *bucket) {
	if !m.up.Has(to) {
		return
	}
	m.emit(Effect{Kind: EffectSend, Member: to, Rec: r, Msg: Msg{
		Kind: MsgReplicate, Ver: m.cfg.Ver, Bucket: r.Bucket, Stamp: r.Stamp, Committed: b.committed, Excluded: r.Excluded,
	}})
}

// resend sends again what a member has not acknowledged (R3), and what is
// committed of the buckets written to under this ver.
func (m *Machine) resend(to placement.Member) {
	at := len(m.entries)
	m.each(func(n placement.Bucket, b *bucket) {
		if !m.keepers(b).Has(to) {
			return
		}
		m.forList(b, func(s *slot) {
			if b.have[to].Before(s.rec.Stamp) {
				m.sendRecord(to, s.rec, b)
			}
		})
		if b.committed.Ver == m.cfg.Ver {
			m.entries = append(m.entries, Entry{n, b.committed})
		}
	})
	m.sendList(to, Msg{Kind: MsgCommitted}, m.entries[at:])
}

// sendList sends a message in as many parts as its list needs; an empty list
// is one part of a kind that has a first and a last.
func (m *Machine) sendList(to placement.Member, msg Msg, list []Entry) {
	whole := msg.Kind != MsgCommitted
	for first := true; len(list) > 0 || first && whole; first = false {
		n := min(len(list), ListMax)
		msg.List = list[:n:n]
		list = list[n:]
		msg.First, msg.Last = whole && first, whole && len(list) == 0
		m.send(to, msg)
	}
}

// durable is the brick's word on a record that it took.
func (m *Machine) durable(r Record, failed bool, now time.Duration) {
	if failed {
		m.failed = true
		m.closeFor(CauseFailed)
		m.propose(ProposeComplain, m.o.Self)
		return
	}
	b := m.look(r.Bucket)
	if b == nil {
		return
	}
	if m.markDurable(b, r.Stamp) {
		m.grown(r.Bucket, b, now)
	}
	m.settle(now)
}

// grown acts on a durable prefix of a bucket that became longer here.
func (m *Machine) grown(n placement.Bucket, b *bucket, now time.Duration) {
	switch {
	case m.state == Opening && m.Head():
		m.gained(n, b, m.o.Self, now)
	case m.state == Open && m.Head():
		m.tryCommit(n, b, now)
	case m.state == Opening || m.state == Open || m.state == Out && b.cut.Has(m.o.Self):
		m.send(m.cfg.Head, Msg{Kind: MsgAck, Bucket: n, Stamp: b.have[m.o.Self]})
	}
}

// acked is a member's word that it has a bucket durably up to s.
func (m *Machine) acked(from placement.Member, n placement.Bucket, s placement.Stamp, now time.Duration) {
	b := m.look(n)
	if b == nil || !m.Head() || b.last.Before(s) && m.state == Open {
		return
	}
	switch {
	case m.state == Opening && m.cfg.InSync.Has(from):
		if b.have[from].Before(s) {
			b.have[from] = s
			m.wait[from].since = now
			m.gained(n, b, from, now)
		}
	case m.state == Open && m.keepers(b).Has(from):
		m.cutAcked(from, n, b, s, now)
		if !b.have[from].Before(s) {
			return
		}
		m.forList(b, func(sl *slot) {
			if b.have[from].Before(sl.rec.Stamp) && !s.Before(sl.rec.Stamp) {
				m.wait[from].records--
			}
		})
		b.have[from] = s
		m.wait[from].since = now
		m.tryCommit(n, b, now)
	}
}

// tryCommit commits what mayCommit allows, in order (R3).
func (m *Machine) tryCommit(n placement.Bucket, b *bucket, now time.Duration) {
	for m.mayCommit(b, now) {
		m.commit(b)
		m.note(n, b)
	}
	m.gather(n, b)
}

// commit commits the bucket's first record.
func (m *Machine) commit(b *bucket) {
	r := m.shift(b)
	b.committed = r.Stamp
	m.emit(Effect{Kind: EffectCommit, Rec: r})
}

// note puts a bucket on the list of those whose commits the others must learn
// of within a millisecond (R4).
func (m *Machine) note(n placement.Bucket, b *bucket) {
	if !b.noted && m.keepers(b).Without(m.o.Self) != 0 {
		b.noted = true
		m.notes = append(m.notes, n)
	}
}

// tell sends what note gathered.
func (m *Machine) tell() {
	if len(m.notes) == 0 {
		return
	}
	at := len(m.entries)
	var to placement.Members
	for _, n := range m.notes {
		b := m.look(n)
		b.noted = false
		to |= m.keepers(b)
		m.entries = append(m.entries, Entry{n, b.committed})
	}
	m.notes = m.notes[:0]
	if m.state != Open || !m.Head() {
		return
	}
	for to = to.Without(m.o.Self); to != 0; to = to.Without(to.First()) {
		m.sendList(to.First(), Msg{Kind: MsgCommitted}, m.entries[at:])
	}
}

// commitUpTo commits, at a member that is not head, what the head says is.
func (m *Machine) commitUpTo(b *bucket, s placement.Stamp) {
	for b.first != 0 {
		sl := &m.slots[b.first-1]
		if !sl.durable || sl.marking || sl.leaving || sl.left || s.Before(sl.rec.Stamp) {
			return
		}
		m.commit(b)
	}
}
