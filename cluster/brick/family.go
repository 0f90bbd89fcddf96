package brick

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/cockroachdb/pebble/v2"

	"petal/journal"
	"petal/placement"
)

func blocks(m placement.Mask) int { return bits.OnesCount16(uint16(m)) }

// appendMark journals a record of the brick's own, without data. then, if not
// nil, is called when it is durable.
func (b *Brick) appendMark(h head, then func(*pend)) error {
	if err := b.Failed(); err != nil {
		return err
	}
	h.Committed, h.Settled = journal.LSN(b.order.committed.Load()), journal.LSN(b.order.settled.Load())
	r := &journal.Record{Head: h.append(nil)}
	r.Done = func(r *journal.Record, err error) {
		if err != nil {
			b.fail(err)
			return
		}
		p := &pend{typ: h.Type, key: h.Key, born: b.now()}
		p.state.Store(stateSettled | stateCommitted)
		b.order.mark(p, stateDurable, r.LSN)
		if then != nil {
			then(p)
		}
	}
	b.journal.Append(r)
	return nil
}

// DropFamily forgets everything of a family, at all its nodes. done is called
// when that is durable; the space comes back a little later. The caller has no
// record or read of the family under way, and never uses its number again.
func (b *Brick) DropFamily(f placement.Family, done func(error)) {
	if f == 0 {
		done(errors.New("brick: family 0 is none"))
		return
	}
	if b.o.Cache != nil {
		b.o.Cache.DropFamily(f)
	}
	if err := b.appendMark(head{Type: typeDrop, Key: placement.Key{Family: f}}, func(*pend) {
		b.kickDestage()
		done(nil)
	}); err != nil {
		done(err)
	}
}

