package explore

import (
	"time"

	"petal/cluster/link"
	"petal/placement"
)

// state is a world with its machines: one point of the search.
type state struct {
	k *Case
	w world
	m [maxMembers]*link.Machine

	full   bool            // a bound of the model was hit: the move is not made
	inHand *packet         // the message being received
	fx     [][]link.Effect // free memory for effects
}

const (
	forever  = time.Duration(1) << 60
	patience = time.Second
)

func newState(k *Case) *state {
	s := &state{k: k}
	for x := range k.Members {
		s.m[x] = s.machine(x)
	}
	return s
}

func (s *state) machine(x int) *link.Machine {
	return link.New(link.Options{Self: placement.Member(x), Copies: s.k.Members, Complain: patience, Window: 8, Fault: s.k.Fault})
}

// step gives a machine an event and does what it says. What the brick does at
// once is answered when all effects are done.
func (s *state) step(x int, ev *link.Event, now time.Duration) {
	var fx []link.Effect
	if n := len(s.fx); n > 0 {
		fx, s.fx = s.fx[n-1], s.fx[:n-1]
	}
	fx = append(fx[:0], s.m[x].Step(ev, now)...)
	for i := range fx {
		s.effect(x, &fx[i])
	}
	for i := range fx {
		switch fx[i].Kind {
		case link.EffectWitness:
			if v := &s.w.srv[x]; !fx[i].Solo {
				v.disk.both = uint8(fx[i].Ver)
				v.again()
			}
			s.step(x, &link.Event{Kind: link.EventWitnessed, Ver: fx[i].Ver}, now)
		case link.EffectDropMarks:
			if !s.w.srv[x].disk.dropping(&fx[i]) {
				s.step(x, &link.Event{Kind: link.EventDropped}, now)
			}
		}
	}
	s.fx = append(s.fx, fx)
}

func (s *state) effect(x int, e *link.Effect) {
	d := &s.w.srv[x].disk
	if d.ntodo+2 > maxTodo {
		s.full = true
		return
	}
	switch e.Kind {
	case link.EffectSend:
		s.sendMsg(x, e)
	case link.EffectCommit:
		s.commit(x, e.Rec)
	case link.EffectDiscard:
		s.discard(x, e.Rec)
	case link.EffectMark:
		d.later(todo{kind: todoMark, stamp: small(e.Rec.Stamp), bucket: uint8(e.Rec.Bucket), blocks: 1 << s.k.Writes[e.Rec.Ref], members: e.Rec.Excluded})
	case link.EffectSendRange:
		s.sendRange(x, e)
	case link.EffectSendCut:
		s.gather(x, e)
	case link.EffectStoreCut:
		d.past[e.Bucket].join(&s.inHand.past)
		for m, blocks := range s.inHand.others {
			if blocks != 0 {
				d.later(todo{kind: todoHand, blocks: blocks, members: placement.Members(0).With(placement.Member(m))})
			}
		}
		d.miss(s.inHand.marks)
		d.later(todo{kind: todoMiss, bucket: uint8(e.Bucket), blocks: s.inHand.marks})
	case link.EffectSealCut:
		b := uint8(e.Bucket)
		if d.floor[b].before(small(e.Stamp)) {
			d.floor[b] = small(e.Stamp)
		}
		d.later(todo{kind: todoSeal, stamp: small(e.Stamp), bucket: b})
	case link.EffectDropMarks:
		s.drop(x, e)
	case link.EffectOpened:
		if s.w.rotten == uint8(x)+1 && s.m[x].Config().InSync.Len() > 1 {
			s.w.rotten = 0
		}
	case link.EffectPropose:
		s.propose(x, e)
	}
}

// drop forgets marks, at once if there are none.
func (s *state) drop(x int, e *link.Effect) {
	d := &s.w.srv[x].disk
	if s.k.Broken&KeepMarks == 0 && d.lacks(e.Member) != 0 || d.next(rest) >= 0 {
		d.later(todo{kind: todoDrop, stamp: stamp{ver: uint8(e.Ver)}, members: placement.Members(0).With(e.Member)})
	}
}

