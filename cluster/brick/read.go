package brick

import (
	"hash/crc32"
	"math/bits"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/journal"
	"petal/placement"
)

// ReadOp is a read of blocks of one chunk as seen at one node of its family's
// epoch tree. The caller fills in the first part and keeps the op until Done.
type ReadOp struct {
	cache.Waiter // used while another read fills the same chunk

	Family  placement.Family
	Lineage []placement.Node // the node asked for, then its ancestors, newest first
	Chunk   placement.Chunk
	First   int // block
	Count   int // 1 .. 16 - First
	// Done is called once, on a cache hit before Read returns, else from a
	// reader's goroutine; it must not block for long.
	Done func(*ReadOp)
	// Owner is the caller's.
	Owner any
	// Bare reads past the cache and sets Zero and Absent: to copy a chunk as it
	// is at one node, which then is all of Lineage.
	Bare bool

	// Results. With Err nil, Bufs is the blocks in order, a reference to each
	// run: Bufs.Release() gives them back. The slice's memory is reused by the
	// next Read of this op. With a *MediumError or ErrElsewhere, Bufs is there too,
	// and the blocks that the one or Missing name are zeros in it. With another
	// error it is empty.
	Bufs cache.Refs
	Err  error
	// Missing are the blocks that this copy lacks and another has (R9). If there
	// are any, Err is ErrElsewhere, or a *MediumError that names others.
	Missing placement.Mask
	Zero    placement.Mask // Bare: they were written as zeros
	Absent  placement.Mask // Bare: nothing was ever written there at any node of Lineage

	b        *Brick
	prefetch bool
	record   *Record // of ReadPrepared
	place    places
}

// places says where each block of a chunk is.
type places [placement.BlocksPerChunk]place

// place is where a block was found.
type place struct {
	kind placeKind
	slot slot             // onDisk
	pos  journal.Position // inJournal
	rank int              // inJournal: which block of the record
	buf  *slab.Buf        // inMemory: a reference
	sum  uint32
}

type placeKind uint8

const (
	nowhere   placeKind = iota // reads as zeros
	elsewhere                  // missing here
	inMemory                   // in the buffer of a pending record, block rank
	inJournal                  // in a segment
	onDisk                     // in an extent
)

// release gives back the references that find took.
func (at *places) release() {
	for i := range at {
		if at[i].buf != nil {
			at[i].buf.Release()
			at[i].buf = nil
		}
	}
}

// forget gives up what was found of some blocks.
func (at *places) forget(m placement.Mask) {
	for i := range at {
		if m>>i&1 == 0 {
			continue
		}
		if at[i].buf != nil {
			at[i].buf.Release()
		}
		at[i] = place{}
	}
}

// same reports whether the blocks of m are found where they were before.
func (at *places) same(before *places, m placement.Mask) bool {
	for i := range at {
		if m>>i&1 != 0 && at[i] != before[i] {
			return false
		}
	}
	return true
}

func (op *ReadOp) key() placement.Key {
	return placement.Key{Family: op.Family, Node: op.Lineage[0], Chunk: op.Chunk}
}

// Read reads committed data: from the cache before it returns, else on one of
// the brick's readers. Every block's checksum has been verified; blocks that
// were never written read as zeros. A read sees every record committed before
// it began, and of each record all of its blocks or none.
func (b *Brick) Read(op *ReadOp) {
	op.b, op.Err, op.Bufs, op.record = b, b.Failed(), op.Bufs[:0], nil
	op.Missing, op.Zero, op.Absent = 0, 0, 0
	if op.Err != nil {
		op.Done(op)
		return
	}
	if c := b.o.Cache; c != nil && !op.Bare && c.Get(op.key(), op.First, op.Count, &op.Bufs) {
		op.Done(op)
		return
	}
	if op.Ready == nil {
		op.Ready = op.again
	}
	b.reads.push(op)
}

// again starts a read over after another's fill has ended.
func (op *ReadOp) again(*cache.Waiter) { op.b.Read(op) }

// Prefetch reads a chunk into the cache if the readers have nothing better to
// do.
func (b *Brick) Prefetch(f placement.Family, lineage []placement.Node, c placement.Chunk) {
	if b.o.Cache == nil || b.Failed() != nil || b.reads.len() >= b.o.Readers {
		return
	}
	op, _ := b.prefetches.Get().(*ReadOp)
	if op == nil {
		op = &ReadOp{prefetch: true}
		op.Done = func(op *ReadOp) {
			op.Bufs.Release()
			op.b.prefetches.Put(op)
		}
	}
	op.b, op.Family, op.Chunk, op.First, op.Count, op.Err = b, f, c, 0, placement.BlocksPerChunk, nil
	op.Lineage = append(op.Lineage[:0], lineage...)
	b.reads.push(op)
}

