package link

import (
	"time"

	"petal/placement"
)

// receive takes a message. One of another ver is dropped (R1): of an older one
// it no longer counts; of a newer one it is sent again when this member has
// applied it and says so. So is what comes in a state that has no use for it.
func (m *Machine) receive(from placement.Member, msg *Msg, now time.Duration) {
	if from == m.o.Self || int(from) >= m.o.Copies || int(msg.Bucket) >= placement.Buckets {
		return
	}
	if msg.Ver != m.cfg.Ver && !m.broken(FaultAnyVer) {
		return
	}
	switch msg.Kind {
	case MsgReplicate, MsgRecover:
		m.acknowledgeAgain(from, msg)
	case MsgAck:
		m.acked(from, msg.Bucket, msg.Stamp, now)
	case MsgCommitted:
		m.learn(from, msg.List)
	case MsgAsk:
		m.asked(from)
	case MsgSummary:
		m.summarized(from, msg, now)
	case MsgWant:
		m.wanted(from, msg)
	case MsgCut:
		m.receiveCut(from, msg)
	case MsgOpened:
		m.headOpened(from, msg.Session, now)
	case MsgRejoin:
		m.rejoins(from, msg, now)
	}
}

// acknowledgeAgain answers a record that is here already. If it is not durable
// yet, the acknowledgement follows when it is.
func (m *Machine) acknowledgeAgain(from placement.Member, msg *Msg) {
	b := m.look(msg.Bucket)
	if b == nil || m.Accept(from, msg) != Duplicate {
		return
	}
	if msg.Kind == MsgRecover && m.Head() {
		return
	}
	m.send(from, Msg{Kind: MsgAck, Bucket: msg.Bucket, Stamp: b.have[m.o.Self]})
}

// learn takes the head's word on what is committed.
func (m *Machine) learn(from placement.Member, list []Entry) {
	if from != m.cfg.Head || m.Head() || m.state != Open && m.state != Out && !m.broken(FaultAnyVer) {
		return
	}
	for _, e := range list {
		// Out of sync, what is not cut is a tail that the head may know nothing of.
		if b := m.look(e.Bucket); b != nil && (m.state != Out || b.cut.Has(m.o.Self)) {
			m.commitUpTo(b, e.Stamp)
		}
	}
}

// asked answers the head: where this member is.
func (m *Machine) asked(from placement.Member) {
	if from != m.cfg.Head {
		return
	}
	switch m.state {
	case Opening:
		m.exchange(0)
	case Out:
		m.restart()
	}
}

// peerUp is a connection that is empty and up. Who wants something of the head
// says so again; an open head says again what the member may have missed.
func (m *Machine) peerUp(p placement.Member, now time.Duration) {
	if int(p) >= m.o.Copies || p == m.o.Self {
		return
	}
	m.up = m.up.With(p)
	m.wait[p].since = now
	switch {
	case p == m.cfg.Head:
		m.asked(p)
	case m.Head() && m.state == Open && m.cfg.InSync.Has(p):
		m.catchUp(p)
	}
}

// catchUp says to a member in sync that the link is open, and what has gone to
// it since then and was not acknowledged (R3).
func (m *Machine) catchUp(p placement.Member) {
	m.send(p, Msg{Kind: MsgOpened})
	if !m.broken(FaultNoOrder) {
		m.resend(p)
	}
}

// peerDown forgets what depends on the connection.
func (m *Machine) peerDown(p placement.Member, now time.Duration) {
	if int(p) >= m.o.Copies {
		return
	}
	m.up = m.up.Without(p)
	m.wait[p].since = now
	if m.join.active && m.join.member == p {
		m.abortJoin(now)
		if !m.join.active && m.state == Open { // another may have asked meanwhile
			m.askAbsent()
		}
	}
}

// TickIn returns how soon the machine wants an EventTick: at once notices that
// wait for company must go within a millisecond (R4), else for complaints and
// repetitions.
func (m *Machine) TickIn() time.Duration {
	if len(m.notes) > 0 || m.broken(FaultNoOrder) && m.used > 0 {
		return time.Millisecond
	}
	return m.o.Complain / 4
}

// tick tells what waits to be told, repeats what may have been lost on the way
// to meta, and complains.
func (m *Machine) tick(now time.Duration) {
	m.tell()
	switch {
	case m.failed:
		m.propose(ProposeComplain, m.o.Self)
	case m.state == Closed && m.cause == CauseFenced:
		m.propose(ProposeFenced, m.o.Self)
	case m.state == Closed:
		m.reopen()
	case m.Head() && (m.state == Opening || m.state == Open):
		m.tickHead(now)
	}
}

// waitsFor answers whether this head needs something of a member that it has
// not got.
func (m *Machine) waitsFor(who placement.Member) (waits bool) {
	switch {
	case !m.up.Has(who):
		return true
	case m.state == Open:
		return m.wait[who].records > 0
	case !m.open.got.Has(who):
		return true
	}
	m.each(func(_ placement.Bucket, b *bucket) { waits = waits || b.have[who].Before(m.target(b)) })
	return waits
}

// tickHead complains of members in sync that are not heard of (DESIGN A.2), and
// looks after who is being let in.
func (m *Machine) tickHead(now time.Duration) {
	for k := m.others(); m.broken(FaultNoOrder) && k != 0; k = k.Without(k.First()) {
		m.resend(k.First())
	}
	for k := m.others(); k != 0; k = k.Without(k.First()) {
		w := &m.wait[k.First()]
		if now-w.since >= m.o.Complain && m.waitsFor(k.First()) {
			m.propose(ProposeComplain, k.First())
			w.since = now
		}
	}
	switch {
	case m.join.proposed:
		m.propose(ProposeRejoined, m.join.member)
	case m.join.active && now-m.join.since >= m.o.Complain:
		m.abortJoin(now)
		m.askAbsent()
	}
}
