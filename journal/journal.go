// Package journal is a redo log on pre-written, recycled segments. It serves
// the bricks and the cluster's agreed state alike and has heard of neither: a
// record is opaque head bytes, some data blocks of 4 KiB, and their CRC32C.
//
//	 trimmed   |  live                                     | queued
//	-----------+-------------------------------------------+----------------> LSN
//	           Trim         (destaged by the owner)   Durable      last appended
//
//	segments:  [free][free]  [gen 7 | full][gen 8 | full][gen 9 | active ..]  [gen 10 | ready]
//
// Append queues a record and returns. One committer takes whatever is queued,
// writes it as one group with one direct, synchronous write (package record has
// the format), and calls each record's Done. There is no timer on that path: the
// time a write takes is the time in which the next group gathers. Only Lazy
// records wait, for company or for at most Options.LazyInterval.
//
// # What is durable when
//
// Done(nil) means that the record, and every record with a lower LSN, survives a
// crash. A record whose Done was not called may survive or not; those that
// survive are a prefix, in order, none torn, none invented. Records that were
// appended together (AppendAll) survive together or not at all.
//
// Trim is durable with the next group that is written. If a crash comes before
// it, Replay may give records again that were trimmed; so what an owner does
// with a record must be safe to repeat. Trimmed records that a recycled segment
// has overwritten are never missed: the header that overwrites them carries the
// trim.
//
// # Torn or rotten
//
// Every group says which LSN was known durable when it was issued. Recovery
// takes the highest such statement of all sound groups and segment headers,
// call it known, and reads in LSN order:
//
//	record x is       x <= known                     x > known
//	------------------------------------------------------------------------
//	sound             replay it                      replay it
//	bad or missing    rotten: it was durable and     torn: it never was; cut
//	                  is lost; report it in          here, nothing from x on
//	                  Recovery.Rotten, go on         was acknowledged
//	unreadable (EIO)  rotten                         Open fails: a cut needs
//	                                                 evidence, not its absence
//
// If x is one with others, a cut is made before the first of them. They lie in
// one group, so they were durable together: a rotten one takes no other along.
//
// The last group has no later one to vouch for it, so if it rots it looks torn,
// unless the journal was closed: Close writes an empty group that does vouch.
//
// Why cut bytes never come back: an opening of the journal has a number, and a
// base, the first LSN it may write. Before anything else Open makes an empty
// group with both durable, right after the last record it kept, over what was
// cut; and every group carries both. Recovery discards any record at or above the
// base of a later opening. So a record cut once, and whatever sound bytes lay
// beyond it, stays cut as long as anything of any later opening is there; and if
// nothing is, the next Open cuts at the same place, because Open syncs the
// segments before it reads them: what it saw is what the disk has.
// Recycled segments: header checksums are seeded with the generation, which
// grows with every use of a segment, so nothing of an earlier use is sound.
package journal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"petal/journal/record"
	"petal/journal/vfs"
)

// LSN is the sequence number of a record, from 1, without gaps. Zero is none.
type LSN uint64

// BlockSize is the unit of data and of the disk, in bytes.
const BlockSize = record.BlockSize

// Limits of a record.
const (
	MaxHead = record.MaxHead               // bytes of Head
	MaxData = record.MaxBlocks * BlockSize // bytes of Data
)

// Position is where a record's data lies, for reading it back. It stays valid
// until the record is trimmed.
type Position struct {
	Segment uint32 // slot of the segment's file
	Block   uint32 // first data block within it, in 4 KiB
}

// Record is one entry on its way into the journal. The caller owns the struct
// and may embed and reuse it once Done was called. Append keeps Head, Data and
// CRC until then; nobody may change them meanwhile.
type Record struct {
	Head []byte   // at most MaxHead bytes
	Data [][]byte // 4 KiB-aligned memory, lengths multiples of 4096, MaxData bytes in all; may be empty
	CRC  []uint32 // CRC32C of each 4 KiB of Data
	// Lazy records wait for others, for Flush, or for the lazy interval
	// (write-back disks).
	Lazy bool
	// Done is called once: the record is durable, or err says why the journal has
	// failed for good (errors.Is ErrFailed, ErrClosed). It is called from the
	// committer, in LSN order, and must not block; it may call Append.
	Done func(*Record, error)

	LSN      LSN      // set by Append
	Position Position // set before Done(nil)

	next     *Record // queue link
	withNext bool    // one with the next in the queue
}

// blocks is the number of data blocks.
func (r *Record) blocks() int { return len(r.CRC) }

