package brick

import (
	"fmt"
	"hash/crc32"

	"petal/journal"
	"petal/placement"
)

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
//	  record covers matches its CRC,
//	  or the disk refuses to read it
//	..., else                           no: torn, it was never acknowledged
//
// Torn ones are then named in abort records. Their extents are kept until those
// are durable: only then may they be used for other things, since otherwise what
// comes to lie there could be taken for theirs.
func (b *Brick) replay(applied journal.LSN, jr *journal.Recovery, rec *Recovery) error {
	log, committed, settled, err := b.readLog(applied, rec)
	if err != nil {
		return err
	}
	if err := b.lost(applied, jr.Rotten, log, rec); err != nil {
		return err
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

// lost finds the acknowledged records of which not even the head is left. What
// they wrote is gone, and nobody can say which blocks that were: unless another
// member of the link or the operator answers for it, the brick must not serve
// the older data that it has in their place.
//
// A record whose head is sound is not lost in this sense: its blocks are known
// and answer with a medium error.
func (b *Brick) lost(applied journal.LSN, ranges []journal.Range, log []logged, rec *Recovery) error {
	known := make(map[journal.LSN]bool, len(log))
	for i := range log {
		known[log[i].lsn] = true
	}
	count := 0
	for _, r := range ranges {
		for l := max(r.From, applied+1); l <= r.To; l++ {
			if known[l] {
				continue
			}
			count++
			if n := len(rec.Lost); n > 0 && rec.Lost[n-1].To+1 == l {
				rec.Lost[n-1].To = l
			} else {
				rec.Lost = append(rec.Lost, LostRange{l, l})
			}
		}
	}
	if count == 0 {
		return nil
	}
	b.o.Log.Error("acknowledged writes are lost: their records have rotted in the journal", "records", count, "ranges", rec.Lost, "accepted", b.o.AcceptLoss)
	if b.o.AcceptLoss || b.o.HoldPrepared {
		return nil
	}
	return &FormatError{ErrRotten, "journal",
		fmt.Sprintf("%d acknowledged writes have rotted before they came home (records %d to %d), and which blocks they were is not known", count, rec.Lost[0].From, rec.Lost[len(rec.Lost)-1].To),
		"restore the disks from a backup; or `petal serve --accept-loss` serves what those blocks held before"}
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
func (b *Brick) judge(log []logged, settled journal.LSN, rec *Recovery) (torn []*logged, err error) {
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
		case h.Type == typeStamp:
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
				torn = append(torn, r)
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
		// No evidence that it is torn. If it was not, reads say what is wrong.
		b.o.Log.Warn("an extent that may not have been written cannot be read", "extent", r.head.Target, "cause", err)
		return true, nil
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
