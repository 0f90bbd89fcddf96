package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/journal/vfs"
)

// writeAtomic is write by WriteAtomic.
func writeAtomic(v *Volume, off uint64, data []byte, fua bool) <-chan error {
	ch := make(chan error, 1)
	vec, loan, err := v.Reserve(off, len(data))
	if err != nil {
		ch <- err
		return ch
	}
	for _, b := range vec {
		data = data[copy(b, data):]
	}
	v.WriteAtomic(loan, fua, func(err error) { ch <- err })
	return ch
}

// Any range of logical blocks, whatever the disk had around it.
func TestWriteAtomicTwin(t *testing.T) {
	for seed := range uint64(4) {
		f := newFake(t)
		const size = 4 << 20
		v := testVolume(f, size, 512, seed%2 == 1)
		r := rand.New(rand.NewPCG(seed, 5))
		twin := make([]byte, size)
		for i := range 80 {
			n := 512 * (1 + r.IntN(maxAtomic/512))
			switch i {
			case 0:
				n = maxAtomic
			case 1:
				n = 512
			}
			off := r.IntN((size-n)/512+1) * 512
			if i == 0 {
				off = 512 // 257 blocks of 17 chunks
			}
			copy(twin[off:off+n], pattern(r.Uint64()>>24, n))
			appends := f.appends
			if err := <-writeAtomic(v, uint64(off), twin[off:off+n], i%3 == 0); err != nil {
				t.Fatal(err)
			}
			if f.appends != appends+1 {
				t.Errorf("%d appends", f.appends-appends)
			}
			if got := <-read(v, 0, size); got.err != nil || !bytes.Equal(got.data, twin) {
				t.Fatalf("seed %d: after %d bytes at %d: %v", seed, n, off, got.err)
			}
		}
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A write that fails has written nothing and holds up nobody.
func TestWriteAtomicFails(t *testing.T) {
	const size, off = 4 << 20, 65536*3 - 1024
	for name, c := range map[string]struct {
		harm func(f *fakeBrick)
		n    int
		want func(error) bool
	}{
		"too long": {func(*fakeBrick) {}, maxAtomic + 512, func(err error) bool { return err == syscall.EINVAL }},
		"no space": {func(f *fakeBrick) { f.space = 20 }, 200000 / 512 * 512, func(err error) bool { return err == syscall.ENOSPC }},
		"first block unreadable": {func(f *fakeBrick) { f.bad[fakeBlock{3, 2, 15}] = true }, 65536, func(err error) bool {
			var m *MediumError
			return errors.As(err, &m) && m.Off == off && m.N == 1024
		}},
		"last block unreadable": {func(f *fakeBrick) { f.bad[fakeBlock{3, 3, 15}] = true }, 65536, func(err error) bool {
			var m *MediumError
			return errors.As(err, &m) && m.Off == 65536*4-4096
		}},
	} {
		for _, writeBack := range []bool{false, true} {
			f := newFake(t)
			v := testVolume(f, size, 512, writeBack)
			before := pattern(1, 65536)
			if err := <-write(v, 65536*3, before[:32768], true); err != nil {
				t.Fatal(err)
			}
			c.harm(f)
			if err := <-writeAtomic(v, off, pattern(2, c.n), false); !c.want(err) {
				t.Errorf("%s: %v", name, err)
			}
			f.mu.Lock()
			clear(f.bad)
			f.space = -1
			f.mu.Unlock()
			got := <-read(v, 65536*2, 5*65536)
			want := make([]byte, 5*65536)
			copy(want[65536:], before[:32768])
			if got.err != nil || !bytes.Equal(got.data, want) {
				t.Errorf("%s: something was written (%v)", name, got.err)
			}
			if err := <-writeAtomic(v, off, pattern(3, 65536*4), false); err != nil {
				t.Errorf("%s, after that: %v", name, err)
			}
			if n := v.c.lazyBytes.Load(); !writeBack && n != 0 {
				t.Errorf("%s: %d lazy bytes", name, n)
			}
			if err := v.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := v.c.lazyBytes.Load() + v.lazy.Load(); n != 0 {
				t.Errorf("%s: %d lazy bytes and records after Close", name, n)
			}
			if b, e := v.joint.begun.Load(), v.joint.ended.Load(); b != e {
				t.Errorf("%s: %d begun, %d ended", name, b, e)
			}
		}
	}
}

// A brick that fails under an atomic write ends it, with an error.
func TestWriteAtomicOnAFailedBrick(t *testing.T) {
	f := newFake(t)
	run := f.queued(1)
	v := testVolume(f, 1<<20, 4096, false)
	done := writeAtomic(v, 0, pattern(1, 3*65536), false)
	f.fail(errors.New("broken"))
	for run() {
	}
	if err := <-done; err == nil {
		t.Error("no error")
	}
	if err := <-writeAtomic(v, 0, pattern(1, 3*65536), false); err == nil {
		t.Error("no error of the next")
	}
}

// No read sees a part of an atomic write, whatever the order in which the records
// of its chunks, and the parts of the reads, come to an end.
func TestReadersSeeAllOrNothing(t *testing.T) {
	var seen atomic.Int64 // versions that readers saw
	for seed := range uint64(6) {
		f := newFake(t)
		f.concurrent()
		v := testVolume(f, 4<<20, 4096, seed%2 == 1)
		const off, n = 65536*2 - 8192, 65536*3 + 4096
		stop := make(chan struct{})
		var readers, writers sync.WaitGroup
		for i := range 4 {
			readers.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				last := uint64(0)
				for {
					select {
					case <-stop:
						return
					default:
					}
					from := r.IntN(n/4096-16) * 4096 // at least 16 blocks, so mostly of several chunks
					got := <-read(v, uint64(off+from), n-from)
					value, ok := sectorValue(got.data)
					if got.err != nil || !ok {
						t.Errorf("seed %d: torn read of %d at %d (%v)", seed, n-from, off+from, got.err)
						return
					}
					if value != last {
						seen.Add(1)
						last = value
					}
				}
			})
		}
		for i := range uint64(2) {
			writers.Go(func() {
				for k := range uint64(150) {
					if err := <-writeAtomic(v, off, sector(k<<8|i, n), k%5 == 0); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		writers.Wait()
		close(stop)
		readers.Wait()
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if seen.Load() < 100 {
		t.Errorf("readers saw only %d versions", seen.Load())
	}
}

// Atomic writes, long zeros, plain writes and reads over each other: all end.
func TestAtomicWritesDoNotDeadlock(t *testing.T) {
	f := newFake(t)
	f.concurrent()
	const size = 16 << 20
	v := testVolume(f, size, 512, false)
	var all sync.WaitGroup
	for i := range uint64(8) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(i, 3))
			for range 60 {
				n := 512 * (1 + r.IntN(maxAtomic/512))
				off := uint64(r.IntN((size-n)/512) * 512)
				var err error
				switch r.IntN(5) {
				case 0, 1:
					err = <-writeAtomic(v, off, pattern(i, n), false)
				case 2:
					err = <-write(v, off, pattern(i, n), false)
				case 3:
					err = <-zero(v, 0, size)
				default:
					err = (<-read(v, off, n)).err
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// atomicWriter writes atomically to a region of its own until the power goes.
type atomicWriter struct {
	off    uint64
	state  []byte          // of the region, as of the last write that is durable for sure
	writes []atomicRecords // since then, in order
	acked  int             // of writes: those that must be there
}

type atomicRecords struct {
	at   int
	data []byte
}

func (w *atomicWriter) run(v *Volume, r *rand.Rand) {
	for tag := uint64(1); ; tag++ {
		if v.WriteCache() && r.IntN(6) == 0 {
			if <-flush(v) != nil {
				return
			}
			w.acked = len(w.writes)
		}
		for ; w.acked > 0; w.acked-- {
			copy(w.state[w.writes[0].at:], w.writes[0].data)
			w.writes = w.writes[1:]
		}
		n := 512 * (1 + r.IntN(maxAtomic/512/(1+r.IntN(8))))
		at := r.IntN((len(w.state)-n)/512+1) * 512
		w.writes = append(w.writes, atomicRecords{at, pattern(tag<<8|w.off>>20, n)})
		if <-writeAtomic(v, w.off+uint64(at), w.writes[len(w.writes)-1].data, false) != nil {
			return
		}
		if !v.WriteCache() {
			w.acked = len(w.writes)
		}
	}
}

// check finds the region as it was after one of the writes, and after all those
// that were acknowledged durably. It returns how many that were not are there.
func (w *atomicWriter) check(v *Volume) (more int, err error) {
	got := make([]byte, 0, len(w.state))
	for at := 0; at < len(w.state); at += 1 << 20 {
		x := <-read(v, w.off+uint64(at), 1<<20)
		if x.err != nil {
			return 0, x.err
		}
		got = append(got, x.data...)
	}
	for i := 0; ; i++ {
		if i >= w.acked && bytes.Equal(got, w.state) {
			return i - w.acked, nil
		}
		if i == len(w.writes) {
			return 0, fmt.Errorf("region at %d is of no moment after %d of %d writes", w.off, w.acked, len(w.writes))
		}
		copy(w.state[w.writes[i].at:], w.writes[i].data)
	}
}

// The power goes in the middle of atomic writes. Afterwards each is there wholly
// or not at all, those that were acknowledged wholly.
func TestPowerLossAtomic(t *testing.T) {
	more, seeds := 0, uint64(24)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		more += powerLossAtomic(t, seed, seed%3 == 2)
	}
	if more == 0 {
		t.Error("no write was ever there that had not been acknowledged")
	}
}

func powerLossAtomic(t *testing.T, seed uint64, writeBack bool) (more int) {
	const writers, region = 3, 2 << 20
	r := rand.New(rand.NewPCG(seed, 14))
	var disk *vfs.Memory
	var ops atomic.Int64 // until the power goes
	ops.Store(1 << 40)
	m := newMemoryBrick(t, func(o *brick.Options) {
		o.JournalBytes, o.SegmentBytes, o.DestageAge = 24<<20, 3<<20, time.Millisecond
		disk = o.FS.(*vfs.Memory)
		disk.OnOp(func(vfs.Op) {
			if ops.Add(-1) == 0 {
				disk.Stop(errors.New("the power is gone"))
			}
		})
	})
	ops.Store(20 + r.Int64N(200))
	v := m.volume(writers*region, 512, writeBack)
	var all [writers]atomicWriter
	var wg sync.WaitGroup
	for i := range all {
		w := &all[i]
		w.off, w.state = uint64(i*region), make([]byte, region)
		wg.Go(func() { w.run(v, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	wg.Wait()
	_ = m.Close() // says that the disk is gone

	after := m.o
	after.FS = disk.Crash(seed)
	after.MapFS = m.o.MapFS.(*pebblefs.MemFS).CrashClone(pebblefs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
	after.Cache = cache.New(after.Pool, 4<<20)
	m = openMemoryBrick(t, after)
	v = m.volume(writers*region, 512, writeBack)
	for i := range all {
		n, err := all[i].check(v)
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		more += n
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	return more
}
