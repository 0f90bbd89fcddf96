package session

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"petal/target/iscsi"
	"petal/target/login"
	"petal/target/lun"
	"petal/target/serial"
)

// Nexus is the device server as a session uses it: *lun.Nexus, whose contract
// is in package lun.
type Nexus interface {
	Begin(*lun.Command) lun.Verdict
	Run(*lun.Command)
	Finish(*lun.Command)
	Abort(*lun.Command)
	Manage(f lun.Function, lu uint64, done func(lun.Response))
	Detach(lost bool)
}

// Observer is told of every command when its answer has been queued: its LUN
// field, the bytes of Data-In and Data-Out, and the time since it came. Command
// is called with the session's lock held: it must be quick, must not block and
// must not call the session.
type Observer interface {
	Command(lu uint64, opcode byte, in, out int, status byte, took time.Duration)
}

// Config is what a session is made of. All but Conn, In, Params and Nexus is
// optional; a discovery session has no Nexus.
type Config struct {
	Conn   net.Conn
	In     *iscsi.Reader // on Conn, after the last login request
	Params login.Params
	CID    uint16
	Nexus  Nexus

	ExpCmdSN serial.CmdSN  // the next CmdSN of the initiator
	StatSN   serial.StatSN // the next StatSN of ours

	// Text answers text requests: SendTargets and the like.
	Text *login.Text
	// Reset is called when the session has ended with a TARGET COLD RESET: all
	// sessions of the target are to be dropped.
	Reset func()

	Observer Observer
	Log      *slog.Logger

	Depth       int           // DefaultDepth
	Budget      int           // DefaultBudget
	Shared      *Shared       // with other sessions; nil: no limit
	Ping        time.Duration // DefaultPing; negative: never
	PingTimeout time.Duration // DefaultPingTimeout
}

// Stats are counters of a session since it began.
type Stats struct {
	Commands, BytesIn, BytesOut uint64 // bytes written by and read by the initiator
	InFlight                    int
}

// Session is one session in its full-feature phase. Serve runs it; the other
// methods may be called from any goroutine.
type Session struct {
	cfg   Config
	par   login.Params
	nexus Nexus
	conn  net.Conn
	in    *iscsi.Reader
	log   *slog.Logger
	epoch time.Time // began are nanoseconds from here

	completed completions
	calls     calls
	// busy: the holder of the baton will look at completed and calls once more
	// before it rests, so that nobody need be woken.
	busy     atomic.Bool
	inFlight atomic.Int32
	woken    atomic.Bool
	wake     chan struct{}
	commands atomic.Uint64
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
	heard    atomic.Uint32 // bursts received
	taken    atomic.Uint32 // counts on while a connection that is full takes more
	broken   atomic.Bool   // a panic has left the state in doubt
	ended    chan struct{}
	endOnce  sync.Once

	baton sync.Mutex
	rest  *sync.Cond // something came to rest: a batch sent, a task ended
	// All below belongs to the holder of the baton.
	window    window
	statSN    serial.StatSN
	tasks     taskTable
	immediate int // of the tasks, outside of the window
	holding   []*task
	lent      int  // bytes of the budget in use
	part      part // of the shared one
	sets      []*taskSet
	idle      []*task
	enabled   []*task    // scratch of leave
	vec       [][]byte   // of the PDU being built
	placing   [][]byte   // of the data being received: the reader's, who receives without the baton
	one1      [1][]byte  // the same
	header    *iscsi.BHS // of the present PDU
	managing  int        // task management functions in progress
	nextTTT   uint32
	now       int64
	dataAt    int64 // when Data-Out last came

	out  output
	life lifeline

	dead  bool  // nothing is sent or taken any more
	err   error // why
	why   error // what err will be after the last words
	reset bool  // cfg.Reset is due
	lost  bool  // the nexus was lost: not by logout
	leave leaving
}

// leaving says how far a session is on its orderly way out.
type leaving uint8

const (
	staying    leaving = iota
	requested          // the initiator was asked to log out
	quiescing          // no command is taken any more; ends when none is in flight
	loggingOut         // the same, and a Logout Response is due
	lastWords          // ends when all has been sent
)

