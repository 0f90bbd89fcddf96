package brick

import (
	"math/bits"
	"sync/atomic"
	"syscall"

	"petal/cluster/slab"
	"petal/journal"
	"petal/placement"
)

// Kind says what a Record does to its blocks.
type Kind uint8

const (
	Write  Kind = iota // they hold what Buf holds
	Zero               // they read as zeros; the space is given back where it can be
	Absent             // AppendFill only: nothing was ever written there at this node
)

// OpID names a command of an initiator, wherever it is resent (R12).
type OpID = placement.OpID

// Record is one ordered write inside one chunk. It is made by the head of the
// chunk's bucket, goes through Append and Commit, and may then be reused.
//
//	        Append                  Done(nil)             Commit
//	idle ------------> under way ------------> prepared ------------> committed
//	                       |                  durable here            readable
//	                       '---- Done(err): the brick has failed
//
// A prepared record may also be undone (Abandon). A lazy record (write-back) may
// be committed before Done.
type Record struct {
	journal.Record

	Kind     Kind
	Key      placement.Key
	Mask     placement.Mask                   // blocks, at least one
	Buf      *slab.Buf                        // Write: the blocks of Mask one after another; not written to until Done
	Sum      [placement.BlocksPerChunk]uint32 // Write: CRC32C of the blocks of Mask, in order
	Link     LinkID
	Bucket   placement.Bucket
	Ver, Seq uint64 // its stamp; zero: it is not of the order that Lasts tells of
	Op       OpID
	Excluded placement.Members // members of the link that are out of date and lack this record (R8)

	// Done is called once for each record that Append took: it is durable here,
	// or the brick has failed. It is called from another goroutine than Append's
	// (from Step in a Manual brick) and must not block. It may call Commit.
	Done func(*Record, error)

	// Owner is the caller's.
	Owner any

	b     *Brick
	p     *pend
	local headType     // of a record of the brick's own; zero: it is of the link's order
	parts atomic.Int32 // of journal record and extent: how many are not done
	err   atomic.Pointer[error]
	enc   [headMax]byte
	vec   [1][]byte
}

// Stamp returns where the record is in the order of its bucket.
func (r *Record) Stamp() placement.Stamp { return placement.Stamp{Ver: r.Ver, Seq: r.Seq} }

// valid reports whether the record makes sense.
func (r *Record) valid() bool {
	k := r.Key
	if r.Mask == 0 || k.Family == 0 || k.Node == 0 || k.Chunk > maxChunk || r.Bucket >= placement.Buckets || r.Done == nil {
		return false
	}
	n := bits.OnesCount16(uint16(r.Mask)) * placement.BlockSize
	if r.Kind == Write {
		return r.Buf != nil && r.Buf.Len() == n
	}
	return r.Kind == Zero || r.local != 0
}

// Append takes a record to make it durable, invisible still; Done tells. It
// takes its own reference to Buf. Records of one bucket of a link must be
// appended in the order of their stamps, one after another; others from any
// goroutine at the same time. It does not wait for the disk, except to look up the map and to claim
// space from the file system when space is nearly gone.
//
// An error means that the record was not taken and never happened: exactly
// syscall.ENOSPC if it would have allocated and there is no space, exactly
// syscall.EINVAL if it is malformed, else why the brick has failed.
func (b *Brick) Append(r *Record) error {
	if err := b.Failed(); err != nil {
		return err
	}
	if r.local = 0; !r.valid() {
		return syscall.EINVAL
	}
	p, err := b.take(r, false)
	if err != nil {
		return err
	}
	b.send(r, p)
	return nil
}

// take admits a record. If it is to be journalled, it never becomes an
// extent-write.
func (b *Brick) take(r *Record, journalled bool) (*pend, error) {
	p := b.pends.get()
	p.key, p.mask, p.born, p.journalled = r.Key, r.Mask, b.now(), journalled
	p.stamp, p.op, p.excluded, p.last = r.Stamp(), r.Op, r.Excluded, b.lasts.get(r.Link, r.Bucket)
	switch {
	case r.local != 0:
		p.typ, p.stamp, p.excluded = r.local, placement.Stamp{}, 0
		if p.typ == typeMarks {
			p.excluded, p.stamp.Ver = r.Excluded, r.Ver
		}
	case r.Kind == Zero:
		p.typ = typeZero
	default:
		p.typ = typeWrite
	}
	if r.Kind == Write {
		p.setSums(r.Sum[:bits.OnesCount16(uint16(r.Mask))])
	}
	if err := b.admit(p); err != nil {
		b.pends.put(p)
		return nil, err
	}
	b.lasts.note(p)
	if r.Kind == Write {
		b.pending.hold(p, r.Buf)
	}
	return p, nil
}

