package replica

import (
	"time"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// OpKind says what an Op does to its bytes.
type OpKind uint8

// The kinds of operations.
const (
	Read            OpKind = iota // what do they hold?
	Write                         // they hold what Buf holds
	Zero                          // they read as zeros; whole blocks give their space back
	CompareAndWrite               // if they hold the first half of Buf, they hold the second
)

var opKindNames = [...]string{Read: "read", Write: "write", Zero: "zero", CompareAndWrite: "compare-and-write"}

func (k OpKind) String() string {
	if int(k) < len(opKindNames) {
		return opKindNames[k]
	}
	return "unknown"
}

// Op is an operation on bytes of one chunk: a command of an initiator, or the
// part of one that lies in the chunk. Who asks fills in the first part, calls
// Server.Do, and leaves the op alone until Done, which is called exactly once.
// Then it is the caller's again and may be reused.
type Op struct {
	Kind OpKind
	// ID is the op's identity, its own among all chunks of all commands. Who
	// resends an op, to this server or to another, keeps the ID (R12).
	ID placement.OpID
	// Again says that an op with this ID may have reached some server before. It
	// must be set each time but the first.
	Again bool
	// Local asks for a read that is not passed on if this server can't serve it.
	Local bool
	// Lazy allows a write to be acknowledged before it is durable (DESIGN C.3).
	Lazy bool

	// Key is the chunk, and the epoch node that the virtual disk is at.
	Key placement.Key
	// From and To are bytes of the chunk, From < To, multiples of 512.
	From, To uint32
	// VVer is that of the virtual disk which the asker has acted upon (R1).
	VVer uint64
	// Ver is the link's, as far as the asker knows; 0: it doesn't. A lower one than
	// this server's is refused (Redirect), for a higher one the op waits a little.
	Ver uint64
	// Age is how long the op has been under way to here, at most (R13).
	Age time.Duration

	// Buf of a Write is the blocks that [From, To) touches, whole and in order;
	// what lies outside of the range counts for nothing and may be changed. Buf
	// of a CompareAndWrite is To-From bytes to compare, then as many to write. Do
	// takes its own references. Nobody changes the memory before Done, nor after
	// it if the op succeeded.
	Buf *slab.Buf
	// Sum is the CRC32C of what each block of a Write holds within [From, To).
	// Those of whole blocks are stored as they are.
	Sum [placement.BlocksPerChunk]uint32

	// Done gets the op back. It is called without locks held, before Do returns
	// or later, from any goroutine, and must not block.
	Done func(*Op)
	// Owner is the caller's.
	Owner any

	Result
}

// Result is how an op ended.
type Result struct {
	// Status is OK, or says why the op had no effect:
	//
	//	Miscompare        At is the first byte of the chunk that differs
	//	NoSpace, Invalid  it never will
	//	Medium            Read, or the rest of a block: Bad can't be had from any
	//	                  copy; Bufs holds zeros for them
	//	Redirect          ask Head, or look at the state again if Head is 0
	//	OldVVer           VVerHere is what this server has: look at the state again
	//	NotReady, NoLease, TooOld
	//	                  try again, here or elsewhere
	//	Canceled          by Cancel
	//	Failed            this server's disk has failed
	//
	// After NotReady, NoLease and Failed an op that writes may still take effect
	// (its record may be durable somewhere): only another Do with the same ID, or
	// Cancel, tells.
	Status wire.Status
	// Bufs are the blocks that a Read touches, whole and in order: the caller
	// gives the references back.
	Bufs cache.Refs
	Bad  placement.Mask
	At   uint32
	// Head is whom to ask instead, 0 if unknown, and VerHere the link's version
	// that this server goes by: with Redirect.
	Head    placement.Server
	VerHere uint64
	// VVerHere is the virtual disk's VVer that this server has.
	VVerHere uint64
	// Load is the server's at the end, to choose the next copy by (DESIGN H).
	Load wire.Load
}

// first and count are the blocks that the op touches.
func (op *Op) first() int { return int(op.From / placement.BlockSize) }
func (op *Op) count() int { return int((op.To-1)/placement.BlockSize) - op.first() + 1 }
func (op *Op) bytes() int { return int(op.To - op.From) }

// mask is the set of blocks that the op touches.
func (op *Op) mask() placement.Mask { return placement.Span(op.first(), op.count()) }

// head and tail report whether the first and the last block are touched in part.
func (op *Op) head() bool { return op.From%placement.BlockSize != 0 }
func (op *Op) tail() bool { return op.To%placement.BlockSize != 0 }

// valid reports whether the op makes sense: everything else relies on it.
func (op *Op) valid() bool {
	if op.From >= op.To || op.To > placement.ChunkSize || op.From%sector != 0 || op.To%sector != 0 {
		return false
	}
	if op.Key.Family == 0 || op.Key.Node == 0 || op.Key.Chunk > maxChunk || op.Done == nil {
		return false
	}
	switch op.Kind {
	case Read, Zero:
		return true
	case Write:
		return op.Buf != nil && op.Buf.Len() == op.count()*placement.BlockSize
	case CompareAndWrite:
		return op.Buf != nil && op.Buf.Len() == 2*op.bytes()
	}
	return false
}

const (
	sector   = 512       // the least logical block
	maxChunk = 1<<48 - 1 // offsets are below 2^64 bytes
)
