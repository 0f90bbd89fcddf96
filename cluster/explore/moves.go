package explore

import (
	"fmt"

	"petal/cluster/link"
	"petal/placement"
)

// moveKind is what may happen next.
type moveKind uint8

const (
	mvInvoke     moveKind = iota + 1 // a client sends the next write
	mvAdmit                          // a head admits write a
	mvSync                           // the next thing of class b becomes durable at a
	mvDestage                        // all that is committed at a goes home
	mvRead                           // a client reads block b at a
	mvGrant                          // a gets a lease
	mvExpire                         // a's lease ends
	mvApply                          // a applies the next command of the log
	mvCrash                          // a crashes
	mvRot                            // a crashes, and the last record of its journal rots
	mvRestart                        // a restarts
	mvDeliver                        // the first message from a to b arrives
	mvDisconnect                     // the connection of a and b breaks, or the end of a crash is noticed
	mvConnect                        // it comes up
	mvCutRaft                        // a is cut from raft
	mvHealRaft                       //
	mvExclude                        // raft excludes a
	mvFence                          // raft begins to exclude a, which lives
	mvRejoined                       // raft takes a member in again
	mvTell                           // a tells what is committed
	mvAbort                          // a loses patience with who is let in
	mvSendCut                        // a sends the cut of bucket b
	mvFetch                          // a fetches block c, missing there, from b
	mvFill                           // it arrives
	mvPreempt                        // raft preempts the nexus of write 0
	mvAnswer                         // and says that it is done
)

type move struct {
	kind    moveKind
	a, b, c uint8
}

var moveFormats = [...]string{
	mvAdmit: "%[2]s admits W%[4]d", mvSync: "%[2]s makes durable ",
	mvDestage: "%[2]s destages", mvRead: "read of block %[5]d at %[2]s", mvGrant: "%[2]s gets a lease", mvExpire: "%[2]s's lease ends",
	mvApply: "%[2]s applies", mvCrash: "%[2]s crashes", mvRot: "%[2]s crashes, its last record rots", mvRestart: "%[2]s restarts",
	mvDeliver: "%[2]s to %[3]s", mvDisconnect: "%[2]s and %[3]s lose their connection", mvConnect: "%[2]s and %[3]s connect", mvCutRaft: "%[2]s is cut from raft",
	mvHealRaft: "%[2]s sees raft again", mvExclude: "raft excludes %[2]s", mvFence: "raft fences %[2]s", mvRejoined: "raft takes %[2]s in",
	mvTell: "%[2]s tells what is committed", mvAbort: "%[2]s gives up the join", mvSendCut: "%[2]s sends the cut of bucket %[5]d",
	mvFetch: "%[2]s fetches block %[6]d from %[3]s", mvFill: "%[2]s fills it in", mvPreempt: "raft preempts the nexus of W1", mvAnswer: "the preemption is answered",
}

// each calls f for every move that may be possible, in a fixed order.
func (s *state) each(f func(move)) {
	w, k := &s.w, s.k
	for x := range k.Members {
		if w.srv[x].up {
			s.eachUp(x, f)
		} else if w.srv[x].raft {
			f(move{kind: mvRestart, a: uint8(x)})
		}
		if w.srv[x].raft {
			if w.used.Lapses < k.Max.Lapses && w.srv[x].up {
				f(move{kind: mvCutRaft, a: uint8(x)})
			}
		} else {
			f(move{kind: mvHealRaft, a: uint8(x)})
		}
		s.eachConfig(x, f)
	}
	s.eachPair(f)
	if w.rejoin.ver != 0 {
		f(move{kind: mvRejoined, a: w.rejoin.member})
	}
	if k.Barrier && w.bar == barUnasked {
		f(move{kind: mvPreempt})
	}
	if k.Barrier && w.bar == barAgreed && s.barrierDone() {
		f(move{kind: mvAnswer})
	}
}

