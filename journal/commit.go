package journal

import (
	"fmt"
	"math"

	"petal/journal/record"
	"petal/journal/vfs"
)

// committer is the state of whoever calls commitOne: the goroutine run, or the
// owner of a Manual journal. Nothing in it is shared.
type committer struct {
	head, tail *Record  // taken from the queue, in order
	active     *segment // where groups go; nil before the first
	builder    record.Builder
	header     []byte   // memory of header blocks
	vec        [][]byte // of the write
}

// groupBlocks bounds the data of one group, so that a full queue does not make the
// first in it wait for a long write. The vector of a group then never has more
// parts than one system call takes. It is 1 MiB, wherever that begins in chunks
// of 64 KiB: the most that owners want to be one (AppendAll).
const groupBlocks = MaxTogether

var _ = [record.MaxGroupBlocks - groupBlocks]struct{}{}
var _ = [groupBlocks - record.MaxBlocks + 1]struct{}{} // any record fits

// outcome says what a call of commitOne did.
type outcome int

const (
	idle    outcome = iota // nothing to write
	wrote                  // a group, or failed records were told so
	starved                // records wait for a segment
)

// run is the committer's goroutine. It ends at Close, when everything that could
// be written is.
func (j *Journal) run() {
	for {
		did := j.commitOne(false)
		if did == wrote {
			continue
		}
		j.mu.Lock()
		if did == idle && j.head != nil && (j.want >= j.head.LSN || j.failed != nil) {
			j.mu.Unlock()
			continue // appended meanwhile
		}
		if j.closing && (did == idle || !j.hopeful()) {
			j.mu.Unlock()
			return
		}
		j.idle = true
		j.mu.Unlock()
		<-j.wake
	}
}

// Commit writes one group of what is queued, lazy or not, and reports whether it
// wrote or failed any record. It is for Manual journals, from one goroutine at a
// time; in others it does nothing.
func (j *Journal) Commit() bool {
	if !j.opts.Manual {
		return false
	}
	return j.commitOne(true) == wrote
}

// commitOne takes what is queued, if somebody wants it or all is true, and
// writes one group of it.
//
// The commit point of the journal is here: after WriteVec has returned without
// an error the group is durable, and nothing else is done on disk for it.
func (j *Journal) commitOne(all bool) outcome {
	if failed := j.take(all); failed != nil {
		return j.refuse(failed)
	}
	c := &j.commit
	if c.head == nil {
		return idle
	}
	n := j.fitting()
	if n == 0 {
		if !j.roll() {
			return starved
		}
		n = j.fitting()
	}
	g := j.gather(n)
	_, err := c.active.file.WriteVec(c.vec, c.active.end)
	clear(c.vec)
	if err != nil {
		j.fail(err)
		return j.refuse(j.Err())
	}
	j.wrote(g)
	return wrote
}

// take moves the queue to the committer's own list and returns why the journal
// has failed, if it has.
func (j *Journal) take(all bool) error {
	c := &j.commit
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.head != nil && (all || j.failed != nil || c.head != nil || j.want >= j.head.LSN) {
		if c.head == nil {
			c.head = j.head
		} else {
			c.tail.next = j.head
		}
		c.tail = j.tail
		j.head, j.tail = nil, nil
		j.lazyBytes = 0
	}
	return j.failed
}

// fitting returns how many of the taken records make the next group: as many as
// the limits and the rest of the active segment allow, and no part of a chain.
func (j *Journal) fitting() int {
	c := &j.commit
	if c.active == nil {
		return 0
	}
	room := int((c.active.size - c.active.end) / BlockSize)
	n, whole, bytes, blocks := 0, 0, record.HeaderSize, 0
	for r := c.head; r != nil; r = r.next {
		bytes += record.FrameBytes(len(r.Head), len(r.CRC))
		blocks += r.blocks()
		if n == record.MaxRecords || bytes > record.MaxHeaderBytes || blocks > groupBlocks ||
			record.HeaderBlocks(bytes)+blocks > room {
			break
		}
		if n++; !r.withNext {
			whole = n
		}
	}
	return whole
}