// runRead does a read on a reader's goroutine.
func (b *Brick) runRead(op *ReadOp) {
	var fill *cache.Fill
	if op.record != nil {
		op.Err = b.loadRecord(op)
		op.Done(op)
		return
	}
	if c := b.o.Cache; c != nil && !op.Bare {
		want, w := placement.Span(op.First, op.Count), &op.Waiter
		if op.prefetch {
			want, w = 0, nil
		}
		if fill = c.BeginFill(op.key(), want, w); fill == nil {
			if op.prefetch {
				op.Done(op)
			}
			return // again is called when the other fill has ended
		}
	}
	op.Err = b.serve(op, fill)
	if fill != nil {
		fill.End()
	}
	op.Done(op)
}

// serve finds, reads and verifies the blocks of op. A block that does not match
// may have been overwritten or moved since it was looked up; so everything is
// looked up again. Only a block that is still said to be where it was, and did
// not match twice, is bad: the first time it may have been overwritten and then
// written back just as it was.
func (b *Brick) serve(op *ReadOp, fill *cache.Fill) error {
	for again := false; ; {
		if err := b.Failed(); err != nil {
			return err
		}
		if err := b.find(op, &op.place); err != nil {
			return err
		}
		bad, cause := b.collect(op)
		if bad == 0 {
			op.fill(fill)
			if op.Missing != 0 {
				return ErrElsewhere
			}
			return nil
		}
		var now places
		if err := b.find(op, &now); err != nil {
			op.Bufs.Release()
			return err
		}
		still := now.same(&op.place, bad)
		now.release()
		if !still || !again {
			again = still
			op.Bufs.Release()
			continue
		}
		b.stats.mediumErrors.Add(1)
		b.stats.badBlocks.Add(uint64(bits.OnesCount16(uint16(bad))))
		err := &MediumError{Key: op.key(), Blocks: bad, Cause: cause}
		b.rotLog.Do(func() {
			b.o.Log.Error("blocks cannot be read", "family", err.Key.Family, "chunk", err.Key.Chunk, "offset", uint64(err.Key.Chunk)*placement.ChunkSize, "error", err)
		})
		return err
	}
}

// collect gathers the blocks of op from their places into Bufs. Blocks that
// could not be read, or are not what was written, are bad, and zeros in Bufs.
func (b *Brick) collect(op *ReadOp) (bad placement.Mask, cause error) {
	end := op.First + op.Count
	for i := op.First; i < end; {
		n := op.run(i, end)
		wrong, err := b.collectRun(op, i, n)
		bad |= wrong
		if err != nil {
			cause = err
		}
		i += n
	}
	op.place.release()
	return bad, cause
}

// fill puts what was read into the cache.
func (op *ReadOp) fill(f *cache.Fill) {
	if f == nil {
		return
	}
	i := op.First
	for _, r := range op.Bufs {
		n := r.Len / placement.BlockSize
		if k := op.place[i].kind; r.Off == 0 && k != inMemory && k != elsewhere { // a buffer of ours, or zeros
			f.Put(placement.Span(i, n), r.Buf)
		}
		i += n
	}
}

// run returns how many blocks from i on are found in the same kind of place:
// those in the journal and on the disk share one buffer.
func (op *ReadOp) run(i, end int) int {
	kind := func(i int) placeKind { return min(op.place[i].kind, inJournal) }
	n := 1
	for i+n < end && kind(i+n) == kind(i) {
		n++
	}
	return n
}

// find fills in where the blocks of op are: at each node of the lineage first
// what is pending, then what is in the map.
//
// The two look-ups must agree on one moment, else of a record that was
// committed and destaged in between some blocks could be seen and others not.
// The destager counts up moves before it changes the map for a chunk of the
// shard; so if the count did not change, nothing was missed.
func (b *Brick) find(op *ReadOp, at *places) error {
	all := placement.Span(op.First, op.Count)
	want := all
	key := op.key()
	*at = places{}
	for _, key.Node = range op.Lineage {
		left, err := b.findAt(key, want, at)
		if err != nil {
			at.release()
			return err
		}
		if want = left; want == 0 {
			break
		}
	}
	op.Missing = at.of(elsewhere) & all
	if op.Bare {
		op.Zero, op.Absent = at.of(nowhere)&all&^want, want
	}
	return nil
}

// of returns the blocks that were found in a kind of place.
func (at *places) of(k placeKind) (m placement.Mask) {
	for i := range at {
		if at[i].kind == k {
			m |= 1 << i
		}
	}
	return m
}

