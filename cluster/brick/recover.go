package brick

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"petal/journal"
	"petal/journal/vfs"
	"petal/placement"
)

// Recovery says what Open found.
type Recovery struct {
	Identity    Identity
	Incarnation uint32 // of this open
	SuperCopies int    // intact copies of the superblock, of 4; the others have been rewritten
	Entries     int64  // map entries
	Replayed    int    // records that were not in the map yet
	Verified    int    // extents read to see whether their write had completed
	Torn        int    // extent-writes that had not: they never happened
	// Lost are records that were durable and have rotted in the journal. What
	// they wrote is gone on this brick.
	Lost []LostRange
	// Prepared are records that are not known to be committed, oldest first,
	// with HoldPrepared; the caller ends each with Commit or Abandon.
	Prepared []*Record
	Took     time.Duration
}

// LostRange are the records From..To of the journal.
type LostRange struct{ From, To journal.LSN }

// Open opens the brick in a directory and recovers it: afterwards every block
// holds what the last record said that was committed here or, failing that,
// prepared. It takes an exclusive lock, bumps the incarnation in the
// superblock, and is ErrMissing, ErrNewer, ErrRotten or ErrForeign if the
// directory does not hold a brick that may be used.
func Open(o Options) (*Brick, *Recovery, error) {
	o.setDefaults()
	began := time.Now()
	b := &Brick{o: o, stop: make(chan struct{}), usage: map[placement.Family]int64{}}
	b.destager.kick = make(chan struct{}, 1)
	b.destager.flushAt = o.Now()
	b.reads.init()
	b.writes.init()
	b.pending.init()
	rec := &Recovery{}
	if err := b.open(rec); err != nil {
		b.abandonOpen()
		return nil, nil, err
	}
	rec.Took = time.Since(began)
	b.start()
	return b, rec, nil
}

// abandonOpen lets go of what a failed open had got hold of.
func (b *Brick) abandonOpen() {
	if b.journal != nil {
		b.journal.Close()
	}
	if b.pmap != nil {
		b.pmap.close()
	}
	for _, d := range b.alloc.files {
		d.close()
	}
	if b.superFile != nil {
		b.superFile.Close()
	}
	if b.lock != nil {
		b.lock.Close()
	}
}

func (b *Brick) open(rec *Recovery) (err error) {
	if b.lock, err = b.o.FS.Lock("lock"); err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	if err := b.openSuper(rec); err != nil {
		return err
	}
	if err := b.openData(); err != nil {
		return err
	}
	if b.pmap, err = openMap(b.o.MapFS, b.o.mapDir(), false, b.o.Log); err != nil {
		return err
	}
	applied, err := b.pmap.applied()
	if err != nil {
		return err
	}
	if err := b.claimAll(rec); err != nil {
		return err
	}
	var jr *journal.Recovery
	if b.journal, jr, err = journal.Open(b.o.journalOptions(b.super.Brick)); err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	if jr.First > applied+1 {
		return rotten("map", "is at record %d, but the journal begins at %d: records between are in neither", applied, jr.First)
	}
	if jr.Last < applied {
		return rotten("journal", "ends at record %d, but the map has seen %d", jr.Last, applied)
	}
	b.order.init(applied)
	b.destager.flushed = applied
	return b.replay(applied, jr, rec)
}

// openSuper reads the superblock, checks whose it is, and makes this opening
// known: a new incarnation, all copies sound.
func (b *Brick) openSuper(rec *Recovery) (err error) {
	if b.super, rec.SuperCopies, err = readSuper(b.o.FS, b.o.Pool); err != nil {
		return err
	}
	if err := b.super.foreign(b.o.Cluster, b.o.Server); err != nil {
		return err
	}
	b.id = b.super.Identity
	if b.superFile, err = b.o.FS.Open(superName, vfs.Direct); err != nil {
		return fmt.Errorf("brick: super: %w", err)
	}
	s := b.super.clone()
	s.Sequence++
	s.Incarnation++
	if err := writeSuper(b.superFile, b.o.Pool, s); err != nil {
		return err
	}
	b.super = s
	rec.Identity, rec.Incarnation = b.id, s.Incarnation
	return nil
}

// openData opens the data files and works out how much the brick may hold.
func (b *Brick) openData() error {
	a := &b.alloc
	a.fs, a.spare = b.o.FS, b.spare
	a.limit = maxExtent
	if b.o.CapacityBytes > 0 {
		a.limit = b.o.CapacityBytes / extentSize
	}
	names, err := b.o.FS.List("data")
	if err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	for i, name := range names {
		if "data/"+name != dataName(i) {
			return rotten("data", "holds %q where %q was expected", name, strings.TrimPrefix(dataName(i), "data/"))
		}
		d, err := a.openFile(i, false)
		if err != nil {
			return fmt.Errorf("brick: %w", err)
		}
		a.files = append(a.files, d)
	}
	return nil
}