func (s *state) propose(x int, e *link.Effect) {
	w := &s.w
	c := w.current()
	switch {
	case e.What == link.ProposeRejoined:
		w.rejoin.member, w.rejoin.ver = uint8(e.Member), uint8(e.Ver)
	case !w.srv[x].raft || uint8(e.Ver) != c.ver:
	case e.What == link.ProposeReopen:
		s.full = s.full || !w.reconfigure(c.insync, int(c.head), s.k.MaxVer)
	case e.What == link.ProposeFenced:
		w.srv[x].fenced = c.ver
	}
}

// commit shows a record and, at the head, answers its client: whoever resends
// the write there is told that it is done (R12).
func (s *state) commit(x int, r link.Record) {
	w := &s.w
	if !w.srv[x].disk.commit(uint8(r.Bucket), small(r.Stamp)) {
		return
	}
	if i := uint8(r.Ref); s.m[x].Head() && w.wst[i] == wTaken {
		w.wst[i] = wDone
		w.answerWrite(s.k, i)
	}
}

func (s *state) discard(x int, r link.Record) {
	d := &s.w.srv[x].disk
	if s.m[x].State() == link.Open { // FaultDropInDoubt
		for i := range d.recs[:d.nrecs] {
			if d.recs[i].stamp == small(r.Stamp) {
				d.remove(i)
				return
			}
		}
		return
	}
	if s.k.Broken&HideTail != 0 {
		t := todo{kind: todoMiss, bucket: uint8(r.Bucket), blocks: 1 << s.k.Writes[r.Ref]}
		d.miss(t.blocks)
		d.later(t)
	}
	d.later(todo{kind: todoVoid, stamp: small(r.Stamp), bucket: uint8(r.Bucket)})
}

// inBucket are the blocks of a bucket.
func (k *Case) inBucket(b uint8) (blocks uint8) {
	for i, n := range k.Blocks {
		if n == b {
			blocks |= 1 << i
		}
	}
	return blocks
}

// sendRange sends records from the journal or, by the index, from home (R11).
func (s *state) sendRange(x int, e *link.Effect) {
	d := &s.w.srv[x].disk
	b, prev, last := uint8(e.Bucket), small(e.Prev), small(e.Stamp)
	if prev.before(d.floor[b]) {
		s.sendWhole(x, e)
		return
	}
	for at := prev; at != last; {
		next, w := stamp{}, -1
		for i := range s.k.Writes {
			n := d.index[i]
			if n.on && s.k.Blocks[s.k.Writes[i]] == b && at.before(n.stamp) && n.stamp.atMost(last) && (w < 0 || n.stamp.before(next)) {
				next, w = n.stamp, i
			}
		}
		if w < 0 {
			s.sendWhole(x, e)
			return
		}
		block := s.k.Writes[w]
		val := d.value(block)
		if r := d.find(b, next); r != nil {
			val = r.val
		} else if d.missing>>block&1 != 0 {
			s.sendWhole(x, e)
			return
		}
		s.post(x, int(e.Member), packet{
			kind: link.MsgRecover, ver: uint8(e.Ver), bucket: b, stamp: next, prev: at,
			excluded: d.index[w].excluded | e.Members, write: uint8(w), val: val,
		})
		at = next
	}
}

// sendWhole stands in for a range that the index no longer has.
func (s *state) sendWhole(x int, e *link.Effect) {
	s.post(x, int(e.Member), packet{
		kind: link.MsgCut, ver: uint8(e.Ver), bucket: uint8(e.Bucket), stamp: small(e.Stamp), first: true, last: true,
		prev: small(e.Prev), marks: s.k.inBucket(uint8(e.Bucket)) &^ s.w.srv[x].disk.missing,
		others: s.handed(x, e.Member, uint8(e.Bucket)), past: s.w.srv[x].disk.history(uint8(e.Bucket)),
	})
}

