package link

import (
	"time"

	"petal/placement"
)

// joining is the head's side of letting a member in again (R9), one at a time:
//
//	member -> head    Rejoin: how far it is, bucket by bucket
//	head              bucket by bucket, some at a time: hold its writes until
//	                  what is in flight is committed; then
//	head   -> member  Cut: which records are common, and the marks; from here on
//	                  the head waits for it
//	member            commits what is common, gives up the rest of its tail,
//	                  stores the marks as missing blocks
//	member -> head    Ack: that is durable; the bucket's records go to it too
//	head   -> member  Opened: what has no cut is empty
//	head              propose Rejoined
//	all in sync       under a ver with the member in sync: drop its marks, then open
//
// With three copies another member may be out meanwhile. Then the head hands on
// what it knows of that one, with each Cut: its marks, and the bucket's history,
// by which it can be told what of its tail was committed. The joiner, which
// forgot what it knew itself when it fell out, has stored that before it
// acknowledges, and so can let the other in if it is head next. What it misses
// itself is missing there too, if it is marked, until somebody comes who has it.
//
// Until it has proposed, the head may forget the join when the member goes
// away: what is in flight without naming the member is marked first. After
// that it may not: the proposal may be agreed to at any time, and a record
// acknowledged without the member would be lost with the head. It waits for
// the member, and repeats the proposal, until the configuration changes.
type joining struct {
	active   bool
	proposed bool
	whole    bool // the Rejoin is complete
	member   placement.Member
	session  uint64
	next     int           // first bucket that is not looked at yet
	pipeline int           // buckets from hold to acknowledgement
	since    time.Duration // the last sign of progress
}

// joinWindow is how many buckets are being cut at a time.
const joinWindow = 8

// joined are the members that get the bucket's records although they are out of
// sync: for whom it is cut or, if nobody ever wrote to it, all the rest is.
func (m *Machine) joined(b *bucket) placement.Members {
	if m.join.proposed && !b.touched() {
		return b.cut.With(m.join.member)
	}
	return b.cut
}

// goBack has cutMore come back to a bucket that was empty when it passed.
func (m *Machine) goBack(n placement.Bucket, b *bucket) {
	j := &m.join
	if j.active && !j.proposed && int(n) < j.next && !b.held && b.cut == 0 {
		j.next = int(n)
	}
}

// rejoins takes a part of a member's wish to be let in.
func (m *Machine) rejoins(from placement.Member, msg *Msg, now time.Duration) {
	j := &m.join
	switch {
	case m.state != Open || !m.Head() || m.cfg.InSync.Has(from) || j.proposed && !m.broken(FaultForgetProposed):
		return
	case msg.First && (!j.active || j.member == from):
		m.abortJoin(now)
		m.join = joining{active: true, member: from, session: msg.Session}
		m.each(func(_ placement.Bucket, b *bucket) { b.aside = placement.Stamp{} })
	case !j.active || j.member != from || j.session != msg.Session || j.whole:
		return
	}
	j.since = now
	for _, e := range msg.List {
		if int(e.Bucket) < placement.Buckets {
			m.touch(e.Bucket).aside = e.Stamp
		}
	}
	if msg.Last {
		j.whole = true
		m.cutMore(now)
	}
}

// cutMore holds further buckets for their cut, and proposes when all are cut.
func (m *Machine) cutMore(now time.Duration) {
	j := &m.join
	if !j.active || !j.whole || j.proposed {
		return
	}
	for ; j.next < placement.Buckets && j.pipeline < joinWindow; j.next++ {
		n := placement.Bucket(j.next)
		b := m.look(n)
		if b == nil || !b.touched() || b.held || b.cut != 0 {
			continue
		}
		j.pipeline++
		b.held = true
		m.gather(n, b)
	}
	if j.next == placement.Buckets && j.pipeline == 0 {
		j.proposed = true
		m.send(j.member, Msg{Kind: MsgOpened, Session: j.session})
		m.propose(ProposeRejoined, j.member)
	}
}

// gather has the shell send the cut of a held bucket, once nothing of it is in
// flight: then the marks in the brick are all there are.
func (m *Machine) gather(n placement.Bucket, b *bucket) {
	if !b.held || b.gathering || b.first != 0 {
		return
	}
	j := &m.join
	b.gathering = true
	common, has, known := m.common(b)
	m.emit(Effect{
		Kind: EffectSendCut, Member: j.member, Bucket: n, Ver: m.cfg.Ver, Session: j.session,
		Prev: b.aside, Stamp: b.committed, Common: common, Till: has, All: !known,
	})
}

// common finds what the joiner and this head have in common of a bucket: the
// joiner says how far it is; the head knows up to where its records, if they do
// not name the joiner, were durable there. Both have the same records up to the
// lesser of the two. If the joiner is not as far as it was, its disk has lost
// the end of its journal: the records up to has it must be given again. After a
// restart the head knows this only of buckets that it has not written to since.
func (m *Machine) common(b *bucket) (common, has placement.Stamp, known bool) {
	x := m.join.member
	switch {
	case m.known.Has(x) && !b.loose.Has(x):
		has = b.have[x]
	case !b.aside.Before(b.committed):
		has = b.committed
	default:
		return placement.Stamp{}, placement.Stamp{}, false
	}
	if b.aside.Before(has) {
		return b.aside, has, true
	}
	return has, has, true
}

// cutSent lets the bucket's writes go on, to the joining member too.
func (m *Machine) cutSent(to placement.Member, n placement.Bucket, session uint64, now time.Duration) {
	j := &m.join
	b := m.look(n)
	if b == nil || !b.gathering || !j.active || j.member != to || j.session != session {
		return
	}
	b.held, b.gathering = false, false
	b.cut = b.cut.With(to)
	b.awaited = true
	j.since = now
	if m.broken(FaultDropMarksEarly) {
		m.drop(to, m.cfg.Ver+1)
	}
}

// cutAcked notes the first acknowledgement after the cut: the member has the
// marks of the bucket, durably.
func (m *Machine) cutAcked(from placement.Member, n placement.Bucket, b *bucket, s placement.Stamp, now time.Duration) {
	j := &m.join
	if !b.awaited || !j.active || j.member != from {
		return
	}
	b.awaited = false
	b.have[from] = s
	m.forList(b, func(sl *slot) { m.sendRecord(from, sl.rec, b) })
	j.pipeline--
	j.since = now
	m.cutMore(now)
}

// abortJoin forgets a join that is not proposed yet. Records in flight that do
// not name the member are marked before they are committed without it (R8).
func (m *Machine) abortJoin(now time.Duration) {
	j := m.join
	if !j.active || j.proposed && !m.broken(FaultForgetProposed) {
		return
	}
	m.forgetJoin()
	m.wait[j.member].records = 0
	m.each(func(n placement.Bucket, b *bucket) {
		m.forList(b, func(s *slot) { m.mark(s) })
		m.tryCommit(n, b, now)
	})
}

// forgetJoin ends a join, without a word to anyone.
func (m *Machine) forgetJoin() {
	if !m.join.active {
		return
	}
	m.join = joining{}
	m.each(func(_ placement.Bucket, b *bucket) {
		b.held, b.gathering, b.awaited, b.cut = false, false, false, 0
	})
}

// Joining reports whether this head lets a member in at the moment.
func (m *Machine) Joining() bool { return m.join.active }
