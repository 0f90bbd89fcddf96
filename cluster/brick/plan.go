package brick

import (
	"fmt"
	"hash/crc32"

	"petal/cluster/slab"
	"petal/placement"
)

// chunkPlan is what a batch does to one chunk.
type chunkPlan struct {
	key     placement.Key
	records []*pend // oldest first
	was, is entry
	src     [placement.BlocksPerChunk]source
	bufs    []*slab.Buf // of records, as far as they have one: references
	freed   []restingExtent
	slots   []slot // freed
	temp    []*slab.Buf
	touched placement.Mask // blocks that records changed
}

// source is where the data of a block to be written home comes from.
type source struct {
	rec  *pend
	rank int
	buf  *slab.Buf // or nil: in the journal
}

// homeWrite is one block on its way home.
type homeWrite struct {
	to   slot
	data []byte
}

// hold keeps the memory of the records' data for as long as the plan needs it.
// The shard's lock is held.
func (p *chunkPlan) hold() {
	p.bufs = make([]*slab.Buf, len(p.records))
	for i, r := range p.records {
		if r.buf != nil {
			p.bufs[i] = r.buf.Retain()
		}
	}
}

func (p *chunkPlan) release() {
	for _, b := range p.bufs {
		if b != nil {
			b.Release()
		}
	}
	for _, t := range p.temp {
		t.Release()
	}
}

// plan works out the chunk's new entry and queues the writes of its blocks.
func (b *Brick) plan(p *chunkPlan) error {
	if err := b.pmap.lookup(p.key, &p.was); err != nil {
		return err
	}
	p.is = p.was
	for i, r := range p.records {
		p.apply(r, p.bufs[i])
	}
	var dirty placement.Mask
	for i := range p.src {
		if p.src[i].rec != nil {
			dirty |= 1 << i
		}
	}
	if err := b.settlePlace(p); err != nil {
		return err
	}
	b.queueWrites(p, dirty)
	b.queueMoves(p)
	return nil
}

// apply changes the entry as one record says, all but where blocks lie, and
// notes where the data comes from.
func (p *chunkPlan) apply(r *pend, buf *slab.Buf) {
	e := &p.is
	m := e.effect(r)
	if m == 0 {
		return
	}
	p.touched |= m
	e.Valid &^= m
	e.Zero &^= m
	e.Missing &^= m
	switch r.typ {
	case typeMissing:
		e.Missing |= m
	case typeZero, typeFillZero:
		e.Zero |= m
	case typeFillAbsent:
	default:
		e.Valid |= m
	}
	if r.typ == typeExtent {
		if e.Kind == kindExtent && !p.was.in(e.Extent) {
			p.freed = append(p.freed, restingExtent{e.Extent, false}) // of an earlier extent-write
		}
		e.Kind, e.Extent = kindExtent, r.ext
	}
	for i := range p.src {
		if m>>i&1 == 0 {
			continue
		}
		p.src[i] = source{}
		if e.Valid>>i&1 == 0 {
			continue
		}
		k := rank(r.mask, i)
		e.Sum[i] = r.sums()[k]
		if r.typ.data() {
			p.src[i] = source{rec: r, rank: k, buf: buf}
		}
	}
}

// settlePlace decides where the chunk's blocks lie from now on, and what becomes
// free by that.
func (b *Brick) settlePlace(p *chunkPlan) (err error) {
	e := &p.is
	switch {
	case e.Valid == 0:
		if e.Kind == kindExtent && !p.was.in(e.Extent) {
			p.freed = append(p.freed, restingExtent{e.Extent, true})
		}
		e.Kind, e.Extent = kindZero, 0
		if root(p.key.Node) {
			e.Zero = 0 // nothing to hide
		}
	case e.Kind != kindExtent:
		if err = b.findHome(p); err != nil {
			return err
		}
	}
	if p.was.Kind == kindExtent && !e.in(p.was.Extent) {
		p.freed = append(p.freed, restingExtent{p.was.Extent, e.Kind == kindZero})
	}
	for i := range e.Slot {
		kept := e.Kind == kindFrags && e.Valid>>i&1 != 0
		if p.was.Kind == kindFrags && p.was.Valid>>i&1 != 0 && !kept {
			p.slots = append(p.slots, p.was.Slot[i])
		}
		if !kept {
			e.Slot[i] = 0
		}
	}
	return nil
}

// findHome finds a place for the valid blocks of a chunk that has no extent of
// its own: a few blocks at a node with ancestors go to slots, else an extent is
// taken.
//
// A chunk whose later records count on the promise that is used up here gets an
// extent in any case: they will be written in place.
func (b *Brick) findHome(p *chunkPlan) error {
	e := &p.is
	alone, promised := b.drawPromise(p)
	if !alone || root(p.key.Node) || blocks(e.Valid) > fragsMax {
		x, err := b.takeExtent(p.key, promised)
		e.Kind, e.Extent = kindExtent, x
		return err
	}
	for i := range e.Slot {
		if e.Valid>>i&1 == 0 || p.was.Kind == kindFrags && p.was.Valid>>i&1 != 0 {
			continue
		}
		s, ok := b.alloc.takeSlot()
		if !ok {
			x, err := b.takeExtent(p.key, promised)
			if err != nil {
				return err
			}
			promised = false
			b.alloc.openFrags(x)
			s, _ = b.alloc.takeSlot()
		}
		e.Slot[i] = s
	}
	e.Kind = kindFrags
	if promised {
		b.alloc.unreserve(1)
	}
	return nil
}

