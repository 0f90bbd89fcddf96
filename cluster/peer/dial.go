package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"petal/cluster/peer/pki"
	"petal/cluster/wire"
)

// dialAlways connects again whenever the bundle is idle.
func (b *bundle) dialAlways() {
	first, most := b.opt().backoff()
	wait, said := first, "" // said: in the log, once for each reason
	for attempt := 0; ; attempt++ {
		s, ok := b.beginDial()
		if !ok {
			return
		}
		if err := b.dial(s, attempt); err != nil {
			b.fail(s, err)
			if err.Error() != said {
				said = err.Error()
				b.opt().Log.Info("can't connect", "peer", b.peer.id, "bundle", b.name(), "err", err)
			}
		}
		wasUp := b.waitIdle()
		if b.peer.all.ctx.Err() != nil {
			return
		}
		switch {
		case wasUp:
			wait, said = first, ""
		case b.pause(wait/2 + rand.N(wait/2+1)): // so that those who lost one peer don't come back as one
			wait = min(2*wait, most)
		default:
			wait = first
		}
	}
}

// wanted reports whether there is somewhere to dial. Called with mu held.
func (b *bundle) wanted() bool {
	p := b.peer.all
	return b.state == idle && (b.which == bundleRaft || p.incarnation.Load() != 0) && len(p.addrs(b.peer.id)) > 0
}

// beginDial waits until a session is to be dialled, and begins it.
func (b *bundle) beginDial() (session, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.stopped {
		if b.wanted() {
			s := session{number: b.peer.all.sessions.Add(1)}
			b.begin(s)
			return s, true
		}
		changed := b.changed
		b.mu.Unlock()
		<-changed
		b.mu.Lock()
	}
	return session{}, false
}

// waitIdle waits for the end of the session, and reports whether it was up.
func (b *bundle) waitIdle() (wasUp bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.state != idle {
		wasUp = wasUp || b.state == up || b.state == closing
		changed := b.changed
		b.mu.Unlock()
		<-changed
		b.mu.Lock()
	}
	return wasUp
}

// kick has those who wait look again.
func (b *bundle) kick() {
	b.mu.Lock()
	b.wakeAll()
	b.mu.Unlock()
}

// pause waits for d. It returns false if there is a reason to try at once.
func (b *bundle) pause(d time.Duration) bool {
	done := make(chan struct{})
	t := b.opt().Clock.AfterFunc(d, func() { close(done) })
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-b.haste:
		return false
	case <-b.peer.all.ctx.Done():
		return false
	}
}

// hurry ends a pause, or the next one.
func (b *bundle) hurry() {
	select {
	case b.haste <- struct{}{}:
	default:
	}
}

// dial makes all connections of a session at once. The bundle is up, or as good
// as, when it returns nil.
func (b *bundle) dial(s session, attempt int) error {
	ctx, cancel := context.WithTimeout(b.peer.all.ctx, b.opt().handshake())
	defer cancel()
	addrs := b.peer.all.addrs(b.peer.id)
	if len(addrs) == 0 {
		return errors.New("no address")
	}
	addr := addrs[attempt%len(addrs)]
	var wg sync.WaitGroup
	errs := make([]error, len(b.classes))
	for i, class := range b.classes {
		wg.Go(func() {
			if errs[i] = b.dialOne(ctx, s, class, addr); errs[i] != nil {
				cancel() // the others are of no use
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

// dialOne makes one connection and installs it.
func (b *bundle) dialOne(ctx context.Context, s session, class wire.Class, addr string) error {
	raw, err := b.opt().Dial(ctx, addr)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	c, err := b.greet(ctx, raw, s, class)
	if !stop() { // closed meanwhile, whatever came of it
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		return fmt.Errorf("%s: %w", addr, err)
	}
	b.install(s.number, c)
	return nil
}

// greet says Hello and hears whether it is welcome.
func (b *bundle) greet(ctx context.Context, raw net.Conn, s session, class wire.Class) (*conn, error) {
	opt := b.opt()
	c := &conn{bundle: b, class: class, raw: raw, net: raw, window: windows[class]}
	if !opt.Plain {
		c.gather = &gather{Conn: raw}
		t := tls.Client(c.gather, opt.TLS.ClientConfig(protocolPeer, pki.Name{Cluster: opt.Cluster, Server: b.peer.id}))
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		c.net = t
	}
	t0 := opt.Clock.Now()
	hello := b.peer.all.greeting(b.peer.id, class)
	hello.Session = s.number
	if err := say(c.net, &wire.Message{Kind: wire.Hello, Sent: t0, Body: hello.append(nil)}); err != nil {
		return nil, err
	}
	var m wire.Message
	g, err := hear(c.net, &m, wire.Welcome)
	if err != nil {
		return nil, err
	}
	c.offsets.sample(m.At, m.Sent, opt.Clock.Now())
	if g.Refusal != welcome {
		return nil, fmt.Errorf("server %d %w", b.peer.id, g.Refusal)
	}
	if why := b.peer.all.acceptable(&g, b.peer.id, class); why != welcome {
		return nil, fmt.Errorf("server %d %v", b.peer.id, why)
	}
	if err := b.learn(s.number, g.Incarnation); err != nil {
		return nil, err
	}
	c.incarnation, c.release, c.queue = g.Incarnation, g.Release, newQueue(int64(g.Window))
	return c, say(c.net, &wire.Message{Kind: wire.Ready, Sent: opt.Clock.Now(), At: m.Sent})
}
