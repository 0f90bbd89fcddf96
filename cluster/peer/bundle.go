package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// peer is a server and the two bundles of connections with it.
type peer struct {
	all    *Peers
	id     placement.Server
	bundle [2]*bundle // bundleData, bundleRaft
}

const (
	bundleData = 0
	bundleRaft = 1
)

// bundleOf says which bundle a class is of.
var bundleOf = [wire.Classes]int{
	wire.ClassReplicate: bundleData, wire.ClassRequest: bundleData, wire.ClassBackground: bundleData, wire.ClassRaft: bundleRaft,
}

var bundleClasses = [2][]wire.Class{
	bundleData: {wire.ClassReplicate, wire.ClassRequest, wire.ClassBackground},
	bundleRaft: {wire.ClassRaft},
}

// state of a bundle: see the package comment.
type state uint8

const (
	idle state = iota
	forming
	up
	closing
)

// session is one life of a bundle.
type session struct {
	number      uint64 // chosen by who dials; zero is none
	incarnation uint64 // of the peer
}

// bundle is connections that are up together or not at all.
//
// Invariant: alive counts goroutines of conns; state is idle only if alive is
// zero, no callback is under way and conns is empty.
type bundle struct {
	peer    *peer
	which   int
	classes []wire.Class

	haste chan struct{} // no need to wait before dialling again; holds one

	// ready are the connections that Send uses, nil unless up.
	ready [wire.Classes]atomic.Pointer[conn]

	counters [wire.Classes]counters

	mu      sync.Mutex
	state   state
	session session
	highest uint64 // incarnation that the peer has shown
	conns   []*conn
	alive   int
	changed chan struct{} // closed when state becomes idle, or the bundle is wanted; then another
	timer   times.Timer
	reason  error         // why the last session ended, or no next one came about
	since   time.Duration // up
	release string        // of the peer's program
	stopped bool
	resets  uint64
}

func newBundle(p *peer, which int) *bundle {
	return &bundle{peer: p, which: which, classes: bundleClasses[which], changed: make(chan struct{}), haste: make(chan struct{}, 1)}
}

func (b *bundle) opt() *Options { return &b.peer.all.opt }

// later reports whether s is of a later life of the peer than t.
func (b *bundle) later(s, t session) bool {
	// Raft has to work before a server has its incarnation. Session numbers
	// begin at the time of day, so they grow over restarts as a rule; if not,
	// the peer waits until the old session is found dead.
	if b.which == bundleData && s.incarnation != t.incarnation {
		return s.incarnation > t.incarnation
	}
	return s.number > t.number
}

var errLater = errors.New("a later session begins")

// admit makes room for a connection of session s, dialled by the peer. If s is
// later than what is there, that ends, and admit waits until all that it brought
// has been handled (R13).
func (b *bundle) admit(ctx context.Context, s session, class wire.Class) refusal {
	for {
		b.mu.Lock()
		switch {
		case b.stopped:
			b.mu.Unlock()
			return unknownServer
		case b.which == bundleData && s.incarnation < b.highest:
			b.mu.Unlock()
			return oldIncarnation
		case b.state == idle:
			b.begin(s)
			b.mu.Unlock()
			return welcome
		case b.session == s && b.state == forming && !b.has(class):
			b.mu.Unlock()
			return welcome
		case !b.later(s, b.session):
			b.mu.Unlock()
			return oldSession
		}
		changed := b.changed
		b.end(errLater)
		if b.state == idle { // it was forming only
			b.mu.Unlock()
			continue
		}
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return busy
		}
	}
}

// begin starts forming session s. Called with mu held and state idle.
func (b *bundle) begin(s session) {
	b.state, b.session = forming, s
	b.highest = max(b.highest, s.incarnation)
	b.timer = b.opt().Clock.AfterFunc(b.opt().handshake(), func() { b.fail(s, errors.New("not all connections came about in time")) })
}

func (b *bundle) has(class wire.Class) bool {
	return slices.ContainsFunc(b.conns, func(c *conn) bool { return c.class == class })
}

// learn gives a session that we dial the incarnation of who answered. All its
// connections have to be answered by the same one, and by none that we know a
// later one of.
func (b *bundle) learn(number, incarnation uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state != forming || b.session.number != number:
		return errLater
	case b.which == bundleData && incarnation < b.highest:
		return fmt.Errorf("answered by incarnation %d, but there has been %d", incarnation, b.highest)
	case b.session.incarnation != 0 && b.session.incarnation != incarnation:
		return fmt.Errorf("answered by incarnations %d and %d", b.session.incarnation, incarnation)
	}
	b.session.incarnation, b.highest = incarnation, max(b.highest, incarnation)
	return nil
}