// drawPromise takes over what was promised to the chunk, and reports whether the
// plan's records are all there are of it.
func (b *Brick) drawPromise(p *chunkPlan) (alone, promised bool) {
	s := b.pending.shard(p.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chunks[p.key]
	promised, c.reserved = c.reserved, false
	return c.open == nil && c.newest == p.records[len(p.records)-1], promised
}

// takeExtent takes an extent, flushing the map if all that are free still rest.
func (b *Brick) takeExtent(k placement.Key, promised bool) (uint64, error) {
	for try := 0; ; try++ {
		if x, ok := b.alloc.take(promised); ok {
			return x, nil
		}
		if try == 1 {
			return 0, fmt.Errorf("brick: no extent for family %d chunk %d (promised: %v)", k.Family, k.Chunk, promised)
		}
		if err := b.flushMap(); err != nil {
			return 0, err
		}
	}
}

// root reports whether a node of the epoch tree has no ancestor.
func root(n placement.Node) bool { return n == 1 }

// queueWrites queues the home writes of the dirty blocks.
func (b *Brick) queueWrites(p *chunkPlan, dirty placement.Mask) {
	d := &b.destager
	for i := 0; i < placement.BlocksPerChunk; i++ {
		if dirty>>i&1 == 0 {
			continue
		}
		s := &p.src[i]
		if s.buf != nil {
			d.writes = append(d.writes, homeWrite{p.is.place(i), block(s.buf.Bytes(), s.rank)})
			continue
		}
		n := 1
		for i+n < placement.BlocksPerChunk && p.src[i+n].buf == nil && p.src[i+n].rec == s.rec && p.src[i+n].rank == s.rank+n {
			n++
		}
		b.readBack(p, i, n)
		i += n - 1
	}
}

// queueMoves queues the writes of blocks that no record touches and that move
// from slots to an extent. A block that cannot be read stays unreadable: its
// checksum moves.
func (b *Brick) queueMoves(p *chunkPlan) {
	if p.was.Kind != kindFrags || p.is.Kind != kindExtent {
		return
	}
	move := p.was.Valid &^ p.touched
	for i := range p.is.Sum {
		if move>>i&1 == 0 {
			continue
		}
		t := b.o.Pool.Get(placement.BlockSize)
		p.temp = append(p.temp, t)
		var at places
		at[i] = place{kind: onDisk, slot: p.was.Slot[i], sum: p.was.Sum[i]}
		if bad, _ := b.fetch(&at, i, 1, t.Bytes()); bad == 0 {
			b.destager.writes = append(b.destager.writes, homeWrite{p.is.place(i), t.Bytes()})
		}
	}
}

// cached queues the blocks of [i, i+n) that the cache still has as their record
// wrote them, and reports which. The checksum tells: a newer record may have
// taken the block's place there.
func (b *Brick) cached(p *chunkPlan, i, n int) (found placement.Mask) {
	if b.o.Cache == nil {
		return 0
	}
	s := &p.src[i]
	for k := range n {
		b.destager.refs = b.destager.refs[:0]
		if !b.o.Cache.Get(p.key, i+k, 1, &b.destager.refs) {
			continue
		}
		ref := b.destager.refs[0]
		data := ref.Buf.Bytes()[ref.Off : ref.Off+ref.Len]
		if crc32.Checksum(data, castagnoli) != s.rec.sums()[s.rank+k] {
			ref.Buf.Release()
			continue
		}
		p.temp = append(p.temp, ref.Buf)
		b.destager.writes = append(b.destager.writes, homeWrite{p.is.place(i + k), data})
		found |= placement.Span(i+k, 1)
	}
	return found
}

// readBack takes n blocks from block i on, of which the memory was let go, from
// the cache, or else reads them from the journal, and queues them. A
// block that rotted there is lost: its home is left alone, and since the new
// entry has the checksum that it should have, reading it is a medium error and
// never old data.
func (b *Brick) readBack(p *chunkPlan, i, n int) {
	found := b.cached(p, i, n)
	if found == placement.Span(i, n) {
		return
	}
	t := b.o.Pool.Get(n * placement.BlockSize)
	p.temp = append(p.temp, t)
	var at places
	s := &p.src[i]
	for k := range n {
		at[i+k] = place{kind: inJournal, pos: s.rec.pos, rank: s.rank + k, sum: s.rec.sums()[s.rank+k]}
	}
	bad, err := b.fetch(&at, i, n, t.Bytes())
	for k := range n {
		if found>>(i+k)&1 == 1 {
			continue
		}
		if bad>>(i+k)&1 == 0 {
			b.destager.writes = append(b.destager.writes, homeWrite{p.is.place(i + k), block(t.Bytes(), k)})
			continue
		}
		b.stats.lostBlocks.Add(1)
		b.o.Log.Error("block lost in the journal before it reached its home", "key", fmt.Sprint(p.key), "block", i+k, "lsn", s.rec.LSN(), "cause", err)
	}
}

// in reports whether the entry's home is that extent.
func (e *entry) in(extent uint64) bool { return e.Kind == kindExtent && e.Extent == extent }

// blocks is what the entry takes of the extent area, in blocks.
func (e *entry) blocks() int64 {
	switch e.Kind {
	case kindExtent:
		return placement.BlocksPerChunk
	case kindFrags:
		return int64(blocks(e.Valid))
	}
	return 0
}
