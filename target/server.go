package target

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"petal/target/login"
	"petal/target/session"
)

// Config of a Server. The zero Config is of use.
type Config struct {
	Log *slog.Logger
	// NopInterval is how long a connection may be silent before it is pinged,
	// NopTimeout how long the answer may take. Zero: the defaults of package
	// session; a negative NopInterval: no pings.
	NopInterval, NopTimeout time.Duration
	// LoginTimeout bounds each stage of a login; DefaultLoginTimeout.
	LoginTimeout time.Duration
	// Depth is how many commands a session may have in flight, Budget how many
	// bytes they may borrow; session.DefaultDepth, session.DefaultBudget.
	Depth, Budget int
	// TotalBudget is how many bytes the commands of all sessions may borrow
	// together, beside one command of each; DefaultTotalBudget.
	TotalBudget int
	// Observe is called once for each session, and returns what is to be told
	// of its commands; nil for nothing. It may be nil itself.
	Observe func(target, initiator string) SessionObserver
}

// SessionObserver is told of one session. Command is called when the answer of
// a command has been queued, by one goroutine at a time: see session.Observer.
type SessionObserver interface {
	session.Observer
	// Closed is called when the session has ended.
	Closed()
}

// Portal is an address at which targets are served.
type Portal struct {
	// Listen is the address for Listen: host:port; port 0 takes a free one.
	Listen string
	// Advertise is what SendTargets tells of it, host:port; the address that it
	// listens on if empty.
	Advertise string
	// TPGT is the target portal group tag.
	TPGT uint16
	// Port is the relative target port identifier of the SCSI port that the
	// portal group makes of each target; TPGT if zero.
	Port uint16
}

type portal struct {
	Portal
	address  string       // advertised
	bound    string       // where it listens
	listener net.Listener // nil while suspended
	err      error        // why it could not be opened again
}

// SessionInfo tells of a session.
type SessionInfo struct {
	Target       string // empty: a discovery session
	Initiator    string
	ISID         [6]byte
	TSIH         uint16
	TPGT         uint16
	User         string // as whom it authenticated itself; empty without CHAP
	Remote       string // address of the initiator
	Portal       string // local address
	HeaderDigest bool
	DataDigest   bool
	Params       login.Params
	Since        time.Time
	Outstanding  int // commands in flight
	Commands     uint64
	BytesRead    uint64
	BytesWritten uint64
}

// state is how far a server is in its life: serving (which it may be kept from
// for a while: Suspend), then draining, then closed.
type state uint8

const (
	serving state = iota
	draining
	closed
)

// Server is an iSCSI target server. Its methods are safe for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	sessions registry
	halfOpen halfOpen
	refusals refusals
	shared   *session.Shared
	busy     sync.WaitGroup // accept loops and connections

	mu        sync.RWMutex // guards all below
	state     state
	targets   map[string]*served
	suspended bool
	portals   []*portal
	peers     []Peer
	discovery *login.CHAP
}

// Why sessions are ended from this side.
var (
	errReinstated    = errors.New("reinstated by a new login of the initiator")
	errAccessLost    = errors.New("the initiator may no longer use the target")
	errTargetRemoved = errors.New("target removed")
	errTargetReset   = errors.New("TARGET COLD RESET")
	errKilled        = errors.New("ended by the administrator")
	errCrowded       = errors.New("too many discovery sessions")
	errServerClosed  = errors.New("server closed")
)

// New makes a server without portals and targets.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.LoginTimeout == 0 {
		cfg.LoginTimeout = DefaultLoginTimeout
	}
	if cfg.Depth == 0 {
		cfg.Depth = session.DefaultDepth
	}
	cfg.Depth = min(cfg.Depth, session.MaxDepth)
	if cfg.TotalBudget == 0 {
		cfg.TotalBudget = DefaultTotalBudget
	}
	s := &Server{cfg: cfg, log: cfg.Log, targets: map[string]*served{}, shared: session.NewShared(cfg.TotalBudget)}
	s.sessions.init()
	s.halfOpen.limit = maxHalfOpen
	return s
}

