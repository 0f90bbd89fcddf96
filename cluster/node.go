package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/replica"
	"petal/cluster/slab"
	"petal/placement"
)

// Node is one server of the cluster: its part of the agreed state, its brick,
// its membership of links, and the volumes it coordinates. Methods are safe for
// concurrent use.
//
//	OpenWith -> agreed state readable -> Start agreed on -> brick open -> serving
//	              (a majority)           (incarnation)      (witnessed)
//
// Everything runs by callbacks of the parts; a Manual node has no goroutine.
type Node struct {
	opt   Options
	env   Env
	self  placement.Server
	group *meta.Group
	seal  *meta.Sealer
	key   [32]byte
	pool  *slab.Pool
	cache *cache.Cache
	net   Transport // nil: alone
	coord *coordinator

	began  time.Duration
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	state  atomic.Pointer[meta.State]
	store  atomic.Pointer[storage]    // once it is open
	heard  atomic.Pointer[meta.Group] // group, once messages may be taken: the transport is there before

	flushing atomic.Int64 // since when the brick has been asked for a flush; 0: it is not

	resizing sync.Mutex // one UpdateDisk at a time; never taken under mu
	applying sync.Mutex // what the member is told, in one order; taken before mu
	up       peerTable
	busy     sync.WaitGroup // what waits for the disk

	mu          sync.Mutex
	phase       phase
	incarnation uint64
	recovery    time.Duration
	failure     error
	closed      bool
	ready       chan struct{} // closed when the node serves or has failed
	watchers    []func(*meta.State)
	onLease     []func(bool)
	onReach     []func()
	lost        []placement.Server // for whose sake the portals are closed: see cutoff.go
	lease       lease
	leased      bool // as was told last
	volumes     map[meta.ID]*Volume
	reserves    map[meta.ID]*Reservations
	freeing     map[placement.Family]bool // families whose space is being freed here
	routes      map[uint32]*routes        // by gmap
	members     []Peer                    // as the transport knows them
	barriers    barriers
	refused     map[string]time.Duration // what tellRefused has told, and when
	sessions    sessionCounts
}

// phase says how far a start has come.
type phase uint8

const (
	asking   phase = iota // for a state that is up to date
	starting              // an incarnation is being agreed on
	opening               // the brick recovers
	serving
)

// lease is what the group said last.
type lease struct {
	until time.Duration
	index uint64
}

// storage is a node's brick and what serves it.
type storage struct {
	brick   *brick.Brick
	replica *replica.Server
}

// OpenWith is Open in an environment of the caller's. It waits for nothing but
// the disk, and in a Manual one not even for that: the node serves when Started
// says so.
func OpenWith(opt Options, env Env) (*Node, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	if len(env.Bricks) != len(opt.Bricks) {
		return nil, fmt.Errorf("cluster: %d bricks in the environment, %d in the options", len(env.Bricks), len(opt.Bricks))
	}
	n := &Node{opt: opt, env: env, began: env.Clock.Now(), ready: make(chan struct{}), volumes: map[meta.ID]*Volume{}, reserves: map[meta.ID]*Reservations{},
		freeing: map[placement.Family]bool{}, routes: map[uint32]*routes{}, refused: map[string]time.Duration{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.state.Store(&meta.State{})
	if err := n.open(); err != nil {
		n.release()
		return nil, err
	}
	n.ask()
	if env.Manual || len(n.State().Servers()) > 1 || n.self != 1 {
		return n, nil
	}
	<-n.ready
	if err := n.Failed(); err != nil {
		n.Close(n.ctx)
		return nil, err
	}
	return n, nil
}

// open opens what needs nobody else.
func (n *Node) open() (err error) {
	id, err := readIdentity(n.env.FS)
	if err != nil {
		return err
	}
	if n.self = 1; id != nil {
		n.self = id.Server
	}
	if n.key, err = sealKey(n.env.FS, n.env.Rand); err != nil {
		return err
	}
	if n.seal, err = meta.NewSealer(n.key); err != nil {
		return err
	}
	n.pool = slab.New(n.opt.CacheBytes + n.opt.MemoryBytes)
	n.cache = cache.New(n.pool, n.opt.CacheBytes)
	if n.env.Transport != nil {
		if n.net, err = n.env.Transport(n.self, n); err != nil {
			return err
		}
	}
	n.coord = newCoordinator(n.self, n.pool, n.env.Clock, n.opt.Times, n.net)
	if err := n.openGroup(); err != nil {
		return err
	}
	n.renew()
	if id != nil && n.State().ClusterID() == (meta.ID{}) {
		n.setPeers(id.Peers)
	}
	return n.bootstrap(id)
}

func (n *Node) openGroup() (err error) {
	n.group, err = meta.OpenGroup(meta.Config{
		FS: n.env.FS, Dir: "meta", Self: n.self, Clock: n.env.Clock, Times: n.opt.Times, Transport: agreement{n}, Rand: n.random(), Wall: n.env.Wall,
		Manual: n.env.Manual, Healthy: n.healthy, OnLease: n.leaseChanged, Unreached: n.unreached, OnLive: n.liveChanged, OnFail: n.fail, Log: n.opt.Log,
	})
	if err != nil {
		return fmt.Errorf("agreed state: %w", err)
	}
	n.heard.Store(n.group)
	n.group.Watch(n.changed)
	n.changed(n.group.State())
	return nil
}

// random returns a source for what needs no secrecy.
func (n *Node) random() *rand.Rand {
	var seed [16]byte
	n.env.Rand(seed[:])
	return rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])))
}

