package peer

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// bubbleClock is the time of the test's bubble (see testing/synctest).
type bubbleClock struct{ begin time.Time }

func (c bubbleClock) Now() time.Duration { return time.Since(c.begin) + time.Hour }
func (bubbleClock) AfterFunc(d time.Duration, f func()) times.Timer {
	return time.AfterFunc(max(d, 1), f) // see cluster's virtualClock
}

// pipes is a network of net.Pipes, in which time is virtual. While it is cut,
// nothing passes and nobody hears of it.
type pipes struct {
	mu      sync.Mutex
	servers map[string]*pipeListener
	cut     chan struct{} // closed when whole again; nil: whole
	dials   int
}

func (n *pipes) setCut(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case on && n.cut == nil:
		n.cut = make(chan struct{})
	case !on && n.cut != nil:
		close(n.cut)
		n.cut = nil
	}
}

// wait returns when the network is whole, or done is closed.
func (n *pipes) wait(done <-chan struct{}) error {
	n.mu.Lock()
	cut := n.cut
	n.mu.Unlock()
	if cut == nil {
		return nil
	}
	select {
	case <-cut:
		return nil
	case <-done:
		return net.ErrClosed
	}
}

func (n *pipes) listen(name string) net.Listener {
	l := &pipeListener{net: n, name: name, conns: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.servers == nil {
		n.servers = map[string]*pipeListener{}
	}
	n.servers[name] = l
	return l
}

// dialFrom returns what dials from an address.
func (n *pipes) dialFrom(own string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, name string) (net.Conn, error) { return n.dial(ctx, own, name) }
}

func (n *pipes) dial(ctx context.Context, own, name string) (net.Conn, error) {
	if err := n.wait(ctx.Done()); err != nil {
		return nil, err
	}
	n.mu.Lock()
	l := n.servers[name]
	n.dials++
	n.mu.Unlock()
	if l == nil {
		return nil, net.ErrClosed
	}
	a, b := net.Pipe()
	select {
	case l.conns <- &pipeConn{Conn: b, net: n, peer: pipeAddr(own), done: make(chan struct{})}:
		return &pipeConn{Conn: a, net: n, peer: pipeAddr(name), done: make(chan struct{})}, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	net   *pipes
	name  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return pipeAddr(l.name) }

type pipeAddr string

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return string(a) }

type pipeConn struct {
	net.Conn
	net  *pipes
	peer pipeAddr
	done chan struct{}
	once sync.Once
}

func (c *pipeConn) RemoteAddr() net.Addr { return c.peer }

func (c *pipeConn) Write(b []byte) (int, error) {
	if err := c.net.wait(c.done); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *pipeConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// bubble runs a test with servers on a network of pipes, in virtual time: what is
// measured is exact, and no machine is too slow. The test has to leave all closed.
func bubble(t *testing.T, plain bool, test func(f *fleet)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, plain)
		f.pipes, f.clock = &pipes{}, bubbleClock{time.Now()}
		test(f)
	})
}

// bubbleOfTwo is a bubble for servers 1 and 2, which know each other.
func bubbleOfTwo(t *testing.T, plain bool, test func(f *fleet, n *pipes, start func(id placement.Server, incarnation uint64) (*Peers, *recorder))) {
	bubble(t, plain, func(f *fleet) {
		test(f, f.pipes, func(id placement.Server, incarnation uint64) (*Peers, *recorder) {
			r := newRecorder(f.t)
			p := f.start(f.options(id, incarnation, r))
			p.SetPeers([]Peer{{Server: 1, Addrs: []string{pipeOf(1)}}, {Server: 2, Addrs: []string{pipeOf(2)}}})
			return p, r
		})
	})
}

// pipeOf is where a server of a bubble listens.
func pipeOf(id placement.Server) string { return fmt.Sprintf("10.0.0.%d:1", id) }

// pass lets virtual time go by.
func pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// TestSilentPeerIsDown: a network that swallows everything closes nothing. Both
// sides find out when a lease's time is over, to two looks, and connect again
// afterwards.
func TestSilentPeerIsDown(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		bubbleOfTwo(t, plain, func(f *fleet, n *pipes, start func(placement.Server, uint64) (*Peers, *recorder)) {
			_, r1 := start(1, 10)
			_, r2 := start(2, 20)
			r1.want("up")
			r2.want("up")
			pass(time.Minute) // nothing to say for a minute: still there
			if r1.more()+r2.more() > 0 {
				t.Fatalf("%v %v", r1.events, r2.events)
			}
			n.setCut(true)
			cut := time.Now()
			r1.want("down")
			r2.want("down")
			lease := times.Default().Lease
			if d := time.Since(cut); d < lease/2 || d > lease+2*times.Default().Renewal {
				t.Errorf("found out after %v", d)
			}
			pass(time.Minute)
			n.setCut(false)
			whole := time.Now()
			r1.want("up")
			r2.want("up")
			if d := time.Since(whole); d > 2*times.Default().Admission {
				t.Errorf("connected again after %v", d)
			}
		})
	})
}

