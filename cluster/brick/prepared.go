package brick

import (
	"math/bits"

	"petal/placement"
)

// ReadPrepared reads what a record wrote that is Done and neither committed nor
// abandoned, of this life or from Recovery.Prepared: the blocks of its Mask one
// after another. Of op only Done and Owner are used; results are as of Read, and
// verified against the record's checksums. Of a Zero there is nothing to read.
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
	op.place = places{}
	s := b.pending.shard(r.Key)
	s.mu.Lock()
	for i := range op.place {
		if r.Mask>>i&1 != 0 {
			op.place[i] = r.p.place(i)
		}
	}
	s.mu.Unlock()
	defer op.place.release()
	var bad placement.Mask
	var cause error
	for m := r.Mask; m != 0; {
		i := bits.TrailingZeros16(uint16(m))
		n := op.run(i, i+bits.TrailingZeros16(^uint16(m>>i)))
		wrong, err := b.collectRun(op, i, n)
		bad |= wrong
		if err != nil {
			cause = err
		}
		m &^= placement.Span(i, n)
	}
	if bad != 0 {
		return &MediumError{Key: r.Key, Blocks: bad, Cause: cause}
	}
	return nil
}
