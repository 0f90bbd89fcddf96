package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"petal/journal/record"
	"petal/journal/vfs"
)

// Range is a range of LSNs, both ends included.
type Range struct{ From, To LSN }

// Recovery is what Open found.
type Recovery struct {
	// First and Last are the records that Replay gives, less the Rotten ones.
	// First is the trim that is known, at least 1; if there are no records Last is
	// First-1. The next record gets Last+1.
	First, Last LSN
	// Rotten records were durable once and are lost, ascending. The owner has to
	// get their effects from elsewhere, or say that they are gone.
	Rotten []Range
	// Cut says that there were remains of records after Last, which were never
	// acknowledged.
	Cut bool
	// CutAt is where in the segments the log goes on, for people.
	CutAt Position
	// Unreadable counts blocks that the disk refused to read.
	Unreadable int
	// Groups and Bytes tell how much is live.
	Groups int
	Bytes  int64
}

// Defaults and limits of Options.
const (
	segmentDefault  = 64 << 20
	segmentMin      = 64 << 10
	segmentMax      = 4 << 30
	capacityDefault = 1 << 30
	slotsMax        = 1 << 16
	lazyDefault     = 100 * time.Millisecond
)

func (o *Options) defaults() error {
	if o.Segment == 0 {
		o.Segment = segmentDefault
	}
	if o.Capacity == 0 {
		o.Capacity = max(capacityDefault, 4*o.Segment)
	}
	if o.LazyInterval == 0 {
		o.LazyInterval = lazyDefault
	}
	switch {
	case o.FS == nil || !fs.ValidPath(o.Dir):
		return errors.New("journal: options without a file system or directory")
	case o.Segment < segmentMin || o.Segment > segmentMax || o.Segment%BlockSize != 0:
		return fmt.Errorf("journal: segment of %d bytes: want a multiple of %d from %d to %d", o.Segment, BlockSize, segmentMin, segmentMax)
	case o.Capacity < 4*o.Segment:
		return fmt.Errorf("journal: capacity of %d bytes: want at least four segments of %d", o.Capacity, o.Segment)
	case o.Capacity/o.Segment > slotsMax:
		return fmt.Errorf("journal: capacity of %d bytes is more than %d segments of %d", o.Capacity, slotsMax, o.Segment)
	}
	return nil
}