// TestBusyHandlerIsNotSilence: who has a message for long hears nothing
// meanwhile, which is not the peer's fault.
func TestBusyHandlerIsNotSilence(t *testing.T) {
	bubbleOfTwo(t, true, func(f *fleet, n *pipes, start func(placement.Server, uint64) (*Peers, *recorder)) {
		_, r1 := start(1, 10)
		two, r2 := start(2, 20)
		r1.want("up")
		r2.want("up")
		r1.handle(func(placement.Server, *wire.Message) { pass(time.Minute) })
		two.Send(1, &wire.Message{Kind: wire.Read, To: 512})
		pass(2 * time.Minute)
		r1.want("read")
		if r1.more()+r2.more() > 0 {
			t.Errorf("%v %v", r1.events, r2.events)
		}
	})
}

// TestBackoff: a peer that is away is not dialled all the time.
func TestBackoff(t *testing.T) {
	bubbleOfTwo(t, true, func(f *fleet, n *pipes, start func(placement.Server, uint64) (*Peers, *recorder)) {
		start(2, 20)
		pass(time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.dials < 4*60 || n.dials > 4*60*5 {
			t.Errorf("%d attempts in a minute", n.dials)
		}
	})
}

// TestStartIsNotWaitedFor: when a server gets its incarnation the data classes
// are connected at once, whichever side dials, however long it took.
func TestStartIsNotWaitedFor(t *testing.T) {
	for _, late := range []placement.Server{1, 2} {
		bubbleOfTwo(t, false, func(f *fleet, n *pipes, start func(placement.Server, uint64) (*Peers, *recorder)) {
			peers, told := map[placement.Server]*Peers{}, map[placement.Server]*recorder{}
			for id, incarnation := range map[placement.Server]uint64{late: 0, 3 - late: 5} {
				peers[id], told[id] = start(id, incarnation)
			}
			pass(9700 * time.Millisecond)
			begin := time.Now()
			peers[late].Start(7)
			peers[late].Start(8) // does nothing
			if e := told[3-late].want("up"); e.incarnation != 7 {
				t.Errorf("%+v", e)
			}
			told[late].want("up")
			if d := time.Since(begin); d > 0 {
				t.Errorf("server %d: connected %v after its start", late, d)
			}
		})
	}
}

// TestBackInTouch: when a server that was away is back, data are connected as
// soon as raft is.
func TestBackInTouch(t *testing.T) {
	bubbleOfTwo(t, false, func(f *fleet, n *pipes, start func(placement.Server, uint64) (*Peers, *recorder)) {
		one, _ := start(1, 10)
		_, r2 := start(2, 20)
		r2.want("up")
		one.Close()
		r2.want("down")
		pass(time.Minute)
		_, r1 := start(1, 11)
		begin := time.Now()
		r1.want("up")
		r2.want("up")
		if d := time.Since(begin); d > times.Default().Election {
			t.Errorf("connected after %v", d)
		}
	})
}

// TestStranger: who connects and says nothing, or little by little, is cut off
// when a handshake's time is over.
func TestStranger(t *testing.T) {
	for _, every := range []time.Duration{0, 100 * time.Millisecond} {
		bubbleOfTwo(t, false, func(f *fleet, n *pipes, start func(placement.Server, uint64) (*Peers, *recorder)) {
			start(1, 10)
			c, err := n.dial(context.Background(), "stranger", pipeOf(1))
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			var wg sync.WaitGroup
			if every != 0 {
				wg.Go(func() {
					hello := []byte{tlsRecord, 3, 1, 2, 0, 1, 0, 1, 0xfc}
					for i := 0; ; i++ {
						b := byte(0)
						if i < len(hello) {
							b = hello[i]
						}
						if _, err := c.Write([]byte{b}); err != nil {
							return
						}
						pass(every)
					}
				})
			}
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("an answer")
			}
			if d := time.Since(begin); d < times.Default().Lease || d > times.Default().Lease+time.Second {
				t.Errorf("cut off after %v", d)
			}
			c.Close()
			wg.Wait()
		})
	}
}
