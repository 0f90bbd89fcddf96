package journal

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"petal/journal/vfs"
)

// outcomes collects what Done says.
type outcomes struct {
	mu   sync.Mutex
	errs map[LSN]error
	wg   sync.WaitGroup
}

func (o *outcomes) append(j *Journal, n uint64, lazy bool) *Record {
	o.wg.Add(1)
	r := fill(new(Record), n)
	r.Lazy = lazy
	r.Done = func(r *Record, err error) {
		o.mu.Lock()
		if o.errs == nil {
			o.errs = map[LSN]error{}
		}
		o.errs[r.LSN] = err
		o.mu.Unlock()
		o.wg.Done()
	}
	j.Append(r)
	return r
}

// fillUp appends records, in a bubble, until one waits for a segment, and returns
// how many there are.
func (o *outcomes) fillUp(t *testing.T, j *Journal) (n uint64) {
	t.Helper()
	for j.Durable() == LSN(n) {
		if n > 4096 {
			t.Fatal("the journal is never full")
		}
		n++
		o.append(j, n, false)
		synctest.Wait()
	}
	return n
}

func (o *outcomes) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.errs)
}

func created(t testing.TB, sys vfs.FS, change ...func(*Options)) *Journal {
	t.Helper()
	o := small(sys)
	o.Create = true
	for _, f := range change {
		f(&o)
	}
	j, _ := mustOpen(t, o)
	return j
}

func TestCreateRefusesAnExisting(t *testing.T) {
	m := vfs.NewMemory(16 << 20)
	if err := created(t, m).Close(); err != nil {
		t.Fatal(err)
	}
	o := small(m)
	o.Create = true
	if _, _, err := Open(o); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	o.Create, o.Dir = false, "elsewhere"
	if _, _, err := Open(o); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestOpenRefusesAnotherJournal(t *testing.T) {
	m := vfs.NewMemory(16 << 20)
	var out outcomes
	j := created(t, m)
	out.append(j, 1, false)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	o := small(m)
	o.UUID[0]++
	if _, _, err := Open(o); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
}

// Many writers while segments go round: each record becomes durable, in order.
func TestManyWriters(t *testing.T) {
	j := created(t, vfs.NewMemory(16<<20))
	const writers, each = 16, 50
	var last atomic.Uint64
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			done := make(chan error, 1)
			for i := range uint64(each) {
				r := fill(new(Record), w*each+i)
				r.Done = func(r *Record, err error) {
					if !last.CompareAndSwap(uint64(r.LSN)-1, uint64(r.LSN)) {
						t.Errorf("Done of %d after %d", r.LSN, last.Load())
					}
					if j.Durable() < r.LSN {
						t.Errorf("Done of %d, durable %d", r.LSN, j.Durable())
					}
					if r.LSN%20 == 0 {
						j.Trim(r.LSN - 10)
					}
					done <- err
				}
				j.Append(r)
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if last.Load() != writers*each {
		t.Errorf("last %d", last.Load())
	}
}

// Lazy records wait for the interval, for another record, for Flush, or for too
// many of them, and for nothing longer.
func TestLazy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := created(t, vfs.NewMemory(64<<20), func(o *Options) { o.Segment, o.Capacity = 4<<20, 16<<20 })
		var out outcomes
		begin := time.Now()
		out.append(j, 1, true)
		out.append(j, 2, true)
		synctest.Wait()
		if out.count() != 0 {
			t.Fatal("a lazy record did not wait")
		}
		out.wg.Wait()
		if d := time.Since(begin); d != lazyDefault {
			t.Errorf("waited %v, want %v", d, lazyDefault)
		}

		begin = time.Now()
		out.append(j, 3, true)
		out.append(j, 4, false)
		out.wg.Wait()

		out.append(j, 5, true)
		flushed := make(chan error, 1)
		j.Flush(func(err error) { flushed <- err })
		if err := <-flushed; err != nil || j.Durable() != 5 {
			t.Errorf("flushed up to %d, %v", j.Durable(), err)
		}

		for n := LSN(6); j.Durable() == 5; n++ {
			if int64(n)*BlockSize > 4*lazyBytesMax {
				t.Fatal("too many lazy records in memory")
			}
			out.append(j, uint64(n), true)
			synctest.Wait()
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("time went by: %v", d)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		out.wg.Wait()
		for lsn, err := range out.errs {
			if err != nil {
				t.Errorf("record %d: %v", lsn, err)
			}
		}
	})
}

