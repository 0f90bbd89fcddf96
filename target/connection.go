package target

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"time"

	"petal/target/iscsi"
	"petal/target/login"
	"petal/target/lun"
	"petal/target/session"
)

// connection is a connection from accept to its end.
type connection struct {
	server *Server
	portal *portal
	conn   net.Conn
	in     *iscsi.Reader
	out    iscsi.Writer
	who    *authority
}

// serve is the goroutine of a connection.
func (s *Server) serve(c net.Conn, p *portal) {
	defer s.busy.Done()
	defer c.Close()
	defer func() {
		// The last resort: a bug of ours costs one connection, not the node.
		if r := recover(); r != nil {
			s.log.Error("connection dropped by a bug", "peer", c.RemoteAddr().String(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	x := &connection{server: s, portal: p, conn: c, in: iscsi.NewReader(source(c), iscsi.LoginBuffer)}
	x.who = &authority{server: s, portal: p, local: addrPort(c.LocalAddr())}
	t := s.halfOpen.enter(c)
	if s.isSuspended() { // it may have come too late for Suspend to see it
		c.Close()
	}
	result, last := x.login()
	s.halfOpen.leave(t)
	if result == nil {
		return
	}
	x.session(result, last)
}

// source is what a connection is read from: with readv where there is a socket.
func source(c net.Conn) io.Reader {
	if t, ok := c.(*net.TCPConn); ok {
		if r, err := iscsi.NewSocketReader(t); err == nil {
			return r
		}
	}
	return c
}

// login runs the login phase. It returns nil if there will be no session, else
// also the last response, which has not been sent yet.
func (x *connection) login() (*login.Result, login.Output) {
	m := login.New(login.Config{
		Authority: x.who, Sessions: x.who, Random: rand.Reader, StatSN: 1, Window: x.server.window(),
	})
	var stage iscsi.Stage
	for first := true; ; first = false {
		if first {
			x.limitStage()
		}
		h, err := x.in.Next()
		if err != nil {
			x.failed(m, err)
			return nil, login.Output{}
		}
		if csg := h.LoginRequest().CSG(); !first && csg != stage {
			x.limitStage()
			stage = csg
		} else if first {
			stage = csg
		}
		request := *h
		data, err := x.in.Data()
		if err != nil {
			x.failed(m, err)
			return nil, login.Output{}
		}
		out := m.Step(&request, data)
		switch out.Verdict {
		case login.Done:
			return m.Result(), out
		case login.Failed:
			x.refuse(m, out)
			return nil, out
		}
		if err := x.send(out); err != nil {
			return nil, out
		}
	}
}

// limitStage gives a stage of the login its time.
func (x *connection) limitStage() {
	x.conn.SetDeadline(time.Now().Add(x.server.cfg.LoginTimeout))
}

// failed logs a login that broke off.
func (x *connection) failed(m *login.Machine, err error) {
	level := x.server.log.Debug // strangers may come and go as they like
	if e, ok := errors.AsType[*iscsi.ConnectionError](err); ok {
		level, err = x.server.log.Info, e
	}
	if !errors.Is(err, io.EOF) {
		level("login broken off", "peer", x.conn.RemoteAddr().String(), "initiator", m.Peer(), "error", err)
	}
}

// refuse answers a login that failed, not too often.
func (x *connection) refuse(m *login.Machine, out login.Output) {
	if x.server.isSuspended() {
		return // a reject would be final to some initiators
	}
	who := m.Peer()
	if who == "" {
		who = addressOf(x.conn.RemoteAddr()).String()
	}
	pause, answer := x.server.refusals.wait(who, time.Now())
	if pause == 0 {
		x.server.log.Warn("login refused", "peer", x.conn.RemoteAddr().String(), "initiator", m.Peer(), "status", out.Status.String(), "why", out.Why)
	}
	if !answer {
		return
	}
	if pause > 0 && !x.idle(pause) {
		return
	}
	x.send(out)
}

// idle waits, and reports whether the peer and we are still there then: a
// connection that is closed meanwhile, by either side, ends it.
func (x *connection) idle(d time.Duration) bool {
	x.conn.SetReadDeadline(time.Now().Add(d))
	var b [1]byte
	_, err := x.conn.Read(b[:])
	ne, ok := errors.AsType[net.Error](err)
	return err == nil || ok && ne.Timeout()
}

// send sends a login response.
func (x *connection) send(out login.Output) error {
	x.out.AppendBytes(&out.Header, out.Data)
	return x.out.Flush(x.conn)
}

// session enters the session into the registry, answers the login and runs it.
func (x *connection) session(r *login.Result, last login.Output) {
	s := x.server
	e := x.entry(r)
	if !s.sessions.add(e) {
		s.sessions.freeTSIH(r.TSIH)
		l := last.Header.LoginResponse()
		l.SetTransit(false)
		l.SetStatus(iscsi.LoginUnavailable)
		s.log.Warn("login refused: the session that it reinstates does not end", "initiator", r.Initiator, "target", r.Target)
		x.send(last)
		return
	}
	var observer SessionObserver
	if s.cfg.Observe != nil && !r.Discovery {
		observer = s.cfg.Observe(r.Target, r.Initiator)
	}
	if observer != nil {
		defer observer.Closed()
	}
	// Whatever happens, the nexus is free again afterwards.
	defer s.sessions.remove(e)
	x.prepare(e, r, observer)
	if !x.admitted(e) {
		e.session.Close(errAccessLost)
	} else if err := x.send(last); err != nil {
		e.session.Close(err)
	}
	x.conn.SetDeadline(time.Time{})
	log := s.log.With("initiator", r.Initiator, "target", r.Target, "tsih", r.TSIH, "peer", e.info.Remote)
	log.Info("session begins", "portal", e.info.Portal, "headerDigest", r.Params.HeaderDigest, "dataDigest", r.Params.DataDigest)
	if err := e.session.Serve(); err != nil {
		log.Info("session ended", "why", err)
		return
	}
	log.Info("session ended", "why", "logout")
}

// admitted looks once more whether the session may be, now that it is in the
// registry, where those find it who end sessions.
func (x *connection) admitted(e *entry) bool {
	s := x.server
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.serves() {
		return false
	}
	t := s.targets[e.target]
	return e.target == "" || t != nil && t.Device == e.device && t.admits(e.initiator)
}

func (x *connection) entry(r *login.Result) *entry {
	s := x.server
	e := &entry{
		nexus: nexus{r.Nexus(), x.portal.TPGT}, tsih: r.TSIH, cid: r.CID,
		initiator: r.Initiator, target: r.Target, source: addressOf(x.conn.RemoteAddr()), gone: make(chan struct{}),
		info: SessionInfo{
			Target: r.Target, Initiator: r.Initiator, ISID: r.ISID, TSIH: r.TSIH, TPGT: x.portal.TPGT, User: r.User,
			Remote: x.conn.RemoteAddr().String(), Portal: x.conn.LocalAddr().String(),
			HeaderDigest: r.Params.HeaderDigest, DataDigest: r.Params.DataDigest, Params: r.Params, Since: time.Now(),
		},
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.targets[r.Target]; t != nil {
		e.device = t.Device
	}
	e.session = session.New(session.Config{
		Conn: x.conn, In: x.in, Params: r.Params, CID: r.CID, ExpCmdSN: r.CmdSN, StatSN: r.StatSN,
		Text: login.NewText(x.who, r), Log: s.log, Depth: s.cfg.Depth, Budget: s.cfg.Budget, Shared: s.shared,
		Ping: s.cfg.NopInterval, PingTimeout: s.cfg.NopTimeout,
		Reset: func() {
			s.endSessions(func(o *entry) bool { return o.target == r.Target }, errTargetReset)
		},
	})
	return e
}

// prepare gives the session what it needs from full feature phase on.
func (x *connection) prepare(e *entry, r *login.Result, o SessionObserver) {
	if o != nil {
		e.session.SetObserver(o)
	}
	if e.device == nil {
		return
	}
	x.in.Grow(iscsi.ReadBuffer)
	e.session.SetNexus(e.device.Attach(lun.NexusConfig{
		Initiator: r.Initiator, ISID: r.ISID, TargetPort: x.portal.Port, TPGT: x.portal.TPGT,
		AbortAll: e.session.AbortAll,
	}))
}