// spare reports whether the file system can spare another step of extents: it
// keeps 2 % for journal, map and repair, and what the journal may still grow.
func (b *Brick) spare() (bool, error) {
	avail, total, err := b.o.FS.Free()
	if err != nil {
		return false, fmt.Errorf("brick: %w", err)
	}
	reserve := total / 50
	if b.o.CapacityBytes > 0 {
		reserve = 0 // the operator has decided
	}
	return avail >= reserve+stepExtents*extentSize || b.o.CapacityBytes > 0, nil
}

// claimAll marks the extents that the map names.
func (b *Brick) claimAll(rec *Recovery) error {
	return b.pmap.scan([]byte{keyData}, []byte{keyData + 1}, func(k placement.Key, e *entry) error {
		rec.Entries++
		if e.Kind != kindExtent {
			return nil
		}
		b.usage[k.Family]++
		fresh, err := b.alloc.claim(e.Extent)
		if err == nil && !fresh {
			err = rotten("map", "names extent %d twice, the second time for family %d chunk %d", e.Extent, k.Family, k.Chunk)
		}
		return err
	})
}

// logged is a record found in the journal.
type logged struct {
	head head
	lsn  journal.LSN
	pos  journal.Position
	crc  []uint32
	void bool // it never happened, or something later made it so
}

// replay takes what the journal holds beyond the map into the pending index.
//
// Which records count is decided newest first, for an extent-write can only be
// judged by what later records left of it:
//
//	record                              counts
//	------------------------------------------------------------------------
//	named by an abort                   no
//	of a family dropped later           no
//	write, zero                         yes: the journal has it whole
//	extent-write, all blocks            no: whatever its extent holds by now
//	  covered by later records             is not its own
//	..., at or below settled            yes: its extent was complete
//	..., the map has its extent         yes: it came there after it was complete
//	..., every block that no later      yes
//	  record covers matches its CRC
//	..., else                           no: torn, it was never acknowledged
//
// Torn ones are then named in abort records, durably, before anything else is
// done: their extents will be used for other things, and must never be taken
// for theirs.
func (b *Brick) replay(applied journal.LSN, jr *journal.Recovery, rec *Recovery) error {
	log, committed, settled, err := b.readLog(applied, rec)
	if err != nil {
		return err
	}
	for _, r := range jr.Rotten {
		if r.To > applied {
			rec.Lost = append(rec.Lost, LostRange{max(r.From, applied+1), r.To})
			b.o.Log.Error("records lost: they rotted in the journal", "from", r.From, "to", r.To)
		}
	}
	torn, err := b.judge(log, settled, rec)
	if err != nil {
		return err
	}
	for l := applied + 1; l <= jr.Last; l++ {
		*b.order.at(l) = doneMark
	}
	for i := range log {
		if err := b.readmit(&log[i], committed, rec); err != nil {
			return err
		}
	}
	b.order.refresh()
	if err := b.abortAll(torn); err != nil {
		return err
	}
	return b.alloc.restore()
}

// readLog reads the heads of the records beyond the map, and the highest
// watermarks that they carry.
func (b *Brick) readLog(applied journal.LSN, rec *Recovery) (log []logged, committed, settled journal.LSN, err error) {
	err = b.journal.Replay(applied+1, func(e journal.Entry) error {
		r := logged{lsn: e.LSN, pos: e.Position}
		if err := parseHead(e.Head, &r.head); err != nil {
			return fmt.Errorf("record %d: %w", e.LSN, err)
		}
		if r.head.Type == typeWrite {
			r.crc = append([]uint32(nil), e.CRC...)
			if len(r.crc) != blocks(r.head.Mask) {
				return rotten("journal", "record %d has %d blocks for mask %#x", e.LSN, len(r.crc), r.head.Mask)
			}
		}
		committed, settled = max(committed, r.head.Committed), max(settled, r.head.Settled)
		log = append(log, r)
		return nil
	})
	rec.Replayed = len(log)
	return log, committed, settled, err
}

// judge marks the records that do not count, newest first, and returns the torn
// ones.
func (b *Brick) judge(log []logged, settled journal.LSN, rec *Recovery) (torn []journal.LSN, err error) {
	void := map[journal.LSN]bool{}
	dropped := map[placement.Family]bool{}
	covered := map[placement.Key]placement.Mask{}
	for i := len(log) - 1; i >= 0; i-- {
		r := &log[i]
		h := &r.head
		switch {
		case h.Type == typeAbort:
			void[journal.LSN(h.Target)] = true
			r.void = true
			continue
		case h.Type == typeDrop:
			dropped[h.Key.Family] = true
			continue
		case void[r.lsn] || dropped[h.Key.Family]:
			r.void = true
			continue
		}
		cover := covered[h.Key]
		if h.Type == typeExtent {
			switch ok, err := b.complete(r, cover, settled, rec); {
			case err != nil:
				return nil, err
			case cover == placement.Full:
				r.void = true
				continue
			case !ok:
				r.void = true
				rec.Torn++
				torn = append(torn, r.lsn)
				continue
			}
		}
		covered[h.Key] = cover | h.Mask
	}
	return torn, nil
}

