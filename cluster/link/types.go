package link

import (
	"fmt"
	"time"

	"petal/placement"
)

// Record is one write of a bucket, as the machine knows it.
type Record struct {
	Bucket   placement.Bucket
	Stamp    placement.Stamp
	Excluded placement.Members // members that lack it, as its journal record says (R8)
	Ref      uint64            // the shell's own name for it; the machine only hands it back
}

// Entry is a stamp of a bucket in the list of a message.
type Entry struct {
	Bucket placement.Bucket
	Stamp  placement.Stamp
}

// ListMax is the most entries that a message has.
const ListMax = 512

// MsgKind says what a message is.
type MsgKind uint8

// All messages between two members travel on one ordered connection. It may
// lose everything under way when it goes down, and nothing otherwise.
const (
	MsgReplicate MsgKind = iota + 1 // head: a record; the shell adds what it writes
	MsgAck                          // durable up to Stamp in Bucket
	MsgCommitted                    // head: List is committed
	MsgAsk                          // head: tell me where you are (again); answered by Summary or Rejoin
	MsgSummary                      // in sync: List is the last durable stamp of each bucket
	MsgWant                         // head: send me Bucket's records after Prev up to Stamp
	MsgRecover                      // a record of before, with its own stamp; Prev is the one before it
	MsgCut                          // what the receiver lacks of Bucket up to Stamp; the shell adds the marks
	MsgOpened                       // head: everything is everywhere; commit and serve
	MsgRejoin                       // out of sync: let me in; List as in Summary
)

var msgNames = [...]string{
	MsgReplicate: "Replicate", MsgAck: "Ack", MsgCommitted: "Committed", MsgAsk: "Ask", MsgSummary: "Summary",
	MsgWant: "Want", MsgRecover: "Recover", MsgCut: "Cut", MsgOpened: "Opened", MsgRejoin: "Rejoin",
}

func (k MsgKind) String() string { return name(msgNames[:], uint8(k), "message") }

// Msg is what one member tells another. Fields that a kind has no use for are
// zero.
type Msg struct {
	Kind        MsgKind
	Ver         uint64            // of the link; all kinds (R1)
	Bucket      placement.Bucket  // Replicate, Ack, Want, Recover, Cut
	Stamp       placement.Stamp   // Replicate, Ack, Want, Recover, Cut
	Prev        placement.Stamp   // Want, Recover; Cut: records up to here are common
	Committed   placement.Stamp   // Replicate: what else of the bucket is committed
	Excluded    placement.Members // Replicate, Recover
	Session     uint64            // Rejoin, Cut, Opened: the attempt to rejoin that it belongs to; 0 in Cut, Opened: R10
	First, Last bool              // Summary, Rejoin, Cut come in parts
	List        []Entry           // Committed, Summary, Rejoin: at most ListMax. In effects valid until the next Step
}

// EventKind says what happened.
type EventKind uint8

const (
	// EventConfig: the raft state up to Index is applied and says Config. To be
	// given at every application, so that leases begin to count (R5), but not
	// before this process's own Start has been applied.
	EventConfig EventKind = iota + 1
	// EventLease: a grant until Until that counts once Index is applied. Until
	// zero: the lease is given up.
	EventLease
	// EventFence: the link's configuration Ver is being replaced by one that
	// may lack this server: stop, and confirm.
	EventFence
	EventUp   // Member's ordered connection is up, empty
	EventDown // it is down; all that was under way is lost
	// EventAppended: the brick took Rec, after Admit or Accept said Take under
	// the same lock. Committed is the message's, at a member.
	EventAppended
	// EventDurable: Rec is durable in the brick, or never will be (Failed).
	EventDurable
	// EventMessage: Msg came from Member. Not for a Replicate or Recover that
	// Accept said to Take: Appended stands for it.
	EventMessage
	EventMarked    // EffectMark of Rec is durable
	EventDiscarded // EffectDiscard of Rec is durable
	EventWitnessed // EffectWitness of Ver is durable
	EventCutSent   // EffectSendCut to Member of Bucket is done: its last part is under way in the ordered connection
	EventCutStored // EffectSealCut of Bucket is durable
	EventDropped   // an EffectDropMarks is durable
	EventMended    // the brick, which failed a record for want of space or was too slow to be let in, is well
	EventTick      // time has passed; see Machine.TickIn
)

