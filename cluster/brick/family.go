package brick

import (
	"errors"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"petal/journal"
	"petal/placement"
)

func blocks(m placement.Mask) int { return bits.OnesCount16(uint16(m)) }

// appendMark journals a record of the brick's own, without data; then is called
// when it is durable or never will be.
func (b *Brick) appendMark(h head, then func(error)) { b.appendOwn(h, then, nil) }

// appendControl is the same, but then is called when the record is destaged.
func (b *Brick) appendControl(h head, then func(error)) {
	b.appendOwn(h, func(err error) {
		if err != nil {
			then(err)
		}
	}, then)
}

func (b *Brick) appendOwn(h head, then, destaged func(error)) {
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
		case h.Type.control():
			p := b.control(&h)
			p.then = destaged
			b.takeEffect(&h)
			p.state.Store(stateSettled | stateCommitted)
			b.order.mark(p, stateDurable, r.LSN)
		default: // the record is all there is to it
			b.takeEffect(&h)
			b.order.skip(r.LSN)
			b.vouched.Store(uint64(r.LSN))
		}
		b.wakeFlushes()
		then(err)
	}
	b.journal.Append(r)
}

// control makes the pend of a control record.
func (b *Brick) control(h *head) *pend {
	p := &pend{typ: h.Type, key: h.Key, born: b.now(), excluded: h.Excluded, set: h.Buckets}
	if h.Type != typeDrop {
		p.last = b.lasts.get(h.Link, h.Bucket)
	}
	return p
}

// takeEffect does at once what of the effect of the brick's own records does not
// wait for a destage.
func (b *Brick) takeEffect(h *head) {
	switch {
	case h.Type == typeCut:
		b.order.cutTo(b.lasts.get(h.Link, h.Bucket), h.stamp())
	case h.Type == typeHistory:
		b.order.learn(b.lasts.get(h.Link, h.Bucket), h.stamp(), h.Target)
	case h.Type == typeUnmark:
		for s := h.Excluded; s != 0; s = s.Without(s.First()) {
			b.lasts.voidBefore(markSpace{h.Link, s.First()}, h.Ver)
		}
	case h.Type == typeDiscard && h.Key.Family == 0:
		b.forgetLasts(h.Link)
	}
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

// destageControl does what a control record says: its batch.
func (b *Brick) destageControl(p *pend) error {
	switch p.typ {
	case typeUnmark:
		return b.destageUnmark(p)
	case typeDiscard:
		return b.destageDiscard(p)
	}
	return b.destageDrop(p)
}

// erasure takes entries out of the map.
type erasure struct {
	b     *Brick
	batch *pebble.Batch
	rest  []restingExtent
	slots []slot
	named map[uint64]bool // extents in rest
	done  []*pend
	freed int64 // blocks
	less  map[markSpace]int64
	found map[LinkID]int64
}

func (b *Brick) erase(control *pend) *erasure {
	return &erasure{b: b, batch: b.pmap.db.NewBatch(), named: map[uint64]bool{}, done: []*pend{control}, less: map[markSpace]int64{}, found: map[LinkID]int64{}}
}

// entries erases a family's entries, those of buckets in set if there is one.
func (x *erasure) entries(f placement.Family, set *bucketSet) error {
	lo, hi := familyBounds(f)
	var key [keySize]byte
	err := x.b.pmap.scan(lo, hi, func(k placement.Key, e *entry) error {
		if set != nil && !set.has(placement.BucketOf(f, k.Chunk)) {
			return nil
		}
		if e.Kind == kindExtent {
			x.extent(e.Extent)
		}
		for i := range e.Slot {
			if e.Kind == kindFrags && e.Valid>>i&1 != 0 {
				x.slots = append(x.slots, e.Slot[i])
			}
		}
		x.freed += e.blocks()
		if set == nil {
			return nil
		}
		return x.batch.Delete(appendKey(key[:0], k), nil)
	})
	if err != nil || set != nil {
		return err
	}
	return x.batch.DeleteRange(lo, hi, nil)
}

func (x *erasure) extent(e uint64) {
	if !x.named[e] {
		x.named[e] = true
		x.rest = append(x.rest, restingExtent{e, true})
	}
}

// notes erases a family's notes between two keys, of which prefix bytes come
// before the family.
func (x *erasure) notes(f placement.Family, lo, hi []byte, prefix int) error {
	return x.b.pmap.raw(lo, hi, func(k, v []byte) error {
		if len(k) != prefix+tailSize {
			return rotten("map", "has a note %x", k)
		}
		key, m, _, err := parseNote(k[prefix:], v)
		if err != nil || key.Family != f {
			return err
		}
		if k[0] == keyStale {
			x.less[markSpace{parseLink(k), placement.Member(k[9])}]--
		} else {
			x.found[parseLink(k)] -= int64(blocks(m))
		}
		return x.batch.Delete(k, nil)
	})
}

// apply commits the batch and lets go of what it has freed.
func (x *erasure) apply(f placement.Family) error {
	b := x.b
	if err := b.commitDone(x.batch, x.done); err != nil {
		return err
	}
	b.pmap.hot.clear()
	b.use(f, -x.freed)
	b.count(x.found, x.less)
	for _, r := range x.rest {
		b.alloc.rest(r.extent, r.punch)
	}
	for _, s := range x.slots {
		b.alloc.restSlot(s)
	}
	return nil
}

// destageDrop takes a family out of the map: its batch.
func (b *Brick) destageDrop(drop *pend) error {
	f := drop.key.Family
	x := b.erase(drop)
	defer x.batch.Close()
	err := errors.Join(x.entries(f, nil),
		x.notes(f, []byte{keyLacking}, []byte{keyLacking + 1}, lackingSize-tailSize), x.notes(f, []byte{keyStale}, []byte{keyStale + 1}, staleSize-tailSize))
	if err != nil {
		return err
	}
	for i := range b.pending.shards {
		for _, p := range b.pending.shards[i].dropFamily(b, f) {
			if p.typ == typeExtent {
				x.extent(p.ext)
			}
			x.done = append(x.done, p)
		}
	}
	return x.apply(f)
}

// dropFamily takes the committed records of a family out of the shard.
func (s *pshard) dropFamily(b *Brick, f placement.Family) (gone []*pend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moves++
	var keys []placement.Key
	for k := range s.chunks {
		if k.Family == f {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range keys {
		c := s.chunks[k]
		for p := c.newest; p != nil; p = p.older {
			b.pending.drop(p)
			b.lasts.unnote(p)
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
