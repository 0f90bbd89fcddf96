package brick

import (
	"errors"
	"fmt"
	"math/bits"
	"syscall"
)

// Growing asks the file system to promise space for extents: first those of
// the files that are there, in which space may have been promised in an earlier
// life, or given back by punching; then those of a new file.

// ahead keeps some extents free ahead of need.
func (a *allocator) ahead() error {
	for a.slack() < 2*stepExtents {
		if grew, err := a.back(2*stepExtents, true); err != nil || !grew {
			return err
		}
	}
	return nil
}

// restore backs what was promised before a crash. It was there then, so neither
// limit nor reserve is asked.
func (a *allocator) restore() error {
	for a.slack() < 0 {
		if grew, err := a.back(0, false); err != nil || !grew {
			return err
		}
	}
	return a.ahead()
}

// back makes up to one step of extents free, unless want could be promised
// already. It reports false when that cannot be had: the limit or, if polite,
// the reserve of the file system is reached, or it is full.
func (a *allocator) back(want int64, polite bool) (bool, error) {
	a.growMu.Lock()
	defer a.growMu.Unlock()
	a.mu.Lock()
	missing := want - (a.free + int64(len(a.resting)) - a.reserved)
	room := a.limit - a.used - a.free
	files := len(a.files)
	a.mu.Unlock()
	if missing <= 0 { // someone else did it
		return true, nil
	}
	if !polite {
		room = missing
	}
	room = min(room, stepExtents)
	avail, _, err := a.fs.Free()
	if err != nil {
		return false, fmt.Errorf("brick: %w", err)
	}
	if room <= 0 || polite && a.dry != 0 && avail/extentSize <= a.dry/extentSize {
		return false, nil
	}
	for i := 0; i < files; i++ {
		if got, err := a.backIn(i, room, polite); got > 0 || err != nil {
			return got > 0, err
		}
	}
	made, err := a.addFile(polite)
	if err != nil {
		return false, err
	}
	if made {
		got, err := a.backIn(files, room, polite)
		if got > 0 || err != nil {
			return got > 0, err
		}
	}
	a.dry = max(avail, 1)
	return false, nil
}

// backIn backs up to n extents of one file, window by window until there are
// some.
func (a *allocator) backIn(file int, n int64, polite bool) (got int64, err error) {
	for at := 0; at < extentsPerFile && got == 0 && err == nil; {
		a.mu.Lock()
		from, end := a.files[file].hole(at, n)
		a.mu.Unlock()
		if from == end {
			return 0, nil
		}
		got, err = a.backRange(uint64(file)*extentsPerFile+uint64(from), int64(end-from), polite)
		at = end
	}
	return got, err
}

// hole finds unbacked extents from one on, and returns the rest of their aligned
// window, as far as it has at most n of them.
func (d *dataFile) hole(at int, n int64) (from, end int) {
	for ; at < extentsPerFile; at = (at/64 + 1) * 64 {
		m := ^(d.backed[at/64] | d.used[at/64]) >> (at % 64) << (at % 64)
		if m == 0 {
			continue
		}
		from = at/64*64 + bits.TrailingZeros64(m)
		end = from
		for stop := (from/stepExtents + 1) * stepExtents; end < stop && n > 0; end++ {
			if (d.backed[end/64]|d.used[end/64])>>(end%64)&1 == 0 {
				n--
			}
		}
		return from, end
	}
	return 0, 0
}

// backRange asks the file system for the space of n extents from one on, and
// makes that promise outlive a crash. Where it does not get all of it, it tries
// the halves: a part may have been promised in an earlier life.
func (a *allocator) backRange(from uint64, n int64, polite bool) (got int64, err error) {
	ok, err := a.allocate(from, n, polite)
	switch {
	case err != nil:
		return 0, err
	case ok:
		return a.markBacked(from, n), nil
	case n == 1:
		return 0, nil
	}
	left, err := a.backRange(from, n/2, polite)
	if err != nil {
		return left, err
	}
	right, err := a.backRange(from+uint64(n/2), n-n/2, polite)
	return left + right, err
}

// allocate reports whether the file system promises the range. If that were new
// space out of its reserve, the space is given back.
func (a *allocator) allocate(from uint64, n int64, polite bool) (bool, error) {
	d := a.file(from)
	off := int64(from%extentsPerFile) * extentSize
	before, total, err := a.fs.Free()
	if err != nil {
		return false, fmt.Errorf("brick: %w", err)
	}
	size, err := d.plain.Size()
	if err != nil {
		return false, fmt.Errorf("brick: %w", err)
	}
	reserve := a.keep(total)
	if polite && off >= size && before < reserve+uint64(n)*extentSize {
		return false, nil // all new: no need to try
	}
	err = d.plain.Allocate(off, n*extentSize, false)
	if errors.Is(err, syscall.ENOSPC) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("brick: allocate in %s: %w", dataName(d.index), err)
	}
	after, _, err := a.fs.Free()
	if err != nil {
		return false, fmt.Errorf("brick: %w", err)
	}
	if polite && after < reserve && after < before {
		return false, a.giveBack(from, n)
	}
	if err := d.plain.Sync(); err != nil {
		return false, fmt.Errorf("brick: sync %s: %w", dataName(d.index), err)
	}
	return true, nil
}

// giveBack punches what nobody uses of a range.
func (a *allocator) giveBack(from uint64, n int64) error {
	d := a.file(from)
	for e := from; e < from+uint64(n); e++ {
		w, m := bit(e)
		a.mu.Lock()
		taken := (d.backed[w]|d.used[w])&m != 0
		a.mu.Unlock()
		if taken {
			continue
		}
		err := d.plain.Punch(int64(e%extentsPerFile)*extentSize, extentSize)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("brick: punch %s: %w", dataName(d.index), err)
		}
	}
	return nil
}

// markBacked makes the unbacked extents of a range free and returns how many
// those were.
func (a *allocator) markBacked(from uint64, n int64) (got int64) {
	d := a.file(from)
	a.mu.Lock()
	defer a.mu.Unlock()
	for e := from; e < from+uint64(n); e++ {
		w, m := bit(e)
		if (d.backed[w]|d.used[w])&m == 0 {
			got++
		}
		d.backed[w] |= m
	}
	d.free += int(got)
	a.free += got
	return got
}

// addFile makes one more data file, if the file system has room for a part of it.
func (a *allocator) addFile(polite bool) (bool, error) {
	avail, total, err := a.fs.Free()
	if err != nil {
		return false, fmt.Errorf("brick: %w", err)
	}
	a.mu.Lock()
	i := len(a.files)
	a.mu.Unlock()
	if i >= filesMax || polite && avail < a.keep(total)+extentSize {
		return false, nil
	}
	d, err := a.openFile(i, true)
	if errors.Is(err, syscall.ENOSPC) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("brick: %w", err)
	}
	a.mu.Lock()
	a.files = append(a.files, d)
	a.mu.Unlock()
	return true, nil
}