// eachUp are the moves of a server that is up.
func (s *state) eachUp(x int, f func(move)) {
	w, k, v, m := &s.w, s.k, &s.w.srv[x], s.m[x]
	a := uint8(x)
	one := func(on bool, kind moveKind) {
		if on {
			f(move{kind: kind, a: a})
		}
	}
	for i := range k.Writes {
		if w.wst[i] == wNew && (i == 0 || w.wst[i-1] != wNew) && !(i == 0 && v.vv) {
			if _, _, q := m.Admit(placement.Bucket(k.Blocks[k.Writes[i]]), 0); q == link.Take {
				f(move{mvAdmit, a, 0, uint8(i)})
			}
		}
	}
	for c := records; c <= rest; c++ {
		if v.disk.next(c) >= 0 {
			f(move{kind: mvSync, a: a, b: uint8(c)})
		}
	}
	one(k.Destage && v.disk.nrecs > 0, mvDestage)
	if w.used.Reads < k.Max.Reads {
		for b := range k.Blocks {
			if s.mayRead(x, b) {
				f(move{kind: mvRead, a: a, b: uint8(b)})
			}
		}
	}
	one(!v.leased && v.raft, mvGrant)
	one(v.leased && !v.raft, mvExpire)
	one(v.raft && v.applied < w.nlog, mvApply)
	one(w.used.Crashes < k.Max.Crashes, mvCrash)
	one(w.used.Crashes < k.Max.Crashes && w.used.Rots < k.Max.Rots && s.mayRot(x), mvRot)
	one(m.TickIn() < patience/4 && (k.Fault&link.FaultNoOrder == 0 || w.q[x][0].n+w.q[x][1].n == 0), mvTell)
	one(w.used.Aborts < k.Max.Aborts && m.Joining(), mvAbort)
	for b := range k.Blocks {
		if b < maxBlocks && v.cuts[b].on {
			f(move{kind: mvSendCut, a: a, b: uint8(b)})
		}
	}
	if v.fetch.on {
		f(move{kind: mvFill, a: a})
	} else if w.used.Fetches < k.Max.Fetches && v.disk.missing != 0 && m.State() == link.Open {
		for y := range k.Members {
			for b := range k.Blocks {
				if y != x && v.disk.missing>>b&1 != 0 && s.mayFetch(x, y, b) {
					f(move{mvFetch, a, uint8(y), uint8(b)})
				}
			}
		}
	}
}

func (s *state) eachConfig(x int, f func(move)) {
	w, k := &s.w, s.k
	c := w.current()
	me := placement.Member(x)
	if !c.insync.Has(me) || c.insync.Len() == 1 || c.ver >= k.MaxVer {
		return
	}
	survivor := false
	for y := range k.Members {
		survivor = survivor || y != x && c.insync.Has(placement.Member(y)) && w.srv[y].up && w.srv[y].leased
	}
	over := !w.srv[x].leased || w.srv[x].fenced == c.ver || k.Broken&ExcludeLeased != 0 && !w.srv[x].raft
	asked := false
	for _, e := range w.log[:w.nlog] {
		asked = asked || e.kind == entryFence && e.ver == c.ver
	}
	over = over || k.Broken&ExcludeUnfenced != 0 && asked
	if survivor && over && (w.rotten == 0 || int(w.rotten) == x+1) {
		f(move{kind: mvExclude, a: uint8(x)})
	}
	if w.used.Fences < k.Max.Fences && !asked && w.srv[x].up {
		f(move{kind: mvFence, a: uint8(x)})
	}
}

func (s *state) eachPair(f func(move)) {
	w, k := &s.w, s.k
	for a := range k.Members {
		for b := a + 1; b < k.Members; b++ {
			switch w.net[pairOf(a, b)] {
			case netUp:
				if w.used.Cuts < k.Max.Cuts {
					f(move{kind: mvDisconnect, a: uint8(a), b: uint8(b)})
				}
			case netDying:
				f(move{kind: mvDisconnect, a: uint8(a), b: uint8(b)})
			case netDown:
				if w.srv[a].up && w.srv[b].up {
					f(move{kind: mvConnect, a: uint8(a), b: uint8(b)})
				}
			}
			if w.q[a][b].n > 0 && w.srv[b].up {
				f(move{kind: mvDeliver, a: uint8(a), b: uint8(b)})
			}
			if w.q[b][a].n > 0 && w.srv[a].up {
				f(move{kind: mvDeliver, a: uint8(b), b: uint8(a)})
			}
		}
	}
}

// mayRead: the machine says so and the block is here.
func (s *state) mayRead(x, block int) bool {
	d := &s.w.srv[x].disk
	if d.missing>>block&1 != 0 && s.k.Broken&ServeMissing == 0 {
		return false
	}
	return s.m[x].MayRead(placement.Bucket(s.k.Blocks[block]), d.inDoubt(uint8(block)), 0) == link.Serve
}

func (s *state) mayFetch(x, y, block int) bool {
	return s.w.srv[y].up && s.w.net[pairOf(x, y)] == netUp && s.m[y].Config().Ver == s.m[x].Config().Ver && s.mayRead(y, block)
}

