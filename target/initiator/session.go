package initiator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"petal/target/iscsi"
	"petal/target/serial"
)

// Session is a logged-in session of one connection. Its methods may be called
// from any goroutine.
//
//	Dial -> up --(loss)--> down --(login)--> up --Close--> closed
//	                         '--(Reconnect has run out)--> closed
type Session struct {
	url     URL
	options Options
	host    string // portal of the present or last connection; run's

	mu       sync.Mutex
	idle     sync.Cond // flushing became false
	conn     *Conn
	params   Params
	batch    *iscsi.Writer // what has been encoded and not handed to the socket
	sending  *iscsi.Writer // what is being handed to it, while flushing is set
	try      *iscsi.TryFlusher
	flushing bool
	up       bool
	closed   error // why the session has ended, nil before

	tasks   []*Task // by the low 16 bits of the ITT, nil where free
	free    []uint16
	salt    uint16 // high bits of the next ITT
	waiting fifo   // tasks for which there is no room in the command window
	orders  uint64
	cmdSN   serial.CmdSN  // of the next command
	statSN  serial.StatSN // expected in the next response
	window  serial.CmdWindow

	received atomic.Uint64 // PDUs
	ctx      context.Context
	cancel   context.CancelFunc // by Close
	ended    chan struct{}
	reader   *iscsi.Reader // run's
	vector   [1][]byte     // run's
}

// Dial connects to the URL's portal, or the first of the options' portals that
// lets it in, follows redirections, logs in, and starts the session's goroutine. CHAP and digests of the URL override those of
// options. The target is not asked for anything yet: the first command to a
// logical unit usually ends with a unit attention.
func Dial(ctx context.Context, u URL, options Options) (*Session, error) {
	if options.ISID == (iscsi.ISID{}) {
		options.ISID = randomISID()
	}
	s := &Session{url: u, options: withURL(options, u), ended: make(chan struct{})}
	s.idle.L = &s.mu
	s.ctx, s.cancel = context.WithCancel(context.Background())
	err := s.connect(ctx, u.Host)
	for i := 0; err != nil && i < len(options.Portals) && ctx.Err() == nil; i++ {
		err = s.connect(ctx, options.Portals[i])
	}
	if err != nil {
		return nil, err
	}
	go s.run()
	if s.options.PingEvery > 0 {
		go s.watch(s.options.PingEvery)
	}
	return s, nil
}

func withURL(o Options, u URL) Options {
	if u.Secret != "" {
		o.User, o.Secret = u.User, u.Secret
	}
	if u.TargetSecret != "" {
		o.MutualUser, o.MutualSecret = u.TargetUser, u.TargetSecret
	}
	o.HeaderDigest = o.HeaderDigest || u.HeaderDigest
	o.DataDigest = o.DataDigest || u.DataDigest
	return o
}

// maxRedirects bounds how often one login follows a redirection.
const maxRedirects = 4

// login connects to the portal and logs in, with redirections.
func login(ctx context.Context, u URL, o Options) (*Conn, Params, error) {
	addr := u.Host
	for hop := 0; ; hop++ {
		c, err := Connect(ctx, addr)
		if err != nil {
			return nil, Params{}, err
		}
		p, err := c.Login(ctx, u.Target, o)
		if err == nil {
			return c, p, nil
		}
		c.Close()
		refused, ok := errors.AsType[*LoginError](err)
		if !ok || refused.Status.Class() != 1 || refused.Address == "" || hop == maxRedirects {
			return nil, Params{}, err
		}
		addr = portalAddress(refused.Address)
	}
}

// portalAddress takes the portal group tag off a TargetAddress and adds the
// port where it has none.
func portalAddress(s string) string {
	for i := range s {
		if s[i] == ',' {
			s = s[:i]
			break
		}
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return net.JoinHostPort(s, "3260")
	}
	return s
}

// connect makes a connection to a portal and puts it into the session.
func (s *Session) connect(ctx context.Context, host string) error {
	limit := loginTimeout
	if len(s.options.Portals) > 0 {
		limit = pathTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	u := s.url
	u.Host = host
	c, p, err := login(ctx, u, s.options)
	if err != nil {
		return err
	}
	s.host = host
	tcp, ok := c.nc.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("initiator: a session wants TCP, not %T", c.nc)
	}
	try, err := iscsi.NewTryFlusher(tcp)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.flushing {
		s.idle.Wait()
	}
	if s.closed != nil {
		c.Close()
		return s.closed
	}
	s.conn, s.params, s.try, s.up = c, p, try, true
	s.batch, s.sending = newWriter(p), newWriter(p)
	s.cmdSN, s.statSN, s.window = p.CmdSN, p.ExpStatSN, p.Window
	s.resend()
	return nil
}

func newWriter(p Params) *iscsi.Writer {
	return &iscsi.Writer{HeaderDigest: p.HeaderDigest, DataDigest: p.DataDigest}
}

