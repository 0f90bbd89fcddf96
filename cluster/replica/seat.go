package replica

import (
	"sync"
	"sync/atomic"
	"time"

	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// seat is this server's place in one link: the machine that decides, the
// records in flight, and what was committed lately.
//
// One mutex guards all of it. Between lock and unlock the brick is told what
// the machine decides, in its order; who waits is answered by unlock, after the
// mutex has been released. What the brick has to say about long work (Abandon,
// AddMarks ...) may come while the mutex is held by the very caller, so it goes
// through the inbox, which unlock empties.
type seat struct {
	s       *Server
	id      placement.LinkID
	servers []placement.Server // by Member
	self    placement.Member

	verNow, headNow atomic.Uint64 // version and head, for who does not hold the mutex
	gate            atomic.Pointer[gate]
	leased          time.Duration // until when, as the server was told; under the mutex

	mu         sync.Mutex
	m          *link.Machine
	ver        uint64            // of the machine's configuration
	since      time.Duration     // of ver
	filling    placement.Members // in sync, and missing blocks
	blank      placement.Members // out of sync, and have nothing of worth
	blankAt    uint64            // version under which this member has discarded what it had
	peers      placement.Members // that are up
	avail      [placement.MaxCopies]space
	paces      [placement.MaxCopies]*pace // by member; set once
	discarding uint64                     // version for which what is here is being thrown away
	tasks      []*task                    // in flight, by ref-1; nil: free
	free       []uint64                   // refs
	used       int
	past       history
	parked     taskList // wait for the machine to open, or for a cut
	stirred    bool     // they may try again
	over       taskList // to be answered by unlock
	again      taskList // to be tried again by unlock
	later      []func() // to be done by unlock
	barriers   []*barrier
	fetches    []*fetch
	tag        uint64 // of the last fetch
	pulls      puller
	repairs    int           // under way
	tail       []link.Record // to be discarded after the present step
	cutMarks   []brick.Mark  // of the message in hand
	asked      time.Duration // when the head was asked last to send its records again
	trust      trust
	fitness    fitness
	keep       map[placement.Bucket][]brick.Mark // what a cut that is about to come leaves as it is

	now    time.Duration // of the present step
	closed bool          // nothing is decided any more
	broken bool          // the disk has failed
	full   bool          // the link was left for want of space

	tickAt time.Duration // when tick comes; 0: never
	tick   times.Timer

	inbox struct {
		sync.Mutex
		n      atomic.Int32
		events []link.Event
		calls  []func()
	}

	msg     wire.Message // to be sent
	body    []byte       // of it
	entries []link.Entry // of a message received
}

// taskList is a queue of tasks, linked by next.
type taskList struct{ first, last *task }

func (q *taskList) push(t *task) {
	t.next = nil
	if q.last == nil {
		q.first = t
	} else {
		q.last.next = t
	}
	q.last = t
}

func (q *taskList) take() *task {
	t := q.first
	*q = taskList{}
	return t
}

// newSeat makes a seat. s.mu is held.
func newSeat(s *Server, v *linkView) *seat {
	l := &seat{s: s, id: v.id, servers: v.servers, self: v.self}
	l.m = link.New(link.Options{Self: v.self, Copies: len(v.servers), Admission: s.c.Times.Admission, Complain: s.c.Times.Complain})
	for m, server := range v.servers {
		l.paces[m] = s.pace(server)
	}
	l.past.init(s.c.Times)
	l.pulls.init(l)
	l.trust.init(l)
	l.fitness.l = l
	return l
}

// alone reports whether the link has no other member at all.
func (l *seat) alone() bool { return len(l.servers) == 1 }

func (l *seat) lock() { l.mu.Lock() }

// unlock does what has become due, releases the mutex, and answers.
func (l *seat) unlock() {
	for {
		l.drain()
		if l.stirred {
			l.stir()
		}
		over, again, later := l.over.take(), l.again.take(), l.later
		l.later = nil
		l.mu.Unlock()
		for over != nil {
			t := over
			over = t.next
			t.finish()
		}
		for again != nil {
			t := again
			again = t.next
			t.retry(t)
		}
		for _, f := range later {
			f()
		}
		if l.inbox.n.Load() == 0 || !l.mu.TryLock() {
			return
		}
	}
}

// drain takes what came while the mutex was held.
func (l *seat) drain() {
	for l.inbox.n.Load() > 0 {
		l.inbox.Lock()
		events, calls := l.inbox.events, l.inbox.calls
		l.inbox.events, l.inbox.calls = nil, nil
		l.inbox.n.Store(0)
		l.inbox.Unlock()
		for i := range events {
			l.step(&events[i])
		}
		for _, f := range calls {
			f()
		}
	}
}

// post gives the machine an event, now or as soon as who holds the mutex lets
// go of it. It may be called with the mutex held.
func (l *seat) post(ev link.Event) {
	l.inbox.Lock()
	l.inbox.events = append(l.inbox.events, ev)
	l.inbox.n.Add(1)
	l.inbox.Unlock()
	if l.mu.TryLock() {
		l.unlock()
	}
}

// call runs f under the mutex, now or as soon as who holds it lets go of it.
func (l *seat) call(f func()) {
	l.inbox.Lock()
	l.inbox.calls = append(l.inbox.calls, f)
	l.inbox.n.Add(1)
	l.inbox.Unlock()
	if l.mu.TryLock() {
		l.unlock()
	}
}

// step gives the machine an event and does what it says. The mutex is held.
func (l *seat) step(ev *link.Event) { l.stepAt(ev, l.s.now()) }

func (l *seat) stepAt(ev *link.Event, now time.Duration) {
	if l.closed {
		return
	}
	l.now = now
	out := l.m.Step(ev, now)
	for i := range out {
		l.do(&out[i])
	}
	if len(l.tail) > 0 {
		l.void(l.tail)
		l.tail = l.tail[:0]
	}
	l.swing(ev)
	l.arm(now)
}

// gate lets reads in without the mutex (R4, R5): under its version nothing
// changes by which the machine would answer otherwise, up to until.
type gate struct {
	ver   uint64
	until time.Duration // of the lease
	head  bool
}

// swing opens and closes the gate as the machine has it. The mutex is held.
func (l *seat) swing(ev *link.Event) {
	g := l.gate.Load()
	if l.closed || l.m.State() != link.Open {
		if g != nil {
			l.gate.Store(nil)
		}
		return
	}
	if g != nil && g.ver == l.ver && ev.Kind != link.EventLease && ev.Kind != link.EventConfig {
		return
	}
	n := &gate{ver: l.ver, until: l.leased, head: l.m.Head()}
	if g != nil && g.ver == n.ver && g.until >= n.until {
		return
	}
	if !l.m.StillMayRead(l.ver, n.until-1) {
		return // the grant does not count yet (R5): the one before it goes on
	}
	l.gate.Store(n)
}

// do carries out an effect.
func (l *seat) do(e *link.Effect) {
	switch e.Kind {
	case link.EffectSend:
		l.send(e)
	case link.EffectCommit:
		l.commit(e.Rec)
	case link.EffectDiscard:
		l.tail = append(l.tail, e.Rec)
	case link.EffectMark:
		l.mark(e.Rec, e.Members)
	case link.EffectWitness:
		l.witness(e.Ver, e.Solo)
	case link.EffectSendRange:
		l.sendRange(*e)
	case link.EffectSendCut:
		l.sendCut(*e)
	case link.EffectStoreCut:
		l.storeCut(e)
	case link.EffectSealCut:
		l.sealCut(e)
	case link.EffectDropMarks:
		l.dropMarks(e)
	case link.EffectOpened:
		l.s.c.Log.Info("link open", "link", l.id, "ver", e.Ver)
		l.wake()
	case link.EffectClosed:
		l.s.c.Log.Info("link closed", "link", l.id, "ver", e.Ver, "cause", e.Cause)
	case link.EffectPropose:
		l.propose(e)
	}
}

// wake lets what waits try again.
func (l *seat) wake() {
	l.stirred = true
	l.checkBarriers()
	l.pulls.wake()
}

// arm sees to it that the machine gets its next tick.
func (l *seat) arm(now time.Duration) {
	at := now + l.m.TickIn()
	if l.tickAt != 0 && l.tickAt <= at {
		return
	}
	if l.tick != nil {
		l.tick.Stop()
	}
	l.tickAt = at
	l.tick = l.s.c.Clock.AfterFunc(at-now, func() {
		l.lock()
		if l.tickAt == at && !l.closed {
			l.tickAt = 0
			l.lookAtDisk()
			l.lookForSpace()
			l.step(&link.Event{Kind: link.EventTick})
			l.stirred = true
			l.later = append(l.later, l.s.meterSpace)
		}
		l.unlock()
	})
}

// propose asks for a change of what is agreed. The machine repeats itself.
func (l *seat) propose(e *link.Effect) {
	p := Proposal{Link: l.id, Member: e.Member, Ver: e.Ver}
	switch e.What {
	case link.ProposeRejoined:
		p.Kind = Rejoined
	case link.ProposeComplain:
		p.Kind = Complain
	case link.ProposeReopen:
		p.Kind = Reopen
	case link.ProposeFenced:
		p.Kind = Fenced
	}
	l.later = append(l.later, func() { l.s.c.Propose(p) })
}

// enter gives a task a place in the table of what is in flight.
func (l *seat) enter(t *task) uint64 {
	l.used++
	if n := len(l.free); n > 0 {
		ref := l.free[n-1]
		l.free = l.free[:n-1]
		l.tasks[ref-1] = t
		return ref
	}
	l.tasks = append(l.tasks, t)
	return uint64(len(l.tasks))
}

// leave takes a task out of the table.
func (l *seat) leave(ref uint64) *task {
	t := l.tasks[ref-1]
	l.tasks[ref-1] = nil
	l.free = append(l.free, ref)
	l.used--
	return t
}

// commit makes a record visible and ends who waits for it.
func (l *seat) commit(r link.Record) {
	t := l.leave(r.Ref)
	if !t.shown {
		l.s.c.Store.Commit(t.rec)
	}
	l.past.add(t.rec, l.now)
	l.over.push(t)
	l.settled(t)
	l.stirred = true
}

// space is what a member has said that it can still allocate.
type space struct {
	known bool
	bytes uint64
}
