package brick

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"syscall"

	"petal/journal/vfs"
	"petal/placement"
)

// Sizes of the extent area.
const (
	extentSize     = placement.ChunkSize
	fileBytes      = 1 << 30
	extentsPerFile = fileBytes / extentSize // 16384
	fileWords      = extentsPerFile / 64
	stepExtents    = 64 << 20 / extentSize // extents backed in one step
	filesMax       = maxExtent/extentsPerFile + 1
)

// allocator hands out the 64 KiB extents of the files in data/. An extent is
//
//	unbacked --back()--> free --take()--> used --free()--> resting --release()--> free
//	    ^                                                    |
//	    '----------------------- punched --------------------'
//
// unbacked: the file system has promised no space for it (a hole, or the file
// is not there yet). free: fallocate has promised the space, so writing it
// cannot fail for want of it. used: the map or a pending record names it.
// resting: nothing names it any more, but a crash now could bring back a map
// that does; it is free once the map has been flushed.
//
// Nothing is remembered on disk: open marks what the map names. Which of the
// others are backed is then unknown, so they count as unbacked and are backed
// again when their turn comes, which costs nothing where the space is there.
//
// Space is promised before a record is journalled: reserve counts against free
// and resting extents; the destager draws on the promise with take.
type allocator struct {
	fs     vfs.FS
	limit  int64                     // extents this brick may hold (used, free and resting)
	keep   func(total uint64) uint64 // bytes of the file system that growing must leave alone
	dry    uint64                    // the file system had so much left when nothing more could be had; growMu
	growMu sync.Mutex                // one back() at a time; taken before mu

	mu       sync.Mutex
	files    []*dataFile
	used     int64
	free     int64 // backed and unused, not resting
	reserved int64 // promised
	resting  []restingExtent
	frags    fragTable
	cursor   int // file where the search goes on
}

type restingExtent struct {
	extent uint64
	punch  bool
}

// dataFile is one file of 1 GiB with what is known of its extents.
type dataFile struct {
	index  int
	plain  vfs.File // O_DIRECT: reads, destage
	dsync  vfs.File // O_DIRECT|O_DSYNC: whole extents
	free   int      // bits of backed &^ used
	word   int      // where the search goes on
	used   [fileWords]uint64
	backed [fileWords]uint64
}

func dataName(i int) string { return fmt.Sprintf("data/%08x", i) }

// addFile opens a data file that exists or makes a new one.
func (a *allocator) openFile(i int, create bool) (*dataFile, error) {
	d := &dataFile{index: i}
	var err error
	if create {
		if d.plain, err = a.fs.Create(dataName(i), vfs.Direct); err != nil {
			return nil, err
		}
		if err = a.fs.SyncDir("data"); err != nil {
			return nil, errors.Join(err, d.plain.Close())
		}
	} else if d.plain, err = a.fs.Open(dataName(i), vfs.Direct); err != nil {
		return nil, err
	}
	if d.dsync, err = a.fs.Open(dataName(i), vfs.Direct|vfs.DSync); err != nil {
		return nil, errors.Join(err, d.plain.Close())
	}
	return d, nil
}

func (d *dataFile) close() error { return errors.Join(d.plain.Close(), d.dsync.Close()) }

// file returns the data file of an extent, or nil if there is none.
func (a *allocator) file(extent uint64) *dataFile {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := extent / extentsPerFile; i < uint64(len(a.files)) {
		return a.files[i]
	}
	return nil
}

func bit(extent uint64) (word int, mask uint64) {
	i := extent % extentsPerFile
	return int(i / 64), 1 << (i % 64)
}

// claim marks an extent as used, at open. It reports false if it was already.
func (a *allocator) claim(extent uint64) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if extent/extentsPerFile >= uint64(len(a.files)) {
		return false, rotten("map", "names extent %d, but there are only %d data files", extent, len(a.files))
	}
	d := a.files[extent/extentsPerFile]
	w, m := bit(extent)
	if d.used[w]&m != 0 {
		return false, nil
	}
	if d.backed[w]&m != 0 {
		d.free--
		a.free--
	}
	d.used[w] |= m
	d.backed[w] |= m
	a.used++
	return true, nil
}

// reserve promises n extents, making room if it can. syscall.ENOSPC if not.
func (a *allocator) reserve(n int64) error {
	for {
		if a.try(n) {
			return nil
		}
		if grew, err := a.back(n, true); err != nil {
			return err
		} else if !grew {
			return syscall.ENOSPC
		}
	}
}

