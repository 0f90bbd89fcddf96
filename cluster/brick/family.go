package brick

import (
	"errors"
	"math/bits"

	"petal/journal"
	"petal/placement"
)

func blocks(m placement.Mask) int { return bits.OnesCount16(uint16(m)) }

// appendMark journals a record of the brick's own, without data; then is called
// when it is durable or never will be.
func (b *Brick) appendMark(h head, then func(error)) {
	if err := b.Failed(); err != nil {
		then(err)
		return
	}
	b.stamp(&h)
	r := &journal.Record{Head: h.append(nil)}
	r.Done = func(r *journal.Record, err error) {
		switch {
		case err != nil:
			b.fail(err)
		case h.Type == typeDrop:
			p := &pend{typ: h.Type, key: h.Key, born: b.now()}
			p.state.Store(stateSettled | stateCommitted)
			b.order.mark(p, stateDurable, r.LSN)
		default: // the record is all there is to it
			b.order.skip(r.LSN)
			b.vouched.Store(uint64(r.LSN))
		}
		b.wakeFlushes()
		then(err)
	}
	b.journal.Append(r)
}

// vouch is called now and then by the destager. When nothing has been appended
// since the last time, it journals one record that says nothing but that those
// before it are durable and complete. Until something says so, recovery takes a
// last record that has rotted for one that was torn.
func (b *Brick) vouch() {
	d := &b.destager
	next := b.journal.Next()
	idle := next == d.seen
	d.seen = next
	if last := uint64(next - 1); idle && last > b.vouched.Load() && b.order.settled.Load() >= last {
		b.appendMark(head{Type: typeStamp}, func(error) {})
	}
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
	b.appendMark(head{Type: typeDrop, Key: placement.Key{Family: f}}, func(err error) {
		b.kickDestage()
		done(err)
	})
}

// destageDrop takes a family out of the map: its batch.
func (b *Brick) destageDrop(drop *pend) error {
	f := drop.key.Family
	var rest []restingExtent
	var slots []slot
	done := []*pend{drop}
	lo, hi := familyBounds(f)
	err := b.pmap.scan(lo, hi, func(k placement.Key, e *entry) error {
		if e.Kind == kindExtent {
			rest = append(rest, restingExtent{e.Extent, true})
		}
		for i := range e.Slot {
			if e.Kind == kindFrags && e.Valid>>i&1 != 0 {
				slots = append(slots, e.Slot[i])
			}
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
	if err := b.commitBatch(batch, b.order.finish(done)); err != nil {
		return err
	}
	b.pmap.hot.clear()
	b.usageMu.Lock()
	delete(b.usage, f)
	b.usageMu.Unlock()
	for _, r := range rest {
		b.alloc.rest(r.extent, r.punch)
	}
	for _, s := range slots {
		b.alloc.restSlot(s)
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
