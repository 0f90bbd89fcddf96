package replica

import (
	"log/slog"
	"time"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// Store is what a Server asks of a brick.
type Store interface {
	Append(*brick.Record) error
	Commit(*brick.Record)
	Abandon(*brick.Record, func(error))
	Read(*brick.ReadOp)
	Prefetch(placement.Family, []placement.Node, placement.Chunk)
	Provisioned(placement.Family, []placement.Node, placement.Chunk) (placement.Mask, error)
	Mapped(f placement.Family, from, last placement.Chunk, dst []placement.Chunk) ([]placement.Chunk, error)
	Flush(func(error))
	Usage(placement.Family) int64
	Space() (used, avail, total uint64)
	Failed() error
}

var _ Store = (*brick.Brick)(nil)

// Transport carries messages to other servers. Send copies what it needs of m
// before it returns; it never blocks, never calls back, and reports false if
// there is no connection or no room. Messages of one class arrive in the order
// of the calls, or not at all from a break on until Down and Up have been told.
type Transport interface {
	Send(to placement.Server, m *wire.Message) bool
}

// Config of a Server. Self, Incarnation, Store, Pool, Clock, Times and Propose
// are required; Transport too, unless all links have one member.
type Config struct {
	Self        placement.Server
	Incarnation uint64
	Store       Store
	Recovery    *brick.Recovery // what opening the brick has found; nil: nothing
	Pool        *slab.Pool
	Cache       *cache.Cache // the brick's, if it has one
	Clock       times.Clock
	Times       times.Times
	Transport   Transport
	// Propose asks for a change of what is agreed (package meta). It is called
	// again until the change shows in Apply, so an attempt may fail silently. It
	// must not block or call back.
	Propose func(Proposal)
	Log     *slog.Logger // default: none

	// LazyBytes bounds the memory of writes that were acknowledged before they
	// are durable; default 64 MiB. Beyond it writes wait for the disk.
	LazyBytes int64
	// FillRate bounds the copying of missing blocks, in bytes per second, over
	// all links; default 50 MB/s, negative: no bound. See SetFillRate.
	FillRate int64
}

// Proposal is a change that a Server wants to be agreed upon.
type Proposal struct {
	Kind   ProposalKind
	Link   placement.LinkID
	Member placement.Member
	Ver    uint64 // of the link, for which the proposal is made: void under any other
}

// ProposalKind says what is proposed.
type ProposalKind uint8

const (
	// Rejoined: Member has all that it needs to be in sync again, but for blocks
	// that it knows to be missing (R9). By the head.
	Rejoined ProposalKind = iota + 1
	// Filled: Member, this server, misses no block any more.
	Filled
	// Complain: the head has not been able to replicate to Member for
	// Times.Complain (DESIGN A.2).
	Complain
)

var proposalNames = [...]string{Rejoined: "rejoined", Filled: "filled", Complain: "complain"}

func (k ProposalKind) String() string {
	if int(k) < len(proposalNames) && proposalNames[k] != "" {
		return proposalNames[k]
	}
	return "unknown"
}

// LinkVer is a link under a version of its configuration.
type LinkVer struct {
	Link placement.LinkID
	Ver  uint64
}

// MappedChunk is a chunk and which of its blocks hold data, or are missing here.
type MappedChunk struct {
	Chunk placement.Chunk
	Mask  placement.Mask
}

// LinkStatus is how a link is, seen by one of its members.
type LinkStatus struct {
	Link    placement.LinkID
	Members []placement.Server
	Self    placement.Member
	placement.Config
	Filling placement.Members
	Serving bool // open under Ver and, as far as is known, leased
	State   string

	InFlight int           // operations that are not committed
	Marks    uint64        // blocks that members which are out will lack, counted here
	Missing  uint64        // blocks that are missing here
	Copied   uint64        // blocks copied to here since the last rejoin
	Rate     uint64        // bytes per second of the copying at present
	Joining  int           // buckets of a rejoining member that are not cut yet, -1: none is joining
	Since    time.Duration // of Ver, on the Clock
}

// Server is the member side of all links of one server.
type Server struct {
	c Config
}

// New returns a Server that serves nothing until Apply and SetLease have told
// it what is agreed. It takes over what is in Config.Recovery.
func New(c Config) *Server { return &Server{c: c} }

// Do carries out an operation; op.Done tells how it ended.
func (s *Server) Do(op *Op) {
	op.Result = Result{Status: wire.NotReady}
	op.Done(op)
}

// Cancel ends the operation id on a chunk for good (R12). done gets OK: it had
// taken effect or will have before done is called; Canceled: it never did and
// never will, here or on any other member; else NotReady, NoLease or Redirect
// with the server to ask instead: nothing is known.
func (s *Server) Cancel(id placement.OpID, key placement.Key, done func(st wire.Status, head placement.Server)) {
	done(wire.NotReady, 0)
}

// Receive takes a message of another server, of the kinds of the classes
// replicate, request and background, that a member is asked. It does not keep
// m; replies to a coordinator (Reply, CancelReply, MappedReply, FlushReply) are
// not for it.
func (s *Server) Receive(from placement.Server, incarnation uint64, m *wire.Message) {}

// Up tells that messages can be sent to a server's process, Down that what was
// under way to it and from it is lost. They alternate; Up comes before any
// message of the connection, Down after the last.
func (s *Server) Up(peer placement.Server, incarnation uint64) {}

// Down: see Up.
func (s *Server) Down(peer placement.Server) {}

// SetLease tells until when this server holds a lease, and the raft index from
// which on that counts (R5); until 0: it has none.
func (s *Server) SetLease(until time.Duration, index uint64) {}

// Barrier calls done when no operation on the virtual disk at (family, node)
// that was admitted under a VVer below vver can newly take effect through this
// server: it refuses them from its Apply of vver on, and those that it had
// admitted are committed. done gets the gmap's links that this server is a
// member of, with the Ver under which that holds. It is called once, or never
// if the cluster's state moves on first.
func (s *Server) Barrier(family placement.Family, node placement.Node, vver uint64, done func([]LinkVer)) {
}

// Mapped calls done with the chunks of a link from..last, at most max, that
// hold data of the family or miss some, in ascending order. The status is
// Do's of a Read.
func (s *Server) Mapped(link placement.LinkID, key placement.Key, last placement.Chunk, max int, done func([]MappedChunk, wire.Status)) {
	done(nil, wire.NotReady)
}

// Flush calls done when everything that this server has acknowledged is durable
// on its disk, or with the reason why it never will be.
func (s *Server) Flush(done func(error)) { s.c.Store.Flush(done) }

// Status returns how each link of this server is, in order of LinkID.
func (s *Server) Status() []LinkStatus { return nil }

// SetFillRate changes Config.FillRate.
func (s *Server) SetFillRate(bytesPerSecond int64) {}
