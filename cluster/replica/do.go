package replica

import (
	"sync"
	"sync/atomic"
	"time"

	"petal/cluster/blocklock"
	"petal/cluster/link"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// Server is the member side of all links of one server.
type Server struct {
	c      Config
	view   atomic.Pointer[view]
	locks  blocklock.Table
	load   meter
	lazy   lazyMeter
	closed atomic.Bool

	mu       sync.Mutex // of what follows; taken before a seat's
	paces    map[placement.Server]*pace
	seats    map[placement.LinkID]*seat
	order    []*seat                     // by LinkID
	up       map[placement.Server]uint64 // incarnation of who is up
	lease    leaseGrant
	waiting  []*task    // for a state that they are ahead of
	barriers []*inquiry // not answered yet
	watcher  times.Timer

	refused  tombstones
	fill     throttle
	damaged  atomic.Uint64 // messages whose data did not match their sums
	repaired atomic.Uint64 // blocks
}

// leaseGrant is a lease as this server was told of it (R5).
type leaseGrant struct {
	until time.Duration
	index uint64 // of raft, from which on it counts
}

// New returns a Server that serves nothing until Apply and SetLease have told
// it what is agreed. It takes over what is in Config.Recovery.
func New(c Config) *Server {
	c.setDefaults()
	s := &Server{c: c, paces: map[placement.Server]*pace{}, seats: map[placement.LinkID]*seat{}, up: map[placement.Server]uint64{}}
	s.lazy.max = c.LazyBytes
	s.fill.set(c.FillRate)
	s.meterSpace()
	s.view.Store(&view{})
	return s
}

func (s *Server) now() time.Duration { return s.c.Clock.Now() }

// Do carries out an operation; op.Done tells how it ended.
func (s *Server) Do(op *Op) {
	op.Result = Result{Bufs: op.Bufs[:0]}
	if !op.valid() {
		s.end(op, wire.Invalid)
		return
	}
	t := s.newTask()
	t.op, t.bucket = op, placement.BucketOf(op.Key.Family, op.Key.Chunk)
	if op.ID.Coordinator != uint32(s.c.Self) {
		t.came = s.now()
	}
	s.route(t)
}

// end answers an operation that has no task.
func (s *Server) end(op *Op, st wire.Status) {
	op.Status = st
	s.load.fill(&op.Load)
	op.Done(op)
}

// route finds the task's place and sets it going, or lets it wait for the state
// that its coordinator has seen already (R1).
func (s *Server) route(t *task) {
	op := t.op
	t.d = s.view.Load().disk(op.Key)
	switch {
	case t.d == nil || t.d.vver < op.VVer:
		s.ahead(t)
		return
	case t.d.vver > op.VVer:
		op.VVerHere = t.d.vver
		t.refuse(wire.OldVVer)
		return
	}
	if t.l = t.d.seat(t.bucket); t.l == nil {
		t.refuse(wire.Redirect)
		return
	}
	t.ver = t.l.verNow.Load()
	switch {
	case op.Ver > t.ver:
		s.ahead(t)
		return
	case op.Ver != 0 && op.Ver < t.ver:
		t.refuse(wire.Redirect)
		return
	}
	if op.Kind == Read {
		t.load.start(op.first(), op.count(), (*task).hand)
		return
	}
	t.begin()
}

// hand gives the reader what was read.
func (t *task) hand() {
	op, rd := t.op, &t.load.rd
	op.Bufs, rd.Bufs = rd.Bufs, op.Bufs
	t.refuse(wire.OK)
}

// ahead lets a task wait for the next states, for a while.
func (s *Server) ahead(t *task) {
	now := s.now()
	s.mu.Lock()
	if t.since == 0 {
		t.since = now
	} else if now-t.since >= s.patience() || s.closed.Load() {
		s.mu.Unlock()
		t.refuse(wire.NotReady)
		return
	}
	s.waiting = append(s.waiting, t)
	s.watch()
	s.mu.Unlock()
}

// patience is how long an operation waits for something that may come at any
// moment before its coordinator is told.
func (s *Server) patience() time.Duration { return s.c.Times.Admission / 2 }

// retryAhead routes the tasks again that waited for a state.
func (s *Server) retryAhead() {
	s.mu.Lock()
	ts := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, t := range ts {
		s.route(t)
	}
}

// watch sees to it that nothing waits for ever. s.mu is held.
func (s *Server) watch() {
	if s.watcher != nil || s.closed.Load() {
		return
	}
	s.watcher = s.c.Clock.AfterFunc(s.patience()/4, s.look)
}

// look gives all that waits another try; who has waited for too long is told.
func (s *Server) look() {
	s.mu.Lock()
	s.watcher = nil
	seats := s.order
	s.mu.Unlock()
	s.retryAhead()
	for _, l := range seats {
		l.lock()
		l.stir()
		l.expireFetches(s.now())
		l.unlock()
	}
}

// park lets a task wait for the machine to open, or for a moment. It returns
// admitted, or, after a while, NotReady. The mutex is held.
func (l *seat) park(t *task, retry func(*task), now time.Duration) wire.Status {
	switch {
	case l.closed:
		return wire.NotReady
	case l.s.c.Store.Failed() != nil:
		return wire.Failed
	case t.since == 0:
		t.since = now
	case now-t.since >= l.s.patience():
		return wire.NotReady
	}
	t.retry = retry
	l.parked.push(t)
	l.later = append(l.later, func() {
		l.s.mu.Lock()
		l.s.watch()
		l.s.mu.Unlock()
	})
	return admitted
}

// stir lets those who wait try again. The mutex is held.
func (l *seat) stir() {
	l.stirred = false
	for t := l.parked.take(); t != nil; {
		next := t.next
		l.again.push(t)
		t = next
	}
}

// mayServe is OK if the machine serves now, as head if need be.
func (l *seat) mayServe(now time.Duration, asHead bool) wire.Status {
	switch v := l.m.MayRead(0, false, now); {
	case l.closed:
		return wire.NotReady
	case v != link.Serve:
		return l.status(v)
	case asHead && !l.m.Head():
		return wire.Redirect
	}
	return wire.OK
}

// status is the outcome of an operation that the machine doesn't let in.
func (l *seat) status(v link.Verdict) wire.Status {
	switch v {
	case link.GoToHead, link.OutOfDate:
		return wire.Redirect
	case link.NoLease:
		return wire.NoLease
	}
	return wire.NotReady
}

// head is who is head, as far as this server knows, and under which version.
func (l *seat) head() (placement.Server, uint64) {
	if l == nil {
		return 0, 0
	}
	return placement.Server(l.headNow.Load()), l.verNow.Load()
}