// bootstrap begins a cluster where there is none: a fresh server that has not
// joined one.
func (n *Node) bootstrap(id *identity) error {
	if n.State().ClusterID() != (meta.ID{}) || id != nil {
		return nil
	}
	for i, b := range n.env.Bricks {
		super, err := brick.Peek(b.FS)
		if err == nil {
			return fmt.Errorf("brick %s: %w", n.opt.Bricks[i].Path, &meta.Error{Kind: meta.ErrInUse, Thing: fmt.Sprintf("brick %x of cluster %x", super.Brick, super.Cluster),
				Why: "the node's own state is empty", Advice: "start the node with the directory it had before (dir), or give it an empty brick directory"})
		}
		if !errors.Is(err, brick.ErrMissing) {
			return fmt.Errorf("brick %s: %w", n.opt.Bricks[i].Path, err)
		}
	}
	cluster := n.newID()
	kind := metapb.ServerKind_DATA
	if n.opt.Witness {
		kind = metapb.ServerKind_WITNESS
	}
	return n.group.Bootstrap(&metapb.Init{ClusterId: cluster[:], ServerName: n.opt.Name, Name: n.opt.ClusterName, Site: n.opt.Site, Kind: kind,
		Addresses: n.opt.addresses(), Portals: n.opt.Portals, Release: meta.Release, TimesPermille: n.opt.timesPermille()})
}

// newID returns a random UUID (RFC 9562 section 5.4).
func (n *Node) newID() (id meta.ID) {
	n.env.Rand(id[:])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// State returns the present agreed state, as far as it is known here.
func (n *Node) State() *meta.State { return n.state.Load() }

// Watch registers f to be called after every change of the state, in order. f
// must return soon and must not change the state itself.
func (n *Node) Watch(f func(*meta.State)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watchers = append(n.watchers, f)
}

// Started reports whether the node serves. Failed says why it never will, nil
// if it may or does.
func (n *Node) Started() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.phase == serving
}

// Failed returns why the node has stopped for good, or nil.
func (n *Node) Failed() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failure
}

// Ready is closed when the node serves or has failed.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Self is the server's number in the cluster.
func (n *Node) Self() placement.Server { return n.self }

// fail ends the node's service for good.
func (n *Node) fail(err error) {
	n.mu.Lock()
	first := n.failure == nil && !n.closed
	if first {
		n.failure = err
		if n.phase != serving {
			close(n.ready)
		}
	}
	n.mu.Unlock()
	if first {
		n.opt.Log.Error("the node has stopped serving", "error", err)
		n.tellLease()
	}
}

// Propose has the cluster agree on a command. It returns the state after it;
// everything here has seen it. Without a majority it fails after at most
// Times.Lease, and leaves it open whether the command will take effect.
func (n *Node) Propose(ctx context.Context, cmd *metapb.Command) (*meta.State, error) {
	return n.group.Propose(ctx, cmd)
}

// ProposeAsync is Propose for who must not wait.
func (n *Node) ProposeAsync(cmd *metapb.Command, done func(*meta.State, error)) {
	n.group.ProposeAsync(cmd, done)
}

// Step does a piece of a Manual node's work on its disks and reports whether
// there was any.
func (n *Node) Step() bool {
	did := n.group.Step()
	if s := n.store.Load(); s != nil && s.brick.Step() {
		did = true
	}
	return did
}
