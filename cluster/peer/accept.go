package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"petal/cluster/peer/pki"
	"petal/cluster/wire"
	"petal/placement"
)

// Names of the protocols of TLS (ALPN, RFC 7301).
const (
	protocolPeer = "petal/1"
	protocolJoin = "petal-join/1"
)

// accept takes connections until the listener is closed.
func (p *Peers) accept(l net.Listener) {
	for {
		raw, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no file left, say: others may close some
			p.opt.Log.Warn("accept", "err", err)
			select {
			case <-time.After(p.opt.Times.Tick):
				continue
			case <-p.ctx.Done():
				return
			}
		}
		s := p.strangers.admit(raw)
		if s == nil {
			raw.Close()
			continue
		}
		p.wg.Go(func() {
			defer p.strangers.leave(s)
			if err := p.receive(s); err != nil {
				raw.Close()
				p.opt.Log.Debug("connection refused", "from", raw.RemoteAddr(), "err", err)
				p.tellRefused(raw, err)
			}
		})
	}
}

// tlsRecord is the first byte of TLS (RFC 8446 section 5.1: handshake).
const tlsRecord = 0x16

// receive finds out who connects and what for. Nobody gets more than some KiB of
// memory and the time of one handshake before that.
func (p *Peers) receive(s *stranger) error {
	limit := p.opt.handshake()
	ctx, cancel := context.WithTimeout(p.ctx, limit)
	defer cancel()
	if err := s.Conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	first, err := s.peek()
	switch {
	case err != nil:
		return err
	case first != tlsRecord && !p.opt.Plain:
		return errors.New("not encrypted")
	case first != tlsRecord:
		return p.welcome(ctx, s, &conn{raw: s.Conn, net: s.Conn}, s, 0)
	case p.opt.TLS == nil:
		return errors.New("encrypted, but there is no certificate here")
	}
	g := &gather{Conn: s}
	t := tls.Server(g, p.opt.TLS.ServerConfig(protocolPeer, protocolJoin))
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	state := t.ConnectionState()
	if state.NegotiatedProtocol == protocolJoin {
		return p.serveJoin(s, t)
	}
	name, err := pki.NameOf(state.PeerCertificates)
	if err != nil {
		return err
	}
	s.trust()
	return p.welcome(ctx, s, &conn{raw: s.Conn, net: t, gather: g}, t, name.Server)
}

// welcome answers a Hello that is read from r. server is who the certificate
// says it is, 0 if there is none.
func (p *Peers) welcome(ctx context.Context, s *stranger, c *conn, r io.Reader, server placement.Server) error {
	var m wire.Message
	g, err := hear(r, &m, wire.Hello)
	if err != nil {
		return err
	}
	hello := m.Sent
	b, why := p.hello(ctx, &g, server)
	answer := p.greeting(g.From, g.Class)
	answer.Session, answer.Refusal = g.Session, why
	sent := p.opt.Clock.Now()
	if err := say(c.net, &wire.Message{Kind: wire.Welcome, Sent: sent, At: hello, Body: answer.append(nil)}); err != nil {
		return err
	}
	if why != welcome {
		return turnedAway{g.From, why}
	}
	if _, err := hear(r, &m, wire.Ready); err != nil {
		return err
	}
	c.offsets.sample(m.At, m.Sent, p.opt.Clock.Now())
	c.bundle, c.class, c.window = b, g.Class, windows[g.Class]
	c.incarnation, c.release, c.queue = g.Incarnation, g.Release, newQueue(int64(g.Window))
	if err := s.Conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	b.install(g.Session, c)
	return nil
}

// hello decides about a Hello, and makes room for the connection (R1, R13).
func (p *Peers) hello(ctx context.Context, g *greeting, server placement.Server) (*bundle, refusal) {
	if server != 0 && server != g.From {
		return nil, otherServer
	}
	if why := p.acceptable(g, g.From, g.Class); why != welcome {
		return nil, why
	}
	if g.From <= p.opt.Self {
		return nil, p.stray(g)
	}
	peer := p.lookup(g.From, g.Class)
	if peer == nil {
		return nil, unknownServer
	}
	b := peer.bundle[bundleOf[g.Class]]
	if b.which == bundleData && !p.waitStarted(ctx) {
		return nil, notStarted
	}
	return b, b.admit(ctx, session{g.Session, g.Incarnation}, g.Class)
}