// Listen binds a portal and serves it. An error wraps the syscall.Errno.
func (s *Server) Listen(p Portal) (net.Addr, error) {
	l, err := net.Listen("tcp", p.Listen)
	if err != nil {
		return nil, err
	}
	s.Serve(l, p)
	return l.Addr(), nil
}

// Serve serves a portal on l, which the server closes in the end. It returns
// at once.
func (s *Server) Serve(l net.Listener, p Portal) {
	if p.Port == 0 {
		p.Port = p.TPGT
	}
	v := &portal{Portal: p, address: p.Advertise, bound: l.Addr().String()}
	if v.address == "" {
		v.address = l.Addr().String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != serving {
		l.Close()
		return
	}
	s.portals = append(s.portals, v)
	if s.suspended {
		l.Close()
		return
	}
	s.open(v, l)
}

// accept takes connections until the listener is closed. Errors such as EMFILE
// pass: the oldest connection that has not logged in gives its descriptor.
func (s *Server) accept(p *portal, l net.Listener) {
	defer s.busy.Done()
	for {
		c, err := l.Accept()
		if err == nil {
			s.busy.Add(1)
			go s.serve(c, p)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.log.Error("cannot accept connections; more file descriptors would help (LimitNOFILE=)", "portal", p.address, "error", err)
		s.halfOpen.makeRoom()
		pause := time.NewTimer(acceptPause)
		<-pause.C
	}
}

// Sessions tells of all sessions, discovery included, in no order.
func (s *Server) Sessions() []SessionInfo {
	es := s.sessions.all(func(*entry) bool { return true })
	infos := make([]SessionInfo, 0, len(es))
	for _, e := range es {
		i, stats := e.info, e.session.Stats()
		i.Outstanding, i.Commands = stats.InFlight, stats.Commands
		i.BytesRead, i.BytesWritten = stats.BytesOut, stats.BytesIn
		infos = append(infos, i)
	}
	return infos
}

// KillSession drops a session, and reports whether there was one. The
// initiator is told, and may log in again.
func (s *Server) KillSession(tsih uint16) bool {
	es := s.sessions.all(func(e *entry) bool { return e.tsih == tsih })
	for _, e := range es {
		e.session.Drop(errKilled, 2*time.Second, 0)
	}
	return len(es) > 0
}

// endSessions closes the sessions that match and returns them.
func (s *Server) endSessions(match func(*entry) bool, why error) []*entry {
	es := s.sessions.all(match)
	for _, e := range es {
		e.session.Close(why)
	}
	return es
}

// Drain takes no more connections, asks all initiators to log out, answers
// what is in flight and closes their connections. It returns nil when all
// sessions have ended; if ctx is over before, it drops them and returns its
// error.
func (s *Server) Drain(ctx context.Context) error {
	s.stop(draining)
	var all sync.WaitGroup
	for _, e := range s.sessions.all(func(*entry) bool { return true }) {
		all.Go(func() {
			e.session.Drain(ctx, drainGrace)
			<-e.gone
		})
	}
	all.Wait()
	err := ctx.Err()
	s.Close()
	return err
}

// Close drops everything at once, and returns when no command can have an
// effect any more and every goroutine has ended.
func (s *Server) Close() {
	s.stop(closed)
	s.endSessions(func(*entry) bool { return true }, errServerClosed)
	s.busy.Wait()
}

// stop closes listeners and half-open connections.
func (s *Server) stop(to state) {
	s.mu.Lock()
	s.state = max(s.state, to)
	portals := s.portals
	s.portals = nil
	s.mu.Unlock()
	for _, p := range portals {
		if p.listener != nil {
			p.listener.Close()
		}
	}
	s.halfOpen.closeAll()
}

// window is the command window that a login announces.
func (s *Server) window() uint32 { return uint32(s.cfg.Depth) }