// send hands the record to the journal and, if it has one, its extent to a
// writer.
func (b *Brick) send(r *Record, p *pend) {
	b.encode(r, p)
	if p.typ == typeExtent {
		b.writes.push(r)
	}
	b.journal.Append(&r.Record)
}

// encode makes the record that the journal gets.
func (b *Brick) encode(r *Record, p *pend) {
	h := head{Type: p.typ, Mask: r.Mask, Key: r.Key, Link: r.Link, Bucket: r.Bucket,
		Ver: p.stamp.Ver, Seq: p.stamp.Seq, Op: r.Op, Excluded: p.excluded}
	b.stamp(&h)
	r.b, r.p = b, p
	r.Record.Data, r.Record.CRC = nil, nil
	r.err.Store(nil)
	r.parts.Store(1)
	switch {
	case p.typ == typeExtent:
		h.Target, h.Sum = p.ext, r.Sum
		r.parts.Store(2)
	case p.typ.data():
		r.vec[0] = r.Buf.Bytes()
		r.Record.Data, r.Record.CRC = r.vec[:], p.sums()
	}
	r.Record.Head = h.append(r.enc[:0])
	if r.Record.Done == nil {
		r.Record.Done = r.journalled
	}
	if p.typ != typeExtent {
		p.state.Store(stateSettled)
	}
}

// tightExtents is the slack below which the map is asked whether a write
// allocates at all; above it every write is taken to.
const tightExtents = 1024

// stamp puts the watermarks into a head.
func (b *Brick) stamp(h *head) {
	h.Committed, h.Settled = journal.LSN(b.order.committed.Load()), journal.LSN(b.order.settled.Load())
}

