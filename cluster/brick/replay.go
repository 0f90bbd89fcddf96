package brick

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"petal/journal"
	"petal/placement"
)

// logged is a record found in the journal.
type logged struct {
	head      head
	lsn       journal.LSN
	ord       journal.LSN // its place among all
	pos       journal.Position
	crc       []uint32
	moved     bool // a later one stands for it
	home      bool // the map has it
	committed bool // known to be
	void      bool // it never happened, or something later made it so
	covered   bool // void because nothing of it is left to see
	rotten    bool // its data is lost
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
//	  covered by later records             is not its own; its marks count
//	..., at or below settled            yes: its extent was complete
//	..., the map has its extent         yes: it came there after it was complete
//	..., every block that no later      yes
//	  record covers matches its CRC,
//	  or the disk refuses to read it
//	..., else                           no: torn, it was never acknowledged
//	in doubt, behind a torn or lost     no: nobody was told of it (R3), or others
//	  one of its bucket                    have it (but see Recovery.GivenUp)
//	missing, marks, fill, repair        yes: they are in force once durable
//
// Torn ones and those behind them are then named in abort records. Their extents
// are kept until those are durable: only then may they be used for other things,
// since otherwise what comes to lie there could be taken for theirs.
//
// A record is in doubt unless it is known to be committed. It is if a later
// record says that everything up to it was; or if the map knows a last of its
// bucket that is not before it. All that the map has, and all for which extents
// were given up, are known by one or the other (lastsBehind). So an extent-write
// is void only if neither it nor the records that cover it are in doubt; but any
// write above it may have come home over it. If that is all of it, it stays, unverified: the
// records above share its fate, and what it wrote has checksums. Without
// HoldPrepared, and in records of version 1, nothing is in doubt.
func (b *Brick) replay(applied journal.LSN, jr *journal.Recovery, rec *Recovery) error {
	known, err := b.pmap.mark(keyLasts) // the map's lasts know every record up to here
	if err != nil {
		return err
	}
	if err := errors.Join(b.loadLasts(), b.loadNotes()); err != nil {
		return err
	}
	log, settled, err := b.readLog(applied, rec)
	if err != nil {
		return err
	}
	limits := newLimits()
	if err := b.lost(applied, jr.Rotten, log, limits, rec); err != nil {
		return err
	}
	var torn []*logged
	for more := true; more; {
		// What is cut was not committed, so it has not come home over anything.
		found, err := b.judge(log, settled, rec)
		if err != nil {
			return err
		}
		cut := b.cutOrder(log, found, limits)
		torn, more = append(torn, cut...), len(cut) > len(found)
	}
	limits.give(log)
	for l := applied + 1; l <= jr.Last; l++ {
		*b.order.at(l) = doneMark
	}
	for i := range log {
		if err := b.readmit(&log[i], known, rec); err != nil {
			return err
		}
	}
	limits.impose(b)
	b.order.refresh()
	if err := b.abortAll(torn); err != nil {
		return err
	}
	b.closeGaps(limits)
	return b.alloc.restore()
}

// readLog reads the heads of all records that the journal still has, and the
// highest watermarks that they carry.
func (b *Brick) readLog(applied journal.LSN, rec *Recovery) (log []logged, settled journal.LSN, err error) {
	var committed journal.LSN
	home, err := b.pmap.atHome()
	if err != nil {
		return nil, 0, err
	}
	err = b.journal.Replay(1, func(e journal.Entry) error {
		r := logged{lsn: e.LSN, ord: e.LSN, pos: e.Position, rotten: e.Rotten, home: e.LSN <= applied || home[e.LSN]}
		if err := parseHead(e.Head, &r.head); err != nil {
			if e.LSN <= applied {
				return nil // its effect is in the map
			}
			return fmt.Errorf("record %d: %w", e.LSN, err)
		}
		if r.head.Type.data() && e.LSN > applied {
			r.crc = append([]uint32(nil), e.CRC...)
			if len(r.crc) != blocks(r.head.Mask) {
				return rotten("journal", "record %d has %d blocks for mask %#x", e.LSN, len(r.crc), r.head.Mask)
			}
		}
		committed, settled = max(committed, r.head.Committed), max(settled, r.head.Settled)
		if e.LSN > applied {
			rec.Replayed++
		}
		log = append(log, r)
		return nil
	})
	log = inPlace(log)
	b.knowCommitted(log, max(committed, applied))
	return log, settled, err
}

// knowCommitted marks the records that are known to be committed. In a bucket
// those before one that is are, too: the watermark may have passed it and not
// them, if they were carried; and those before a cut.
func (b *Brick) knowCommitted(log []logged, watermark journal.LSN) {
	aborted := map[journal.LSN]bool{}
	for i := range log {
		if h := &log[i].head; h.Type == typeAbort {
			aborted[journal.LSN(h.Target)] = true
		}
	}
	greatest := map[bucketID]placement.Stamp{}
	inDoubt := 0
	for i := range log {
		r := &log[i]
		h := &r.head
		r.committed = !b.o.HoldPrepared || h.alone || !h.Type.ordered() || r.lsn <= watermark || r.home
		if s := h.stamp(); !r.committed && s != (placement.Stamp{}) {
			l := b.lasts.find(h.Link, h.Bucket)
			r.committed = l != nil && !l.Committed.Before(s)
		}
		id := bucketID{h.Link, h.Bucket}
		switch {
		case !r.committed:
			inDoubt++
		case h.Type == typeCut && greatest[id].Before(h.stamp()):
			greatest[id] = h.stamp()
		case h.Type.ordered() && !r.moved && !aborted[r.ord] && greatest[id].Before(h.stamp()):
			greatest[id] = h.stamp()
		}
	}
	for i := range log {
		r := &log[i]
		h := &r.head
		if s := h.stamp(); inDoubt > 0 && !r.committed && s != (placement.Stamp{}) {
			r.committed = !greatest[bucketID{h.Link, h.Bucket}].Before(s)
		}
	}
	// What the map has is done once more all the same if something before it is.
	again := map[placement.Key]bool{}
	for i := range log {
		r := &log[i]
		if r.moved || aborted[r.ord] || r.head.Mask == 0 {
			continue
		}
		if r.home && r.head.Origin != 0 && again[r.head.Key] {
			r.home = false
		}
		if !r.home {
			again[r.head.Key] = true
		}
	}
}

// inPlace puts records that were carried forward where those were that they stand
// for, which count no more.
func inPlace(log []logged) []logged {
	newest := map[journal.LSN]journal.LSN{} // by origin
	for i := range log {
		if h := &log[i].head; h.Origin != 0 {
			log[i].ord = h.Origin
			newest[h.Origin] = log[i].lsn
		}
	}
	if len(newest) == 0 {
		return log
	}
	for i := range log {
		r := &log[i]
		if l, ok := newest[r.ord]; ok && l != r.lsn {
			r.moved, r.void = true, true
		}
	}
	slices.SortStableFunc(log, func(x, y logged) int { return cmp.Compare(x.ord, y.ord) })
	return log
}

// cover is what later records did to a chunk.
type cover struct {
	known placement.Mask // they hide, and are known to be committed: the extent below may have been given up
	home  placement.Mask // they may have been written home, over what the extent held, before the map knew
	fills placement.Mask // they fill, should it be missing further down
}

// judge marks the records that do not count, newest first, and returns the torn
// ones.
func (b *Brick) judge(log []logged, settled journal.LSN, rec *Recovery) (torn []*logged, err error) {
	void := map[journal.LSN]bool{}
	dropped := map[placement.Family]bool{}
	covered := map[placement.Key]cover{}
	for i := len(log) - 1; i >= 0; i-- {
		r := &log[i]
		h := &r.head
		switch {
		case r.moved:
			continue
		case h.Type == typeAbort:
			void[journal.LSN(h.Target)] = true
			r.void = true
			continue
		case h.Type == typeStamp || h.Type == typeCut || h.Type == typeHistory:
			r.void = true
			continue
		case h.Type == typeDrop:
			dropped[h.Key.Family] = true
			continue
		case h.Type.control():
			continue
		case void[r.ord] || dropped[h.Key.Family]:
			r.void = true
			continue
		case r.home || r.void:
			continue
		}
		above := covered[h.Key]
		if h.Type == typeExtent {
			switch ok, err := b.complete(r, above, settled, rec); {
			case err != nil:
				return nil, err
			case r.committed && above.known == placement.Full:
				r.void, r.covered = true, true
				continue
			case !ok:
				r.void = true
				rec.Torn++
				torn = append(torn, r)
				continue
			}
		}
		if h.Type.hides() && r.committed {
			above.known |= h.Mask
		}
		switch h.Type {
		case typeWrite:
			above.home |= h.Mask
		case typeFill: // it counts only over what is missing
			above.fills |= h.Mask
		case typeMissing:
			above.home |= above.fills & h.Mask
		}
		covered[h.Key] = above
	}
	return torn, nil
}

// complete reports whether the extent of an extent-write was wholly written.
func (b *Brick) complete(r *logged, above cover, settled journal.LSN, rec *Recovery) (bool, error) {
	over := above.home
	if r.committed {
		over |= above.known
	}
	if r.lsn <= settled || over == placement.Full {
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
		// No evidence that it is torn. If it was not, reads say what is wrong.
		b.o.Log.Warn("an extent that may not have been written cannot be read", "extent", r.head.Target, "cause", err)
		return true, nil
	}
	for i := range placement.BlocksPerChunk {
		if over>>i&1 == 0 && crc32.Checksum(block(buf.Bytes(), i), castagnoli) != r.head.Sum[i] {
			return false, nil
		}
	}
	return true, nil
}

// readmit enters a record that counts into the pending index, as it was before
// the crash, and its stamp into the lasts.
func (b *Brick) readmit(r *logged, known journal.LSN, rec *Recovery) error {
	h := &r.head
	if r.moved {
		return nil
	}
	if r.lsn > known {
		b.readmitStamp(r)
	}
	if r.committed && (!r.void || r.covered) && h.Type.ordered() {
		rec.Recent = append(rec.Recent, r.recent())
	}
	if r.rotten && !r.home && !r.void {
		rec.Rotten = append(rec.Rotten, r.recent())
	}
	if r.home || r.void && (!r.covered || h.Excluded == 0 && h.Origin == 0) {
		return nil
	}
	if h.Type.control() {
		p := b.control(h)
		p.at(r.lsn, r.ord)
		if p.typ == typeUnmark {
			b.takeEffect(h)
		}
		p.state.Store(stateReady)
		*b.order.at(r.lsn) = p
		return nil
	}
	p := &pend{key: h.Key, mask: h.Mask, typ: h.Type, pos: r.pos, ext: h.Target, born: b.now(),
		stamp: h.stamp(), op: h.Op, last: b.lasts.get(h.Link, h.Bucket), excluded: h.Excluded}
	if r.covered { // its marks are all that is left of it, and that it was carried
		p.typ, p.ext = typeMarks, 0
	}
	p.at(r.lsn, r.ord)
	*b.order.at(r.lsn) = p
	c := b.pending.shard(h.Key).get(h.Key)
	switch {
	case p.typ.data():
		p.setSums(r.crc)
		if !c.reserved {
			c.reserved = true
			b.alloc.force(1)
		}
	case p.typ == typeExtent:
		p.setSums(h.Sum[:])
		c.fulls++
		if err := b.reclaim(p); err != nil {
			return err
		}
	}
	b.lasts.note(p)
	p.state.Store(stateDurable | stateSettled)
	c.admit(p)
	if !r.committed {
		rec.Prepared = append(rec.Prepared, b.prepared(p, h))
		return nil
	}
	p.state.Store(stateReady)
	c.commit(p)
	return nil
}

// readmitStamp does to the lasts what the record did to them.
func (b *Brick) readmitStamp(r *logged) {
	h := &r.head
	switch {
	case h.Type == typeCut || h.Type == typeHistory || h.Type == typeDiscard && h.Key.Family == 0:
		b.takeEffect(h)
	case h.Type.ordered() && (!r.void || r.covered) && h.stamp() != (placement.Stamp{}):
		l := b.lasts.get(h.Link, h.Bucket)
		if l.Durable.Before(h.stamp()) {
			l.Durable = h.stamp()
		}
		if r.committed {
			l.past.add(h.stamp())
			if l.Committed.Before(h.stamp()) {
				l.Committed = h.stamp()
			}
		}
		b.order.soil(l)
	}
}

// recent tells of the record.
func (r *logged) recent() Recent {
	h := &r.head
	kind := Write
	if h.Type == typeZero {
		kind = Zero
	}
	return Recent{Link: h.Link, Bucket: h.Bucket, Stamp: h.stamp(), Op: h.Op, Kind: kind, Key: h.Key, Mask: h.Mask, Excluded: h.Excluded, LSN: r.lsn}
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
		return rotten("journal", "record %d names extent %d, which something else uses", p.LSN(), p.ext)
	}
	return nil
}

// prepared makes the record that the caller is to decide about.
func (b *Brick) prepared(p *pend, h *head) *Record {
	r := &Record{Key: p.key, Mask: p.mask, Link: h.Link, Ver: h.Ver, Seq: h.Seq, Bucket: h.Bucket, Op: h.Op, Excluded: h.Excluded, b: b, p: p}
	r.LSN, r.Position = p.LSN(), p.pos
	if p.typ == typeZero {
		r.Kind = Zero
		return r
	}
	copy(r.Sum[:], p.sums())
	return r
}
