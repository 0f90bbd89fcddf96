package journal

import (
	"fmt"
	"sort"
	"sync/atomic"

	"petal/journal/record"
)

func newSlots(n uint32) []atomic.Pointer[segment] { return make([]atomic.Pointer[segment], n) }

// Entry is a record read back by Replay.
type Entry struct {
	LSN      LSN
	Position Position
	Head     []byte   // valid during the call
	CRC      []uint32 // valid during the call; Open checked the data against it, see Rotten
	Blocks   int      // data blocks; read them with ReadBlocks
	// Rotten: the head is sound, but some of the data does not match CRC any more.
	// The record is one of Recovery.Rotten: its effect is known, its content not.
	Rotten bool
}

// Replay calls f for each record from an LSN on, as Open found them, in order.
// Of the rotten ones it gives those whose head is sound, marked. It stops at the first error of f and returns it. It
// may be called again, but not at the same time as Append or Trim, nor after
// either. A record that has become unreadable since Open is an error.
func (j *Journal) Replay(from LSN, f func(Entry) error) error {
	w := newWindow(j.sizeMax())
	var e Entry
	for i := range j.groups {
		g := &j.groups[i]
		if g.to <= from {
			continue
		}
		if w.file != g.seg.file {
			w.reset(g.seg.file)
		}
		off := int64(g.block) * BlockSize
		view, err := record.Parse(w.at(off, int(g.header)*BlockSize), j.opts.UUID)
		if err == nil && LSN(view.First()) != g.first {
			err = record.ErrForeign
		}
		if err != nil {
			return fmt.Errorf("%w since it was opened: segment %s, block %d: %w", ErrCorrupt, segmentName(g.seg.slot), g.block, err)
		}
		view.Frames(func(lsn uint64, block int, fr record.Frame) bool {
			e.LSN = LSN(lsn)
			if e.LSN < max(from, g.from) || e.LSN >= g.to {
				return true
			}
			e.Rotten = j.isRotten(e.LSN)
			e.Position = Position{Segment: g.seg.slot, Block: g.block + uint32(block)}
			e.Head, e.Blocks, e.CRC = fr.Head(), fr.Blocks(), e.CRC[:0]
			for i := range fr.Blocks() {
				e.CRC = append(e.CRC, fr.CRC(i))
			}
			err = f(e)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isRotten reports whether a record is in one of the rotten ranges. One that has a
// frame is there for its data.
func (j *Journal) isRotten(x LSN) bool {
	i := sort.Search(len(j.rotten), func(i int) bool { return j.rotten[i].To >= x })
	return i < len(j.rotten) && j.rotten[i].From <= x
}