// Open opens a journal, or makes one, and says what is in it. It writes one
// block at most, and only when it has succeeded in all else. The caller sees to
// it that nobody else has the journal open (vfs.FS.Lock).
//
// Errors: fs.ErrExist, fs.ErrNotExist; ErrUnreadable; record.ErrVersion, a newer
// petal wrote it; and those of the file system. Corrupt bytes are not an error,
// see Recovery.
func Open(opts Options) (*Journal, *Recovery, error) {
	if err := opts.defaults(); err != nil {
		return nil, nil, err
	}
	j := &Journal{
		opts: opts, opening: 1, base: 1, next: 1, trim: 1,
		wake: make(chan struct{}, 1), need: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	found, err := j.list()
	if err != nil {
		return nil, nil, err
	}
	rec := &Recovery{First: 1}
	if opts.Create {
		err = j.create(found)
	} else {
		rec, err = j.recover(found)
	}
	if err != nil {
		j.closeFiles()
		return nil, nil, err
	}
	if !opts.Manual {
		j.committing.Go(j.run)
		j.making.Go(j.prepare)
	}
	return j, rec, nil
}

// list returns the slots that have files, and removes what an interrupted
// makeFile left.
func (j *Journal) list() ([]uint32, error) {
	names, err := j.opts.FS.List(j.opts.Dir)
	if errors.Is(err, fs.ErrNotExist) && j.opts.Create {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []uint32
	for _, name := range names {
		if _, ok := slotOf(strings.TrimSuffix(name, newSuffix)); ok && strings.HasSuffix(name, newSuffix) {
			if err := j.opts.FS.Remove(path.Join(j.opts.Dir, name)); err != nil {
				return nil, err
			}
		}
		if slot, ok := slotOf(name); ok && slot < slotsMax {
			found = append(found, slot)
		}
	}
	return found, nil
}

// create makes the first segments of a new journal. A crash before the first
// one's name is durable leaves nothing that Open would take for a journal.
func (j *Journal) create(found []uint32) error {
	if len(found) > 0 {
		return fmt.Errorf("journal: %w in %s", fs.ErrExist, j.opts.Dir)
	}
	if err := j.opts.FS.MkdirAll(j.opts.Dir); err != nil {
		return err
	}
	if err := j.opts.FS.SyncDir(path.Dir(j.opts.Dir)); err != nil {
		return err
	}
	j.makeSlots(nil)
	for s, generation := j.pick(atCreate); s != nil; s, generation = j.pick(atCreate) {
		if _, err := j.makeReady(s, generation); err != nil {
			return err
		}
		j.preparing = false
		j.ready = append(j.ready, s)
	}
	return nil
}

// makeSlots makes room for all files there are and may be.
func (j *Journal) makeSlots(found []uint32) {
	n := uint32(j.opts.Capacity / j.opts.Segment)
	for _, slot := range found {
		n = max(n, slot+1)
	}
	j.slots = newSlots(n)
}

// recover reads all segments, judges what it sees, and continues the log.
func (j *Journal) recover(found []uint32) (*Recovery, error) {
	if len(found) == 0 {
		return nil, fmt.Errorf("journal: %w in %s", fs.ErrNotExist, j.opts.Dir)
	}
	j.makeSlots(found)
	for _, slot := range found {
		if err := j.openSlot(slot); err != nil {
			return nil, err
		}
	}
	scans, err := j.scanAll()
	if err != nil {
		return nil, err
	}
	v, err := judge(scans)
	if err != nil {
		return nil, err
	}
	return &v.Recovery, j.resume(scans, v)
}

func (j *Journal) openSlot(slot uint32) error {
	file, err := j.opts.FS.Open(path.Join(j.opts.Dir, segmentName(slot)), vfs.Direct|vfs.DSync)
	if err != nil {
		return err
	}
	s := &segment{slot: slot, file: file}
	j.slots[slot].Store(s)
	// What is read and believed must not vanish later.
	if err := file.Sync(); err != nil {
		return err
	}
	s.size, err = file.Size()
	return err
}

// resume sets up the journal as the verdict says and makes the cut durable: an
// empty group after the last record that was kept, or, if the log cannot go on
// there, nothing yet: the header of the next segment will do it before any group.
func (j *Journal) resume(scans []*scan, v *verdict) error {
	j.opening, j.base, j.next, j.trim = v.opening+1, v.Last+1, v.Last+1, v.First
	j.durable.Store(uint64(v.Last))
	j.generation = v.generation
	j.groups, j.rotten = v.groups, v.Rotten
	for _, sc := range scans { // ascending generations
		if sc.seg.last == 0 && sc != v.tail {
			j.free = append(j.free, sc.seg)
		} else {
			j.live = append(j.live, sc.seg)
		}
	}
	if v.tail == nil || v.tail.seg.end+BlockSize > v.tail.seg.size {
		return nil
	}
	j.commit.active = v.tail.seg
	return j.mark()
}

// mark writes an empty group. It vouches for all before it and, after Open,
// carries the new opening and its base.
func (j *Journal) mark() error {
	c := &j.commit
	c.grow(BlockSize)
	c.builder.Reset(c.header)
	header := c.builder.Finish(j.group(c.active, j.Durable()+1))
	if _, err := c.active.file.WriteAt(header, c.active.end); err != nil {
		return err
	}
	j.mu.Lock()
	c.active.end += record.BlockSize
	j.mu.Unlock()
	return nil
}

// Close writes what is queued, and ends. Records that still wait for a segment
// get ErrClosed. After Close the files are closed; nothing may be called but
// Append and Flush, which say ErrClosed.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		return ErrClosed
	}
	j.closing = true
	j.wantAll()
	if j.lazyTimer != nil {
		j.lazyTimer.Stop()
	}
	j.mu.Unlock()
	if j.opts.Manual {
		for j.commitOne(true) == wrote {
		}
	} else {
		signal(j.wake)
		j.committing.Wait() // first, because it may need the preparer
		close(j.stop)
		j.making.Wait()
	}
	err := j.Err()
	if err == nil && j.commit.active != nil && j.commit.active.end+BlockSize <= j.commit.active.size {
		err = j.mark()
	}
	j.take(true)
	j.refuse(ErrClosed)
	return errors.Join(err, j.closeFiles())
}

func (j *Journal) closeFiles() error {
	var errs []error
	for i := range j.slots {
		if s := j.slots[i].Load(); s != nil {
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(errs...)
}
