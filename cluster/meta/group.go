package meta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/cluster/times"
	"petal/journal"
	"petal/journal/vfs"
	"petal/placement"

	"go.etcd.io/raft/v3"
)

// Transport carries messages to other servers. Send must not block and must not
// call the group; it reports false if the message surely won't arrive. It may
// keep body, which has at most MaxMessage bytes. Messages may get lost, be
// doubled, or overtake each other.
type Transport interface {
	Send(to placement.Server, body []byte) bool
}

// MaxMessage is the greatest number of bytes of a message between groups.
const MaxMessage = 1 << 20

// Config is what a group is made of.
type Config struct {
	FS        vfs.FS
	Dir       string // of log and snapshot; the group's alone
	Self      placement.Server
	Clock     times.Clock
	Times     times.Times
	Transport Transport
	Rand      *rand.Rand       // for election timeouts
	Wall      func() time.Time // the calendar: for the times in commands, and to see jumps; may be nil
	// Manual runs no goroutine: the owner calls Step until it reports false
	// whenever something may have happened.
	Manual bool
	// Background runs f some time later, for files that are written whole; nil: at
	// once, by whoever called the group.
	Background func(f func())
	// Healthy is asked before each renewal of the lease: a server whose disk or
	// event loop stands still must lose it. nil: always.
	Healthy func() bool
	// OnLease is called with each change of the lease, in order with the watchers:
	// those have seen the state that the lease counts from (R5, M15). until is by
	// Clock; 0 says that it has lapsed or was given back. Every lapse is followed
	// by a new version of the server's links before the next lease.
	OnLease func(until time.Duration, index uint64)
	// Unreached is asked before each renewal which servers with data live, and have
	// not been reached for a while. nil: none.
	Unreached func() []placement.Server
	// OnLive is called with grants, but not with a new leader's first ones: these servers had a lease a moment ago, by
	// the leader's word; better if one of them reaches all and has data, while this
	// one does not reach all. That is a hint: any of them may have died since.
	OnLive func(servers []placement.Server, better bool)
	// OnFail is called once if the group fails for good: its log, or what it was
	// told by others makes no sense.
	OnFail func(error)
	Log    *slog.Logger

	segment, capacity int64 // of the log, for tests
}

// Group is a server's part in the cluster's agreement: raft, the state that it
// agrees on, and the server's lease. It has no goroutine of its own: it runs on
// those who call it, on the clock's, and on the log's committer. Methods are
// safe for concurrent use. Callbacks are called one at a time, in order, and
// never under the group's lock; they may call the group, but must not wait for
// it.
//
//	Propose --> leader --> log of each voter, durable --> apply --> watchers --> done
//	Renew   --> leader --> quorum round (ReadIndex)   --> Grant --> applied? --> OnLease
type Group struct {
	cfg  Config
	lock io.Closer
	log  *journal.Journal

	state atomic.Pointer[State]
	lease atomic.Pointer[leaseView] // as watchers know it

	mu       sync.Mutex
	rn       *raft.RawNode
	storage  *storage
	view     *State // what is applied; state follows when the watchers have seen it
	failed   error
	closed   bool
	out      []func() // to call in order, without mu
	draining bool
	watchers []func(*State)
	told     *State   // the last view that was given to the watchers
	answers  []func() // to proposers, once the watchers have seen the view
	timer    times.Timer

	wal        wal
	election   election
	proposals  proposals
	reads      reads
	mine       ownLease
	leader     leadership
	dead       map[placement.Server]uint64 // processes that were reported to have ended, the last of each server
	sends      map[placement.Server]*snapshotSend
	receipt    *snapshotReceipt
	snapshotID uint64
}

