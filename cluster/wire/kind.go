package wire

import "fmt"

// Version of the format. What each version brought:
//
//	1  first
const Version = 1

// Class says which of a pair's connections a message travels on. Messages of
// one class arrive in the order in which they were sent; classes overtake each
// other.
type Class uint8

// The classes.
const (
	ClassReplicate  Class = 0 // between members of a link, ordered (R3)
	ClassRequest    Class = 1 // from coordinators to members, and the replies
	ClassBackground Class = 2 // copying, comparing
	ClassRaft       Class = 3 // agreement, leases, barriers: must live when data are stuck

	Classes = 4

	// ClassAny is of messages that are about their connection. Package peer
	// sends and takes them; nobody else sees any.
	ClassAny Class = 0xff
)

var classNames = [Classes]string{ClassReplicate: "replicate", ClassRequest: "request", ClassBackground: "background", ClassRaft: "raft"}

func (c Class) String() string {
	if c < Classes {
		return classNames[c]
	}
	if c == ClassAny {
		return "any"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Kind says what a message is.
type Kind uint8

// The kinds. The numbers are the protocol's.
const (
	// About the connection.
	Hello   Kind = 1 // who dials (R1); body: a greeting
	Welcome Kind = 2 // who answers; body: a greeting; At: the Hello's Sent
	Ready   Kind = 3 // the connection is in use; At: the Welcome's Sent
	Ping    Kind = 4 // alive
	Pong    Kind = 5 // At: the Ping's Sent
	Credit  Kind = 6 // Index: so many bytes may be sent on this connection, from its beginning on

	// Coordinator and member.
	Write           Kind = 16 // to the head: these bytes
	Read            Kind = 17 // to any member: those bytes, please
	Zero            Kind = 18 // to the head: let these bytes read as zeros
	CompareAndWrite Kind = 19 // to the head: data are what is expected, then what to write
	Reply           Kind = 20 // to any of these, under its Op
	Cancel          Kind = 21 // to the head: end the command Op (R12)
	CancelReply     Kind = 22 // Status OK: it had been done; Canceled: it never will be
	Mapped          Kind = 23 // to a member: what holds data from the chunk to chunk Index?
	MappedReply     Kind = 24 // body: chunks and masks
	Flush           Kind = 25 // to a member: make lazy writes durable
	FlushReply      Kind = 26

	// Members of one link. Link and Ver are in all of them, Index is the attempt to
	// rejoin that they belong to, and Code says what else package replica needs.
	Replicate   Kind = 32 // the next record of a bucket; Committed rides along (R3, R4)
	Ack         Kind = 33 // the bucket's records up to Stamp are durable here
	Summary     Kind = 34 // opening: what each bucket has; body: Progress list (R10)
	Want        Kind = 35 // opening: send me the bucket's records behind Committed, up to Stamp
	Opened      Kind = 36 // the configuration Ver is open: commit and serve
	Rejoin      Kind = 37 // an excluded member is back; body: Progress list, its tail included (R9)
	Missing     Kind = 38 // what the receiver lacks of the bucket up to Stamp; body: Mark list (R9, R11)
	LinkControl Kind = 39 // what is committed, and the question for it; body: Progress list (R4)

	// Copying in the background.
	Fetch   Kind = 48 // the blocks of Mask, please; Index names the question
	Fetched Kind = 49 // data of Mask; Zeros read as zeros; Bad can't be had

	// Agreement. These bodies are not the wire's to know.
	Raft        Kind = 64 // from one of package meta's groups to another
	Barrier     Kind = 65 // nothing older than VVer is to take effect any more; Index names the question
	BarrierDone Kind = 66 // nothing will; body: links and their vers

	// For administrators.
	Sessions     Kind = 67 // who is logged in at yours? Index names the question
	SessionsHere Kind = 68 // body: targets and how many sessions each has
)

// field is a set of parts of the detail.
type field uint16

const (
	fieldKey field = 1 << iota
	fieldLink
	fieldSpan
	fieldMasks
	fieldStamp
	fieldCommitted
	fieldLoad
	fieldHead
	fieldIndex
	fieldAt
	fieldSums
)

var fieldSizes = [...]int{8, 8, 8, 8, 16, 16, 16, 8, 8, 8, 0}

// form says what a kind's payload is and how long.
type form uint8

const (
	formNone   form = iota // no payload
	formBody               // Body, as long as the row allows
	formSpan               // data of [From, To): a piece for each block that it touches
	formPair               // data of [From, To) twice, inside one block
	formReply              // data of [From, To), but only of the blocks of Mask
	formBlocks             // whole blocks: those of Mask, none with FlagZero
)

// Greatest bodies, in bytes.
const (
	maxGreeting = 1 << 10
	MaxList     = 256 << 10 // of a link's message: 4096 Progress
	MaxBody     = 1 << 20   // of Raft: a message, or a piece of a snapshot; of SessionsHere
)

// row is all that the codec knows about a kind.
type row struct {
	name   string
	class  Class
	form   form
	fields field
	body   int // greatest, in bytes
}

const linkFields = fieldLink | fieldMasks | fieldStamp | fieldCommitted | fieldIndex

// kinds is the table of all kinds: a kind is what its row says.
var kinds = [256]row{
	Hello:   {"hello", ClassAny, formBody, fieldAt, maxGreeting},
	Welcome: {"welcome", ClassAny, formBody, fieldAt, maxGreeting},
	Ready:   {"ready", ClassAny, formNone, fieldAt, 0},
	Ping:    {"ping", ClassAny, formNone, 0, 0},
	Pong:    {"pong", ClassAny, formNone, fieldAt, 0},
	Credit:  {"credit", ClassAny, formNone, fieldIndex, 0},

	Write:           {"write", ClassRequest, formSpan, fieldKey | fieldLink | fieldSpan | fieldSums, 0},
	Read:            {"read", ClassRequest, formNone, fieldKey | fieldLink | fieldSpan, 0},
	Zero:            {"zero", ClassRequest, formNone, fieldKey | fieldLink | fieldSpan, 0},
	CompareAndWrite: {"compare-and-write", ClassRequest, formPair, fieldKey | fieldLink | fieldSpan | fieldSums, 0},
	Reply:           {"reply", ClassRequest, formReply, fieldSpan | fieldMasks | fieldLoad | fieldHead | fieldIndex | fieldSums, 0},
	Cancel:          {"cancel", ClassRequest, formNone, fieldKey | fieldLink, 0},
	CancelReply:     {"cancel-reply", ClassRequest, formNone, fieldKey | fieldLink | fieldHead, 0},
	Mapped:          {"mapped", ClassRequest, formBody, fieldKey | fieldLink | fieldIndex, MaxList},
	MappedReply:     {"mapped-reply", ClassRequest, formBody, fieldKey | fieldLink | fieldHead | fieldIndex, MaxList},
	Flush:           {"flush", ClassRequest, formNone, fieldKey | fieldLink | fieldIndex, 0},
	FlushReply:      {"flush-reply", ClassRequest, formNone, fieldKey | fieldLink | fieldIndex, 0},

	Replicate:   {"replicate", ClassReplicate, formBlocks, fieldKey | fieldLink | fieldMasks | fieldStamp | fieldCommitted | fieldSums, 0},
	Ack:         {"ack", ClassReplicate, formNone, fieldLink | fieldMasks | fieldStamp | fieldCommitted | fieldLoad, 0},
	Summary:     {"summary", ClassReplicate, formBody, linkFields, MaxList},
	Want:        {"want", ClassReplicate, formBody, linkFields, MaxList},
	Opened:      {"opened", ClassReplicate, formBody, linkFields, MaxList},
	Rejoin:      {"rejoin", ClassReplicate, formBody, linkFields, MaxList},
	Missing:     {"missing", ClassReplicate, formBody, linkFields, MaxList},
	LinkControl: {"link-control", ClassReplicate, formBody, linkFields, MaxList},

	Fetch:   {"fetch", ClassBackground, formNone, fieldKey | fieldLink | fieldMasks | fieldIndex, 0},
	Fetched: {"fetched", ClassBackground, formBlocks, fieldKey | fieldLink | fieldMasks | fieldLoad | fieldIndex | fieldSums, 0},

	Raft:        {"raft", ClassRaft, formBody, 0, MaxBody},
	Barrier:     {"barrier", ClassRaft, formBody, fieldKey | fieldIndex, MaxList},
	BarrierDone: {"barrier-done", ClassRaft, formBody, fieldKey | fieldIndex, MaxList},

	Sessions:     {"sessions", ClassRaft, formNone, fieldIndex, 0},
	SessionsHere: {"sessions-here", ClassRaft, formBody, fieldIndex, MaxBody},
}

func (k Kind) String() string {
	if name := kinds[k].name; name != "" {
		return name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Known reports whether the table has a row for k.
func (k Kind) Known() bool { return kinds[k].name != "" }

// Class returns which connection messages of kind k travel on.
func (k Kind) Class() Class { return kinds[k].class }

// detailSize is the length of the detail without sums.
func (r *row) detailSize() int {
	n := wordSize
	for i, size := range fieldSizes {
		if r.fields>>i&1 != 0 {
			n += size
		}
	}
	return n
}