// findAt looks at one node and returns what is left to be found at older ones.
func (b *Brick) findAt(key placement.Key, want placement.Mask, at *places) (placement.Mask, error) {
	s := b.pending.shard(key)
	for {
		left, gone, above, moves := s.find(key, want, at)
		if left == 0 {
			return gone, nil
		}
		var e entry
		if err := b.pmap.lookup(key, &e); err != nil {
			return 0, err
		}
		s.mu.Lock()
		stable := s.moves == moves
		if stable {
			gone |= above.fromMap(&e, left, at)
		}
		s.mu.Unlock()
		if stable {
			return gone, nil
		}
		at.forget(want)
	}
}

// find looks into the pending records of a chunk. It returns what is left to be
// found in the map, what is not there at this node, and what is to be laid over
// the map's entry.
func (s *pshard) find(key placement.Key, want placement.Mask, at *places) (left, gone placement.Mask, above *overlay, moves uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chunks[key]
	if c == nil {
		return want, 0, nil, s.moves
	}
	for p := c.newest; p != nil && want != 0; p = p.older {
		hit := want & p.mask
		if !p.typ.hides() {
			above = above.add(p, hit)
			continue
		}
		for i := range at {
			if hit>>i&1 != 0 {
				at[i] = above.over(i, p.place(i))
			}
		}
		if p.typ == typeMissing {
			gone |= above.absent(hit)
		}
		want &^= hit
	}
	return want, gone, above, s.moves
}

// place returns where block i of a pending record is. The shard's lock is held.
func (p *pend) place(i int) place {
	switch p.typ {
	case typeZero, typeFillZero, typeFillAbsent:
		return place{kind: nowhere}
	case typeMissing:
		return place{kind: elsewhere}
	}
	k := rank(p.mask, i)
	switch {
	case p.buf != nil:
		return place{kind: inMemory, buf: p.buf.Retain(), rank: k, sum: p.sums()[k]}
	case p.typ == typeExtent:
		return place{kind: onDisk, slot: slot(p.ext<<4 | uint64(i)), sum: p.sums()[k]}
	}
	return place{kind: inJournal, pos: p.pos, rank: k, sum: p.sums()[k]}
}

// collectRun adds n blocks from i on to the op's data.
func (b *Brick) collectRun(op *ReadOp, i, n int) (bad placement.Mask, cause error) {
	switch op.place[i].kind {
	case nowhere, elsewhere:
		op.Bufs.Add(b.o.Pool.Zero(), 0, n*placement.BlockSize)
		return 0, nil
	case inMemory:
		for k := i; k < i+n; k++ {
			op.Bufs.Add(op.place[k].buf, op.place[k].rank*placement.BlockSize, placement.BlockSize)
		}
		return 0, nil
	}
	buf := b.o.Pool.Get(n * placement.BlockSize)
	defer buf.Release()
	bad, cause = b.fetch(&op.place, i, n, buf.Bytes())
	for k := i; k < i+n; k++ {
		if bad>>k&1 != 0 {
			clear(block(buf.Bytes(), k-i))
		}
	}
	op.Bufs.Add(buf, 0, n*placement.BlockSize)
	return bad, cause
}

func block(b []byte, i int) []byte {
	return b[i*placement.BlockSize : (i+1)*placement.BlockSize]
}

// fetch reads n blocks from i on, all in extents or segments, with one request
// for each contiguous run, and returns which of them are not what was written.
func (b *Brick) fetch(at *places, i, n int, dst []byte) (bad placement.Mask, cause error) {
	for k := 0; k < n; {
		m := 1
		for k+m < n && at[i+k+m].follows(&at[i+k+m-1]) {
			m++
		}
		part := dst[k*placement.BlockSize : (k+m)*placement.BlockSize]
		err := b.readPlace(&at[i+k], part)
		for j := range m {
			p, data := &at[i+k+j], block(part, j)
			e := err
			if err != nil && m > 1 { // which of them is it?
				e = b.readPlace(p, data)
			}
			if e != nil {
				cause = e
			}
			if e != nil || crc32.Checksum(data, castagnoli) != p.sum {
				bad |= 1 << (i + k + j)
			}
		}
		k += m
	}
	return bad, cause
}

// readPlace reads from a place on, unverified.
func (b *Brick) readPlace(p *place, dst []byte) error {
	b.stats.reads.Add(1)
	if p.kind == inJournal {
		return b.journal.ReadBlocks(p.pos, p.rank, dst)
	}
	d := b.alloc.file(p.slot.extent())
	if d == nil {
		return rotten("map", "names extent %d, which is nowhere", p.slot.extent())
	}
	_, err := d.plain.ReadAt(dst, int64(p.slot.offset()%fileBytes))
	return err
}

// follows reports whether the block lies right behind another.
func (p *place) follows(q *place) bool {
	if p.kind != q.kind {
		return false
	}
	if p.kind == inJournal {
		return p.pos == q.pos && p.rank == q.rank+1
	}
	return p.slot == q.slot+1 && p.slot.extent() == q.slot.extent()
}
