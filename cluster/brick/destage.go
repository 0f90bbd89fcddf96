package brick

import (
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"petal/cluster/cache"
	"petal/journal"
	"petal/journal/vfs"
	"petal/placement"
)

// Destage takes committed records home, in batches:
//
//  1. choose: records that are ready and old enough, all of a chunk together
//  2. plan: per chunk, fold the records over the map entry; blocks that were
//     overwritten meanwhile cost nothing
//  3. write the blocks home, sorted and merged
//  4. sync the data files that were written
//  5. one Pebble batch: entries and the applied mark
//  6. drop the records from the pending index; put freed extents to rest
//
// and now and then: flush the map, then let the resting extents go and trim the
// journal. A crash
//
//	before 4   home blocks may be torn, the map still has their old checksums;
//	           the records are in the journal and are read from there
//	before 5 is flushed
//	           home blocks are new, the map is old: the same
//	later      nothing is lost; records above the mark are replayed, which
//	           changes nothing
//
// So the map never names data that is not on the disk, an extent is never
// reused while a crash could bring back an entry that names it, and no record
// is trimmed before the map that replaces it is durable.
type destager struct {
	kick    chan struct{}
	batch   []*chunkPlan
	writes  []homeWrite
	runs    []vfs.Request
	parts   [][]byte    // of the runs
	marked  journal.LSN // the applied mark in the map
	flushed journal.LSN // the one of the last map flush
	flushAt time.Time
	seen    journal.LSN // the journal's next, when vouch last looked
	value   []byte
	refs    cache.Refs // scratch of cached
}

// Limits of a batch, and of the time between two flushes of the map.
const (
	batchRecords     = 4096
	batchBytes       = 16 << 20
	writeBytesMax    = 1 << 20
	writePartsMax    = 256
	mapFlushInterval = 30 * time.Second
	destageTick      = 100 * time.Millisecond
)

func (b *Brick) kickDestage() {
	select {
	case b.destager.kick <- struct{}{}:
	default:
	}
}

func (b *Brick) destageLoop() {
	tick := time.NewTicker(destageTick)
	defer tick.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-tick.C:
		case <-b.destager.kick:
		}
		if b.Failed() != nil {
			return
		}
		b.vouch()
		if err := b.destageRound(); err != nil {
			if err != errMapFull { // Close has come, and says so itself
				b.fail(err)
			}
			return
		}
	}
}

// destageRound destages what is due, backs space ahead of need, and flushes the
// map if that is due.
func (b *Brick) destageRound() error {
	for {
		n, err := b.destageBatch(b.now() - b.dueAge().Nanoseconds())
		if err != nil {
			return err
		}
		if b.mapFlushDue() {
			if err := b.flushMap(); err != nil {
				return err
			}
		}
		if n == 0 || b.stopping() {
			break
		}
	}
	return b.alloc.ahead()
}

func (b *Brick) stopping() bool {
	select {
	case <-b.stop:
		return true
	default:
		return false
	}
}

// dueAge is how old a record must be to be destaged: the fuller the journal or
// the memory, the younger.
func (b *Brick) dueAge() time.Duration {
	used, capacity := b.journal.Fill()
	switch {
	case used >= capacity/4*3 || b.pending.bytes.Load() > b.o.PendingBytes || b.alloc.slack() < tightExtents:
		return 0
	case used >= capacity/2:
		return b.o.DestageAge / 8
	}
	return b.o.DestageAge
}

// mapFlushDue: the journal needs room, freed extents are wanted, or the last
// flush is long ago.
func (b *Brick) mapFlushDue() bool {
	d := &b.destager
	resting, slots := b.alloc.restingCount()
	if journal.LSN(b.order.applied.Load()) == d.flushed && resting+slots == 0 {
		return false
	}
	used, capacity := b.journal.Fill()
	return used >= capacity/2 || resting > 0 && b.alloc.slack() < 2*tightExtents ||
		resting > stepExtents || b.o.Now().Sub(d.flushAt) >= mapFlushInterval
}

// flushMap makes the map durable, then gives up what only a crash could have
// needed.
func (b *Brick) flushMap() error {
	d := &b.destager
	extents, slots := b.alloc.restingCount()
	applied := b.order.finish(nil) // marks at its end come into no batch
	if err := b.applyLasts(applied); err != nil {
		return err
	}
	if err := b.pmap.flush(b.stop); err != nil {
		return err
	}
	b.stats.mapFlushes.Add(1)
	d.flushed, d.flushAt = applied, b.o.Now()
	if err := b.alloc.release(extents, slots); err != nil {
		return err
	}
	b.journal.Trim(applied + 1)
	if b.o.OnCheckpoint != nil {
		b.o.OnCheckpoint(applied)
	}
	return nil
}