// OpenGroup opens the group in a directory, or makes it there if the directory is
// empty: then it takes part in nothing until Bootstrap, or until a leader that
// knows of it sends it the state. What one node alone wrote before there were
// clusters becomes a cluster of one voter. Damage is an error (ErrRotten), never
// a smaller state.
func OpenGroup(cfg Config) (*Group, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	g := &Group{cfg: cfg, dead: map[placement.Server]uint64{}}
	if err := g.load(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	g.begin()
	g.unlock()
	return g, nil
}

func (c *Config) check() error {
	switch {
	case c.FS == nil || c.Dir == "" || c.Self == 0 || c.Clock == nil || c.Transport == nil || c.Rand == nil:
		return errors.New("meta: incomplete config")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.segment == 0 {
		c.segment, c.capacity = walSegment, walCapacity
	}
	if c.Background == nil {
		c.Background = func(f func()) { f() }
	}
	return c.Times.Check()
}

// begin starts what runs by time, and, where nobody else votes, an election.
func (g *Group) begin() {
	g.armElection()
	g.election.led = g.now()
	g.mine.offset = g.wallOffset()
	conf := g.view.Conf()
	if len(conf.Voters) == 1 && conf.Voters[0] == g.cfg.Self && !conf.Joint() {
		g.raft(func() error { return g.rn.Campaign() })
	}
	g.timer = g.cfg.Clock.AfterFunc(g.cfg.Times.Tick, g.tick)
}

// Bootstrap makes a cluster of this server alone, which must be number 1 and
// whose directory must be fresh. The cluster exists durably on return.
func (g *Group) Bootstrap(c *metapb.Init) error {
	g.mu.Lock()
	defer g.unlock()
	switch {
	case g.failed != nil:
		return g.failed
	case g.view.clusterID != (ID{}) || g.view.index != 0:
		return refuse(ErrExists, "cluster", "this server is a member of one", "")
	case g.cfg.Self != 1:
		return fmt.Errorf("meta: server %d can't begin a cluster", g.cfg.Self)
	}
	cmd := &metapb.Command{Kind: &metapb.Command_Init{Init: c}, UnixMs: g.unixMs()}
	s, err := apply(g.view, cmd)
	if err != nil {
		return err
	}
	s.conf = Conf{Voters: []placement.Server{1}}
	s.term, s.index = 1, 1
	if err := writeSnapshot(g.cfg.FS, g.cfg.Dir, s); err != nil {
		return g.fail(fmt.Errorf("meta: snapshot: %w", err))
	}
	if err := g.restart(s); err != nil {
		return g.fail(err)
	}
	g.raft(func() error { return g.rn.Campaign() })
	return nil
}

// State returns the applied state that all watchers have seen. It does not block.
func (g *Group) State() *State { return g.state.Load() }

// Watch registers f to be called after the state has changed, with the newest
// one: changes that came together are told together.
func (g *Group) Watch(f func(*State)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers = append(g.watchers, f)
}

// Propose has the cluster agree on a command, from any member. It returns the
// state right after the command; this server's watchers have seen it, or a newer
// one. An *Error says that it was refused and changed nothing, ErrNoQuorum among
// them, which comes after at most Times.Lease and leaves it open whether the command
// will still take effect. cmd must not be changed afterwards.
func (g *Group) Propose(ctx context.Context, cmd *metapb.Command) (*State, error) {
	return await(ctx, func(done func(*State, error)) { g.ProposeAsync(cmd, done) })
}

// ReadIndex returns a state that is at least as new as anything that was
// agreed on, by anybody, before the call.
func (g *Group) ReadIndex(ctx context.Context) (*State, error) {
	return await(ctx, g.ReadIndexAsync)
}

func await(ctx context.Context, begin func(done func(*State, error))) (*State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		s   *State
		err error
	}
	c := make(chan result, 1)
	begin(func(s *State, err error) { c <- result{s, err} })
	select {
	case r := <-c:
		return r.s, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Receive takes a message of another server's group. It keeps body.
func (g *Group) Receive(from placement.Server, body []byte) {
	if len(body) > MaxMessage {
		return
	}
	var m metapb.Message
	if proto.Unmarshal(body, &m) != nil {
		return
	}
	g.enter(func() { g.receive(from, &m) })
}

// Step runs what a Manual group has to write, and reports whether there was
// anything.
func (g *Group) Step() bool { return g.log.Commit() }

// Err returns why the group has failed, or nil.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed
}

// Close ends the use of the directory. What was proposed and not answered gets
// an error. It calls no callback afterwards.
func (g *Group) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	g.timer.Stop()
	g.fail(errClosed)
	g.unlock()
	err := g.log.Close()
	return errors.Join(err, g.lock.Close())
}

var errClosed = errors.New("meta: closed")

// enter runs f under the lock, and then everything that follows from it.
func (g *Group) enter(f func()) {
	g.mu.Lock()
	if g.failed == nil {
		f()
	}
	g.unlock()
}

// unlock processes what raft wants done, lets go of the lock and calls what is
// to be called. Only one caller at a time does the latter, so that the order is
// kept.
func (g *Group) unlock() {
	g.pump()
	if g.draining {
		g.mu.Unlock()
		return
	}
	g.draining = true
	for len(g.out) > 0 {
		batch := g.out
		g.out = nil
		g.mu.Unlock()
		for _, f := range batch {
			f()
		}
		g.mu.Lock()
		g.pump()
	}
	g.draining = false
	g.mu.Unlock()
}

// later has f called without the lock, after everything before it.
func (g *Group) later(f func()) { g.out = append(g.out, f) }

// fail makes the group failed for good and returns why.
func (g *Group) fail(err error) error {
	if g.failed != nil {
		return g.failed
	}
	g.failed = err
	g.dropLease()
	g.failProposals(err)
	if err != errClosed {
		g.cfg.Log.Error("the group has failed", "error", err)
		if f := g.cfg.OnFail; f != nil {
			g.later(func() { f(err) })
		}
	}
	return err
}

// send gives a message to the transport, later.
func (g *Group) send(to placement.Server, m *metapb.Message) {
	body, err := proto.Marshal(m)
	if err != nil || len(body) > MaxMessage {
		g.cfg.Log.Error("a message can't be sent", "to", to, "bytes", len(body), "error", err)
		return
	}
	g.later(func() { g.cfg.Transport.Send(to, body) })
}

func (g *Group) now() time.Duration { return g.cfg.Clock.Now() }

// unixMs is the calendar's time, for commands.
func (g *Group) unixMs() int64 {
	if g.cfg.Wall == nil {
		return 0
	}
	return g.cfg.Wall().UnixMilli()
}

// tick is the group's heartbeat.
func (g *Group) tick() {
	g.enter(func() {
		g.tickRaft()
		g.tickProposals()
		g.tickReads()
		g.tickLease()
		g.tickSnapshots()
		g.tickLeader()
		g.timer = g.cfg.Clock.AfterFunc(g.cfg.Times.Tick, g.tick)
	})
}

// receive takes a message apart. Under mu.
func (g *Group) receive(from placement.Server, m *metapb.Message) {
	switch k := m.Kind.(type) {
	case *metapb.Message_Raft:
		g.receiveRaft(from, k.Raft, nil)
	case *metapb.Message_Renew:
		g.receiveRenew(from, k.Renew)
	case *metapb.Message_Grant:
		g.receiveGrant(from, k.Grant)
	case *metapb.Message_Propose:
		g.receivePropose(from, k.Propose)
	case *metapb.Message_Refused:
		g.receiveRefused(k.Refused)
	case *metapb.Message_Piece:
		g.receivePiece(from, k.Piece)
	case *metapb.Message_PieceAck:
		g.receivePieceAck(from, k.PieceAck)
	case *metapb.Message_Complaint:
		g.receiveComplaint(from, k.Complaint)
	case *metapb.Message_Release:
		g.receiveRelease(from, k.Release)
	case *metapb.Message_Death:
		if g.view.servers[from] != nil {
			g.receiveDeath(k.Death)
		}
	}
}
