package peer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"petal/cluster/peer/pki"
	"petal/cluster/slab"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// Handler is told what happens. Its methods are called from many goroutines, but
// for one peer's data classes in an order that makes sense: Up, then any Receive,
// then Down when every Receive has returned, then the next Up. Receive is called
// by one goroutine per connection, so in order for each class; what it waits for,
// that class waits for.
type Handler interface {
	// Receive takes a message; incarnation is the sender's (R1), 0 in the raft
	// class when it has none yet. The message is the handler's until it returns:
	// see wire.Message. Data have not been looked at: see wire.Message.Verify.
	Receive(from placement.Server, incarnation uint64, m *wire.Message)
	// Up: the data classes of peer are connected, to this incarnation of it.
	Up(peer placement.Server, incarnation uint64)
	// Down: they are not any more. What was sent since Up may be lost, and no
	// more of what the peer sent since then will come.
	Down(peer placement.Server)
}

// Peer is a server that there are to be connections with.
type Peer struct {
	Server placement.Server
	Addrs  []string // host:port, tried in order
	Name   string   // for the log
}

// Options of New. Cluster, Self, Pool and Handler are required, and TLS unless
// Plain.
type Options struct {
	Cluster     [16]byte
	Self        placement.Server
	Incarnation uint64 // 0: raft only, until Start
	Release     string // of this program

	// Listen are the addresses to be reached at, host:port; Listeners are used
	// besides, and closed by Close.
	Listen    []string
	Listeners []net.Listener

	// TLS is this server's identity. With Plain it serves for joining only and
	// may be nil.
	TLS *pki.Identity
	// Plain lets messages travel without encryption and takes a server for whom
	// it says it is. For networks that nobody else is on.
	Plain bool

	Pool    *slab.Pool
	Handler Handler
	Joiner  Joiner // nil: nobody joins through this server

	// Advertise is where others dial this server, host:port; empty: they know.
	Advertise string
	// Gone says of a server that is no member whether it was one; nil: only of
	// those that SetPeers has dropped this is known.
	Gone func(placement.Server) bool
	// Refused is told, in words, of connections that were refused though who made
	// them has to do with the cluster, or another one. From any goroutine; it must
	// return soon. nil: nobody is.
	Refused func(text string)

	Clock times.Clock // nil: the machine's
	Times times.Times // zero: the default
	Log   *slog.Logger

	// Dial connects to an address. nil: TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Limits.
const (
	// Windows: how many bytes of a class a receiver takes before it has handled
	// any (DESIGN J).
	windowForeground = 32 << 20
	windowBackground = 4 << 20

	// A queue longer than this, in bytes or messages, means that the peer does
	// not take what it is sent: the bundle is given up.
	queueBytesMax    = 64 << 20
	queueMessagesMax = 64 << 10

	// Before anybody has shown who they are: connections at a time, in all and
	// of one address, and bytes of each.
	strangersMax        = 128
	strangersPerAddress = 16
	strangerBytes       = 16 << 10
)

var windows = [wire.Classes]int64{
	wire.ClassReplicate: windowForeground, wire.ClassRequest: windowForeground,
	wire.ClassBackground: windowBackground, wire.ClassRaft: windowBackground,
}

func (o *Options) defaults() error {
	if o.Cluster == ([16]byte{}) || o.Self == 0 || o.Pool == nil || o.Handler == nil {
		return errors.New("peer: options without cluster, self, pool or handler")
	}
	if o.TLS == nil && !o.Plain {
		return errors.New("peer: a certificate is needed, or the explicit setting to go without encryption")
	}
	if o.Clock == nil {
		o.Clock = times.Real{}
	}
	if o.Times == (times.Times{}) {
		o.Times = times.Default()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	return nil
}

// silence is how long a connection may bring nothing before it counts as gone:
// until the lease of a server that died then has ended, there is nothing to gain.
// TCP_USER_TIMEOUT would see less, and too much: it does not hear that a stopped
// process says nothing, and ends a connection that is full for that long because
// its receiver is slow.
func (o *Options) silence() time.Duration { return o.Times.Lease }

// pingEvery is as often as leases are renewed.
func (o *Options) pingEvery() time.Duration { return o.Times.Renewal }

// handshake is the longest that a connection may take to be in use.
func (o *Options) handshake() time.Duration { return o.Times.Lease }

// inquiry is how long a server that should have been dialled waits, and then
// between its questions.
func (o *Options) inquiry() time.Duration { return o.Times.Lease / 2 }

// backoff between attempts to connect: the first and the longest.
func (o *Options) backoff() (first, most time.Duration) { return o.Times.Tick, o.Times.Election }
