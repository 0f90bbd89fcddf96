package journal

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"petal/journal/record"
	"petal/journal/vfs"
)

// group is a sound group header found on disk.
type group struct {
	seg     *segment
	block   uint32
	header  uint32 // blocks
	data    uint32 // blocks
	first   LSN
	end     LSN  // after the last
	mark    bool // has no records
	durable LSN
	opening uint64
	base    LSN
	trim    LSN
	// bad lists the records whose data is damaged, ascending. It belongs to the
	// group and not to the segment: once cut, an LSN is used again further on.
	bad []badRecord

	// Set by judge: the records that count, and whether none does, nor the group
	// itself as a mark.
	from, to LSN // [from, to)
	dead     bool
}

// badRecord is a record with damaged data, and the chain that it is one with:
// the records from first to last, which may be itself alone.
type badRecord struct{ lsn, first, last LSN }

// size in bytes.
func (g *group) size() int64 { return int64(g.header+g.data) * BlockSize }

// scan is what one segment holds: facts, no conclusions.
type scan struct {
	seg        *segment
	size       int64           // bytes that the segment has or should have
	generation uint64          // zero: never used
	header     *record.Segment // nil: none or damaged
	groups     []group         // of this generation, in order
	unreadable []uint32        // blocks, ascending
	remains    []uint32        // blocks that claim to begin a group and are damaged
}

// scanReaders bounds the segments read at once; each takes a window of memory.
const scanReaders = 4