// diskBytes is what the record takes in a group, less its part of the header.
func (r *Record) diskBytes() int64 {
	return int64(record.FrameBytes(len(r.Head), len(r.CRC)) + len(r.CRC)*BlockSize)
}

// Options of a journal.
type Options struct {
	FS   vfs.FS
	Dir  string   // of the segments; the journal's alone
	UUID [16]byte // seeds every checksum: another journal's bytes never match

	Segment  int64 // bytes of a segment, default 64 MiB, at least 64 KiB, at most 4 GiB, a multiple of 4096
	Capacity int64 // bytes of all segments, default 1 GiB, at least four segments; they are made as they are first needed, ahead of time
	Create   bool  // make a new journal; fails with fs.ErrExist if one is there

	// LazyInterval is how long Lazy records may wait, default 100 ms.
	LazyInterval time.Duration
	// Pressure, if set, is called from the committer each time a segment has been
	// filled, and each time records begin to wait because no segment is free. It
	// must not block. Only Trim ends such a wait.
	Pressure func(used, capacity int64)
	// Manual runs no goroutine and no timer: the owner calls Commit. For
	// simulation.
	Manual bool
}

// Errors.
var (
	// ErrFailed: a write or sync failed earlier; the journal takes no more
	// records. The cause is wrapped with it. Only opening it again helps.
	ErrFailed = errors.New("journal: failed")
	// ErrCorrupt: bytes that should be sound are not.
	ErrCorrupt = errors.New("journal: corrupt")
	// ErrClosed: appended after Close, or still waiting for a segment at Close.
	ErrClosed = errors.New("journal: closed")
	// ErrForeign: the segments are another journal's.
	ErrForeign = errors.New("journal: of another uuid")
	// ErrUnreadable: the disk does not let recovery read where the log ends.
	ErrUnreadable = errors.New("journal: unreadable")
)

// Journal is an open journal. All methods may be called from many goroutines,
// except where they say otherwise.
type Journal struct {
	opts  Options
	slots []atomic.Pointer[segment] // by slot; nil: no file yet

	opening uint64 // number of this opening
	base    LSN    // its first LSN
	groups  []group
	rotten  []Range

	durable atomic.Uint64 // LSN
	waiting atomic.Int64  // bytes appended and not yet written

	mu         sync.Mutex
	head, tail *Record // appended, not yet taken by the committer
	next       LSN     // of the next Append
	want       LSN     // the committer has to write up to here
	lazyBytes  int64   // appended lazily above want
	lazyArmed  bool    // lazyTimer is running
	lazyTimer  *time.Timer
	flushes    []flush // ascending
	trim       LSN     // records below it are not needed
	failed     error   // why nothing works any more
	closing    bool
	idle       bool // the committer sleeps, or will as soon as mu is free
	starved    bool // it waits for a segment
	live       []*segment
	ready      []*segment
	free       []*segment
	generation uint64 // last one given out
	preparing  bool   // a segment is between free and ready
	stunted    bool   // the last try to make another segment met a full file system

	commit committer
	wake   chan struct{} // to the committer: there may be work
	need   chan struct{} // to the preparer: a segment may be wanted
	stop   chan struct{} // closed by Close

	committing, making sync.WaitGroup // the goroutines run and prepare
}

// flush is a waiting call of Flush.
type flush struct {
	lsn  LSN
	done func(error)
}

// Append gives r the next LSN and queues it. It does not wait for the disk, nor
// for anybody who does. When the journal is full, records queue: Fill counts
// them, and it is for the owner to stop. Append panics if r breaks a limit of
// Record or is larger than a segment (see MaxRecord), which is a bug in the
// caller. After Close it calls Done with ErrClosed before it returns.
func (j *Journal) Append(r *Record) {
	j.check(r)
	r.next, r.withNext = nil, false
	size := r.diskBytes()
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		r.Done(r, ErrClosed)
		return
	}
	j.enqueue(r)
	j.waiting.Add(size)
	wake := j.hurry(r, size)
	j.mu.Unlock()
	if wake {
		signal(j.wake)
	}
}

// enqueue gives r its LSN and its place. Under mu.
func (j *Journal) enqueue(r *Record) {
	r.LSN = j.next
	j.next++
	if j.tail == nil {
		j.head = r
	} else {
		j.tail.next = r
	}
	j.tail = r
}

