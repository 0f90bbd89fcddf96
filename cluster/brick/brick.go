package brick

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/time/rate"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/journal"
	"petal/journal/vfs"
	"petal/placement"
)

// Options of a brick. FS, Pool and, with a real MapFS, Path are required.
type Options struct {
	FS    vfs.FS      // the brick's directory
	MapFS pebblefs.FS // where the map is; nil: the real file system
	Path  string      // the brick's directory as MapFS names it; the map is in Path/map
	Pool  *slab.Pool
	Cache *cache.Cache // nil: none

	JournalBytes  int64 // default 1 GiB
	SegmentBytes  int64 // default 64 MiB
	CapacityBytes int64 // most that extents may take; 0: what the file system has, less a reserve of 2 %
	PendingBytes  int64 // memory for committed data on its way home, default 64 MiB; beyond it, it is read back from the journal
	Readers       int   // default 32: 64 suit NVMe, 8 a hard disk
	Writers       int   // batches of extent-writes under way, default 3

	DoneFor    time.Duration // how long operations are remembered that took effect (R12), at least the default of 10 s
	DestageAge time.Duration // how long a committed record may wait, default 2 s

	Cluster [16]byte // expected cluster; zero: any
	Server  uint32   // expected server; zero: any

	// HoldPrepared leaves records that are not known to be committed to the
	// caller (Recovery.Prepared). Otherwise Open commits them: right for the
	// only member of a link.
	HoldPrepared bool

	// OnLost is asked, with HoldPrepared, whether a brick may be opened whose
	// journal has lost acknowledged records: Lost, Gaps and LostUnknown are filled
	// in. It is asked before Open changes anything on account of that, and an error
	// is Open's: the brick is then as it was. nil: it may.
	OnLost func(*Recovery) error

	// AcceptLoss opens the brick even if acknowledged writes have rotted in the
	// journal beyond recognition: blocks unknown hold what they held before.
	AcceptLoss bool

	// Manual runs no goroutine: the owner calls Step. For simulation.
	Manual bool
	Now    func() time.Time // must not go back; default: the calendar at the start, and the time since

	// OnCheckpoint is called each time the map has been flushed: the effect of
	// every record up to that LSN is durable in it, and they may be trimmed from
	// the journal (R11). It comes from the destager, or from StepFlushMap; it must
	// not block or call the brick.
	OnCheckpoint func(journal.LSN)
	// OnFail is called once when the brick fails, from any goroutine; it must
	// not block or call the brick.
	OnFail func(error)
	Log    *slog.Logger
}

