package brick

import (
	"math/bits"

	"petal/journal"
	"petal/placement"
)

// ReadPrepared reads what a record wrote that is Done and neither committed nor
// abandoned, of this life or from Recovery.Prepared: the blocks of its Mask one
// after another. Of op only Done and Owner are used; results are as of Read, and
// verified. Of a Zero there is nothing to read.
//
// A block of a record from Recovery may have been overwritten at its home by a
// later record, which then is in doubt as well, was once committed, and shares
// its fate. Then the later block is given, and Sum is changed to match it.
func (b *Brick) ReadPrepared(r *Record, op *ReadOp) {
	op.b, op.Err, op.Bufs, op.record = b, b.Failed(), op.Bufs[:0], r
	op.Missing, op.Zero, op.Absent, op.prefetch = 0, 0, 0, false
	if op.Err != nil || r.Kind != Write {
		op.Done(op)
		return
	}
	b.reads.push(op)
}

// loadRecord is the reader's part of ReadPrepared.
func (b *Brick) loadRecord(op *ReadOp) error {
	r := op.record
	at := r.p.LSN()
	bad, cause := b.loadBlocks(op, 0)
	for bad != 0 && r.p.LSN() != at { // it was carried away meanwhile
		at = r.p.LSN()
		op.Bufs.Release()
		bad, cause = b.loadBlocks(op, 0)
	}
	if bad != 0 && r.p.typ == typeExtent {
		op.Bufs.Release()
		bad, cause = b.loadBlocks(op, bad)
	}
	if bad != 0 {
		return &MediumError{Key: r.Key, Blocks: bad, Cause: cause}
	}
	return nil
}

// loadBlocks reads a record's blocks, those of over as the record has them that
// is next above it.
func (b *Brick) loadBlocks(op *ReadOp, over placement.Mask) (bad placement.Mask, cause error) {
	r := op.record
	op.place = places{}
	s := b.pending.shard(r.Key)
	s.mu.Lock()
	for i := range op.place {
		if r.Mask>>i&1 == 0 {
			continue
		}
		p := r.p
		if over>>i&1 != 0 {
			if above := s.chunks[r.Key].nextAbove(r.p.turn(), i); above != nil {
				p = above
			}
		}
		op.place[i] = p.place(i)
		r.Sum[rank(r.Mask, i)] = op.place[i].sum
	}
	s.mu.Unlock()
	defer op.place.release()
	for m := r.Mask; m != 0; {
		i := bits.TrailingZeros16(uint16(m))
		n := op.run(i, i+bits.TrailingZeros16(^(uint16(m)>>i)))
		wrong, err := b.collectRun(op, i, n)
		bad |= wrong
		if err != nil {
			cause = err
		}
		m &^= placement.Span(i, n)
	}
	return bad, cause
}

// nextAbove returns the oldest record after an LSN that brings block i.
func (c *pchunk) nextAbove(x journal.LSN, i int) (next *pend) {
	for _, list := range []*pend{c.open, c.newest} {
		for p := list; p != nil; p = p.older {
			if p.turn() > x && p.mask>>i&1 != 0 && p.typ.data() && (next == nil || p.turn() < next.turn()) {
				next = p
			}
		}
	}
	return next
}