// A full journal makes records wait, tells its owner, and goes on after Trim.
func TestFullJournalWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pressed atomic.Int64
		j := created(t, vfs.NewMemory(64<<20), func(o *Options) {
			o.Capacity = 4 * o.Segment
			o.Pressure = func(used, capacity int64) {
				pressed.Add(1)
				if capacity != 4*segmentMin || used <= 0 {
					t.Errorf("fill %d of %d", used, capacity)
				}
			}
		})
		var out outcomes
		n := out.fillUp(t, j)
		used, capacity := j.Fill()
		if used <= capacity*3/4 {
			t.Errorf("waits at %d of %d", used, capacity)
		}
		if pressed.Load() < 4 {
			t.Errorf("pressure was told %d times", pressed.Load())
		}
		for range 10 {
			n++
			out.append(j, n, false)
		}
		j.Trim(j.Durable())
		synctest.Wait()
		if j.Durable() != LSN(n) {
			t.Errorf("durable %d after Trim, want %d", j.Durable(), n)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCloseOfAFullJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vfs.NewMemory(64 << 20)
		j := created(t, m, func(o *Options) { o.Capacity = 4 * o.Segment })
		var out outcomes
		n := out.fillUp(t, j)
		durable := j.Durable()
		flushed := make(chan error, 1)
		j.Flush(func(err error) { flushed <- err })
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		out.wg.Wait()
		if err := out.errs[LSN(n)]; !errors.Is(err, ErrClosed) {
			t.Errorf("the waiting record got %v", err)
		}
		if err := <-flushed; !errors.Is(err, ErrClosed) {
			t.Errorf("the waiting Flush got %v", err)
		}
		late := out.append(j, n+1, false)
		if err := out.errs[late.LSN]; !errors.Is(err, ErrClosed) {
			t.Errorf("append after Close got %v", err)
		}
		j, rec := mustOpen(t, small(m))
		if rec.Last != durable {
			t.Errorf("last %d, want %d", rec.Last, durable)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// After a failed write nothing more is ever promised.
func TestFailedWriteIsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := vfs.NewFault(vfs.NewMemory(16<<20), nil, 1)
		j := created(t, f)
		var out outcomes
		out.append(j, 1, false)
		out.wg.Wait()
		synctest.Wait()
		f.SetPlan(vfs.MustPlan("write journal/* nth=1 fail EIO"))
		out.append(j, 2, true)
		out.append(j, 3, false)
		out.wg.Wait()
		for range 5 {
			out.append(j, 4, true)
		}
		out.wg.Wait()
		if out.errs[1] != nil {
			t.Error(out.errs[1])
		}
		for lsn := LSN(2); lsn <= 8; lsn++ {
			if err := out.errs[lsn]; !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Errorf("record %d: %v", lsn, err)
			}
		}
		var flushed error
		j.Flush(func(err error) { flushed = err })
		if !errors.Is(flushed, ErrFailed) || !errors.Is(j.Err(), ErrFailed) {
			t.Errorf("Flush %v, Err %v", flushed, j.Err())
		}
		if j.Durable() != 1 {
			t.Errorf("durable %d", j.Durable())
		}
		if err := j.Close(); !errors.Is(err, ErrFailed) {
			t.Errorf("Close: %v", err)
		}
	})
}