// destageDrop takes a family out of the map: its batch.
func (b *Brick) destageDrop(drop *pend) error {
	f := drop.key.Family
	var rest []restingExtent
	done := []*pend{drop}
	lo, hi := familyBounds(f)
	err := b.pmap.scan(lo, hi, func(k placement.Key, e *entry) error {
		if e.Kind == kindExtent {
			rest = append(rest, restingExtent{e.Extent, true})
		}
		return nil
	})
	if err != nil {
		return err
	}
	named := map[uint64]bool{}
	for _, r := range rest {
		named[r.extent] = true
	}
	for i := range b.pending.shards {
		for _, p := range b.pending.shards[i].dropFamily(b, f) {
			if p.typ == typeExtent && !named[p.ext] {
				rest = append(rest, restingExtent{p.ext, true})
			}
			done = append(done, p)
		}
	}
	batch := b.pmap.db.NewBatch()
	defer batch.Close()
	if err := batch.DeleteRange(lo, hi, nil); err != nil {
		return err
	}
	if err := setApplied(batch, b.order.finish(done)); err != nil {
		return err
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	b.pmap.hot.clear()
	b.usageMu.Lock()
	delete(b.usage, f)
	b.usageMu.Unlock()
	for _, r := range rest {
		b.alloc.rest(r.extent, r.punch)
	}
	return nil
}

// dropFamily takes the committed records of a family out of the shard.
func (s *pshard) dropFamily(b *Brick, f placement.Family) (gone []*pend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moves++
	for k, c := range s.chunks {
		if k.Family != f {
			continue
		}
		for p := c.newest; p != nil; p = p.older {
			b.pending.drop(p)
			gone = append(gone, p)
		}
		c.newest = nil
		if c.idle() {
			if c.reserved {
				b.alloc.unreserve(1)
			}
			delete(s.chunks, k)
		}
	}
	return gone
}

// Usage returns the bytes that a family takes of the extent area, as far as it
// has been destaged.
func (b *Brick) Usage(f placement.Family) int64 {
	b.usageMu.Lock()
	defer b.usageMu.Unlock()
	return b.usage[f] * extentSize
}

// Space returns how much of the extent area is used, how much can still be
// allocated, and their sum, in bytes. What is promised to records on their way
// counts as used.
func (b *Brick) Space() (used, avail, total uint64) {
	a := &b.alloc
	a.mu.Lock()
	taken := a.used - int64(len(a.resting)) + a.reserved
	spare := a.free + int64(len(a.resting)) - a.reserved
	room := max(0, a.limit-a.used-a.free)
	a.mu.Unlock()
	if fsAvail, fsTotal, err := b.o.FS.Free(); err == nil {
		if b.o.CapacityBytes == 0 {
			fsAvail -= min(fsAvail, fsTotal/50)
		}
		room = min(room, int64(fsAvail/extentSize))
	}
	used = uint64(max(0, taken)) * extentSize
	avail = uint64(max(0, spare+room)) * extentSize
	return used, avail, used + avail
}

// Provisioned returns which blocks of a chunk are mapped to space, as seen
// along a lineage.
func (b *Brick) Provisioned(f placement.Family, lineage []placement.Node, c placement.Chunk) (placement.Mask, error) {
	op := ReadOp{Family: f, Lineage: lineage, Chunk: c, Count: placement.BlocksPerChunk}
	if err := b.find(&op, &op.place); err != nil {
		return 0, err
	}
	op.place.release()
	var m placement.Mask
	for i := range op.place {
		if op.place[i].kind != nowhere {
			m |= 1 << i
		}
	}
	return m, nil
}

// NextMapped returns the first chunk from one on that has data in the map or
// on its way there, at any node of the family.
func (b *Brick) NextMapped(f placement.Family, from placement.Chunk) (placement.Chunk, bool, error) {
	best, found := placement.Chunk(0), false
	for i := range b.pending.shards { // before the map: destage moves records there
		s := &b.pending.shards[i]
		s.mu.Lock()
		for k, c := range s.chunks {
			if k.Family != f || k.Chunk < from || found && k.Chunk >= best {
				continue
			}
			for p := c.newest; p != nil; p = p.older {
				if p.typ != typeZero {
					best, found = k.Chunk, true
					break
				}
			}
		}
		s.mu.Unlock()
	}
	lo, hi := familyBounds(f)
	lo = binary.BigEndian.AppendUint64(lo, uint64(from))
	stop := errors.New("found")
	err := b.pmap.scan(lo, hi, func(k placement.Key, e *entry) error {
		if found && k.Chunk >= best {
			return stop
		}
		if e.Valid != 0 {
			best, found = k.Chunk, true
			return stop
		}
		return nil
	})
	if err != nil && err != stop {
		return 0, false, err
	}
	return best, found, nil
}

// flushWait is a call of Flush that waits for extents.
type flushWait struct {
	lsn  uint64
	done func(error)
}

// Flush calls done when everything that was appended before is durable, lazy
// records too, or with the reason why it never will be. done may be called
// before Flush returns and must not block.
func (b *Brick) Flush(done func(error)) {
	if err := b.Failed(); err != nil {
		done(err)
		return
	}
	last := uint64(b.journal.Next() - 1)
	b.journal.Flush(func(err error) {
		if err != nil {
			b.fail(err)
			done(err)
			return
		}
		b.flushMu.Lock()
		b.flushes = append(b.flushes, flushWait{last, done})
		b.flushWaits.Add(1)
		b.flushMu.Unlock()
		b.wakeFlushes()
	})
}

// wakeFlushes ends the flushes that have nothing left to wait for.
func (b *Brick) wakeFlushes() {
	if b.flushWaits.Load() == 0 {
		return
	}
	b.endFlushes(nil)
}

func (b *Brick) failFlushes(err error) { b.endFlushes(err) }

func (b *Brick) endFlushes(err error) {
	var over []flushWait
	b.flushMu.Lock()
	kept := b.flushes[:0]
	for _, w := range b.flushes {
		if err != nil || b.order.settled.Load() >= w.lsn {
			over = append(over, w)
		} else {
			kept = append(kept, w)
		}
	}
	clear(b.flushes[len(kept):])
	b.flushes = kept
	b.flushWaits.Add(-int64(len(over)))
	b.flushMu.Unlock()
	for _, w := range over {
		w.done(err)
	}
}
