package peer

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"

	"petal/cluster/cache"
	"petal/cluster/peer/pki"
	"petal/cluster/slab"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

var clusterID = [16]byte{1, 2, 3}

// event is what a handler was told.
type event struct {
	what        string // "up", "down", or the name of a message's kind
	from        placement.Server
	incarnation uint64
	op          uint64
	data        []byte
	age         time.Duration
}

// recorder is a handler that keeps what it is told.
type recorder struct {
	t      testing.TB
	mu     sync.Mutex
	wake   chan struct{}
	events []event
	on     func(from placement.Server, m *wire.Message) // called before an event is kept
}

func newRecorder(t testing.TB) *recorder { return &recorder{t: t, wake: make(chan struct{}, 1)} }

func (r *recorder) add(e event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// more is how many events nobody has wanted.
func (r *recorder) more() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// handle has f called for each message from now on.
func (r *recorder) handle(f func(from placement.Server, m *wire.Message)) {
	r.mu.Lock()
	r.on = f
	r.mu.Unlock()
}

func (r *recorder) Receive(from placement.Server, incarnation uint64, m *wire.Message) {
	r.mu.Lock()
	on := r.on
	r.mu.Unlock()
	if on != nil {
		on(from, m)
	}
	var data []byte
	for i := range m.Data {
		data = append(data, m.Data[i].Bytes()...)
	}
	r.add(event{m.Kind.String(), from, incarnation, m.Op.Number, append(data, m.Body...), m.Age})
}

func (r *recorder) Up(peer placement.Server, incarnation uint64) {
	r.add(event{what: "up", from: peer, incarnation: incarnation})
}

func (r *recorder) Down(peer placement.Server) { r.add(event{what: "down", from: peer}) }

// patience is for what has to come about on real sockets.
const patience = 2 * time.Minute

// want waits for the next event that is of kind what, and returns it.
func (r *recorder) want(what string) event {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		for i, e := range r.events {
			if e.what == what {
				r.events = append(r.events[:i:i], r.events[i+1:]...)
				r.mu.Unlock()
				return e
			}
		}
		r.mu.Unlock()
		select {
		case <-r.wake:
		case <-deadline:
			r.t.Fatalf("no %q came; but %v", what, r.events)
		}
	}
}

// fleet is some servers in one process.
type fleet struct {
	t         testing.TB
	authority *pki.Authority
	plain     bool
	pool      *slab.Pool
	members   []Peer
	pipes     *pipes      // in a bubble; else nil: TCP
	clock     times.Clock // in a bubble
}

func newFleet(t testing.TB, plain bool) *fleet {
	a, err := pki.NewAuthority(clusterID)
	if err != nil {
		t.Fatal(err)
	}
	pool := slab.New(64 << 20)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fleet{t: t, authority: a, plain: plain, pool: pool}
}

// patient are intervals for real time: nobody counts as silent because the machine
// stands still.
func patient() times.Times {
	t := times.Default()
	t.Lease = 30 * time.Second
	return t
}

// options are those of server id, which listens on a free port, or at its pipe.
func (f *fleet) options(id placement.Server, incarnation uint64, h Handler) Options {
	identity, err := f.authority.Issue(pki.Name{Cluster: clusterID, Server: id}, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	opt := Options{Cluster: clusterID, Self: id, Incarnation: incarnation, TLS: identity, Plain: f.plain, Pool: f.pool, Handler: h, Times: patient()}
	if f.pipes != nil {
		own := pipeOf(id)
		opt.Listeners, opt.Dial = []net.Listener{f.pipes.listen(own)}, f.pipes.dialFrom(own)
		opt.Clock, opt.Times = f.clock, times.Default()
		return opt
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	opt.Listeners = []net.Listener{l}
	return opt
}

func (f *fleet) start(opt Options) *Peers {
	p, err := New(opt)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { p.Close() })
	f.members = append(f.members, Peer{Server: opt.Self, Addrs: []string{p.Addrs()[0].String()}})
	return p
}

// pair starts servers 1 and 2 and waits until both are up.
func (f *fleet) pair() (one, two *Peers, r1, r2 *recorder) {
	r1, r2 = newRecorder(f.t), newRecorder(f.t)
	one, two = f.start(f.options(1, 10, r1)), f.start(f.options(2, 20, r2))
	one.SetPeers(f.members)
	two.SetPeers(f.members)
	if e := r1.want("up"); e.from != 2 || e.incarnation != 20 {
		f.t.Fatalf("up: %+v", e)
	}
	if e := r2.want("up"); e.from != 1 || e.incarnation != 10 {
		f.t.Fatalf("up: %+v", e)
	}
	return one, two, r1, r2
}

// both runs a test with and without TLS.
func both(t *testing.T, f func(t *testing.T, plain bool)) {
	t.Run("tls", func(t *testing.T) { f(t, false) })
	t.Run("plain", func(t *testing.T) { f(t, true) })
}

// writeOf is a Write of n bytes of b.
func (f *fleet) writeOf(op uint64, b byte, n int) *wire.Message {
	buf := f.pool.Get(n)
	for i := range buf.Bytes() {
		buf.Bytes()[i] = b + byte(i>>8)
	}
	m := &wire.Message{Kind: wire.Write, Op: placement.OpID{Number: op}, Key: placement.Key{Family: 1, Node: 1}, To: uint32(n), Data: cache.Refs{{Buf: buf, Len: n}}}
	m.SetSums()
	return m
}

func TestMessagesArrive(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		f := newFleet(t, plain)
		began := time.Now()
		one, two, r1, r2 := f.pair()
		r2.handle(func(_ placement.Server, m *wire.Message) {
			if !m.Verify() {
				t.Errorf("%v: data damaged", m)
			}
		})
		for i, n := range []int{512, 4096, 8192, 65536, 4096, 65536} {
			m := f.writeOf(uint64(i), byte(i), n)
			data := bytes.Clone(m.Data[0].Bytes())
			if !one.Send(2, m) {
				t.Fatal("not sent")
			}
			m.Data.Release()
			e := r2.want("write")
			if e.from != 1 || e.incarnation != 10 || e.op != uint64(i) || !bytes.Equal(e.data, data) {
				t.Fatalf("got %v from %d, %d bytes", e.op, e.from, len(e.data))
			}
			if took := time.Since(began); e.age > took { // at most what the first ping took too old
				t.Errorf("age %v after %v", e.age, took)
			}
		}
		for _, n := range []int{0, 1, 1000, 60 << 10, 200 << 10, wire.MaxBody} {
			body := bytes.Repeat([]byte{byte(n)}, n)
			eventually(t, func() bool { return two.Connected(1, wire.ClassRaft) })
			if !two.Send(1, &wire.Message{Kind: wire.Raft, Body: body}) {
				t.Fatal("not sent")
			}
			if e := r1.want("raft"); !bytes.Equal(e.data, body) {
				t.Fatalf("%d bytes of body, not %d", len(e.data), n)
			}
		}
	})
}

// eventually waits for what has no event of its own.
func eventually(t testing.TB, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("did not come about")
		}
	}
}