// install adds a connection to the session that is forming. With the last one
// the bundle is up. If the session is no more, the connection is closed.
func (b *bundle) install(number uint64, c *conn) {
	b.mu.Lock()
	if b.stopped || b.state != forming || b.session.number != number || b.session.incarnation != c.incarnation || b.has(c.class) {
		b.mu.Unlock()
		c.raw.Close()
		return
	}
	c.counters = &b.counters[c.class]
	b.conns = append(b.conns, c)
	if len(b.conns) < len(b.classes) {
		b.mu.Unlock()
		return
	}
	b.timer.Stop()
	b.state, b.reason, b.since, b.release = up, nil, b.opt().Clock.Now(), c.release
	s, conns := b.session, slices.Clone(b.conns)
	b.alive = 2 * len(conns)
	for _, c := range conns {
		c.heard, c.heardOf = b.since, c.counters.recvBytes.Load()
		b.ready[c.class].Store(c)
	}
	b.mu.Unlock()
	b.rise(s, conns)
}

// rise tells that the bundle is up and sets its goroutines going. Nothing is
// received before the handler knows.
func (b *bundle) rise(s session, conns []*conn) {
	b.opt().Log.Info("connected", "peer", b.peer.id, "bundle", b.name(), "incarnation", s.incarnation)
	for _, c := range conns {
		go b.run(s, c.write)
	}
	if b.which == bundleData {
		b.opt().Handler.Up(b.peer.id, s.incarnation)
	} else {
		b.peer.bundle[bundleData].hurry() // who talks raft again can be reached
	}
	for _, c := range conns {
		go b.run(s, c.read)
	}
	b.tick(s)
}

// run is a goroutine of a connection.
func (b *bundle) run(s session, f func() error) {
	b.fail(s, f())
	b.mu.Lock()
	b.alive--
	last := b.alive == 0
	reason := b.reason
	b.mu.Unlock()
	if !last {
		return
	}
	b.opt().Log.Warn("disconnected", "peer", b.peer.id, "bundle", b.name(), "reason", reason)
	if b.which == bundleData {
		b.opt().Handler.Down(b.peer.id)
	}
	b.mu.Lock()
	b.rest()
	b.mu.Unlock()
}

// rest makes the bundle idle. Called with mu held.
func (b *bundle) rest() {
	b.state, b.session, b.conns = idle, session{}, nil
	b.wakeAll()
}

func (b *bundle) wakeAll() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// fail ends session s, if it has not ended.
func (b *bundle) fail(s session, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session.number == s.number {
		b.end(why)
	}
}

// end closes the connections of the present session: those of one that is up
// end by themselves then. Called with mu held.
func (b *bundle) end(why error) {
	if b.state == idle || b.state == closing {
		return
	}
	b.reason = why
	b.timer.Stop()
	for _, c := range b.conns {
		b.ready[c.class].Store(nil)
		c.queue.close()
		c.raw.Close()
	}
	if b.state == forming {
		b.rest()
		return
	}
	b.state = closing
	b.resets++
}

// tick looks after a session that is up.
func (b *bundle) tick(s session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != up || b.session != s {
		return
	}
	now := b.opt().Clock.Now()
	for _, c := range b.conns {
		if err := c.tick(now); err != nil {
			b.end(err)
			return
		}
	}
	b.timer = b.opt().Clock.AfterFunc(b.opt().pingEvery(), func() { b.tick(s) })
}

// send queues a message.
func (b *bundle) send(class wire.Class, m *wire.Message) bool {
	c := b.ready[class].Load()
	if c == nil {
		return false
	}
	switch c.queue.push(m) {
	case queued:
		return true
	case overfull:
		if b.which == bundleData { // raft can do without a message
			b.mu.Lock()
			if slices.Contains(b.conns, c) {
				b.end(fmt.Errorf("%v: more than %d bytes or %d messages wait to be sent", class, queueBytesMax, queueMessagesMax))
			}
			b.mu.Unlock()
		}
	}
	return false
}

// stop ends the bundle for good and waits until nothing of it is under way.
func (b *bundle) stop() {
	b.mu.Lock()
	b.stopped = true
	b.end(errors.New("no longer a peer"))
	b.wakeAll()
	for b.state != idle {
		changed := b.changed
		b.mu.Unlock()
		<-changed
		b.mu.Lock()
	}
	b.mu.Unlock()
}

func (b *bundle) name() string {
	if b.which == bundleRaft {
		return "raft"
	}
	return "data"
}
