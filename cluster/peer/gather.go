package peer

import (
	"net"
	"sync"
)

// gather lies between TLS and the socket: TLS writes each record of 16 KiB by
// itself, and a system call costs more than a copy.
type gather struct {
	net.Conn

	mu   sync.Mutex // TLS may also write when it reads: alerts, new keys
	held bool
	buf  []byte
}

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
	_, err := g.Conn.Write(g.buf)
	if g.buf = g.buf[:0]; cap(g.buf) > keepBytes {
		g.buf = nil
	}
	return err
}

func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		g.buf = append(g.buf, b...)
		return len(b), nil
	}
	return g.Conn.Write(b)
}