// An owner that has failed elsewhere ends what waits for a segment.
func TestFailEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := created(t, vfs.NewMemory(64<<20), func(o *Options) { o.Capacity = 4 * o.Segment })
		var out outcomes
		n := out.fillUp(t, j)
		flushed := make(chan error, 1)
		j.Flush(func(err error) { flushed <- err })
		j.Fail(syscall.EREMOTEIO)
		out.wg.Wait()
		for what, err := range map[string]error{"record": out.errs[LSN(n)], "Flush": <-flushed} {
			if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EREMOTEIO) {
				t.Errorf("the waiting %s got %v", what, err)
			}
		}
		if err := j.Close(); !errors.Is(err, ErrFailed) {
			t.Errorf("Close: %v", err)
		}
	})
}

// A journal is born with all it needs to go round, or not at all.
func TestCreateTakesItsSpace(t *testing.T) {
	opts := small(vfs.NewMemory(2*segmentMin + 4096))
	opts.Create = true
	if j, _, err := Open(opts); !errors.Is(err, syscall.ENOSPC) {
		if err == nil {
			j.Close()
		}
		t.Errorf("a journal on a disk too small for it: %v", err)
	}
}

// No space for another segment is not a failure: the journal stays as large as
// it is and goes round in that.
func TestNoSpaceForSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vfs.NewMemory(3*segmentMin + 4096)
		j := created(t, m)
		var out outcomes
		n := out.fillUp(t, j)
		if used, capacity := j.Fill(); capacity != 3*segmentMin || used < 2*segmentMin {
			t.Errorf("fill %d of %d", used, capacity)
		}
		j.Trim(j.Durable())
		synctest.Wait()
		if j.Durable() != LSN(n) || j.Err() != nil {
			t.Errorf("durable %d after Trim, want %d; %v", j.Durable(), n, j.Err())
		}
		if names, _ := m.List("journal"); len(names) != 3 {
			t.Errorf("files %q", names)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		out.wg.Wait()
	})
}

// Done may append again, the same record even.
func TestAppendFromDone(t *testing.T) {
	j := created(t, vfs.NewMemory(16<<20))
	end := make(chan struct{})
	n := 0
	r := fill(new(Record), 1)
	r.Done = func(r *Record, err error) {
		if n++; n == 100 {
			close(end)
			return
		}
		j.Trim(j.Durable())
		j.Append(r)
	}
	j.Append(r)
	<-end
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLargeHeads(t *testing.T) {
	m := vfs.NewMemory(64 << 20)
	big := func(o *Options) { o.Segment, o.Capacity = 4<<20, 32<<20 }
	j := created(t, m, big)
	var out outcomes
	var recs []*Record
	for i, n := range []int{0, 1, 4095, 4096, 5000, 100_000, MaxHead, MaxHead - 1, 7, MaxHead} {
		r := &Record{Head: make([]byte, n), Done: func(r *Record, err error) {
			if err != nil {
				t.Error(err)
			}
			out.wg.Done()
		}}
		for k := range r.Head {
			r.Head[k] = byte(i + k*7)
		}
		recs = append(recs, r)
		out.wg.Add(1)
		j.Append(r)
	}
	out.wg.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	o := small(m)
	big(&o)
	j, rec := mustOpen(t, o)
	if int(rec.Last) != len(recs) {
		t.Fatalf("last %d", rec.Last)
	}
	err := j.Replay(0, func(e Entry) error {
		if string(e.Head) != string(recs[e.LSN-1].Head) {
			t.Errorf("head of %d differs", e.LSN)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAppendRefusesBugs(t *testing.T) {
	j := created(t, vfs.NewMemory(16<<20), func(o *Options) { o.Manual = true })
	done := func(*Record, error) {}
	block := vfs.AlignedBuffer(2 * BlockSize)
	for name, r := range map[string]*Record{
		"unaligned":   {Data: [][]byte{block[1 : 1+BlockSize]}, CRC: make([]uint32, 1), Done: done},
		"part":        {Data: [][]byte{block[:100]}, CRC: make([]uint32, 1), Done: done},
		"no CRC":      {Data: [][]byte{block[:BlockSize]}, Done: done},
		"large head":  {Head: make([]byte, MaxHead+1), Done: done},
		"segment":     {Head: make([]byte, segmentMin), Done: done},
		"without end": {},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: taken", name)
				}
			}()
			j.Append(r)
		}()
	}
}
