package journal

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"petal/journal/record"
	"petal/journal/vfs"
)

// segment is one file of the journal.
//
//	    make              roll               Trim
//	(none) --> ready ------------> live ------------> free
//	             ^                                      |
//	             +--------------- recycle --------------+
//
// ready: pre-written, its header durable with a generation of its own, no groups.
// live: the last one is the active one, into which groups go; the others are
// full. free: nothing in it is needed.
//
// The committer writes to the active one without a lock: nobody else does.
type segment struct {
	slot   uint32
	size   int64 // bytes; never changes
	file   vfs.File
	header record.Group // scratch of the committer

	// Under Journal.mu, except that the committer may read what only it writes.
	generation uint64
	end        int64 // where the next group goes, in bytes
	last       LSN   // of the last record in it; zero: none
}

// ahead is how many segments are kept ready, so that the committer does not wait
// for zeros to be written or for a header.
const ahead = 2

// atCreate is how many segments a journal is born with. It can go round with
// them, so that a file system which others fill up later never stops it.
const atCreate = 3

// zerosBytes is the size of the writes with which a segment is pre-written.
const zerosBytes = 1 << 20

// segmentName is the file of a slot; while it is being made it ends in newSuffix.
func segmentName(slot uint32) string { return fmt.Sprintf("%06d.seg", slot) }

const newSuffix = ".new"

// slotOf is the inverse of segmentName.
func slotOf(name string) (uint32, bool) {
	var slot uint32
	if !strings.HasSuffix(name, ".seg") {
		return 0, false
	}
	if _, err := fmt.Sscanf(name, "%06d.seg", &slot); err != nil {
		return 0, false
	}
	return slot, segmentName(slot) == name
}

// prepare is the goroutine that keeps segments ready.
func (j *Journal) prepare() {
	for {
		if j.prepareOne() {
			continue
		}
		select {
		case <-j.need:
		case <-j.stop:
			return
		}
	}
}

// prepareOne makes one more segment ready, if one is wanted and can be had, and
// reports whether it did.
func (j *Journal) prepareOne() bool {
	s, generation := j.pick(ahead)
	if s == nil {
		return false
	}
	s, err := j.makeReady(s, generation)
	j.mu.Lock()
	j.preparing = false
	switch {
	case err == nil:
		j.ready = append(j.ready, s)
		j.stunted = false
	case s.file == nil && errors.Is(err, syscall.ENOSPC):
		// No space for another segment: the journal is as large as it is, until
		// somebody makes room.
		j.stunted = true
	default:
		j.mu.Unlock()
		j.fail(err)
		return false
	}
	j.mu.Unlock()
	signal(j.wake)
	return err == nil
}

// pick takes a free segment, or the slot of one that does not exist yet, and
// gives it a generation, unless enough are ready.
func (j *Journal) pick(enough int) (*segment, uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil || len(j.ready) >= enough || j.preparing {
		return nil, 0
	}
	var s *segment
	if len(j.free) > 0 {
		s = j.free[0]
		j.free = append(j.free[:0], j.free[1:]...)
	} else if slot, ok := j.unused(); ok {
		s = &segment{slot: slot, size: j.opts.Segment}
	} else {
		return nil, 0
	}
	j.preparing = true
	j.generation++
	return s, j.generation
}

// unused returns a slot without a file, if the capacity allows one more.
func (j *Journal) unused() (uint32, bool) {
	made, slot := 0, -1
	for i := range j.slots {
		if j.slots[i].Load() != nil {
			made++
		} else if slot < 0 {
			slot = i
		}
	}
	if slot < 0 || int64(made+1)*j.opts.Segment > j.opts.Capacity {
		return 0, false
	}
	return uint32(slot), true
}

// hopeful reports whether a segment may become ready without a Trim. Under mu.
func (j *Journal) hopeful() bool {
	if j.failed != nil {
		return false
	}
	_, unused := j.unused()
	return j.preparing || len(j.free) > 0 || len(j.ready) > 0 || unused && !j.stunted
}

// makeReady pre-writes s if need be and writes its header. From then on nothing
// that was in it is sound, and the journal's trim is durable. It returns the
// segment to use from now on.
func (j *Journal) makeReady(s *segment, generation uint64) (*segment, error) {
	var err error
	if s.file == nil {
		err = j.makeFile(s)
	} else if s.size != j.opts.Segment {
		s, err = j.resize(s)
	}
	if err != nil {
		return s, err
	}
	block := vfs.AlignedBuffer(BlockSize)
	header := record.Segment{
		UUID: j.opts.UUID, Generation: generation, Size: uint64(s.size),
		Opening: j.opening, Base: uint64(j.base), Trim: uint64(j.trimmed()),
	}
	header.Encode(block)
	if _, err := s.file.WriteAt(block, 0); err != nil {
		return s, err
	}
	j.mu.Lock()
	s.generation, s.end, s.last = generation, BlockSize, 0
	j.mu.Unlock()
	return s, nil
}