// drain destages everything that is committed and flushes the map.
func (b *Brick) drain() error {
	for {
		n, err := b.destageBatch(1<<63 - 1)
		if err != nil {
			return err
		}
		if n == 0 {
			return b.flushMap()
		}
	}
}

// destageBatch takes home records born up to a time and returns how many.
func (b *Brick) destageBatch(born int64) (n int, err error) {
	d := &b.destager
	b.carry()
	control := b.chooseChunks(born)
	if control != nil && len(d.batch) == 0 {
		return 1, b.destageControl(control)
	}
	if len(d.batch) == 0 {
		return 0, nil
	}
	defer func() {
		for _, p := range d.batch {
			p.release()
		}
		clear(d.batch)
		d.batch = d.batch[:0]
		clear(d.writes)
		d.writes = d.writes[:0]
	}()
	for _, p := range d.batch {
		n += len(p.records)
		if err := b.plan(p); err != nil {
			return 0, err
		}
	}
	if err := b.writeHome(); err != nil {
		return 0, err
	}
	if err := b.applyBatch(); err != nil {
		return 0, err
	}
	b.stats.batches.Add(1)
	return n, nil
}

// chooseChunks fills the batch with the chunks of the oldest ready records, up
// to the first control record, which it returns. All that is ready of a chunk goes
// together: after a crash the map may have an extent-write already, and what comes
// before it must not be written home over that and left there.
func (b *Brick) chooseChunks(born int64) (control *pend) {
	d := &b.destager
	seen := map[placement.Key]bool{}
	var keys []placement.Key
	records, bytes := 0, 0
	before := journal.LSN(1<<64 - 1)
	b.order.ready(func(p *pend) bool {
		if p.typ.control() {
			control = p
			if p.typ == typeDiscard { // what comes after it is not its affair
				before = p.LSN()
			}
			return false
		}
		if p.born > born || records >= batchRecords || bytes >= batchBytes {
			return false
		}
		records++
		if p.typ.data() {
			bytes += len(p.sums()) * placement.BlockSize
		}
		if !seen[p.key] {
			seen[p.key] = true
			keys = append(keys, p.key)
		}
		return true
	})
	for _, k := range keys {
		s := b.pending.shard(k)
		s.mu.Lock()
		s.moves++
		p := &chunkPlan{key: k, records: s.chunks[k].collect(nil, before)}
		p.hold()
		s.mu.Unlock()
		if len(p.records) > 0 { // none, if an older one is not ready yet
			d.batch = append(d.batch, p)
		}
	}
	return control
}

// writeHome writes the queued blocks, sorted and merged, and syncs.
func (b *Brick) writeHome() error {
	d := &b.destager
	slices.SortFunc(d.writes, func(x, y homeWrite) int {
		if x.to < y.to {
			return -1
		}
		return 1
	})
	dirty := b.homeRuns()
	defer d.written()
	if err := vfs.WriteMany(d.runs); err != nil {
		return fmt.Errorf("brick: write home: %w", err)
	}
	for _, f := range dirty {
		if err := f.plain.Sync(); err != nil {
			return fmt.Errorf("brick: sync %s: %w", dataName(f.index), err)
		}
	}
	return nil
}

// homeRuns makes runs of the sorted writes, adjacent blocks that are written with
// one request, and names the files they go to. The runs do not overlap, so their
// order does not matter; nothing of them counts before the sync that follows.
func (b *Brick) homeRuns() (dirty []*dataFile) {
	d := &b.destager
	for w := d.writes; len(w) > 0; {
		f := b.alloc.file(w[0].to.extent())
		n := 1
		for n < len(w) && n < writePartsMax && w[n].to == w[n-1].to+1 && w[n].to.extent()%extentsPerFile >= w[0].to.extent()%extentsPerFile {
			n++
		}
		first := len(d.parts)
		d.addParts(w[:n])
		d.runs = append(d.runs, vfs.Request{File: f.plain, Vec: d.parts[first:len(d.parts):len(d.parts)], Off: int64(w[0].to.offset() % fileBytes)})
		if len(dirty) == 0 || dirty[len(dirty)-1] != f {
			dirty = append(dirty, f)
		}
		b.stats.homeWrites.Add(1)
		b.stats.homeBlocks.Add(uint64(n))
		w = w[n:]
	}
	return dirty
}

