package peer

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

// strangers are the connections of those who have not shown yet who they are. It
// bounds how many there are, in all and of one address, so that one who opens
// connections and says nothing keeps nobody else out.
type strangers struct {
	mu     sync.Mutex
	open   map[*stranger]struct{}
	of     map[netip.Addr]int
	closed bool
}

// stranger is the connection of one of them. It lets only so many bytes in.
type stranger struct {
	net.Conn
	addr  netip.Addr
	left  int // bytes that may still be read, -1: any number
	first []byte
}

func (s *strangers) init() {
	s.open, s.of = map[*stranger]struct{}{}, map[netip.Addr]int{}
}

// admit returns nil if there are too many.
func (s *strangers) admit(raw net.Conn) *stranger {
	x := &stranger{Conn: raw, left: strangerBytes}
	if addr, err := netip.ParseAddrPort(raw.RemoteAddr().String()); err == nil {
		x.addr = addr.Addr()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= strangersMax || s.of[x.addr] >= strangersPerAddress {
		return nil
	}
	s.open[x] = struct{}{}
	s.of[x.addr]++
	return x
}

// leave takes x out; its connection is somebody's now, or closed.
func (s *strangers) leave(x *stranger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, x)
	if s.of[x.addr]--; s.of[x.addr] == 0 {
		delete(s.of, x.addr)
	}
}

func (s *strangers) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for x := range s.open {
		x.Conn.Close()
	}
}

var errTalkative = errors.New("too many bytes from one who has not shown who it is")

// Read is the connection's, within what is left.
func (x *stranger) Read(b []byte) (int, error) {
	if len(x.first) > 0 {
		n := copy(b, x.first)
		x.first = x.first[n:]
		return n, nil
	}
	if x.left == 0 {
		return 0, errTalkative
	}
	if x.left > 0 && len(b) > x.left {
		b = b[:x.left]
	}
	n, err := x.Conn.Read(b)
	if x.left > 0 {
		x.left -= n
	}
	return n, err
}

// peek returns the first byte, which Read will return again.
func (x *stranger) peek() (byte, error) {
	b := make([]byte, 1)
	if _, err := x.Conn.Read(b); err != nil {
		return 0, err
	}
	x.first = b
	return b[0], nil
}

// trust lifts the limit.
func (x *stranger) trust() { x.left = -1 }
