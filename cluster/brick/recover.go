package brick

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"petal/journal"
	"petal/journal/vfs"
	"petal/placement"
)

// Recovery says what Open found.
type Recovery struct {
	Identity    Identity
	SuperCopies int   // intact copies of the superblock, of 4; the others have been rewritten
	Entries     int64 // map entries
	Replayed    int   // records that were not in the map yet
	Verified    int   // extents read to see whether their write had completed
	Torn        int   // extent-writes that had not: they never happened
	// Lost are records that were durable and have rotted in the journal, head and
	// all. What they wrote is gone on this brick. Only with AcceptLoss or
	// HoldPrepared; otherwise Open fails. Gaps are the stamps that they had, as
	// far as those can be told from their neighbours'; LostUnknown are the others:
	// if there are any, every link of this brick may lack something.
	Lost        []LostRange
	Gaps        []Gap
	LostUnknown int
	// GivenUp is for OnLost to fill in. In other links what is in doubt behind a gap
	// is undone, since the others have it and bring it again with what is lost. In
	// these it counts as committed, up to the last record of its bucket that all
	// others lack: for those this member has acknowledged alone. And no record that
	// another member may have is its bucket's last from then on, (Ver, 1) is, so that
	// whoever is let in copies all of the bucket. If there are unknown ones, that
	// holds for all buckets.
	GivenUp []GivenUp
	// Rotten are records of which the head is left but not the data: reads of
	// their blocks are medium errors until something else is written there, or
	// they are repaired. Oldest first.
	Rotten []Recent
	// Prepared are records that are not known to be committed, oldest first,
	// with HoldPrepared; the caller ends each with Commit or Abandon.
	Prepared []*Record
	// Recent are the committed records that the journal still has, oldest first
	// (R11, R12).
	Recent []Recent
	// Done are operations that took effect within the last seconds before the
	// crash and whose records the journal may not have any more (R12).
	Done []DoneOp
	Took time.Duration
}

// Recent tells of a record that was found in the journal.
type Recent struct {
	Link     LinkID
	Bucket   placement.Bucket
	Stamp    placement.Stamp
	Op       OpID
	Kind     Kind
	Key      placement.Key
	Mask     placement.Mask
	Excluded placement.Members
	LSN      journal.LSN
}

// Gap says that a bucket lacks the records First .. Last of one version.
type Gap struct {
	Link        LinkID
	Bucket      placement.Bucket
	First, Last placement.Stamp
}

// GivenUp names a link of which only this member had the lost records, so that
// nobody can bring them back.
type GivenUp struct {
	Link    LinkID
	Ver     uint64            // of the link now: above that of all its records
	Lacking placement.Members // the link's other members
}

// LostRange are the records From..To of the journal.
type LostRange struct{ From, To journal.LSN }

// Open opens the brick in a directory and recovers it: afterwards every block
// holds what the last record said that was committed here or, failing that,
// prepared. It takes an exclusive lock. The error is one of ErrMissing,
// ErrNewer, ErrRotten and ErrForeign if the directory does not hold a brick that
// may be used.
func Open(o Options) (*Brick, *Recovery, error) {
	o.setDefaults()
	began := time.Now()
	b := &Brick{o: o, stop: make(chan struct{}), rotLog: rate.Sometimes{First: 10, Interval: time.Second}, usage: map[placement.Family]int64{}}
	b.destager.kick = make(chan struct{}, 1)
	b.destager.flushAt = o.Now()
	b.doneOps.keep = o.DoneFor
	b.reads.init()
	b.writes.init()
	b.pending.init()
	b.lasts.init()
	b.lacking, b.stale = map[LinkID]int64{}, map[markSpace]int64{}
	rec := &Recovery{}
	if err := b.open(rec); err != nil {
		b.abandonOpen()
		return nil, nil, err
	}
	rec.Took = time.Since(began)
	if !o.Manual { // the next StepFlushMap tells: no goroutine calls the owner
		b.pmap.trouble.notify(b.fail)
	}
	b.start()
	return b, rec, nil
}

// abandonOpen lets go of what a failed open had got hold of.
func (b *Brick) abandonOpen() {
	if b.journal != nil {
		b.journal.Close()
	}
	if b.pmap != nil {
		b.pmap.close()
	}
	for _, d := range b.alloc.files {
		d.close()
	}
	if b.superFile != nil {
		b.superFile.Close()
	}
	if b.lock != nil {
		b.lock.Close()
	}
}

