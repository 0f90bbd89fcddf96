package peer

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"petal/cluster/wire"
)

// conn is one connection in use: a writer and a reader, and what they share. It
// belongs to a session of a bundle and ends with it.
type conn struct {
	bundle *bundle
	class  wire.Class
	raw    net.Conn // the socket: to close, at once and whatever goes on
	net    net.Conn // raw, or TLS over it
	gather *gather  // of TLS, whose records it puts together; nil: plain
	queue  *queue
	window int64 // what we let the peer send before we have handled any

	offsets     offsets // the reader's
	incarnation uint64  // of the peer
	release     string  // of the peer's program

	heard   time.Duration // when tick last saw that bytes had come, on our clock; the bundle's mutex
	heardOf uint64        // how many bytes it saw
	arrived int64         // bytes of messages that came; the reader's
	handled atomic.Int64  // those of them that were handled
	told    atomic.Int64  // of which the peer was told

	counters *counters   // of the bundle and class
	busy     atomic.Bool // the handler has a message: nothing is read meanwhile
}

var errSilent = errors.New("nothing heard")

// tick is called every now and then while the connection is in use, with the
// bundle's mutex held.
func (c *conn) tick(now time.Duration) error {
	if n := c.counters.recvBytes.Load(); n != c.heardOf || c.busy.Load() {
		c.heard, c.heardOf = now, n
	}
	if quiet := now - c.heard; quiet > c.bundle.opt().silence() {
		return fmt.Errorf("%w for %v", errSilent, quiet.Round(time.Millisecond))
	}
	c.queue.say(func(x *control) { x.ping = true })
	return nil
}

// ReturnRoom takes back what a handled message occupied, and tells the peer when
// a quarter of the window has come together. From any goroutine.
func (c *conn) ReturnRoom(bytes int) {
	handled := c.handled.Add(int64(bytes))
	told := c.told.Load()
	if handled-told < c.window/4 || !c.told.CompareAndSwap(told, handled) {
		return
	}
	c.queue.say(func(x *control) { x.credit, x.handled = true, max(x.handled, handled) })
}

// onControl handles a message about the connection.
func (c *conn) onControl(m *wire.Message, now time.Duration) error {
	switch m.Kind {
	case wire.Ping:
		c.queue.say(func(x *control) { x.pong, x.pongAt = true, m.Sent })
	case wire.Pong:
		c.offsets.sample(m.At, m.Sent, now)
	case wire.Credit:
		if !c.queue.allow(int64(m.Index)) {
			return fmt.Errorf("credit goes back to %d", m.Index)
		}
	default:
		return fmt.Errorf("%v on a connection in use", m.Kind)
	}
	return nil
}