// admit sets space aside for the record, so that once acknowledged it can
// always reach its home, and enters it into the pending index as prepared.
func (b *Brick) admit(p *pend) error {
	tight := b.alloc.slack() < tightExtents
	if tight {
		b.kickDestage() // its end gives promises back that were not needed
	}
	s := b.pending.shard(p.key)
	s.mu.Lock()
	c := s.get(p.key)
	c.admit(p) // from here on the chunk stays, and with it what it was promised
	if !p.typ.stores() || !tight && b.admitPlenty(p, c) {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	promised, err := b.admitTight(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.typ == typeExtent:
		c.fulls++
	case promised && c.reserved:
		b.alloc.unreserve(1)
	case promised:
		c.reserved = true
	}
	if err != nil && !c.reserved && c.fulls == 0 {
		c.close(p)
		if c.idle() {
			delete(s.chunks, p.key)
		}
		return err
	}
	return nil
}

// whole reports whether the record's data may go straight to an extent.
func (p *pend) whole() bool {
	return p.mask == placement.Full && p.typ == typeWrite && !p.journalled
}

// admitPlenty takes or promises an extent without waiting for anything. The
// shard's lock is held.
func (b *Brick) admitPlenty(p *pend, c *pchunk) bool {
	if p.whole() {
		e, ok := b.alloc.take(false)
		if ok {
			p.typ, p.ext = typeExtent, e
			c.fulls++
		}
		return ok
	}
	if c.reserved || c.fulls > 0 {
		return true
	}
	c.reserved = b.alloc.try(1)
	return c.reserved
}

// admitTight looks before it allocates: the map knows whether the chunk has an
// extent to be overwritten in place, and more space may be had from the file
// system. It may wait for the disk; no lock is held.
func (b *Brick) admitTight(p *pend) (promised bool, err error) {
	var e entry
	if err := b.pmap.lookup(p.key, &e); err != nil {
		return false, err
	}
	if e.Kind == kindExtent {
		return false, nil
	}
	if err := b.alloc.reserve(1); err != nil {
		return false, err
	}
	if p.whole() {
		if x, ok := b.alloc.take(true); ok {
			p.typ, p.ext = typeExtent, x
			return false, nil
		}
	}
	return true, nil
}

// journalled is the journal's Done.
func (r *Record) journalled(_ *journal.Record, err error) {
	b, p := r.b, r.p
	if err != nil {
		b.fail(err)
		r.part(err)
		return
	}
	p.pos = r.Position
	b.note(p, stateDurable, r.LSN)
	r.part(nil)
}

// part ends one of the parts of a record, and with the last one the record.
func (r *Record) part(err error) {
	if err != nil {
		r.err.CompareAndSwap(nil, &err)
	}
	if r.parts.Add(-1) != 0 {
		return
	}
	if e := r.err.Load(); e != nil {
		r.Done(r, *e)
		return
	}
	if r.local != 0 {
		r.b.Commit(r)
	}
	r.Done(r, nil)
}

// Commit makes the record readable. Records of one bucket are committed in the
// order of (Ver, Seq), each once, after Append returned; before Done only if the
// record is Lazy. It does not block. LSN may be greater than it was at Done: the
// record has been carried forward in the journal.
func (b *Brick) Commit(r *Record) {
	p := r.p
	s := b.pending.shard(p.key)
	s.mu.Lock()
	newest := s.chunks[p.key].commit(p)
	if l := p.LSN(); l != 0 {
		r.LSN = l
	}
	if b.o.Cache != nil { // inside the lock, so that readers see both or neither
		switch {
		case p.typ == typeMarks || p.typ == typeRepair: // nothing to see
		case p.typ == typeZero && newest:
			b.o.Cache.Put(p.key, p.mask, b.o.Pool.Zero())
		case p.buf != nil && newest && p.typ.ordered():
			b.o.Cache.Put(p.key, p.mask, p.buf)
		default: // from Recovery, or it depends
			b.o.Cache.Drop(p.key, p.mask)
		}
	}
	s.mu.Unlock()
	b.note(p, stateCommitted, 0)
}

// note adds flags to a record's state and, once it is ready, lets go of memory
// that is not needed any more: an extent is read from its home, and a block
// from the journal if too many are waiting.
//
// From the moment when it is ready p belongs to the destager, and may soon be
// another record. So what is done to it is done under the shard's lock, which
// the destager needs first.
func (b *Brick) note(p *pend, flags uint32, lsn journal.LSN) {
	if p.typ == typeExtent || b.pending.bytes.Load() > b.o.PendingBytes {
		s := b.pending.shard(p.key)
		s.mu.Lock()
		if b.order.mark(p, flags, lsn) {
			b.pending.drop(p)
		}
		s.mu.Unlock()
	} else {
		b.order.mark(p, flags, lsn)
	}
	b.wakeFlushes()
}

// Abandon undoes a record that is Done and not committed, of this life or from
// Recovery.Prepared: it never happened, and never will after the next crash
// either. done is called when that is durable; it must not block, and may be
// called before Abandon returns if the brick has failed. Records of one bucket
// are abandoned from the last one on, each call after the one before. The
// record may be reused after done.
func (b *Brick) Abandon(r *Record, done func(error)) {
	p := r.p
	s := b.pending.shard(p.key)
	s.mu.Lock()
	p.stays = true // a copy further on would outlive the abort
	s.mu.Unlock()
	b.appendMark(head{Type: typeAbort, Target: uint64(p.turn())}, func(err error) {
		if err == nil {
			b.forget(p)
		}
		done(err)
	})
}

// forget takes an open record out of the index.
func (b *Brick) forget(p *pend) {
	b.order.retreat(p)
	b.lasts.unnote(p)
	s := b.pending.shard(p.key)
	s.mu.Lock()
	c := s.chunks[p.key]
	c.close(p)
	p.undone = true
	if p.typ == typeExtent {
		c.fulls--
	}
	b.pending.drop(p)
	if c.idle() {
		if c.reserved {
			b.alloc.unreserve(1)
		}
		delete(s.chunks, p.key)
	}
	s.mu.Unlock()
	if p.typ == typeExtent {
		b.alloc.rest(p.ext, false)
	}
	b.order.skip(p.LSN())
}
