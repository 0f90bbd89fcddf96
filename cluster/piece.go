package cluster

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"petal/cluster/blocklock"
	"petal/cluster/replica"
	"petal/cluster/wire"
	"petal/placement"
)

// piece is the part of a command that lies in one chunk: an operation for the
// chunk's link, sent until somebody has carried it out or the command's time is
// up. Parts that write hold a lock on their blocks from start to end, so that
// what this node was told first also happens first, however often it is resent.
//
//	start -> locked -> sent <----> waiting      (redirect, link opening, peer down)
//	                    |  \         |
//	                    |   '--> cancelling     (command's age, R13)
//	                    v            v
//	                       ended
//
// At any time there is at most one attempt under way, with one server. Pieces are
// pooled; so their func values are made once.
type piece struct {
	replica.Op
	v     *Volume
	owner pieceOwner
	span  span
	lock  blocklock.Lock
	held  bool // the lock

	// Of the coordinator. Who takes the piece out of the coordinator's lists
	// under their lock owns it.
	place      piecePlace
	server     placement.Server // who has it, or had it last
	began      uint32           // coordinator's tick when it was admitted; 0: it never was
	tries      int
	open       bool // an attempt has ended without saying that it had no effect
	wasOpen    bool // before the last attempt
	cancelling bool
	orphan     bool          // its command has ended without it: see lapse.go
	why        error         // of the command, if the cancellation succeeds
	due        time.Duration // waiting: when to try again
	next, prev *piece

	hedge  *hedge           // a read that two copies are asked for: see hedge.go
	second bool             // the later one of these
	wide   bool             // a read: the head may ask other members for what it lacks
	sent   time.Duration    // a read's last attempt; 0: not measured
	hint   placement.Server // where to go next; 0: nobody said
	shun   placement.Server // a read: who could not serve it the last time
	slot   int              // a read's place in its command
	gate   atomic.Int32     // local attempts: see coordinator.local
	local  bool             // replica has the Op
	ends   atomic.Int32     // given up: by the command, by replica
}

// piecePlace says in which list a piece is.
type piecePlace uint8

const (
	nowhere piecePlace = iota // its owner's: nobody else knows it
	inFlight
	inWaiting
)

// pieceOwner is the command that a piece belongs to.
type pieceOwner interface {
	// pieceDone: the piece has been carried out, or err says why not. The piece
	// is the owner's again, unless it is given up: then a server still has it,
	// it must not be touched, and frees itself some time.
	pieceDone(p *piece, err error, givenUp bool)
}

var pieces sync.Pool

// newPiece returns a piece for a span.
func (v *Volume) newPiece(owner pieceOwner, kind replica.OpKind, s span) *piece {
	p, ok := pieces.Get().(*piece)
	if !ok {
		p = new(piece)
		p.lock.Granted = p.granted
		p.Done = func(*replica.Op) { p.answered() }
	}
	p.v, p.owner, p.span = v, owner, s
	p.Kind, p.From, p.To = kind, uint32(s.from), uint32(s.to)
	p.Key = placement.Key{Family: v.family, Chunk: s.chunk}
	return p
}

// free puts the piece back.
func (p *piece) free() {
	if p.Buf != nil {
		p.Buf.Release()
	}
	p.Bufs.Release()
	bufs := p.Bufs
	p.Result = replica.Result{Bufs: bufs}
	p.Buf, p.v, p.owner, p.next, p.prev = nil, nil, nil, nil, nil
	p.Again, p.Lazy, p.Local, p.Age = false, false, false, 0
	p.held, p.open, p.wasOpen, p.cancelling, p.orphan, p.local, p.place, p.why = false, false, false, false, false, false, nowhere, nil
	p.hedge, p.second, p.wide = nil, false, false
	p.server, p.hint, p.shun, p.began, p.tries, p.due, p.sent = 0, 0, 0, 0, 0, 0, 0
	pieces.Put(p)
}

// writes reports whether the piece changes anything.
func (p *piece) writes() bool { return p.Kind != replica.Read }

// start sets a piece going that writes, behind those that it conflicts with.
func (p *piece) start(st *volumeState, lazy bool) {
	p.admit(st, lazy)
	p.held = true
	p.lock.Key.Chunk, p.lock.Mask = p.span.chunk, p.span.mask()
	if p.v.locks.Acquire(&p.lock) {
		p.v.c.send(p)
	}
}