// addParts adds the memory of a run. What lies together is one part.
func (d *destager) addParts(run []homeWrite) {
	first := len(d.parts)
	for _, x := range run {
		if n := len(d.parts); n > first {
			last := d.parts[n-1]
			if cap(last) >= len(last)+len(x.data) && &last[:len(last)+1][len(last)] == &x.data[0] {
				d.parts[n-1] = last[:len(last)+len(x.data)]
				continue
			}
		}
		d.parts = append(d.parts, x.data)
	}
}

// written lets go of the memory of the runs.
func (d *destager) written() {
	clear(d.parts)
	clear(d.runs)
	d.parts, d.runs = d.parts[:0], d.runs[:0]
}

// applyBatch enters the batch into the map and takes its records out of the
// pending index, in this order: a reader that misses a record in the index
// finds its effect in the map.
func (b *Brick) applyBatch() error {
	d := &b.destager
	batch := b.pmap.db.NewBatch()
	defer batch.Close()
	var key [keySize]byte
	done := make([]*pend, 0, batchRecords)
	notes := newNoteBatch(b, batch)
	for _, p := range d.batch {
		done = append(done, p.records...)
		if err := notes.add(p); err != nil {
			return err
		}
		k := appendKey(key[:0], p.key)
		if p.is.empty() {
			if p.was.empty() {
				continue
			}
			if err := batch.Delete(k, nil); err != nil {
				return err
			}
			continue
		}
		d.value = p.is.append(d.value[:0])
		if err := batch.Set(k, d.value, nil); err != nil {
			return err
		}
	}
	if err := b.commitDone(batch, done); err != nil {
		return err
	}
	notes.applied()
	for _, p := range d.batch {
		b.pmap.hot.set(p.key, &p.is)
		b.finishChunk(p)
	}
	return nil
}

// commitDone applies the batch by which records have come home.
func (b *Brick) commitDone(batch *pebble.Batch, done []*pend) error {
	applied := b.order.finish(done)
	b.doneOps.add(done, b.now())
	if err := b.lastsBehind(batch, done, applied); err != nil {
		return err
	}
	return b.commitBatch(batch, applied)
}

// commitBatch applies a batch with the mark.
func (b *Brick) commitBatch(batch *pebble.Batch, applied journal.LSN) error {
	if err := setApplied(batch, applied); err != nil {
		return err
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	b.destager.marked = applied
	return nil
}

// applyLasts moves the mark, and enters how far each bucket has come, and which
// operations were done lately.
func (b *Brick) applyLasts(applied journal.LSN) error {
	batch := b.pmap.db.NewBatch()
	defer batch.Close()
	if err := b.flushLasts(batch, applied); err != nil {
		return err
	}
	if err := b.doneOps.save(batch, b.now()); err != nil {
		return err
	}
	return b.commitBatch(batch, applied)
}

// finishChunk drops a plan's records and settles what the chunk was promised.
func (b *Brick) finishChunk(p *chunkPlan) {
	b.use(p.key.Family, p.is.blocks()-p.was.blocks())
	for _, f := range p.freed {
		b.alloc.rest(f.extent, f.punch)
	}
	for _, x := range p.slots {
		b.alloc.restSlot(x)
	}
	s := b.pending.shard(p.key)
	s.mu.Lock()
	c := s.chunks[p.key]
	gone := b.pending.remove(c, len(p.records))
	switch {
	case c.idle():
		if c.reserved {
			b.alloc.unreserve(1)
		}
		delete(s.chunks, p.key)
	case p.is.Kind != kindExtent && len(p.freed) > 0 && !c.reserved:
		// A later record was admitted because the chunk had an extent. It has
		// been freed: so promise it another in its place.
		c.reserved = true
		b.alloc.force(1)
	}
	s.mu.Unlock()
	for gone != nil {
		next := gone.older
		b.lasts.unnote(gone)
		b.pends.put(gone)
		gone = next
	}
}

func (b *Brick) use(f placement.Family, blocks int64) {
	if blocks == 0 {
		return
	}
	b.usageMu.Lock()
	b.usage[f] += blocks
	if b.usage[f] == 0 {
		delete(b.usage, f)
	}
	b.usageMu.Unlock()
}
