package load

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"petal/target/initiator"
	"petal/target/scsi"
)

// operation is what a slot does.
type operation uint8

const (
	opRead operation = iota
	opWrite
	opUnmap
	opSync
)

var operationNames = [...]string{opRead: "READ (16)", opWrite: "WRITE (16)", opUnmap: "UNMAP", opSync: "SYNCHRONIZE CACHE (10)"}

// plan says what to do next.
type plan interface {
	// next sets the slot's operation, offset and length, and returns false
	// when there is nothing more to do. It is called with the lane's lock.
	next(l *lane, sl *slot) bool
}

// phase is one run of a plan by some lanes of a subject.
type phase struct {
	plan      plan
	stop      atomic.Bool // no new operations
	measuring atomic.Bool // latencies count
	active    sync.WaitGroup
	failed    chan struct{} // closed when a session has ended
	failure   error         // why
	once      sync.Once
}

func (p *phase) fail(err error) {
	p.once.Do(func() {
		p.failure = err
		p.stop.Store(true)
		close(p.failed)
	})
}

// lane is one session and the slots that it keeps busy. All of it runs in the
// session's goroutine, but for start; the lock is there for that.
type lane struct {
	subject *subject
	session *initiator.Session

	mu          sync.Mutex
	phase       *phase
	rng         *rand.Rand
	index, of   int // this lane among those of the phase
	position    uint64
	sinceSync   int
	read, write Histogram
	stall       Stall
	retries     int

	ios, bytes atomic.Uint64 // reads, writes and unmaps ended well
	errors     atomic.Uint64
}

// slot is one place of the queue depth.
type slot struct {
	lane   *lane
	task   initiator.Task
	in     []byte
	out    []byte
	unmap  [24]byte
	op     operation
	offset uint64 // bytes from the region's begin
	length int
	began  time.Time
	serial uint64

	// Verifying.
	number   uint64    // of the write
	moment   uint64    // of the read's or sync's begin
	suspects []Finding // of a read that is being done a second time
}

// start has the lane run depth slots of a phase.
func (l *lane) start(p *phase, index, of, depth, blockSize int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase, l.index, l.of, l.position = p, index, of, 0
	l.read, l.write = Histogram{}, Histogram{}
	for range depth {
		sl := &slot{lane: l, in: make([]byte, blockSize), out: make([]byte, blockSize)}
		for i := 0; i+8 <= blockSize; i += 8 {
			binary.LittleEndian.PutUint64(sl.out[i:], l.rng.Uint64())
		}
		sl.task.Done = sl.done
		p.active.Add(1)
		l.next(sl)
	}
	l.session.Flush()
	return nil
}

// next sends the slot's next operation, or ends the slot.
func (l *lane) next(sl *slot) {
	if l.phase.stop.Load() || !l.plan(sl) {
		l.phase.active.Done()
		return
	}
	l.subject.prepare(sl)
	sl.began = time.Now()
	l.submit(sl)
}

// plan asks the plan, and puts syncs between where the verifier wants them.
func (l *lane) plan(sl *slot) bool {
	v := l.subject.verifier
	if v != nil && v.model.volatile && l.sinceSync >= v.syncEvery {
		l.sinceSync = 0
		sl.op, sl.offset, sl.length = opSync, 0, 0
		return true
	}
	if !l.phase.plan.next(l, sl) {
		return false
	}
	if sl.op == opWrite || sl.op == opUnmap {
		l.sinceSync++
	}
	return true
}

func (l *lane) submit(sl *slot) {
	if err := l.session.Submit(&sl.task); err != nil {
		l.subject.abandon(sl)
		l.phase.fail(err)
		l.phase.active.Done()
	}
}

// prepare makes the slot's task.
func (s *subject) prepare(sl *slot) {
	t := &sl.task
	t.LUN, t.In, t.Out = s.lun, nil, nil
	lba := (s.first + sl.offset) / s.blockLength
	blocks := uint32(uint64(sl.length) / s.blockLength)
	switch sl.op {
	case opRead:
		t.CDB, t.In = initiator.Read16(lba, blocks), sl.in[:sl.length]
	case opWrite:
		t.CDB, t.Out = initiator.Write16(lba, blocks), sl.out[:sl.length]
		if s.verifier == nil {
			// No two writes alike: content that repeats could flatter a target.
			sl.serial++
			for i := 0; i < sl.length; i += 4096 {
				binary.LittleEndian.PutUint64(sl.out[i:], sl.serial<<20^lba)
			}
		}
	case opUnmap:
		t.CDB = initiator.Unmap(uint16(len(sl.unmap)))
		copy(sl.unmap[:], initiator.UnmapList(initiator.Extent{LBA: lba, Blocks: blocks}))
		t.Out = sl.unmap[:]
	case opSync:
		t.CDB = initiator.SyncCache10(0, 0)
	}
	if s.verifier != nil {
		s.verifier.begin(sl)
	}
}

// abandon ends a slot's operation that never came to an end.
func (s *subject) abandon(sl *slot) {
	if s.verifier != nil {
		s.verifier.end(sl, false)
	}
}

// done is the task's callback.
func (sl *slot) done(t *initiator.Task) {
	l := sl.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	took := now.Sub(sl.began)
	if ms := milliseconds(took); ms > l.stall.Milliseconds {
		l.stall = Stall{sl.began, ms, operationNames[sl.op], l.subject.lba(sl)}
	}
	if t.Err != nil {
		l.subject.abandon(sl)
		l.phase.fail(t.Err)
		if !errors.Is(t.Err, initiator.ErrClosed) { // by us, to come to an end
			l.subject.fail(sl, t.Err)
			l.errors.Add(1)
		}
		l.phase.active.Done()
		return
	}
	if again(t) {
		l.retries++
		l.submit(sl)
		return
	}
	err := t.Failure()
	if err == nil && sl.op == opRead && t.InLen != sl.length {
		err = errShortRead
	}
	if err != nil {
		l.errors.Add(1)
		l.subject.fail(sl, err)
	} else if sl.op != opSync {
		l.count(sl, took)
	}
	if v := l.subject.verifier; v != nil && v.end(sl, err == nil) {
		l.submit(sl) // read it once more
		return
	}
	l.next(sl)
}

// again reports whether the target asks for the command to be sent again.
func again(t *initiator.Task) bool {
	return t.Status == scsi.StatusBusy || t.Status == scsi.StatusTaskSetFull || t.UnitAttention()
}

func (l *lane) count(sl *slot, took time.Duration) {
	l.ios.Add(1)
	l.bytes.Add(uint64(sl.length))
	if !l.phase.measuring.Load() {
		return
	}
	if sl.op == opRead {
		l.read.Add(took)
	} else {
		l.write.Add(took)
	}
}
