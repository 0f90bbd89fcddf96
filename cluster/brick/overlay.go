package brick

import "petal/placement"

// overlay is what conditional records do to the blocks below them. Whether a
// fill or a repair counts for a block depends on what the block is at that
// place in the journal:
//
//	record    counts if the block is          and makes it
//	fill      missing                         what the record holds, zeros, or nothing
//	repair    there, with the same checksum   the same, in a place that can be read
//
// That is looked at when the block is read or brought home, never before: so it
// does not matter when records become durable, and recovery sees the same.
//
//	example: missing(5)  write(7)  fill(9)     the write counts, even if it is
//	                                           committed after the fill; if it is
//	                                           abandoned, the fill does
type overlay struct {
	fill   [placement.BlocksPerChunk]*pend // the oldest above what is below
	repair [placement.BlocksPerChunk]*pend // the newest
}

// add lays a record over what is below; records come newest first. A nil
// overlay has none. The shard's lock is held.
func (o *overlay) add(p *pend, m placement.Mask) *overlay {
	if p.typ == typeMarks || m == 0 {
		return o
	}
	if o == nil {
		o = new(overlay)
	}
	for i := range o.fill {
		switch {
		case m>>i&1 == 0:
		case p.typ == typeRepair:
			if o.repair[i] == nil {
				o.repair[i] = p
			}
		default:
			o.fill[i] = p
		}
	}
	return o
}

// over returns what block i is, given what it is below. The shard's lock is held.
func (o *overlay) over(i int, below place) place {
	if o == nil {
		return below
	}
	if f := o.fill[i]; f != nil && below.kind == elsewhere {
		below = f.place(i)
	}
	if r := o.repair[i]; r != nil && below.kind > elsewhere && r.sums()[rank(r.mask, i)] == below.sum {
		if below.buf != nil {
			below.buf.Release()
		}
		return r.place(i)
	}
	return below
}

// fromMap fills in the blocks of left from the map's entry and returns those
// that are not there either. The shard's lock is held.
func (o *overlay) fromMap(e *entry, left placement.Mask, at *places) placement.Mask {
	gone := left&^(e.Valid|e.Zero|e.Missing) | o.absent(left&e.Missing)
	for i := range at {
		if left>>i&1 == 0 {
			continue
		}
		switch {
		case e.Valid>>i&1 != 0:
			at[i] = o.over(i, place{kind: onDisk, slot: e.place(i), sum: e.Sum[i]})
		case e.Missing>>i&1 != 0:
			at[i] = o.over(i, place{kind: elsewhere})
		}
	}
	return gone
}

// absent returns the blocks of m that a fill makes absent if they are missing below.
func (o *overlay) absent(m placement.Mask) (gone placement.Mask) {
	if o == nil {
		return 0
	}
	for i, f := range o.fill {
		if m>>i&1 != 0 && f != nil && f.typ == typeFillAbsent {
			gone |= 1 << i
		}
	}
	return gone
}

// effect returns the blocks of an entry for which a record counts: what overlay
// tells looking down, told going up.
func (e *entry) effect(p *pend) placement.Mask {
	switch p.typ {
	case typeMarks:
		return 0
	case typeFill, typeFillZero, typeFillAbsent:
		return p.mask & e.Missing
	case typeRepair:
		m := p.mask & e.Valid
		for i := range e.Sum {
			if m>>i&1 != 0 && e.Sum[i] != p.sums()[rank(p.mask, i)] {
				m &^= 1 << i
			}
		}
		return m
	}
	return p.mask
}