// mayRot: somebody else in sync has what x loses.
func (s *state) mayRot(x int) bool {
	d := &s.w.srv[x].disk
	if s.w.rotten != 0 {
		return false
	}
	c, block := s.w.current(), -1
	for i := range d.recs[:d.nrecs] {
		if d.recs[i].durable {
			block = int(d.recs[i].block)
		}
	}
	for y := range s.k.Members {
		if y != x && block >= 0 && c.insync.Has(placement.Member(y)) && s.w.srv[y].disk.missing>>block&1 == 0 {
			return true
		}
	}
	return false
}

// barrierDone is the rule of DESIGN B: every leased member has answered under
// the current ver, every other is excluded; or nobody is leased.
func (s *state) barrierDone() bool {
	w := &s.w
	c := w.current()
	leased := false
	for x := range s.k.Members {
		leased = leased || w.srv[x].leased
	}
	for x := range s.k.Members {
		v, me := &w.srv[x], placement.Member(x)
		if !v.leased {
			if leased && c.insync.Has(me) && s.k.Broken&BarrierLease == 0 {
				return false
			}
			continue
		}
		m := s.m[x]
		if !v.up || !v.vv || m.Config().Ver != uint64(c.ver) || c.insync.Has(me) && m.State() != link.Open {
			return false
		}
		for _, r := range v.disk.recs[:v.disk.nrecs] {
			if r.write == 0 && !r.committed && m.Head() {
				return false
			}
		}
	}
	return true
}

// do makes a move; false if it turned out impossible within the bounds.
func (s *state) do(mv move) bool {
	w, k := &s.w, s.k
	x, y := int(mv.a), int(mv.b)
	c := w.current()
	switch mv.kind {
	case mvAdmit:
		s.admit(x, int(mv.c))
	case mvSync:
		s.sync(x, class(mv.b))
	case mvDestage:
		return w.srv[x].disk.destage()
	case mvRead:
		w.used.Reads++
		v := w.srv[x].disk.value(mv.b)
		if k.Broken&ReadPrepared != 0 && !s.m[x].Head() {
			v = w.srv[x].disk.prepared(mv.b)
		}
		w.answerRead(k, mv.b, v)
	case mvGrant:
		w.srv[x].leased = true
		s.step(x, &link.Event{Kind: link.EventLease, Until: forever, Index: uint64(w.nlog)}, 0)
	case mvExpire:
		w.srv[x].leased = false
		s.step(x, &link.Event{Kind: link.EventLease}, 0)
	case mvApply:
		s.apply(x)
	case mvCrash, mvRot:
		w.used.Crashes++
		if mv.kind == mvRot {
			w.used.Rots++
		}
		s.crash(x, mv.kind == mvRot)
	case mvRestart:
		s.restart(x)
	case mvDeliver:
		s.deliver(x, y)
	case mvDisconnect:
		if w.net[pairOf(x, y)] == netUp {
			w.used.Cuts++
		}
		s.disconnect(x, y)
	case mvConnect:
		s.connect(x, y)
	case mvCutRaft:
		w.used.Lapses++
		w.srv[x].raft = false
	case mvHealRaft:
		w.srv[x].raft = true
	case mvExclude:
		left := c.insync.Without(placement.Member(x))
		head := placement.Member(c.head)
		if !left.Has(head) {
			head = left.First()
		}
		s.full = s.full || !w.reconfigure(left, int(head), k.MaxVer)
	case mvFence:
		w.used.Fences++
		s.full = s.full || !w.agree(entry{kind: entryFence, ver: c.ver, head: mv.a})
	case mvRejoined:
		s.rejoined()
	case mvTell:
		s.step(x, &link.Event{Kind: link.EventTick}, 0)
	case mvAbort:
		w.used.Aborts++
		s.step(x, &link.Event{Kind: link.EventTick}, patience)
	case mvSendCut:
		s.sendCut(x, mv.b)
	case mvFetch:
		w.used.Fetches++
		w.srv[x].fetch = fetched{true, mv.c, w.srv[y].disk.value(mv.c), uint8(s.m[y].Config().Ver)}
	case mvFill:
		f := w.srv[x].fetch
		w.srv[x].fetch = fetched{}
		if s.m[x].State() == link.Open && s.m[x].Config().Ver == uint64(f.ver) || k.Broken&FillLate != 0 {
			w.srv[x].disk.fill(f.block, f.val)
		}
	case mvPreempt:
		w.bar = barAgreed
		s.full = s.full || !w.agree(entry{kind: entryVVer})
	case mvAnswer:
		s.answerBarrier()
	}
	return !s.full
}

func (s *state) admit(x, i int) {
	b := placement.Bucket(s.k.Blocks[s.k.Writes[i]])
	st, excluded, _ := s.m[x].Admit(b, 0)
	s.w.wst[i] = wTaken
	s.take(x, link.Record{Bucket: b, Stamp: st, Excluded: excluded, Ref: uint64(i)}, placement.Stamp{}, uint8(i)+1)
}