// New makes a session. Serve must be called.
func New(cfg Config) *Session {
	if cfg.Depth == 0 {
		cfg.Depth = DefaultDepth
	}
	cfg.Depth = min(cfg.Depth, MaxDepth)
	if cfg.Budget == 0 {
		cfg.Budget = DefaultBudget
	}
	if cfg.Ping == 0 {
		cfg.Ping = DefaultPing
	}
	if cfg.PingTimeout == 0 {
		cfg.PingTimeout = DefaultPingTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Session{
		cfg: cfg, par: cfg.Params, nexus: cfg.Nexus, conn: cfg.Conn, in: cfg.In, log: cfg.Log,
		epoch: time.Now(), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		statSN: cfg.StatSN, lost: true,
	}
	s.rest = sync.NewCond(&s.baton)
	s.part.of = cfg.Shared
	last := cfg.ExpCmdSN + serial.CmdSN(cfg.Depth) - 1
	s.window = window{CmdWindow: serial.CmdWindow{First: cfg.ExpCmdSN, Last: last}, depth: cfg.Depth, told: last}
	s.in.MaxData = s.par.MaxRecv
	s.in.HeaderDigest, s.in.DataDigest = s.par.HeaderDigest, s.par.DataDigest
	s.out.init(s)
	return s
}

// SetNexus sets the device server, before Serve: it is attached with
// s.AbortAll, so that neither can be made before the other.
func (s *Session) SetNexus(n Nexus) { s.nexus = n }

// SetObserver sets who is told of commands, before Serve.
func (s *Session) SetObserver(o Observer) { s.cfg.Observer = o }

// Serve runs the session until it has ended and none of its tasks can have an
// effect any more. It returns nil after a logout, else why it ended.
func (s *Session) Serve() (err error) {
	defer func() {
		if s.broken.Load() {
			err = errBug
		}
	}()
	defer s.lastResort(true)
	go s.pump()
	s.lock()
	s.life.start(s)
	s.unlock()
	s.finish(s.read())
	return s.err
}

// Done is closed when Serve is about to return.
func (s *Session) Done() <-chan struct{} { return s.ended }

// Stats reads the counters.
func (s *Session) Stats() Stats {
	return Stats{
		Commands: s.commands.Load(), BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(),
		InFlight: int(s.inFlight.Load()),
	}
}

// Close drops the session; why is what Serve returns. It does not wait: Done
// tells when the last task has ended.
func (s *Session) Close(why error) {
	s.post(func() { s.fail(why) })
}

// AbortAll ends all tasks of the session on a logical unit, for the device
// server: a reset or a preemption by another nexus. done is called when none
// of them can have an effect any more. With tell they are answered with status
// TASK ABORTED.
func (s *Session) AbortAll(lu uint64, tell bool, done func()) {
	if !s.post(func() { s.abortAll(resetMatch(lu), tell, done) }) {
		done()
	}
}

// Drain asks the initiator to log out, and waits until the session has ended.
// When ctx is over and it has not, no further command is taken, those in
// flight are answered, and then the connection is closed.
func (s *Session) Drain(ctx context.Context, grace time.Duration) {
	if !s.post(func() { s.askLogout(grace) }) {
		<-s.ended
		return
	}
	select {
	case <-s.ended:
		return
	case <-ctx.Done():
	case <-time.After(grace):
	}
	s.post(s.quiesce)
	select {
	case <-s.ended:
	case <-ctx.Done():
		s.Close(ErrDrained)
		<-s.ended
	}
}

// Errors that Serve returns beside those of the connection and of package
// iscsi.
var (
	ErrDrained     = errors.New("session: drained")
	ErrDeadPeer    = errors.New("session: the initiator does not answer pings")
	ErrNoData      = errors.New("session: the initiator does not send the data of its commands")
	ErrReset       = errors.New("session: TARGET COLD RESET")
	ErrUnreachable = errors.New("session: the data cannot be reached")
	errLoggedOut   = errors.New("session: logged out")
)

// post has the holder of the baton run f, or reports that the session has
// ended.
func (s *Session) post(f func()) bool {
	if !s.calls.add(f) {
		return false
	}
	s.poke()
	return true
}

// poke has completed and calls looked at.
func (s *Session) poke() {
	if !s.busy.Load() && s.woken.CompareAndSwap(false, true) {
		s.wake <- struct{}{} // has room: woken says that it is empty
	}
}

// done is every task's Command.Done.
func (s *Session) done(t *task) {
	s.completed.push(t)
	if s.busy.Load() {
		return
	}
	if s.inFlight.Load() == 1 && s.baton.TryLock() {
		s.busy.Store(true)
		s.unlock()
		return
	}
	s.poke()
}

// lock takes the baton.
func (s *Session) lock() {
	s.baton.Lock()
	s.busy.Store(true)
}

// unlock runs what was left behind, sends what there is to send, and gives the
// baton away. It does not wait for the connection.
func (s *Session) unlock() {
	for {
		s.run()
		s.out.flush()
		s.reopen()
		s.busy.Store(false)
		if s.completed.empty() && !s.calls.any.Load() && !s.startable() && s.out.idle() {
			break
		}
		s.busy.Store(true)
	}
	s.baton.Unlock()
}

// run answers completed tasks and makes the calls that others have posted.
func (s *Session) run() {
	for {
		t, fs := s.completed.take(), s.calls.take()
		if t == nil && fs == nil && !s.startable() {
			break
		}
		if t != nil {
			s.now = s.clock()
		}
		for t != nil {
			next := t.next
			t.next = nil
			s.complete(t)
			t = next
		}
		for _, f := range fs {
			f()
		}
		s.startHeld()
	}
	s.settle()
}

func (s *Session) clock() int64 { return int64(time.Since(s.epoch)) }

// pump is the session's second goroutine; see the package comment.
func (s *Session) pump() {
	defer s.lastResort(false)
	for {
		select {
		case <-s.wake:
			s.woken.Store(false)
			s.lock()
			s.unlock()
		case <-s.ended:
			return
		}
	}
}

// fail drops the connection. The reader then ends the session.
func (s *Session) fail(why error) {
	if s.dead {
		return
	}
	s.dead, s.err = true, why
	s.conn.Close()
	s.rest.Broadcast()
}

// finish ends the session after the reader has ended: every task is aborted,
// and waited for.
func (s *Session) finish(err error) {
	s.lock()
	s.fail(err)
	s.life.stop()
	s.abortAll(func(*task) bool { return true }, false, func() {})
	s.run()
	for (s.tasks.count > 0 || s.out.sending) && !s.broken.Load() {
		s.await()
	}
	s.out.discard()
	for _, f := range s.calls.close() {
		f()
	}
	s.busy.Store(false)
	s.baton.Unlock()
	if s.nexus != nil {
		s.nexus.Detach(s.lost)
	}
	if errors.Is(s.err, errLoggedOut) {
		s.err = nil
	}
	s.endOnce.Do(func() { close(s.ended) })
	if s.reset && s.cfg.Reset != nil {
		s.cfg.Reset()
	}
}

// await gives the baton away until something has come to rest.
func (s *Session) await() {
	s.busy.Store(false)
	if !s.completed.empty() || s.calls.any.Load() {
		s.busy.Store(true)
		s.run()
		return
	}
	s.rest.Wait()
	s.busy.Store(true)
	s.run()
}
