package link

import (
	"time"

	"petal/placement"
)

// opening is the state of R10.
//
//	all     -> head   Summary: the last durable stamp of each bucket
//	head    -> who    Want: what I lack          who  -> head  Recover..., original stamps
//	head    -> all    Recover...: what they lack all  -> head  Ack
//	head              behind == 0: commits all; Opened -> all, who commit all and serve
//
// A ver has one head, which never uses a number twice, so records with equal
// stamps are equal; and each member has a prefix of the bucket's records (R3).
// So the union of what is durable is, bucket by bucket, what the member with
// the greatest last stamp has. Alone in sync it is the same with nobody to ask.
type opening struct {
	got     placement.Members // head: whose Summary is complete
	planned bool              // head: behind is right
	behind  int               // head: pairs of bucket and member that lack something
	opened  bool              // not head: the head says Opened
}

// beginOpening starts the exchange, when all that this member took is durable.
// Its records in doubt may be missing on the absent members, whatever their
// journal records say: they are marked before they are committed (R7, R8).
func (m *Machine) beginOpening(now time.Duration) {
	m.open = opening{}
	m.each(func(_ placement.Bucket, b *bucket) {
		m.forList(b, func(s *slot) { m.mark(s) })
	})
	if !m.Head() {
		m.exchange(now)
		return
	}
	if m.broken(FaultHeadWins) || m.broken(FaultNoExchange) {
		m.open.got = m.others()
	}
	for k := m.others(); k != 0; k = k.Without(k.First()) {
		m.send(k.First(), Msg{Kind: MsgAsk})
	}
	m.exchange(now)
}

// exchange takes this member's part in the exchange, but not before its marks are
// durable: a Cut that came earlier would find that it may not commit yet what both
// have, and give it up.
func (m *Machine) exchange(now time.Duration) {
	switch {
	case m.state != Opening || m.marking != 0:
	case m.Head():
		m.plan(now)
	default:
		m.summarize()
	}
}

// mark makes sure that the marks of a record name all who may lack it.
func (m *Machine) mark(s *slot) {
	lack := m.absent() &^ s.rec.Excluded
	if lack == 0 || m.broken(FaultNoTakeoverMarks) {
		return
	}
	s.rec.Excluded |= lack
	if !s.marking {
		s.marking = true
		m.marking++
	}
	m.emit(Effect{Kind: EffectMark, Members: lack, Rec: s.rec})
}

// marked is the brick's word that the marks of a record are durable.
func (m *Machine) marked(r Record, now time.Duration) {
	b := m.look(r.Bucket)
	if b == nil {
		return
	}
	if s := m.find(b.first, r.Stamp); s != nil && s.marking && s.rec.Excluded == r.Excluded {
		s.marking = false
		if m.marking--; m.marking == 0 {
			m.exchange(now)
		}
	}
	m.tryOpen(now)
	m.settle(now)
	if m.state == Open && m.Head() {
		m.tryCommit(r.Bucket, b, now)
	}
}

// summarize tells the head the last durable stamp of each bucket.
func (m *Machine) summarize() { m.sendList(m.cfg.Head, Msg{Kind: MsgSummary}, m.lasts()) }

func (m *Machine) lasts() []Entry {
	at := len(m.entries)
	m.each(func(n placement.Bucket, b *bucket) {
		if h := b.have[m.o.Self]; h != (placement.Stamp{}) && (b.first != 0 || !m.broken(FaultNoIndex)) {
			m.entries = append(m.entries, Entry{n, h})
		}
	})
	return m.entries[at:]
}

// summarized takes a part of a member's Summary. A head that is open already
// says so again: the member missed it.
func (m *Machine) summarized(from placement.Member, msg *Msg, now time.Duration) {
	if !m.Head() || !m.cfg.InSync.Has(from) {
		return
	}
	switch m.state {
	case Open:
		if msg.Last {
			m.catchUp(from)
		}
		return
	case Opening:
	default:
		return
	}
	if msg.First {
		m.forgetHave(from)
		m.open.got, m.open.planned = m.open.got.Without(from), false
	}
	m.takeHave(from, msg.List)
	if msg.Last {
		m.wait[from].since = now
		m.open.got = m.open.got.With(from)
		m.exchange(now)
	}
}

func (m *Machine) forgetHave(of placement.Member) {
	m.each(func(_ placement.Bucket, b *bucket) { b.have[of] = placement.Stamp{} })
}

func (m *Machine) takeHave(of placement.Member, list []Entry) {
	for _, e := range list {
		if int(e.Bucket) < placement.Buckets && e.Stamp.Ver < m.cfg.Ver+1 {
			m.touch(e.Bucket).have[of] = e.Stamp
		}
	}
}

// plan asks for and sends what is lacking, once all Summaries are here.
func (m *Machine) plan(now time.Duration) {
	if m.open.got&m.others() != m.others() {
		return
	}
	m.open.planned, m.open.behind = true, 0
	m.each(func(n placement.Bucket, b *bucket) {
		to := m.target(b)
		for k := m.cfg.InSync; k != 0; k = k.Without(k.First()) {
			if b.have[k.First()].Before(to) {
				m.open.behind++
			}
		}
		if b.have[m.o.Self].Before(to) {
			m.want(n, b, to)
		} else {
			m.push10(n, b, to)
		}
	})
	m.tryOpen(now)
}