func (b *Brick) open(rec *Recovery) (err error) {
	if b.lock, err = b.o.FS.Lock("lock"); err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	if err := b.openSuper(rec); err != nil {
		return err
	}
	if err := b.openData(); err != nil {
		return err
	}
	if b.pmap, err = openMap(b.o.MapFS, b.o.mapDir(), false, b.o.Log); err != nil {
		return err
	}
	applied, err := b.pmap.applied()
	if err != nil {
		return err
	}
	if rec.Done, err = b.doneOps.load(b.pmap, b.now()); err != nil {
		return err
	}
	if err := b.claimAll(rec); err != nil {
		return err
	}
	var jr *journal.Recovery
	if b.journal, jr, err = journal.Open(b.journalOptions()); err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	if jr.First > applied+1 {
		return rotten("map", "is at record %d, but the journal begins at %d: records between are in neither", applied, jr.First)
	}
	if jr.Last < applied {
		return rotten("journal", "ends at record %d, but the map has seen %d", jr.Last, applied)
	}
	b.order.init(applied)
	b.destager.marked, b.destager.flushed = applied, applied
	return b.replay(applied, jr, rec)
}

// openSuper reads the superblock, checks whose it is, and makes all its copies
// sound.
func (b *Brick) openSuper(rec *Recovery) (err error) {
	if b.super, rec.SuperCopies, err = readSuper(b.o.FS); err != nil {
		return err
	}
	if err := b.super.foreign(b.o.Cluster, b.o.Server); err != nil {
		return err
	}
	b.id = b.super.Identity
	if b.superFile, err = b.o.FS.Open(superName, vfs.Direct); err != nil {
		return fmt.Errorf("brick: super: %w", err)
	}
	if rec.SuperCopies < superCopies {
		s := b.super.clone()
		s.Sequence++
		if err := writeSuper(b.superFile, s); err != nil {
			return err
		}
		b.super = s
	}
	rec.Identity = b.id
	return b.o.unmark()
}

// openData opens the data files and works out how much the brick may hold.
func (b *Brick) openData() error {
	a := &b.alloc
	a.fs, a.keep = b.o.FS, b.reserve
	a.limit = maxExtent
	if b.o.CapacityBytes > 0 {
		a.limit = b.o.CapacityBytes / extentSize
	}
	names, err := b.o.FS.List("data")
	if err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	for i, name := range names {
		if "data/"+name != dataName(i) {
			return rotten("data", "holds %q where %q was expected", name, strings.TrimPrefix(dataName(i), "data/"))
		}
		d, err := a.openFile(i, false)
		if err != nil {
			return fmt.Errorf("brick: %w", err)
		}
		a.files = append(a.files, d)
	}
	return nil
}

// reserve is what growing leaves alone: 2 % of the file system, for journal, map
// and repair, unless the operator has said how much the brick may take.
func (b *Brick) reserve(total uint64) uint64 {
	if b.o.CapacityBytes > 0 {
		return 0
	}
	return total / 50
}

// claimAll marks the extents that the map names.
func (b *Brick) claimAll(rec *Recovery) error {
	return b.pmap.scan([]byte{keyData}, []byte{keyData + 1}, func(k placement.Key, e *entry) error {
		rec.Entries++
		b.usage[k.Family] += e.blocks()
		return b.claimEntry(k, e)
	})
}

func (b *Brick) claimEntry(k placement.Key, e *entry) error {
	for m := e.Valid; m != 0; m &= m - 1 {
		at := e.place(bits.TrailingZeros16(uint16(m)))
		claim := b.alloc.claimSlot
		if e.Kind == kindExtent {
			claim, m = func(s slot) (bool, error) { return b.alloc.claim(s.extent()) }, 1
		}
		if fresh, err := claim(at); err != nil {
			return err
		} else if !fresh {
			return rotten("map", "names extent %d twice, the second time for family %d chunk %d", at.extent(), k.Family, k.Chunk)
		}
	}
	return nil
}

// abortAll makes abort records of the torn ones.
func (b *Brick) abortAll(torn []*logged) error {
	for _, r := range torn {
		kept := false
		if r.head.Type == typeExtent {
			var err error
			if kept, err = b.keep(r.head.Target); err != nil {
				return err
			}
		}
		b.appendMark(head{Type: typeAbort, Target: uint64(r.ord)}, func(err error) {
			if err == nil && kept {
				b.alloc.letGo(r.head.Target)
			}
		})
	}
	return nil
}

// keep marks the extent of a torn record as used. It reports false if something
// else uses it already: then it has been told apart from the record before.
func (b *Brick) keep(extent uint64) (bool, error) {
	for i := uint64(len(b.alloc.files)); i <= extent/extentsPerFile; i++ {
		// The file was made for this record, and its name was lost.
		if made, err := b.alloc.addFile(false); err != nil || !made {
			return false, err
		}
	}
	return b.alloc.claim(extent)
}