// scanAll scans all segments and returns them by ascending generation.
func (j *Journal) scanAll() ([]*scan, error) {
	var scans []*scan
	for i := range j.slots {
		if s := j.slots[i].Load(); s != nil {
			scans = append(scans, &scan{seg: s})
		}
	}
	errs := make([]error, len(scans))
	var turn atomic.Int64
	var wg sync.WaitGroup
	for range min(scanReaders, len(scans), max(2, runtime.GOMAXPROCS(0))) {
		wg.Go(func() {
			w := newWindow(j.sizeMax())
			for i := int(turn.Add(1)) - 1; i < len(scans); i = int(turn.Add(1)) - 1 {
				w.reset(scans[i].seg.file)
				errs[i] = scans[i].read(w, j.opts.UUID)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(scans, func(a, b *scan) int {
		if a.generation != b.generation {
			return compare(a.generation, b.generation)
		}
		return compare(a.seg.slot, b.seg.slot)
	})
	return scans, nil
}

// sizeMax is the size of the largest segment there is.
func (j *Journal) sizeMax() int64 {
	n := int64(segmentMin)
	for i := range j.slots {
		if s := j.slots[i].Load(); s != nil {
			n = max(n, s.size)
		}
	}
	return (n + BlockSize - 1) / BlockSize * BlockSize
}

func compare[T uint32 | uint64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// read scans the segment. Errors are only those that forbid to go on: the header
// cannot be read, or something was written by a newer petal.
func (sc *scan) read(w *window, uuid [16]byte) error {
	sc.size = sc.seg.size
	if err := sc.readHeader(w, uuid); err != nil {
		return err
	}
	if sc.header == nil {
		if err := sc.findGeneration(w, uuid); err != nil {
			return err
		}
	}
	sc.seg.generation = sc.generation
	sc.seg.end = BlockSize
	if sc.generation == 0 {
		return nil
	}
	for at := int64(BlockSize); at < sc.size; {
		g, view, err := sc.groupAt(w, uuid, at)
		if errors.Is(err, record.ErrVersion) {
			return sc.fail(err)
		}
		if err != nil {
			// In a sound log this is the end. It is searched to the last block all
			// the same: what comes later decides between torn and rotten. Data
			// blocks that look like a header would have to guess uuid, generation,
			// place and checksum.
			if errors.Is(err, record.ErrCorrupt) && record.Claimed(w.at(at, BlockSize)) == sc.generation {
				sc.remains = append(sc.remains, uint32(at/BlockSize))
			}
			at += BlockSize
			continue
		}
		g.bad = badData(w, at, view, sc.seg.size)
		sc.groups = append(sc.groups, g)
		at += g.size()
	}
	sc.unreadable = append(sc.unreadable, w.unreadable...)
	return nil
}

func (sc *scan) fail(err error) error {
	return fmt.Errorf("journal: segment %s: %w", segmentName(sc.seg.slot), err)
}

func (sc *scan) readHeader(w *window, uuid [16]byte) error {
	b := w.at(0, BlockSize)
	if w.isUnreadable(0) {
		return sc.fail(fmt.Errorf("%w: header", ErrUnreadable))
	}
	h, err := record.ParseSegment(b, uuid)
	switch {
	case errors.Is(err, record.ErrVersion):
		return sc.fail(err)
	case errors.Is(err, record.ErrForeign):
		return sc.fail(ErrForeign)
	}
	if err == nil && h.Generation != 0 && h.Opening != 0 && h.Base != 0 {
		sc.header, sc.generation = &h, h.Generation
		if h.Size <= segmentMax {
			sc.size = max(sc.size, int64(h.Size)) // the file was cut short
		}
	}
	return nil
}

// findGeneration is for a segment without a sound header: either it is new, or
// the header was being written, or it is rotten. The newest generation that has
// a group in it is the one that counts. Every block is looked at, because a
// group of an older generation may claim to reach over newer ones.
func (sc *scan) findGeneration(w *window, uuid [16]byte) error {
	for at := int64(BlockSize); at < sc.size; at += BlockSize {
		view, err := parseAt(w, uuid, at, sc.size)
		if errors.Is(err, record.ErrVersion) {
			return sc.fail(err)
		}
		if err == nil {
			sc.generation = max(sc.generation, view.Generation())
		}
	}
	return nil
}

// parseAt reads the group header at a place. It must name that place.
func parseAt(w *window, uuid [16]byte, at, size int64) (record.View, error) {
	b := w.at(at, BlockSize)
	need := int64(record.Need(b))
	if need > BlockSize {
		if at+need > size {
			return nil, record.ErrCorrupt
		}
		b = w.at(at, int(need))
	}
	view, err := record.Parse(b, uuid)
	switch {
	case err != nil:
		return nil, err
	case int64(view.Block())*BlockSize != at || at+view.Size() > size:
		return nil, record.ErrForeign
	case view.Opening() == 0 || view.Base() == 0 || view.First() < view.Base() || view.Durable() >= view.First() ||
		view.Trim() > view.Durable()+1:
		return nil, record.ErrCorrupt
	}
	return view, nil
}

// groupAt is parseAt for a group of the segment's generation.
func (sc *scan) groupAt(w *window, uuid [16]byte, at int64) (group, record.View, error) {
	view, err := parseAt(w, uuid, at, sc.size)
	if err != nil {
		return group{}, nil, err
	}
	if view.Generation() != sc.generation {
		return group{}, nil, record.ErrForeign
	}
	return group{
		seg: sc.seg, block: view.Block(), header: uint32(view.HeaderBlocks()), data: uint32(view.DataBlocks()),
		first: LSN(view.First()), end: LSN(view.First()) + LSN(view.Records()), mark: view.Records() == 0,
		durable: LSN(view.Durable()), opening: view.Opening(), base: LSN(view.Base()), trim: LSN(view.Trim()),
	}, view, nil
}

// badData checks the data of the group at a place against its frames, and returns
// the records that fail, ascending. Data beyond the end of the file, where the window has
// zeros, is damaged even if it was zeros.
func badData(w *window, at int64, view record.View, size int64) (bad []badRecord) {
	if view.DataBlocks() == 0 {
		return nil
	}
	whole := w.at(at, int(view.Size()))
	view = record.View(whole[:len(view)]) // the window may have moved
	first, open := LSN(0), 0              // the chain's first record; the first of bad that is in it
	view.Frames(func(lsn uint64, block int, f record.Frame) bool {
		if first == 0 {
			first, open = LSN(lsn), len(bad)
		}
		for i := range f.Blocks() {
			off := (block + i) * BlockSize
			if at+int64(off)+BlockSize > size || record.Checksum(whole[off:off+BlockSize]) != f.CRC(i) {
				bad = append(bad, badRecord{lsn: LSN(lsn), first: first})
				break
			}
		}
		if !f.WithNext() {
			for i := range bad[open:] {
				bad[open+i].last = LSN(lsn)
			}
			first = 0
		}
		return true
	})
	return bad
}

// windowBytes is how much recovery reads at once. Every group fits.
const windowBytes = 6 << 20

var _ = [windowBytes - record.MaxGroup]struct{}{}

// window reads a file in large pieces. What is beyond the end of the file, or
// cannot be read, is zeros.
type window struct {
	file       vfs.File
	buf        []byte
	from, to   int64 // what of the file is in buf
	unreadable []uint32
}

// newWindow returns a window for segments of a size.
func newWindow(segment int64) *window {
	return &window{buf: vfs.AlignedBuffer(int(min(windowBytes, segment)))}
}

func (w *window) reset(file vfs.File) { *w = window{file: file, buf: w.buf} }

// at returns n bytes from off, both multiples of BlockSize. They are valid until
// the next call.
func (w *window) at(off int64, n int) []byte {
	if n > len(w.buf) {
		// A group of a segment whose file was cut shorter than it.
		w.buf, w.from, w.to = vfs.AlignedBuffer(windowBytes), 0, 0
	}
	if off < w.from || off+int64(n) > w.to {
		w.load(off)
	}
	return w.buf[off-w.from:][:n]
}

func (w *window) load(off int64) {
	w.from, w.to = off, off+int64(len(w.buf))
	n, err := w.file.ReadAt(w.buf, off)
	clear(w.buf[n:])
	if err == nil || errors.Is(err, io.EOF) {
		return
	}
	for at := 0; at < len(w.buf); at += BlockSize {
		b := w.buf[at : at+BlockSize]
		n, err := w.file.ReadAt(b, off+int64(at))
		clear(b[n:])
		if errors.Is(err, io.EOF) {
			clear(w.buf[at+BlockSize:])
			return
		}
		if err != nil {
			clear(b)
			if block := uint32((off + int64(at)) / BlockSize); !w.isUnreadable(block) {
				w.unreadable = append(w.unreadable, block)
			}
		}
	}
}

func (w *window) isUnreadable(block uint32) bool { return slices.Contains(w.unreadable, block) }