// Params is what the present or last connection's login has negotiated.
func (s *Session) Params() Params {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.params
}

// LUN is the LUN field for the URL's logical unit.
func (s *Session) LUN() uint64 { return WireLUN(s.url.LUN) }

// Submit puts t in line. It is sent by the next Flush, or when the session's
// goroutine has done what there is to do. The error, if any, is why the
// session has ended; then Done is not called.
func (s *Session) Submit(t *Task) error {
	t.kind = kindCommand
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enqueue(t)
}

// enqueue is Submit for both kinds; s.mu is held.
func (s *Session) enqueue(t *Task) error {
	if s.closed != nil {
		return s.closed
	}
	if t.kind == kindControl && !s.up {
		return net.ErrClosed // it would not be sent again
	}
	if !s.assign(t) {
		return errors.New("initiator: 65536 tasks under way")
	}
	t.renew()
	t.Sends = 0
	s.orders++
	t.order = s.orders
	switch {
	case !s.up: // run sends it after the next login
	case t.kind == kindControl || t.Immediate || s.waiting.len() == 0 && s.room():
		s.encode(t)
	default:
		s.waiting.push(t)
	}
	return nil
}

// assign gives t a task tag.
func (s *Session) assign(t *Task) bool {
	if len(s.free) == 0 {
		if len(s.tasks) == 1<<16 {
			return false
		}
		s.tasks = append(s.tasks, nil)
		s.free = append(s.free, uint16(len(s.tasks)-1))
	}
	slot := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	// The salt tells a late response to an old task from one to this; it never
	// makes 0xffff, so the tag is never the reserved one.
	s.salt = (s.salt + 1) & 0x7fff
	t.itt = uint32(s.salt)<<16 | uint32(slot)
	s.tasks[slot] = t
	return true
}

// room reports whether the command window has room for one more.
func (s *Session) room() bool { return !s.cmdSN.After(s.window.Last) }

// task returns the task that a PDU's ITT names, nil if there is none.
func (s *Session) task(itt uint32) *Task {
	slot := int(itt & 0xffff)
	if slot >= len(s.tasks) || s.tasks[slot] == nil || s.tasks[slot].itt != itt {
		return nil
	}
	return s.tasks[slot]
}

// release takes t out of the table; s.mu is held.
func (s *Session) release(t *Task) {
	slot := uint16(t.itt)
	s.tasks[slot] = nil
	s.free = append(s.free, slot)
}

// Flush sends what has been submitted. Callbacks need not call it.
func (s *Session) Flush() {
	s.mu.Lock()
	if s.flushing || !s.up || s.batch.Pending() == 0 {
		s.mu.Unlock()
		return
	}
	s.flushing = true
	try, conn := s.try, s.conn
	for s.up && s.batch.Pending() > 0 {
		s.batch, s.sending = s.sending, s.batch
		w := s.sending
		s.mu.Unlock()
		done, err := try.Flush(w)
		if err == nil && !done {
			// The socket is full. Waiting here could keep the goroutine from
			// reading, and the target from sending, for ever.
			go s.finishFlush(conn, w)
			return
		}
		s.mu.Lock()
		if err != nil {
			conn.Close() // run sees it
			break
		}
	}
	s.endFlush()
	s.mu.Unlock()
}

// finishFlush sends what Flush could not, and then goes on in its place.
func (s *Session) finishFlush(conn *Conn, w *iscsi.Writer) {
	err := w.Flush(conn.nc)
	if err != nil {
		conn.Close()
	}
	s.mu.Lock()
	s.endFlush()
	s.mu.Unlock()
	if err == nil {
		s.Flush()
	}
}

func (s *Session) endFlush() {
	s.flushing = false
	s.idle.Broadcast()
}

// Close ends the session at once, without a logout. Tasks under way end with
// ErrClosed; wait for Ended if that matters.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == nil {
		s.closed = ErrClosed
	}
	s.cancel()
	s.conn.Close()
}

// Ended is closed when the session has ended and all its tasks have.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// fifo is a queue of tasks.
type fifo struct {
	tasks []*Task
	head  int
}

func (f *fifo) len() int { return len(f.tasks) - f.head }

func (f *fifo) push(t *Task) {
	if f.head > 64 && f.head*2 > len(f.tasks) {
		n := copy(f.tasks, f.tasks[f.head:])
		clear(f.tasks[n:])
		f.tasks, f.head = f.tasks[:n], 0
	}
	f.tasks = append(f.tasks, t)
}

func (f *fifo) pop() *Task {
	t := f.tasks[f.head]
	f.tasks[f.head] = nil
	f.head++
	return t
}

// has reports whether t stands in the queue.
func (f *fifo) has(t *Task) bool { return slices.Contains(f.tasks[f.head:], t) }
