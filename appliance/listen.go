package appliance

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"petal/appliance/config"
)

// problem is an error that says what to do about it.
type problem struct {
	error
	advice string
}

func (p problem) Hint() string  { return p.advice }
func (p problem) Unwrap() error { return p.error }

// listeners are the sockets of the portals, in their order.
type listeners []net.Listener

func (ls listeners) close() {
	for _, l := range ls {
		l.Close()
	}
}

// bindPortals opens all portals or none. Nobody is served yet: the kernel lets
// early initiators wait.
func bindPortals(portals []config.Portal) (ls listeners, err error) {
	for i, p := range portals {
		l, err := net.Listen("tcp", p.Listen)
		if err != nil {
			ls.close()
			return nil, listenProblem(fmt.Sprintf("portal[%d]", i), p.Listen, err)
		}
		ls = append(ls, l)
	}
	return ls, nil
}

// fewConnections is a listener that closes what comes while as many connections
// are open as free has room for.
type fewConnections struct {
	net.Listener
	free chan struct{}
}

func (l *fewConnections) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &countedConn{Conn: c, done: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			c.Close()
		}
	}
}

type countedConn struct {
	net.Conn
	done func()
}

func (c *countedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}

func listenProblem(key, address string, err error) error {
	host, port, _ := net.SplitHostPort(address)
	advice := "choose another address"
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.EADDRINUSE:
			advice = fmt.Sprintf("another process listens there (`ss -ltnp sport = :%s` shows it); stop it or choose another port", port)
		case syscall.EADDRNOTAVAIL:
			advice = fmt.Sprintf("this machine has no address %s (`ip addr` shows those it has)", host)
		case syscall.EACCES:
			advice = "ports below 1024 need root or CAP_NET_BIND_SERVICE"
		}
		err = errno
	}
	return problem{fmt.Errorf("%s: cannot listen on %s: %w", key, address, err), advice}
}