// target is the last stamp of a bucket that is durable at any member in sync.
func (m *Machine) target(b *bucket) placement.Stamp {
	to := b.have[m.o.Self]
	if m.broken(FaultHeadWins) || m.broken(FaultNoExchange) {
		return to
	}
	if m.broken(FaultNoIndex) && b.first == 0 {
		to = placement.Stamp{}
	}
	for k := m.others(); k != 0; k = k.Without(k.First()) {
		if h := b.have[k.First()]; to.Before(h) {
			to = h
		}
	}
	return to
}

// want asks a member that has a bucket up to to for what this head lacks.
func (m *Machine) want(n placement.Bucket, b *bucket, to placement.Stamp) {
	for k := m.others(); k != 0; k = k.Without(k.First()) {
		if b.have[k.First()] == to {
			m.send(k.First(), Msg{Kind: MsgWant, Bucket: n, Prev: b.have[m.o.Self], Stamp: to})
			return
		}
	}
}

// wanted has the shell send what the head lacks.
func (m *Machine) wanted(from placement.Member, msg *Msg) {
	b := m.look(msg.Bucket)
	if b == nil || m.state != Opening || from != m.cfg.Head || msg.Stamp != b.have[m.o.Self] || !msg.Prev.Before(msg.Stamp) {
		return
	}
	m.sendRange(from, msg.Bucket, msg.Prev, msg.Stamp)
}

func (m *Machine) sendRange(to placement.Member, n placement.Bucket, prev, last placement.Stamp) {
	m.emit(Effect{Kind: EffectSendRange, Member: to, Bucket: n, Ver: m.cfg.Ver, Prev: prev, Stamp: last, Members: m.absent()})
}

// push10 sends a bucket that this head has whole to who lacks some of it.
func (m *Machine) push10(n placement.Bucket, b *bucket, to placement.Stamp) {
	for k := m.others(); k != 0; k = k.Without(k.First()) {
		if h := b.have[k.First()]; h.Before(to) {
			m.sendRange(k.First(), n, h, to)
		}
	}
}

// gained notes that a member, perhaps this one, got nearer to the union.
func (m *Machine) gained(n placement.Bucket, b *bucket, who placement.Member, now time.Duration) {
	if !m.open.planned || b.have[who] != m.target(b) {
		return
	}
	m.open.behind--
	if who == m.o.Self {
		m.push10(n, b, b.have[who])
	}
	m.tryOpen(now)
}

// headOpened is the head's word that the union is durable everywhere or, to who
// is being let in, that what is not cut is empty.
func (m *Machine) headOpened(from placement.Member, session uint64, now time.Duration) {
	if m.state == Out && from == m.cfg.Head && session == m.session {
		m.whole = true
	}
	if session == 0 && m.state == Opening && from == m.cfg.Head && !m.Head() {
		m.open.opened = true
		m.tryOpen(now)
	}
}

// mayOpen answers whether this member may commit what is in doubt and serve:
// nothing is on its way to its brick, and, at the head, nobody lacks anything,
// or, elsewhere, the head says so. Who is alone needs a lease (R7).
func (m *Machine) mayOpen(now time.Duration) bool {
	switch {
	case m.state != Opening || m.marking != 0 || m.undurable != 0 || m.storing != 0:
		return false
	case m.broken(FaultNoExchange):
		return true
	case !m.Head():
		return m.open.opened
	}
	return m.open.planned && m.open.behind == 0 && (!m.alone() || m.leased(now))
}

// tryOpen commits all that is in doubt and serves, if it may.
func (m *Machine) tryOpen(now time.Duration) {
	if !m.mayOpen(now) {
		return
	}
	m.become(Open)
	m.each(func(_ placement.Bucket, b *bucket) {
		whole := b.committed
		for b.first != 0 {
			if m.alone() && m.broken(FaultDropInDoubt) {
				m.emit(Effect{Kind: EffectDiscard, Rec: m.shift(b)})
				b.last, b.have[m.o.Self] = b.committed, b.committed
				continue
			}
			m.commit(b)
		}
		m.level(b, whole)
	})
	m.known = (m.known | m.before) & m.absent()
	m.before = m.cfg.InSync
	m.emit(Effect{Kind: EffectOpened, Ver: m.cfg.Ver})
	for i := range m.wait {
		m.wait[i] = waiting{since: now}
	}
	for k := m.others(); k != 0; k = k.Without(k.First()) {
		if m.Head() {
			m.send(k.First(), Msg{Kind: MsgOpened})
		}
	}
	if m.Head() {
		m.askAbsent()
	}
}

// level notes who has what of a bucket from here on: in sync, all of it; who was
// in sync until now, what was committed before: all records after that name it.
func (m *Machine) level(b *bucket, whole placement.Stamp) {
	for i := range m.o.Copies {
		switch who := placement.Member(i); {
		case m.cfg.InSync.Has(who):
			b.have[i] = b.last
			b.loose = b.loose.Without(who)
		case m.before.Has(who):
			b.have[i] = whole
		}
	}
}

// askAbsent asks who is out of sync whether it wants to be let in.
func (m *Machine) askAbsent() {
	for k := m.absent(); k != 0; k = k.Without(k.First()) {
		m.send(k.First(), Msg{Kind: MsgAsk})
	}
}
