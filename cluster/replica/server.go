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
	ReadPrepared(*brick.Record, *brick.ReadOp)
	Conflict(placement.Family, []placement.Node, placement.Chunk, placement.Mask) bool
	Prefetch(placement.Family, []placement.Node, placement.Chunk)
	Provisioned(placement.Family, []placement.Node, placement.Chunk) (placement.Mask, error)
	Mapped(f placement.Family, from, last placement.Chunk, dst []placement.Chunk) ([]placement.Chunk, error)
	Flush(func(error))
	Touch(func(error))
	Space() (used, avail, total uint64)
	Failed() error
	Super() *brick.Super
	UpdateSuper(func(*brick.Super) error) error

	Lasts(placement.LinkID, func(placement.Bucket, brick.Last))
	AddMarks(link placement.LinkID, members placement.Members, marks []brick.Mark, ver uint64, done func(error))
	Marks(link placement.LinkID, m placement.Member, b placement.Bucket, from placement.Key, dst []brick.Mark) ([]brick.Mark, error)
	DropMarks(link placement.LinkID, m placement.Member, ver uint64, done func(error))
	MarkCount(placement.LinkID, placement.Member) int64
	AddMissing(link placement.LinkID, b placement.Bucket, marks []brick.Mark, last placement.Stamp, done func(error))
	Missing(link placement.LinkID, from brick.Mark, dst []brick.Mark) ([]brick.Mark, error)
	MissingCount(placement.LinkID) int64
	History(placement.LinkID, placement.Bucket) brick.History
	AddHistory(placement.LinkID, placement.Bucket, brick.History)
	AppendFill(*brick.Record) error
	AppendRepair(*brick.Record) error
	Keys(f placement.Family, b placement.Bucket, from placement.Key, dst []placement.Key) ([]placement.Key, error)
	Families([]placement.Family) ([]placement.Family, error)
	Sums(placement.Key, *brick.Sums) error
	Discard(link placement.LinkID, buckets func(placement.Bucket) bool, families []placement.Family, done func(error))
}

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

	// Witness writes down, durably, under which Ver this server serves a link and
	// whether it is the only one in sync (R14); default: in the brick's superblock.
	Witness func(id placement.LinkID, ver uint64, solo bool) error

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
	// Times.Complain (DESIGN A.2); of itself: its disk has failed.
	Complain
	// Reopen: this server's lease had lapsed (R5) and is back: a new Ver.
	Reopen
	// Fenced: this server has stopped serving, as it was asked to.
	Fenced
	// Slow: Member, perhaps this server, has taken longer than Times.Complain for many
	// records, for as long as it was watched (DESIGN A.2).
	Slow
)

var proposalNames = [...]string{Rejoined: "rejoined", Filled: "filled", Complain: "complain", Reopen: "reopen", Fenced: "fenced", Slow: "slow"}

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

	InFlight int    // operations that are not committed
	Marks    uint64 // blocks that members which are out will lack, counted here
	Missing  uint64 // blocks that are missing here
	// Unrecoverable are those of Missing that no member has any more, as far as all
	// have been asked: reading one is a medium error, writing it mends it.
	Unrecoverable uint64
	Copied        uint64        // blocks copied to here since the last rejoin
	Rate          uint64        // bytes per second of the copying at present
	Full          bool          // left, or not copied to, for want of space here
	Joining       int           // 1 while this head lets a member in again (R9), else -1
	Since         time.Duration // of Ver, on the Clock
}

func (c *Config) setDefaults() {
	if c.LazyBytes == 0 {
		c.LazyBytes = 64 << 20
	}
	if c.FillRate == 0 {
		c.FillRate = 50 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Transport == nil {
		c.Transport = nowhere{}
	}
	if c.Propose == nil {
		c.Propose = func(Proposal) {}
	}
}

// nowhere is the transport of a server that has no others.
type nowhere struct{}

func (nowhere) Send(placement.Server, *wire.Message) bool { return false }