// makeFile makes the file of a new segment: written full of zeros, so that later
// writes need no metadata of the file system (half the latency of a write into
// merely reserved space). After a crash
//
//  1. before the rename is durable, there is a file that Open removes, or none;
//  2. after it, a segment without a header, which Open takes for free.
func (j *Journal) makeFile(s *segment) error {
	name := path.Join(j.opts.Dir, segmentName(s.slot))
	if err := j.fillNew(name+newSuffix, s.size); err != nil {
		j.opts.FS.Remove(name + newSuffix)
		return err
	}
	if err := j.opts.FS.Rename(name+newSuffix, name); err != nil {
		return err
	}
	if err := j.opts.FS.SyncDir(j.opts.Dir); err != nil {
		return err
	}
	file, err := j.opts.FS.Open(name, vfs.Direct|vfs.DSync)
	if err != nil {
		return err
	}
	s.file = file
	j.slots[s.slot].Store(s)
	return nil
}

// fillNew creates a file of durable zeros.
func (j *Journal) fillNew(name string, size int64) error {
	file, err := j.opts.FS.Create(name, vfs.Direct)
	if err != nil {
		return err
	}
	err = file.Allocate(0, size, false)
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	if err == nil {
		err = zero(file, 0, size)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// zero writes zeros from off to end.
func zero(file vfs.File, off, end int64) error {
	zeros := vfs.AlignedBuffer(int(min(zerosBytes, end-off)))
	for off < end {
		n := min(int64(len(zeros)), end-off)
		if _, err := file.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// resize brings a free segment to the size that Options ask for, and returns it
// with that size. Its content is not needed, and its header is written after.
func (j *Journal) resize(old *segment) (*segment, error) {
	s := &segment{slot: old.slot, size: j.opts.Segment, file: old.file}
	whole := old.size / BlockSize * BlockSize
	if whole < s.size {
		if err := zero(s.file, whole, s.size); err != nil {
			return s, err
		}
	}
	if err := s.file.Truncate(s.size); err != nil {
		return s, err
	}
	j.slots[s.slot].Store(s)
	return s, s.file.Sync()
}

// roll makes the next ready segment the active one and reports whether there was
// one. If not, the committer sleeps until one is.
func (j *Journal) roll() bool {
	if j.opts.Manual {
		j.prepareOne()
	}
	j.mu.Lock()
	ok := len(j.ready) > 0
	tell := !j.starved || ok && j.commit.active != nil
	j.starved = !ok
	if ok {
		s := j.ready[0]
		j.ready = append(j.ready[:0], j.ready[1:]...)
		j.live = append(j.live, s)
		j.commit.active = s
	} else if j.hopeful() {
		j.starved, tell = false, false // a segment is on its way
	}
	more := ok || !j.stunted // do not ask a full file system over and over
	j.mu.Unlock()
	if more {
		signal(j.need)
	}
	if tell && j.opts.Pressure != nil {
		j.opts.Pressure(j.Fill())
	}
	return ok
}

// Trim says that records below an LSN are no longer needed. Segments wholly below
// it are recycled. It does not wait for the disk; a crash may bring back what was
// trimmed since the last group (see the package comment). An LSN beyond what is
// durable counts as the next after it; one below an earlier Trim does nothing.
func (j *Journal) Trim(below LSN) {
	j.mu.Lock()
	j.trim = max(j.trim, min(below, j.Durable()+1))
	freed := false
	for len(j.live) > 0 && j.live[0] != j.commit.active && j.live[0].last < j.trim {
		j.free = append(j.free, j.live[0])
		j.live = append(j.live[:0], j.live[1:]...)
		freed = true
	}
	j.mu.Unlock()
	if freed {
		signal(j.need)
	}
}

// Fill returns how much of the journal is taken, in bytes: live segments, the
// active one as far as it is written, and all that waits in memory. It may
// exceed capacity, which is what the journal's files can grow to.
func (j *Journal) Fill() (used, capacity int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	capacity = j.opts.Capacity / j.opts.Segment * j.opts.Segment
	if j.stunted {
		capacity = 0
		for i := range j.slots {
			if s := j.slots[i].Load(); s != nil {
				capacity += s.size
			}
		}
	}
	for _, s := range j.live {
		if s == j.commit.active {
			used += s.end
		} else {
			used += s.size
		}
	}
	return used + j.waiting.Load(), capacity
}