// apply has a server apply the next command of the log.
func (s *state) apply(x int) {
	w, v := &s.w, &s.w.srv[x]
	e := w.log[v.applied]
	v.applied++
	c := s.m[x].Config()
	switch e.kind {
	case entryConfig:
		c = config(e)
	case entryVVer:
		v.vv = true
	case entryFence:
		if int(e.head) == x {
			s.step(x, &link.Event{Kind: link.EventFence, Ver: uint64(e.ver)}, 0)
		}
	}
	s.step(x, &link.Event{Kind: link.EventConfig, Config: c, Index: uint64(v.applied)}, 0)
}

// rejoined agrees to a proposal, or finds that the ver has changed.
func (s *state) rejoined() {
	w := &s.w
	c := w.current()
	p := w.rejoin
	w.rejoin.member, w.rejoin.ver = 0, 0
	if p.ver == c.ver && !c.insync.Has(placement.Member(p.member)) {
		in := c.insync.With(placement.Member(p.member))
		s.full = s.full || !w.reconfigure(in, int(in.First()), s.k.MaxVer)
	}
}

func (s *state) sendCut(x int, b uint8) {
	g := s.w.srv[x].cuts[b]
	s.w.srv[x].cuts[b] = gathered{}
	if uint64(g.ver) != s.m[x].Config().Ver {
		return
	}
	s.post(x, int(g.to), packet{kind: link.MsgCut, ver: g.ver, bucket: b, stamp: g.stamp, prev: g.common, session: g.session, first: true, last: true, marks: g.marks,
		others: s.handed(x, placement.Member(g.to), b), past: s.w.srv[x].disk.history(b)})
	s.step(x, &link.Event{Kind: link.EventCutSent, Member: placement.Member(g.to), Bucket: placement.Bucket(b), Session: uint64(g.session)}, 0)
}

func (s *state) answerBarrier() {
	w := &s.w
	w.closure(s.k, s.k.Writes[0])
	w.bar = barAnswered
	for x := range s.k.Members {
		if w.srv[x].leased {
			return
		}
	}
	if c := w.current(); s.k.Broken&BarrierNoBump == 0 {
		s.full = s.full || !w.reconfigure(c.insync, int(c.head), s.k.MaxVer)
	}
}

// describe says in words what the move is in s, before it is made.
func (s *state) describe(mv move) string {
	text := fmt.Sprintf(moveFormats[mv.kind]+"\x00", mv.a+1, server2(mv.a), server2(mv.b), mv.c+1, mv.b, mv.c)
	for i := range text {
		if text[i] == 0 {
			text = text[:i]
			break
		}
	}
	w := &s.w
	switch mv.kind {
	case mvDeliver:
		text += ": " + w.q[mv.a][mv.b].m[0].String()
	case mvSync:
		text += [...]string{"a record", "a void", "a mark"}[mv.b]
	case mvRead:
		text += fmt.Sprintf(" -> %d", w.srv[mv.a].disk.value(mv.b))
	case mvApply:
		e := w.log[w.srv[mv.a].applied]
		switch e.kind {
		case entryConfig:
			text += fmt.Sprintf(" ver %d {%s} head %s", e.ver, names(e.insync), server2(e.head))
		case entryVVer:
			text += " the vver"
		case entryFence:
			text += fmt.Sprintf(" the fence of %s under ver %d", server2(e.head), e.ver)
		}
	}
	return text
}

func server2(x uint8) string { return string(rune('A' + x)) }

func names(s placement.Members) (t string) {
	for ; s != 0; s = s.Without(s.First()) {
		t += server2(uint8(s.First()))
	}
	return t
}

func (p *packet) String() string {
	t := fmt.Sprintf("%s ver %d", p.kind, p.ver)
	switch p.kind {
	case link.MsgReplicate, link.MsgRecover:
		t += fmt.Sprintf(" W%d %d/%d", p.write+1, p.stamp.ver, p.stamp.seq)
	case link.MsgAck, link.MsgWant, link.MsgCut:
		t += fmt.Sprintf(" bucket %d up to %d/%d", p.bucket, p.stamp.ver, p.stamp.seq)
	}
	if p.kind == link.MsgCut {
		t += fmt.Sprintf(" blocks %b", p.marks)
	}
	for _, l := range p.list[:p.nlist] {
		t += fmt.Sprintf(" %d:%d/%d", l.bucket, l.stamp.ver, l.stamp.seq)
	}
	return t
}