// written is a group on its way.
type written struct {
	first, last *Record
	waited      int64 // bytes as counted by Append
	size        int64 // bytes on disk
}

// gather builds the group of the first n taken records and the vector to write,
// and sets their positions.
func (j *Journal) gather(n int) written {
	c := &j.commit
	bytes := record.HeaderSize
	r := c.head
	for range n {
		bytes += record.FrameBytes(len(r.Head), len(r.CRC))
		r = r.next
	}
	headers := record.HeaderBlocks(bytes)
	c.grow(headers * BlockSize)
	c.builder.Reset(c.header)
	c.vec = append(c.vec[:0], nil)
	g := written{first: c.head}
	start := uint32(c.active.end / BlockSize)
	block := start + uint32(headers)
	for r = c.head; n > 0; r, n = r.next, n-1 {
		c.builder.Add(r.Head, r.CRC, r.flags())
		c.vec = append(c.vec, r.Data...)
		r.Position = Position{Segment: c.active.slot, Block: block}
		block += uint32(r.blocks())
		g.waited += r.diskBytes()
		g.last = r
	}
	g.size = int64(block-start) * BlockSize
	c.vec[0] = c.builder.Finish(j.group(c.active, g.first.LSN))
	return g
}

// grow makes sure that the memory for header blocks holds n bytes.
func (c *committer) grow(n int) {
	if len(c.header) < n {
		c.header = vfs.AlignedBuffer(max(n, 2*len(c.header), 64<<10))
	}
}

// group is the header of the next group in s.
func (j *Journal) group(s *segment, first LSN) *record.Group {
	g := &s.header
	*g = record.Group{
		UUID: j.opts.UUID, Generation: s.generation, Block: uint32(s.end / BlockSize),
		First: uint64(first), Durable: j.durable.Load(),
		Opening: j.opening, Base: uint64(j.base), Trim: uint64(j.trimmed()),
	}
	return g
}

func (j *Journal) trimmed() LSN {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.trim
}

// wrote accounts for a group that is durable and tells everybody, in order.
func (j *Journal) wrote(g written) {
	c := &j.commit
	if c.head = g.last.next; c.head == nil {
		c.tail = nil
	}
	g.last.next = nil
	last := g.last.LSN // Done may hand records back to Append
	j.mu.Lock()
	c.active.end += g.size
	c.active.last = last
	j.mu.Unlock()
	j.waiting.Add(-g.waited)
	j.durable.Store(uint64(last))
	for r := g.first; r != nil; {
		next := r.next
		r.next = nil
		r.Done(r, nil)
		r = next
	}
	j.flushed(last, nil)
}

// flushed calls the waiting Flushes up to an LSN.
func (j *Journal) flushed(upTo LSN, err error) {
	for {
		j.mu.Lock()
		if len(j.flushes) == 0 || j.flushes[0].lsn > upTo {
			j.mu.Unlock()
			return
		}
		f := j.flushes[0]
		j.flushes = append(j.flushes[:0], j.flushes[1:]...)
		j.mu.Unlock()
		f.done(err)
	}
}

// Fail makes the journal failed for good, for a reason that its owner has seen
// elsewhere: whatever is queued, also for want of a segment, gets its Done with
// an error that wraps cause. A group that is on its way may still become
// durable, and its records are told so. It does not wait.
func (j *Journal) Fail(cause error) { j.fail(cause) }

// fail makes the journal failed for good. A failed write is never repeated: it
// may have reached the disk in part, and after a failed sync the system may
// have dropped the data it could not write and report success the next time.
func (j *Journal) fail(cause error) {
	j.mu.Lock()
	if j.failed == nil {
		j.failed = fmt.Errorf("%w: %w", ErrFailed, cause)
	}
	j.mu.Unlock()
	signal(j.wake)
	signal(j.need)
}

// refuse gives err to everything that waits.
func (j *Journal) refuse(err error) outcome {
	c := &j.commit
	did := idle
	for c.head != nil {
		r := c.head
		c.head = r.next
		r.next = nil
		j.waiting.Add(-r.diskBytes())
		r.Done(r, err)
		did = wrote
	}
	c.tail = nil
	j.flushed(math.MaxUint64, err)
	return did
}