// complete reports whether the extent of an extent-write was wholly written.
func (b *Brick) complete(r *logged, cover placement.Mask, settled journal.LSN, rec *Recovery) (bool, error) {
	if r.lsn <= settled || cover == placement.Full {
		return true, nil
	}
	var e entry
	if err := b.pmap.lookup(r.head.Key, &e); err != nil {
		return false, err
	}
	if e.Kind == kindExtent && e.Extent == r.head.Target {
		return true, nil
	}
	d := b.alloc.file(r.head.Target)
	if d == nil {
		return false, nil // made for this very write, and not durable
	}
	rec.Verified++
	buf := b.o.Pool.Get(extentSize)
	defer buf.Release()
	if _, err := d.plain.ReadAt(buf.Bytes(), int64(r.head.Target%extentsPerFile)*extentSize); err != nil {
		b.o.Log.Warn("an extent that may not have been written cannot be read", "extent", r.head.Target, "cause", err)
		return false, nil
	}
	for i := range placement.BlocksPerChunk {
		if cover>>i&1 == 0 && crc32.Checksum(block(buf.Bytes(), i), castagnoli) != r.head.Sum[i] {
			return false, nil
		}
	}
	return true, nil
}

// readmit enters a record that counts into the pending index, as it was before
// the crash.
func (b *Brick) readmit(r *logged, committed journal.LSN, rec *Recovery) error {
	if r.void {
		return nil
	}
	h := &r.head
	p := &pend{key: h.Key, mask: h.Mask, typ: h.Type, lsn: r.lsn, pos: r.pos, ext: h.Target, born: b.now()}
	*b.order.at(r.lsn) = p
	if h.Type == typeDrop {
		p.state.Store(stateReady)
		return nil
	}
	c := b.pending.shard(h.Key).get(h.Key)
	switch h.Type {
	case typeWrite:
		p.setSums(r.crc)
		if !c.reserved {
			c.reserved = true
			b.alloc.force(1)
		}
	case typeExtent:
		p.setSums(h.Sum[:])
		c.fulls++
		if err := b.reclaim(p); err != nil {
			return err
		}
	}
	p.state.Store(stateDurable | stateSettled)
	if r.lsn > committed && b.o.HoldPrepared {
		c.prepared++
		rec.Prepared = append(rec.Prepared, b.prepared(p, h))
		return nil
	}
	p.state.Store(stateReady)
	p.older, c.newest = c.newest, p
	return nil
}

// reclaim marks the extent of an extent-write as used, unless the map has.
func (b *Brick) reclaim(p *pend) error {
	fresh, err := b.alloc.claim(p.ext)
	if err != nil || fresh {
		return err
	}
	var e entry
	if err := b.pmap.lookup(p.key, &e); err != nil {
		return err
	}
	if e.Kind != kindExtent || e.Extent != p.ext {
		return rotten("journal", "record %d names extent %d, which something else uses", p.lsn, p.ext)
	}
	return nil
}

// prepared makes the record that the caller is to decide about.
func (b *Brick) prepared(p *pend, h *head) *Record {
	r := &Record{Key: p.key, Mask: p.mask, Ver: h.Ver, Seq: h.Seq, Bucket: h.Bucket, Op: h.Op, Excluded: h.Excluded, b: b, p: p}
	r.LSN, r.Position = p.lsn, p.pos
	if p.typ == typeZero {
		r.Kind = Zero
	}
	copy(r.Sum[:], p.sums())
	return r
}

// abortAll makes abort records of the torn ones durable.
func (b *Brick) abortAll(torn []journal.LSN) error {
	for _, l := range torn {
		if err := b.appendMark(head{Type: typeAbort, Target: uint64(l)}, nil); err != nil {
			return err
		}
	}
	if len(torn) == 0 {
		return nil
	}
	return b.syncJournal()
}

// syncJournal waits until everything appended is durable.
func (b *Brick) syncJournal() error {
	done := make(chan error, 1)
	b.journal.Flush(func(err error) { done <- err })
	for b.o.Manual && len(done) == 0 && b.journal.Commit() {
	}
	if b.o.Manual && len(done) == 0 {
		return errors.New("brick: the journal is full")
	}
	return <-done
}