// try promises n extents out of what is backed.
func (a *allocator) try(n int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	ok := a.free+int64(len(a.resting))-a.reserved >= n
	if ok {
		a.reserved += n
	}
	return ok
}

// force promises n extents that were promised in an earlier life.
func (a *allocator) force(n int64) {
	a.mu.Lock()
	a.reserved += n
	a.mu.Unlock()
}

func (a *allocator) unreserve(n int64) {
	a.mu.Lock()
	a.reserved -= n
	a.mu.Unlock()
}

// slack returns how many extents could be promised right now without backing
// more.
func (a *allocator) slack() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.free + int64(len(a.resting)) - a.reserved
}

// take hands out a free extent. With promised, it draws on an earlier
// reserve. ok is false if none is free at the moment: the caller flushes the
// map to let the resting ones go, or goes without.
func (a *allocator) take(promised bool) (extent uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.free == 0 || !promised && a.free+int64(len(a.resting))-a.reserved < 1 {
		return 0, false
	}
	for range a.files {
		d := a.files[a.cursor]
		if d.free > 0 {
			extent = d.take()
			a.free--
			a.used++
			if promised {
				a.reserved--
			}
			return extent, true
		}
		a.cursor = (a.cursor + 1) % len(a.files)
	}
	panic("brick: the allocator counts free extents that are nowhere")
}

func (d *dataFile) take() uint64 {
	for {
		if m := d.backed[d.word] &^ d.used[d.word]; m != 0 {
			i := bits.TrailingZeros64(m)
			d.used[d.word] |= 1 << i
			d.free--
			return uint64(d.index)*extentsPerFile + uint64(d.word)*64 + uint64(i)
		}
		d.word = (d.word + 1) % fileWords
	}
}

// rest puts a used extent away until release.
func (a *allocator) rest(extent uint64, punch bool) {
	a.mu.Lock()
	a.resting = append(a.resting, restingExtent{extent, punch})
	a.mu.Unlock()
}

// letGo makes a used extent that the map never knew available again. Whether
// there is space behind it is not known.
func (a *allocator) letGo(extent uint64) {
	a.mu.Lock()
	a.vacate(extent, false)
	a.mu.Unlock()
}

// restingCount is how many extents, and slots, a flush of the map would set free.
func (a *allocator) restingCount() (extents, slots int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.resting), len(a.frags.resting)
}

// release sets free the first resting extents and slots: the map has been
// flushed since they were put there. Extents whose data was unmapped are
// punched, as far as no promise stands on them.
func (a *allocator) release(extents, slots int) error {
	a.mu.Lock()
	batch := slices.Clone(a.resting[:extents])
	a.resting = slices.Delete(a.resting, 0, extents)
	a.releaseSlots(slots)
	var punch []uint64
	for _, r := range batch {
		if r.punch && a.free+int64(len(a.resting))-a.reserved >= stepExtents/4 {
			punch = append(punch, r.extent) // stays used until it is punched
			continue
		}
		a.vacate(r.extent, true)
	}
	a.mu.Unlock()
	return a.punch(punch)
}

// vacate makes a used extent free, or unbacked. The lock is held.
func (a *allocator) vacate(extent uint64, backed bool) {
	d := a.files[extent/extentsPerFile]
	w, m := bit(extent)
	if d.used[w]&m == 0 {
		panic(fmt.Sprintf("brick: extent %d freed twice", extent))
	}
	d.used[w] &^= m
	a.used--
	if backed {
		d.free++
		a.free++
	} else {
		d.backed[w] &^= m
	}
}

// punch gives the space of extents back to the file system, in runs. It keeps
// back away, which may be asking for the very range.
func (a *allocator) punch(extents []uint64) error {
	a.growMu.Lock()
	defer a.growMu.Unlock()
	slices.Sort(extents)
	for len(extents) > 0 {
		n := 1
		for n < len(extents) && extents[n] == extents[0]+uint64(n) && extents[n]%extentsPerFile != 0 {
			n++
		}
		d := a.file(extents[0])
		err := d.plain.Punch(int64(extents[0]%extentsPerFile)*extentSize, int64(n)*extentSize)
		keep := errors.Is(err, errors.ErrUnsupported)
		if err != nil && !keep {
			return fmt.Errorf("brick: punch %s: %w", dataName(d.index), err)
		}
		a.mu.Lock()
		for _, e := range extents[:n] {
			a.vacate(e, keep)
		}
		a.mu.Unlock()
		extents = extents[n:]
	}
	return nil
}