// stray answers one that was to be dialled and dials: see inquire. Servers with
// lower numbers were members before this one, so one that it does not know has been
// taken out. One that it knows says where it is now.
func (p *Peers) stray(g *greeting) refusal {
	p.mu.Lock()
	_, member := p.members[g.From]
	known := len(p.members) > 0
	p.mu.Unlock()
	peer := (*p.table.Load())[g.From]
	switch {
	case g.From == p.opt.Self:
		return wrongDirection
	case known && !member:
		return unknownServer
	case peer == nil:
		return wrongDirection
	}
	data, agreed := peer.bundle[bundleData], peer.bundle[bundleRaft]
	data.mu.Lock()
	old := g.Incarnation != 0 && g.Incarnation < data.highest
	data.mu.Unlock()
	agreed.mu.Lock()
	there := agreed.state == up
	agreed.mu.Unlock()
	switch {
	case old:
		return oldIncarnation
	case there:
		return twin
	}
	if _, err := netip.ParseAddrPort(g.Addr); err == nil { // no names: nobody makes this server ask a name service
		p.mu.Lock()
		p.moved[g.From] = g.Addr
		p.mu.Unlock()
	}
	agreed.hurry()
	return wrongDirection
}

// waitStarted waits for this server's own incarnation: so a server that is back
// is connected the moment that raft has given it one, and not when the others
// happen to try again.
func (p *Peers) waitStarted(ctx context.Context) bool {
	select {
	case <-p.started:
		return true
	case <-ctx.Done():
		return false
	}
}

// acceptable checks what both sides check of the other's greeting.
func (p *Peers) acceptable(g *greeting, from placement.Server, class wire.Class) refusal {
	switch {
	case g.Cluster != p.opt.Cluster:
		return otherCluster
	case g.From != from || g.To != p.opt.Self || g.Class != class:
		return otherServer
	case bundleOf[class] == bundleData && g.Incarnation == 0:
		return notStarted
	case g.Least > wire.Version || g.Most < wire.Version || g.Window < windowLeast:
		return otherVersion
	}
	return welcome
}

// windowLeast holds any message.
const windowLeast = 2 * wire.MaxPayload

func (p *Peers) greeting(to placement.Server, class wire.Class) greeting {
	return greeting{
		Cluster: p.opt.Cluster, From: p.opt.Self, To: to, Incarnation: p.incarnation.Load(), Class: class,
		Least: wire.Version, Most: wire.Version, Window: uint32(windows[class]), Release: p.opt.Release, Addr: p.opt.Advertise,
	}
}

// say writes one message of the handshake.
func say(w io.Writer, m *wire.Message) error {
	b, err := m.AppendFrame(nil)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// hear reads one message of the handshake and not a byte more. It has to be of
// kind want; the greeting is that of its body, if it has one.
func hear(r io.Reader, m *wire.Message, want wire.Kind) (g greeting, err error) {
	var b [wire.HeaderSize + wire.MaxDetail + greetingMax]byte
	if _, err := io.ReadFull(r, b[:wire.HeaderSize]); err != nil {
		return g, err
	}
	detail, payload, err := (*wire.Header)(b[:]).Lengths()
	if err != nil {
		return g, err
	}
	head := wire.HeaderSize + detail
	if payload > greetingMax {
		return g, fmt.Errorf("%w: greeting of %d bytes", wire.ErrCorrupt, payload)
	}
	if _, err := io.ReadFull(r, b[wire.HeaderSize:head+payload]); err != nil {
		return g, err
	}
	if err := m.Decode(b[:head]); err != nil {
		return g, err
	}
	if m.Kind != want {
		return g, fmt.Errorf("%w: %v instead of %v", wire.ErrCorrupt, m.Kind, want)
	}
	if !m.Kind.HasBody() {
		return g, nil
	}
	if err := m.DecodeBody(b[:head], b[head:head+payload]); err != nil {
		return g, err
	}
	return parseGreeting(m.Body)
}