// granted goes on when the blocks are held, unless that took too long: what is
// sent late could land on top of what the initiator has written meanwhile over
// another path (R13).
func (p *piece) granted() {
	if c := p.v.c; !c.expired(p) {
		c.send(p)
	}
}

// startLocked is start for a piece that needs no lock or whose owner has it.
func (p *piece) startLocked(st *volumeState, lazy bool) {
	p.admit(st, lazy)
	p.v.c.send(p)
}

// admit puts the state of the command's admission into the op. Its age counts
// from here. (Whoever waits for a lock waits for a piece that is counted as
// under way, so ticks go on.)
func (p *piece) admit(st *volumeState, lazy bool) {
	p.began = p.v.c.tick.Load()
	p.Key.Node, p.VVer, p.Lazy = st.node, st.vver, lazy
	p.ID = p.v.c.opID()
}

// current brings the piece up to the volume's present state. The error ends it:
// what it was admitted under does not hold any more.
func (p *piece) current(st *volumeState) error {
	if st.vver == p.VVer {
		return nil
	}
	if st.revoked > p.VVer { // somebody may have lost the right to this; the device server knows who
		return ErrBusy
	}
	end := p.span.offset() + uint64(p.span.bytes()-1)
	switch {
	case p.writes() && st.readOnly:
		return syscall.EROFS
	case p.beyond():
		if p.span.offset() < st.size { // the disk has grown: this is somebody's data now
			return ErrBusy
		}
	case end >= st.size:
		return syscall.EINVAL
	}
	p.VVer, p.Key.Node = st.vver, st.node
	return nil
}

// beyond reports whether the piece is meant for what lies beyond the disk's end.
func (p *piece) beyond() bool {
	z, ok := p.owner.(*longZero)
	return ok && z.beyond
}

// end ends the piece for its command.
func (p *piece) end(err error) {
	if p.hedge != nil && !p.hedge.ended(p, err, false) {
		return
	}
	if p.orphan {
		p.fated()
		p.given()
		return
	}
	p.unlock()
	p.owner.pieceDone(p, err, false)
}

// giveUp ends the command's part in a piece whose Op this node's member still
// has. When that has ended, too, the piece is free.
func (p *piece) giveUp(err error) {
	if p.hedge != nil && !p.hedge.ended(p, err, true) {
		return
	}
	if p.orphan {
		p.fated() // the member's end frees it
		return
	}
	p.unlock()
	p.owner.pieceDone(p, err, true)
	p.given()
}

// fated: what becomes of an orphan is known, or as good as that.
func (p *piece) fated() {
	if c := p.v.c; c.orphans.remove(p) {
		c.wake()
	}
}

func (p *piece) unlock() {
	if p.held {
		p.held = false
		p.v.locks.Release(&p.lock)
	}
}

// given counts who has no use any more for a piece that was given up.
func (p *piece) given() {
	if p.ends.Add(1) == 2 {
		p.ends.Store(0)
		p.free()
	}
}

// sum makes the checksums of a write's blocks: of each what lies within the
// span.
func (p *piece) sum() {
	mem := p.Buf.Bytes()
	from := p.span.from % placement.BlockSize
	left := p.span.bytes()
	for i := 0; left > 0; i++ {
		at := i * placement.BlockSize
		n := min(left, placement.BlockSize-from)
		p.Sum[i] = wire.Sum(mem[at+from : at+from+n])
		left -= n
		from = 0
	}
}

// outcome turns a final status into the command's error.
func (p *piece) outcome() error {
	switch p.Status {
	case wire.OK, wire.Miscompare:
		return nil
	case wire.NoSpace:
		return syscall.ENOSPC
	case wire.Medium:
		return p.medium()
	case wire.Canceled:
		return ErrBusy
	}
	return &unreachableError{statusError(p.Status)}
}

// medium is the error of blocks that can't be read: the first run of them.
func (p *piece) medium() error {
	bad := uint16(p.Bad)
	if bad == 0 {
		return &unreachableError{statusError(wire.Medium)}
	}
	first := bits.TrailingZeros16(bad)
	count := bits.TrailingZeros16(^(bad >> first))
	return &MediumError{
		Off: uint64(p.span.chunk)*placement.ChunkSize + uint64(first)*placement.BlockSize,
		N:   uint64(count) * placement.BlockSize,
	}
}
