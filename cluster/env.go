package cluster

import (
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/journal/vfs"
	"petal/placement"
)

// Env is what a node takes from the machine that it runs on. Open makes the
// real one; a simulator hands in its own, and then nothing of the node touches
// the machine.
type Env struct {
	FS     vfs.FS     // the node's own directory
	Bricks []BrickEnv // as many as Options.Bricks
	Clock  times.Clock
	Times  times.Times
	Wall   func() time.Time // for what people read: when a disk was created
	Rand   func([]byte)     // fills b with random bytes: ids, keys
	// Transport makes the node's connections to others; nil: it has none and
	// is alone. It is called once, before the node has an incarnation.
	Transport func(self placement.Server, h Handler) (Transport, error)
	// Manual: no goroutine is started, and whoever owns the node calls Step
	// until it reports that there is nothing to do.
	Manual bool
}

// BrickEnv is where a brick is kept.
type BrickEnv struct {
	FS    vfs.FS
	MapFS pebblefs.FS // nil: the real file system, at Path/map
	Path  string
}

// Peer is another server of the cluster and where it listens.
type Peer struct {
	Server    placement.Server
	Name      string
	Addresses []string // host:port
}

// Transport carries messages between servers. Methods never block and never
// call back.
type Transport interface {
	// Send copies what it needs of m and keeps references to its data. It
	// reports false if there is no connection or no room in its queue.
	Send(to placement.Server, m *wire.Message) bool
	// SetPeers says who there is. Connections to others end.
	SetPeers([]Peer)
	// SetIncarnation gives the process its incarnation, once: until then only
	// messages of the raft class are carried.
	SetIncarnation(uint64)
	Close() error
}

// Handler is what a Transport tells. Calls for one peer come one at a time.
type Handler interface {
	// Receive gets a message. Its data are lent until it returns, unless they
	// are retained. incarnation is the sender's, 0 in the raft class before it
	// has one.
	Receive(from placement.Server, incarnation uint64, m *wire.Message)
	// Up: data connections to peer are there. Down: they are lost, with
	// everything under way on them.
	Up(peer placement.Server, incarnation uint64)
	Down(peer placement.Server)
}