func (o *Options) setDefaults() {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.JournalBytes, 1<<30)
	def(&o.SegmentBytes, 64<<20)
	def(&o.PendingBytes, 64<<20)
	if o.Readers == 0 {
		o.Readers = 32
	}
	if o.Writers == 0 {
		o.Writers = 3
	}
	if o.DestageAge == 0 {
		o.DestageAge = 2 * time.Second
	}
	o.DoneFor = max(o.DoneFor, doneOpsFor)
	if o.MapFS == nil {
		o.MapFS = pebblefs.Default
	}
	if o.Now == nil { // the calendar may be set back, and nothing would come home until then
		began := time.Now()
		o.Now = func() time.Time { return began.Add(time.Since(began)) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Brick is an open brick. All methods may be called from any goroutine; each
// says what order it needs.
type Brick struct {
	o       Options
	lock    interface{ Close() error }
	journal *journal.Journal
	pmap    *pmap
	alloc   allocator
	pending pending
	order   order
	pends   pends
	lasts   lasts

	id        Identity
	superMu   sync.Mutex
	superFile vfs.File
	super     *Super

	reads      queue[*ReadOp]
	writes     queue[*Record]
	writer     extentWriter // of a Manual brick
	prefetches sync.Pool
	destager   destager
	doneOps    doneOps

	vouched atomic.Uint64 // LSN of the last record of the brick's own

	flushMu    sync.Mutex
	flushes    []flushWait
	flushWaits atomic.Int64

	usageMu sync.Mutex
	usage   map[placement.Family]int64 // blocks
	lacking map[LinkID]int64           // blocks that are missing, in the map
	stale   map[markSpace]int64        // chunks with marks, in the map

	failure atomic.Pointer[error]
	rotLog  rate.Sometimes // an initiator may ask for a bad block again and again
	closed  atomic.Bool
	stop    chan struct{}
	wg      sync.WaitGroup
	stats   counters
}

func (o *Options) mapDir() string { return o.MapFS.PathJoin(o.Path, "map") }

func (b *Brick) journalOptions() journal.Options {
	o := b.o.journalOptions(b.id.Brick)
	o.Pressure = func(used, capacity int64) {
		if used >= capacity/2 {
			b.kickDestage()
		}
	}
	return o
}

func (o *Options) journalOptions(uuid [16]byte) journal.Options {
	return journal.Options{FS: o.FS, Dir: "journal", UUID: uuid, Segment: o.SegmentBytes, Capacity: o.JournalBytes, Manual: o.Manual}
}

func (b *Brick) now() int64 { return b.o.Now().UnixNano() }

// start runs the brick's goroutines.
func (b *Brick) start() {
	if b.o.Manual {
		return
	}
	run := func(n int, f func()) {
		for range n {
			b.wg.Add(1)
			go func() { defer b.wg.Done(); f() }()
		}
	}
	run(b.o.Readers, func() {
		for op, ok := b.reads.pop(true); ok; op, ok = b.reads.pop(true) {
			b.runRead(op)
		}
	})
	run(b.o.Writers, func() { new(extentWriter).run(b) })
	run(1, b.destageLoop)
}

// Failed returns why the brick has failed, ErrClosed after Close, else nil. A
// brick that has failed stays so until the process ends.
func (b *Brick) Failed() error {
	if e := b.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// fail ends the brick's service for good: after a failed write or sync nobody
// knows what the disk holds, and asking again would only get a wrong answer.
func (b *Brick) fail(cause error) {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	if !b.failure.CompareAndSwap(nil, &err) {
		return
	}
	b.o.Log.Error("brick failed", "brick", fmt.Sprintf("%x", b.id.Brick), "cause", cause)
	if b.journal != nil {
		b.journal.Fail(cause) // so that what waits there for room ends, too
	}
	b.failFlushes(err)
	if b.o.OnFail != nil {
		b.o.OnFail(err)
	}
}

// Close stops the brick: what is journalled is destaged as far as it is
// committed, and the map is flushed, so that the next open is quick. The
// caller has no Append or Read under way. A failed brick is only let go.
func (b *Brick) Close() error {
	if !b.closed.CompareAndSwap(false, true) {
		return ErrClosed
	}
	close(b.stop)
	b.reads.close()
	b.writes.close()
	b.wg.Wait()
	var err error
	if b.Failed() == nil {
		err = b.drain()
	}
	closed := error(ErrClosed)
	failed := !b.failure.CompareAndSwap(nil, &closed)
	if e := b.journal.Close(); !failed {
		err = errors.Join(err, e)
	}
	b.pending.letGo()
	return errors.Join(err, b.pmap.close(), b.closeFiles())
}

// Kill lets a Manual brick go as it is, without a word to its disk: the process
// that it belongs to is dead. What it holds of Pebble ends; buffers that it has
// borrowed are the pool's affair. For simulation.
func (b *Brick) Kill() {
	closed := error(ErrClosed)
	b.closed.Store(true)
	b.failure.CompareAndSwap(nil, &closed)
	b.pmap.close()
}

func (b *Brick) closeFiles() error {
	var err error
	for _, d := range b.alloc.files {
		err = errors.Join(err, d.close())
	}
	return errors.Join(err, b.superFile.Close(), b.lock.Close())
}

// Super returns a copy of the superblock.
func (b *Brick) Super() *Super {
	b.superMu.Lock()
	defer b.superMu.Unlock()
	return b.super.clone()
}

// UpdateSuper changes the superblock, durably on return. f must not call the
// brick; what it returns as error is returned and nothing is changed.
func (b *Brick) UpdateSuper(f func(*Super) error) error {
	b.superMu.Lock()
	defer b.superMu.Unlock()
	if err := b.Failed(); err != nil {
		return err
	}
	s := b.super.clone()
	if err := f(s); err != nil {
		return err
	}
	s.Sequence++
	if err := s.check(); err != nil {
		return err
	}
	if err := writeSuper(b.superFile, s); err != nil {
		b.fail(err)
		return err
	}
	b.super = s
	return nil
}