var eventNames = [...]string{
	EventConfig: "config", EventLease: "lease", EventFence: "fence", EventUp: "up", EventDown: "down",
	EventAppended: "appended", EventDurable: "durable", EventMessage: "message", EventMarked: "marked",
	EventDiscarded: "discarded", EventWitnessed: "witnessed", EventCutSent: "cut-sent", EventCutStored: "cut-stored", EventDropped: "dropped", EventMended: "mended", EventTick: "tick",
}

func (k EventKind) String() string { return name(eventNames[:], uint8(k), "event") }

// Event is what happened. Fields that a kind has no use for are ignored.
type Event struct {
	Kind      EventKind
	Config    placement.Config // Config
	Index     uint64           // Config, Lease: raft index
	Until     time.Duration    // Lease, on the clock of Step's now
	Ver       uint64           // Fence, Witnessed
	Member    placement.Member // Up, Down, Message, CutSent
	Bucket    placement.Bucket // CutSent, CutStored
	Session   uint64           // CutSent
	Rec       Record           // Appended, Durable, Marked, Discarded
	Committed placement.Stamp  // Appended
	Failed    bool             // Durable
	Msg       *Msg             // Message; not kept
}

// EffectKind says what the shell is to do.
type EffectKind uint8

const (
	// EffectSend: Msg to Member. A Replicate is of Rec: the shell adds the data.
	// It may fail silently if the connection is down.
	EffectSend EffectKind = iota + 1
	// EffectCommit: Rec is committed (R2): visible from now on; whoever waits
	// for it is answered, and its result remembered (R12).
	EffectCommit
	// EffectDiscard: this member was excluded with Rec in doubt, and who was not
	// does not have it (R9): the record becomes void, durably, then
	// EventDiscarded. Whoever waits for it is told to look for the new head.
	EffectDiscard
	// EffectMark: Members lack Rec too, although its journal record does not
	// say so. EventMarked when that is durable (R7, R8).
	EffectMark
	// EffectWitness: the brick notes Ver and whether this member is alone in
	// it (R14), then EventWitnessed.
	EffectWitness
	// EffectSendRange: Member lacks the records of Bucket after Prev up to
	// Stamp: send each as Recover, in order, Excluded joined with Members. What
	// the journal no longer has is read from where it lies, the stamps from the
	// index (R11). If the index no longer has them: send Cut, Session 0, with
	// Stamp and Prev, every block that this server has of the bucket (not what it
	// misses), and what goes with every Cut (below).
	EffectSendRange
	// EffectSendCut: send Cut to Member, with Common as its Prev: the marks of
	// Bucket for Member, and all records of it after Prev up to Till by the index
	// that do not name Member; if the index has not all of those, or with All:
	// every block that this server has of the bucket (not what it misses). Before,
	// make durable that this member's own records of the bucket up to Stamp are
	// committed: it may become the only one that has the marked blocks, and must
	// not take them for a tail after a crash. Then EventCutSent. Nothing of the
	// bucket is in flight, and nothing is admitted meanwhile.
	//
	// With All the machine does not know what both have in common. The shell finds
	// it in the bucket's history: the greatest committed stamp not after Prev. If
	// the history does not go back so far, it is the zero Stamp; but while this
	// server misses blocks of the bucket, no Cut is sent then: a tail might be
	// given up that was committed, and is all that is left of them.
	//
	// With every Cut go the marks of Bucket for all who are out of sync but
	// Member, and its history: Member may be head next, and let them in.
	EffectSendCut
	// EffectStoreCut: the message in hand is a part of a Cut: its blocks are
	// missing here (after the commits of this Step, before anything appended
	// later). What went with it is stored, too.
	EffectStoreCut
	// EffectSealCut: when all of Bucket's Cut is durable, Stamp becomes the
	// bucket's last committed stamp, durably; then EventCutStored.
	EffectSealCut
	// EffectDropMarks: forget all marks for Member that were made under a lower
	// Ver, then EventDropped: Member is in sync and has what it lacks as missing
	// blocks of its own, or this server is out of sync, and who lets it in knows
	// better. Most often there are none.
	EffectDropMarks
	EffectOpened // the machine serves under Ver from now on: ops that wait may try again
	EffectClosed // and from now on not; Cause tells why
	// EffectPropose: ask meta for What. It is repeated until the configuration
	// changes.
	EffectPropose
)