// gather collects a cut: the marks, and what the member should have but by its
// last stamp has not; all that is here if that is not known.
func (s *state) gather(x int, e *link.Effect) {
	d := &s.w.srv[x].disk
	b, prev := uint8(e.Bucket), small(e.Prev)
	g := gathered{on: true, to: uint8(e.Member), ver: uint8(e.Ver), session: uint8(e.Session), stamp: small(e.Stamp), common: small(e.Common), marks: d.lacks(e.Member)}
	till, all := small(e.Till), e.All
	if e.All && s.k.Broken&NoHistory == 0 {
		h := d.history(b)
		g.common = h.common(prev)
		if t := s.trusted(x, g.session); t != 0 && h.common(stamp{t, 255}) != (stamp{}) {
			till, all = h.common(stamp{t, 255}), false
		}
	}
	if s.k.Broken&ForgetJoin == 0 {
		d.both = max(d.both, g.ver)
	}
	if s.k.Broken&TrustTail == 0 {
		if all || prev.before(till) && prev.before(d.floor[b]) {
			g.marks |= s.k.inBucket(b) &^ d.missing
		}
		for i := range s.k.Writes {
			if n := d.index[i]; n.on && s.k.Blocks[s.k.Writes[i]] == b && prev.before(n.stamp) && n.stamp.atMost(till) && !n.excluded.Has(e.Member) {
				g.marks |= 1 << s.k.Writes[i]
			}
		}
	}
	g.marks &= s.k.inBucket(b)
	s.w.srv[x].cuts[b] = g
	if s.k.Broken&ForgetCommits == 0 && d.last[b].before(g.stamp) {
		d.last[b] = g.stamp
	}
}

// trusted is the version up to which records may not name the other of two, who is
// let in; 0 if that is not known.
func (s *state) trusted(x int, session uint8) uint8 {
	v := &s.w.srv[x]
	if s.k.Members != 2 {
		return 0
	}
	if v.trust.session != session {
		v.again()
		v.trust.session = session
	}
	return v.trust.both
}

// handed are the marks that go with a Cut: of a bucket, for the others that are
// out of sync.
func (s *state) handed(x int, to placement.Member, b uint8) (others [maxMembers]uint8) {
	out := s.k.members() &^ s.m[x].Config().InSync
	for m := range s.k.Members {
		if who := placement.Member(m); who != to && out.Has(who) && s.k.Broken&NoHandover == 0 {
			others[m] = s.w.srv[x].disk.lacks(who) & s.k.inBucket(b)
		}
	}
	return others
}

// sync makes the first thing of a class durable.
func (s *state) sync(x int, c class) {
	d := &s.w.srv[x].disk
	i := d.next(c)
	t := d.todo[i]
	d.did(i)
	r := d.find(t.bucket, t.stamp)
	ev := link.Event{Bucket: placement.Bucket(t.bucket), Rec: link.Record{Bucket: placement.Bucket(t.bucket), Stamp: t.stamp.wide(), Excluded: t.members}}
	switch t.kind {
	case todoRecord:
		r.durable = true
		ev.Kind = link.EventDurable
	case todoMark:
		for m := range s.k.Members {
			if t.members.Has(placement.Member(m)) {
				d.marks[m] |= t.blocks
			}
		}
		if r != nil {
			d.index[r.write].excluded |= t.members
		}
		ev.Kind = link.EventMarked
	case todoMiss:
		d.missed |= t.blocks & d.missing
		return
	case todoHand:
		d.marks[t.members.First()] |= t.blocks
		return
	case todoDrop:
		if s.k.Broken&KeepMarks == 0 {
			d.dropMarks(t.members.First(), t.stamp.ver)
		}
		ev.Kind = link.EventDropped
	case todoVoid:
		for i := range d.recs[:d.nrecs] {
			if d.recs[i].stamp == t.stamp && d.recs[i].bucket == t.bucket {
				d.index[d.recs[i].write] = indexed{}
				d.remove(i)
				break
			}
		}
		ev.Kind = link.EventDiscarded
	case todoSeal:
		if d.last[t.bucket].before(t.stamp) {
			d.last[t.bucket] = t.stamp
		}
		if d.gone[t.bucket].before(t.stamp) {
			d.gone[t.bucket] = t.stamp
		}
		ev.Kind = link.EventCutStored
	}
	s.step(x, &ev, 0)
}
