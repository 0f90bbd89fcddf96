package peer

import (
	"errors"
	"net"
	"sync"
)

// gather lies between TLS and the socket: TLS writes each record of 16 KiB by
// itself, and a system call costs more than a copy.
type gather struct {
	net.Conn

	mu    sync.Mutex // TLS may also write when it reads: alerts, new keys
	held  bool
	buf   []byte
	later func() // has flush called soon; nil, during the handshake: nobody does
}

var errUnsent = errors.New("too much to say about the connection itself")

// hold keeps what is written until flush.
func (g *gather) hold() {
	g.mu.Lock()
	g.held = true
	g.mu.Unlock()
}

// flush writes what was held.
func (g *gather) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	return g.empty()
}

func (g *gather) empty() error {
	if len(g.buf) == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.buf)
	g.drop(len(g.buf))
	return err
}

// try writes what was held, as far as the socket takes it at once, and reports
// whether that was all. What is left goes before anything else.
func (g *gather) try(write func([]byte) (int, error)) (all bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	n, err := write(g.buf)
	g.drop(n)
	return len(g.buf) == 0, err
}

// drop forgets the first n bytes.
func (g *gather) drop(n int) {
	if n < len(g.buf) {
		g.buf = g.buf[:copy(g.buf, g.buf[n:])]
		return
	}
	if g.buf = g.buf[:0]; cap(g.buf) > keepBytes {
		g.buf = nil
	}
}

// Write is TLS's. What is not held comes from its reader, which must not wait for
// the socket: it has TLS's own locks, which senders need.
func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.held:
	case g.later == nil:
		return g.Conn.Write(b)
	case len(g.buf) > keepBytes:
		return 0, errUnsent
	default:
		defer g.later()
	}
	g.buf = append(g.buf, b...)
	return len(b), nil
}