var effectNames = [...]string{
	EffectSend: "send", EffectCommit: "commit", EffectDiscard: "discard", EffectMark: "mark", EffectWitness: "witness",
	EffectSendRange: "send-range", EffectSendCut: "send-cut", EffectStoreCut: "store-cut", EffectSealCut: "seal-cut", EffectDropMarks: "drop-marks",
	EffectOpened: "opened", EffectClosed: "closed", EffectPropose: "propose",
}

func (k EffectKind) String() string { return name(effectNames[:], uint8(k), "effect") }

// Proposal is what the machine asks meta for. All are conditional on the
// link's Ver: if it has changed, they are void.
type Proposal uint8

const (
	ProposeRejoined Proposal = iota + 1 // Member has all but what it knows to miss: in sync with it. Refused only for its Ver
	ProposeComplain                     // cannot replicate to Member; of oneself: the brick fails
	ProposeReopen                       // a new ver, all else as it is: the lease lapsed (R5) and is back
	ProposeFenced                       // stopped, as EventFence asked
)

var proposalNames = [...]string{ProposeRejoined: "rejoined", ProposeComplain: "complain", ProposeReopen: "reopen", ProposeFenced: "fenced"}

func (p Proposal) String() string { return name(proposalNames[:], uint8(p), "proposal") }

// Cause is why a machine closed.
type Cause uint8

const (
	CauseConfig Cause = iota + 1 // a new configuration
	CauseLapsed                  // the lease ended (R5)
	CauseFenced                  // asked to
	CauseFailed                  // the brick failed a record
)

var causeNames = [...]string{CauseConfig: "config", CauseLapsed: "lapsed", CauseFenced: "fenced", CauseFailed: "failed"}

func (c Cause) String() string { return name(causeNames[:], uint8(c), "cause") }

// Effect is what the shell is to do, in the order given.
type Effect struct {
	Kind    EffectKind
	What    Proposal          // Propose
	Cause   Cause             // Closed
	Solo    bool              // Witness
	All     bool              // SendCut
	Member  placement.Member  // Send, SendRange, SendCut, DropMarks, Propose
	Members placement.Members // Mark, SendRange
	Bucket  placement.Bucket  // SendRange, SendCut, StoreCut, SealCut
	Ver     uint64            // Witness, SendRange, SendCut, DropMarks, Opened, Closed, Propose
	Session uint64            // SendCut
	Prev    placement.Stamp   // SendRange, SendCut
	Stamp   placement.Stamp   // SendRange, SendCut, SealCut
	Common  placement.Stamp   // SendCut
	Till    placement.Stamp   // SendCut
	Rec     Record            // Commit, Discard, Mark, Send of a Replicate
	Msg     Msg               // Send
}

// Verdict is the answer to a question.
type Verdict uint8

const (
	Take      Verdict = iota + 1 // Admit, Accept: append it
	Serve                        // MayRead: read, then ask StillMayRead
	Duplicate                    // Accept: have it; give the message to Step, which acknowledges again
	GoToHead                     // not head, or a read that only the head can decide (R4)
	OutOfDate                    // this member is out of sync
	NotOpen                      // no configuration, opening, or closed until a new one: soon
	NoLease                      // none, or too little left of it
	Held                         // the bucket waits a moment for its cut (R9), or too much is in flight
	OldVer                       // the message is of an older configuration: drop it (R1)
	NewerVer                     // of one not yet applied here: drop it; what matters is sent again
	Gap                          // not the next record, or not from who may send it: drop it
)

var verdictNames = [...]string{
	Take: "take", Serve: "serve", Duplicate: "duplicate", GoToHead: "go-to-head", OutOfDate: "out-of-date", NotOpen: "not-open",
	NoLease: "no-lease", Held: "held", OldVer: "old-ver", NewerVer: "newer-ver", Gap: "gap",
}

func (v Verdict) String() string { return name(verdictNames[:], uint8(v), "verdict") }

// name finds i in names; an unknown value prints its number.
func name(names []string, i uint8, what string) string {
	if int(i) < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("%s %d", what, i)
}