// hurry decides when r has to be written and reports whether the committer
// must be woken for it. Under mu.
func (j *Journal) hurry(r *Record, size int64) bool {
	if r.Lazy && j.failed == nil {
		j.lazyBytes += size
		if j.lazyBytes < lazyBytesMax {
			j.armLazy()
			return false
		}
	}
	return j.wantAll()
}

// lazyBytesMax bounds what Lazy records may pile up.
const lazyBytesMax = groupBlocks * BlockSize

// armLazy starts the lazy timer. Under mu.
func (j *Journal) armLazy() {
	if j.lazyArmed || j.opts.Manual {
		return
	}
	j.lazyArmed = true
	if j.lazyTimer == nil {
		j.lazyTimer = time.AfterFunc(j.opts.LazyInterval, j.lazyOver)
	} else {
		j.lazyTimer.Reset(j.opts.LazyInterval)
	}
}

// lazyOver is the lazy timer.
func (j *Journal) lazyOver() {
	j.mu.Lock()
	j.lazyArmed = false
	wake := j.wantAll()
	j.mu.Unlock()
	if wake {
		signal(j.wake)
	}
}

// wantAll asks for all that was appended to be written and reports whether the
// committer sleeps. Under mu.
func (j *Journal) wantAll() bool {
	j.want = j.next - 1
	j.lazyBytes = 0
	wake := j.idle
	j.idle = false
	return wake
}

// Flush calls done once everything appended before is durable, lazy records too,
// or with the reason why that will never be. It calls it before it returns if
// there is nothing to wait for, else from the committer; done must not block.
func (j *Journal) Flush(done func(error)) {
	j.mu.Lock()
	last := j.next - 1
	err := j.failed
	if err == nil && j.closing {
		err = ErrClosed
	}
	if durable := LSN(j.durable.Load()); durable >= last || err != nil {
		if durable >= last {
			err = nil
		}
		j.mu.Unlock()
		done(err)
		return
	}
	j.flushes = append(j.flushes, flush{last, done})
	wake := j.wantAll()
	j.mu.Unlock()
	if wake {
		signal(j.wake)
	}
}

// Durable returns the highest LSN that is durable.
func (j *Journal) Durable() LSN { return LSN(j.durable.Load()) }

// Next returns the LSN that the next Append will get.
func (j *Journal) Next() LSN {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// Err returns why the journal has failed, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// MaxRecord returns the largest size that RecordBytes may give for a record of
// this journal.
func (j *Journal) MaxRecord() int64 { return j.opts.Segment - BlockSize }

// RecordBytes is what a record with a head of so many bytes and so many data
// blocks takes at most in the journal, in bytes.
func RecordBytes(head, blocks int) int64 { return record.GroupBytes(head, blocks) }

// check panics if r breaks the contract of Append.
func (j *Journal) check(r *Record) {
	bytes := 0
	for _, d := range r.Data {
		if len(d) == 0 || !vfs.Aligned(d, 0) {
			panic("journal: data that is not whole 4 KiB blocks, or not aligned to them")
		}
		bytes += len(d)
	}
	switch {
	case bytes != len(r.CRC)*BlockSize:
		panic(fmt.Sprintf("journal: %d bytes of data with %d checksums", bytes, len(r.CRC)))
	case len(r.Head) > MaxHead || bytes > MaxData:
		panic(fmt.Sprintf("journal: record of %d + %d bytes is too large", len(r.Head), bytes))
	case RecordBytes(len(r.Head), len(r.CRC)) > j.MaxRecord():
		panic(fmt.Sprintf("journal: record of %d + %d bytes does not fit a segment", len(r.Head), bytes))
	case r.Done == nil:
		panic("journal: record without Done")
	}
}

// ReadBlocks reads data blocks of a record into dst, aligned memory of whole
// blocks, starting with its first'th block. It does not check them: the caller
// has the CRCs. The record must be durable and not trimmed; a position that is
// not in the journal is an error.
func (j *Journal) ReadBlocks(p Position, first int, dst []byte) error {
	if first < 0 || uint64(p.Segment) >= uint64(len(j.slots)) {
		return fmt.Errorf("journal: no such position %v", p)
	}
	s := j.slots[p.Segment].Load()
	if s == nil {
		return fmt.Errorf("journal: no such position %v", p)
	}
	off := (int64(p.Block) + int64(first)) * BlockSize
	if off+int64(len(dst)) > s.size {
		return fmt.Errorf("journal: no such position %v", p)
	}
	_, err := s.file.ReadAt(dst, off)
	return err
}

// signal sends to a channel of capacity one unless something is in it already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
