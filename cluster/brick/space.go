package brick

import (
	"encoding/binary"
	"errors"
	"slices"

	"petal/placement"
)

// Usage returns the bytes that a family takes of the extent area, as far as it
// has been destaged.
func (b *Brick) Usage(f placement.Family) int64 {
	b.usageMu.Lock()
	defer b.usageMu.Unlock()
	return b.usage[f] * placement.BlockSize
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
		fsAvail -= min(fsAvail, b.reserve(fsTotal))
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

// NextMapped returns the first chunk from one on that has data, or blocks that
// are missing, in the map or committed and on its way there, at any node of the
// family. It may wait for the
// disk.
func (b *Brick) NextMapped(f placement.Family, from placement.Chunk) (placement.Chunk, bool, error) {
	found, err := b.Mapped(f, from, maxChunk, make([]placement.Chunk, 0, 1))
	if err != nil || len(found) == 0 {
		return 0, false, err
	}
	return found[0], true, nil
}

// Mapped appends the chunks from .. last that have data, or blocks that are
// missing, in the map or committed and on its way there, at any node of the
// family: ascending, without
// duplicates, until dst is full. Fewer mean that there are no more. It may wait
// for the disk.
func (b *Brick) Mapped(f placement.Family, from, last placement.Chunk, dst []placement.Chunk) ([]placement.Chunk, error) {
	// The index before the map: destage moves records the other way.
	waiting := b.pending.mapped(f, from, last)
	lo, hi := familyBounds(f)
	lo = binary.BigEndian.AppendUint64(lo, uint64(from))
	full, past := errors.New("full"), errors.New("past the end")
	add := func(c placement.Chunk) error {
		if n := len(dst); n > 0 && dst[n-1] == c {
			return nil
		}
		if len(dst) == cap(dst) {
			return full
		}
		dst = append(dst, c)
		return nil
	}
	err := b.pmap.scan(lo, hi, func(k placement.Key, e *entry) error {
		if k.Chunk > last {
			return past
		}
		if e.Valid|e.Missing == 0 {
			return nil
		}
		for len(waiting) > 0 && waiting[0] <= k.Chunk {
			if err := add(waiting[0]); err != nil {
				return err
			}
			waiting = waiting[1:]
		}
		return add(k.Chunk)
	})
	if err == past {
		err = nil
	}
	for ; err == nil && len(waiting) > 0; waiting = waiting[1:] {
		err = add(waiting[0])
	}
	if err == full {
		err = nil
	}
	return dst, err
}

// mapped returns the chunks of a range that have committed writes, ascending.
func (x *pending) mapped(f placement.Family, from, last placement.Chunk) (found []placement.Chunk) {
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		for k, c := range s.chunks {
			if k.Family == f && from <= k.Chunk && k.Chunk <= last && c.writes() {
				found = append(found, k.Chunk)
			}
		}
		s.mu.Unlock()
	}
	slices.Sort(found)
	return found
}

// writes reports whether committed records of the chunk may leave data behind:
// those under a zero record of the whole chunk do not.
func (c *pchunk) writes() bool {
	for p := c.newest; p != nil; p = p.older {
		if p.typ.stores() || p.typ == typeMissing {
			return true
		}
		if p.typ == typeZero && p.mask == placement.Full {
			return false
		}
	}
	return false
}
