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
	Hello   Kind = 1 // who dials (R1); body: a Greeting
	Welcome Kind = 2 // who answers; body: a Greeting; At: the Hello's Sent
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
	Mapped          Kind = 23 // to a member: what of these chunks holds data?
	MappedReply     Kind = 24 // body: the owner's list; Index: a count
	Flush           Kind = 25 // to a member: make lazy writes durable
	FlushReply      Kind = 26

	// Members of one link. Link and Ver are in all of them.
	Replicate    Kind = 32 // the next record of a bucket; Committed rides along (R3, R4)
	Ack          Kind = 33 // the bucket's records up to Stamp are durable here
	Commit       Kind = 34 // the bucket's records up to Committed are committed (R4)
	Summary      Kind = 35 // opening: what each bucket has; body: Progress list (R10)
	Want         Kind = 36 // opening: send me what lies behind; body: Progress list
	Lost         Kind = 37 // opening: can't say what lies between; body: bucket list
	Opened       Kind = 38 // the configuration Ver is open: commit and serve
	Refused      Kind = 39 // a message could not be taken; Status says why, Ver what the refuser has
	Rejoin       Kind = 40 // an excluded member is back; body: Mark list, its tail (R9)
	Missing      Kind = 41 // what a bucket of the rejoining member lacks; body: Mark list
	Stored       Kind = 42 // those are durable
	Checkpointed Kind = 43 // records up to Stamp need no journal here (R11); body: Progress list
	LinkControl  Kind = 44 // anything else of a link; Code says what

	// Copying in the background.
	Fetch     Kind = 48 // the blocks of Mask, please
	Fetched   Kind = 49 // data of Mask; Zeros read as zeros; Bad can't be had
	Sums      Kind = 50 // the CRC lists of these chunks, please
	SumsReply Kind = 51 // body: the owner's list

	// Agreement. Bodies are package meta's.
	Raft           Kind = 64 // a raft message, or a piece of a snapshot
	Renew          Kind = 65 // lease, please; At: t0 on the holder's clock
	Grant          Kind = 66 // At: that t0; Index: counts once this is applied (R5)
	Propose        Kind = 67 // a command, to the leader
	Proposed       Kind = 68 // its outcome; Index: where it was applied
	ReadIndex      Kind = 69
	ReadIndexReply Kind = 70
	Barrier        Kind = 71 // nothing older than VVer is to take effect any more
	BarrierDone    Kind = 72 // body: links and their vers
	Complain       Kind = 73 // can't replicate to a member of Link
	MetaControl    Kind = 74 // anything else of meta; Code says what
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
	MaxBody     = 1 << 20   // of meta's: a raft message or a piece of a snapshot
)

// row is all that the codec knows about a kind.
type row struct {
	name   string
	class  Class
	form   form
	fields field
	body   int // greatest, in bytes
}

const (
	linkFields = fieldLink | fieldMasks | fieldStamp | fieldCommitted | fieldIndex
	metaFields = fieldLink | fieldHead | fieldIndex | fieldAt
)

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

	Replicate:    {"replicate", ClassReplicate, formBlocks, fieldKey | fieldLink | fieldMasks | fieldStamp | fieldCommitted | fieldSums, 0},
	Ack:          {"ack", ClassReplicate, formNone, fieldLink | fieldMasks | fieldStamp | fieldCommitted | fieldLoad, 0},
	Commit:       {"commit", ClassReplicate, formNone, fieldLink | fieldMasks | fieldCommitted, 0},
	Summary:      {"summary", ClassReplicate, formBody, linkFields, MaxList},
	Want:         {"want", ClassReplicate, formBody, linkFields, MaxList},
	Lost:         {"lost", ClassReplicate, formBody, linkFields, MaxList},
	Opened:       {"opened", ClassReplicate, formBody, linkFields, MaxList},
	Refused:      {"refused", ClassReplicate, formBody, linkFields, MaxList},
	Rejoin:       {"rejoin", ClassReplicate, formBody, linkFields, MaxList},
	Missing:      {"missing", ClassReplicate, formBody, linkFields, MaxList},
	Stored:       {"stored", ClassReplicate, formBody, linkFields, MaxList},
	Checkpointed: {"checkpointed", ClassReplicate, formBody, linkFields, MaxList},
	LinkControl:  {"link-control", ClassReplicate, formBody, linkFields, MaxList},

	Fetch:     {"fetch", ClassBackground, formNone, fieldKey | fieldLink | fieldMasks | fieldIndex, 0},
	Fetched:   {"fetched", ClassBackground, formBlocks, fieldKey | fieldLink | fieldMasks | fieldLoad | fieldIndex | fieldSums, 0},
	Sums:      {"sums", ClassBackground, formBody, fieldKey | fieldLink | fieldMasks | fieldIndex, MaxList},
	SumsReply: {"sums-reply", ClassBackground, formBody, fieldKey | fieldLink | fieldMasks | fieldIndex, MaxList},

	Raft:           {"raft", ClassRaft, formBody, metaFields, MaxBody},
	Renew:          {"renew", ClassRaft, formBody, metaFields, MaxBody},
	Grant:          {"grant", ClassRaft, formBody, metaFields, MaxBody},
	Propose:        {"propose", ClassRaft, formBody, metaFields, MaxBody},
	Proposed:       {"proposed", ClassRaft, formBody, metaFields, MaxBody},
	ReadIndex:      {"read-index", ClassRaft, formBody, metaFields, MaxBody},
	ReadIndexReply: {"read-index-reply", ClassRaft, formBody, metaFields, MaxBody},
	Barrier:        {"barrier", ClassRaft, formBody, fieldKey | metaFields, MaxBody},
	BarrierDone:    {"barrier-done", ClassRaft, formBody, fieldKey | metaFields, MaxBody},
	Complain:       {"complain", ClassRaft, formBody, metaFields, MaxBody},
	MetaControl:    {"meta-control", ClassRaft, formBody, metaFields, MaxBody},
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
