package appliance

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// cut is a switch in all connections to other nodes. While it is on they carry
// nothing, either way, and none is closed: what a network looks like that has
// lost its middle. It is there to be played with (petal demo cut) and for tests.
type cut struct {
	healed atomic.Pointer[chan struct{}] // nil while it is off; closed when it goes off
}

// set turns it on or off.
func (c *cut) set(on bool) {
	if on {
		healed := make(chan struct{})
		c.healed.CompareAndSwap(nil, &healed)
	} else if old := c.healed.Swap(nil); old != nil {
		close(*old)
	}
}

// wait returns when the switch is off, or with an error when done is closed or
// the time has come.
func (c *cut) wait(done <-chan struct{}, deadline time.Time) error {
	healed := c.healed.Load()
	if healed == nil {
		return nil
	}
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-*healed:
		return nil
	case <-done:
		return net.ErrClosed
	case <-late:
		return os.ErrDeadlineExceeded
	}
}

// dial connects through the switch.
func (c *cut) dial(ctx context.Context, network, address string) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	if err := c.wait(ctx.Done(), deadline); err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return c.wrap(conn), nil
}

// listener takes connections through the switch.
func (c *cut) listener(l net.Listener) net.Listener { return &cutListener{l, c} }

type cutListener struct {
	net.Listener
	cut *cut
}

func (l *cutListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.cut.wrap(conn), nil
}

func (c *cut) wrap(conn net.Conn) net.Conn {
	return &cutConn{Conn: conn, cut: c, closed: make(chan struct{})}
}

// cutConn waits before and after each read, and before each write: what was
// under way when the cut was made arrives when it is healed, as it would from a
// switch that has lost its power, or never, if the connection is given up.
type cutConn struct {
	net.Conn
	cut    *cut
	once   sync.Once
	closed chan struct{}

	mu          sync.Mutex
	read, write time.Time // deadlines
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if waited := c.cut.wait(c.closed, c.deadline(&c.read)); waited != nil {
		return 0, waited
	}
	return n, err
}

func (c *cutConn) Write(b []byte) (int, error) {
	if err := c.cut.wait(c.closed, c.deadline(&c.write)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *cutConn) deadline(d *time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *d
}

func (c *cutConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.read, c.write = t, t
	c.mu.Unlock()
	return c.Conn.SetDeadline(t)
}

func (c *cutConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.read = t
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

func (c *cutConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.write = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}
