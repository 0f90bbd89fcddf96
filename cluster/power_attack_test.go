package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/meta"
	"petal/journal/vfs"
	"petal/placement"
)

// TestLivesOfABrick leads one brick through several lives, each ended by a power
// cut at a random device call, some of them in the middle of recovery: with
// writes of all sizes, zeros short and long, compare-and-write, write cache, too
// little space for everything, and families that come and go.
func TestLivesOfABrick(t *testing.T) {
	for seed := range uint64(6) {
		newLives(t, seed).live(8)
	}
}

const (
	livesWriters = 4
	livesSectors = 6 << 10 // of each writer: 3 MiB
)

// lives is a brick with what its blocks may hold.
type lives struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	disk    *vfs.Memory
	ops     atomic.Int64 // until the power goes
	o       brick.Options
	m       *memoryBrick
	writers [livesWriters]livesWriter
	family  placement.Family   // the last that came and went
	dropped []placement.Family // those whose end is durable
}

// livesWriter is a region that one goroutine writes to.
type livesWriter struct {
	base    uint64     // bytes
	allowed [][]uint64 // what each sector may hold after a crash; the last is what it holds now
	tag     uint64
	back    bool
}

func newLives(t *testing.T, seed uint64) *lives {
	l := &lives{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 31)), family: 10}
	l.ops.Store(1 << 40)
	l.m = newMemoryBrick(t, func(o *brick.Options) {
		o.DestageAge, o.CapacityBytes = time.Millisecond, 10<<20
		o.JournalBytes, o.SegmentBytes = 4<<20, 512<<10
		l.o = *o
		l.watch(o.FS.(*vfs.Memory))
	})
	for i := range l.writers {
		w := &l.writers[i]
		w.base, w.back = uint64(i)*livesSectors*512, seed%3 == 2
		w.allowed = make([][]uint64, livesSectors)
		for s := range w.allowed {
			w.allowed[s] = []uint64{0}
		}
	}
	return l
}

// watch has the power go after so many device calls.
func (l *lives) watch(disk *vfs.Memory) {
	l.disk = disk
	disk.OnOp(func(vfs.Op) {
		if l.ops.Add(-1) == 0 {
			disk.Stop(errors.New("the power is gone"))
		}
	})
}

func (l *lives) live(n int) {
	for life := range n {
		l.ops.Store(20 + l.rng.Int64N(900))
		v := l.m.volume(livesWriters*livesSectors*512, 512, l.writers[0].back)
		var wg sync.WaitGroup
		for i := range l.writers {
			rng := rand.New(rand.NewPCG(l.rng.Uint64(), 1))
			wg.Go(func() {
				if err := l.writers[i].run(v, rng); err != nil {
					l.t.Errorf("seed %d, life %d: %v", l.seed, life, err)
				}
			})
		}
		wg.Go(func() { l.comeAndGo(v) })
		wg.Wait()
		_ = l.m.Close() // says that the disk is gone
		l.reopen()
		v = l.m.volume(livesWriters*livesSectors*512, 512, l.writers[0].back)
		for i := range l.writers {
			if err := l.writers[i].check(v); err != nil {
				l.t.Fatalf("seed %d, life %d, writer %d: %v", l.seed, life, i, err)
			}
		}
	}
	if err := l.m.Close(); err != nil {
		l.t.Error(err)
	}
	l.m = openMemoryBrick(l.t, l.o)
	for _, f := range l.dropped {
		if n := l.m.Usage(f); n != 0 {
			l.t.Errorf("seed %d: family %d was dropped and takes %d bytes", l.seed, f, n)
		}
	}
	if err := l.m.Close(); err != nil {
		l.t.Error(err)
	}
}

// reopen opens what the crash has left, now and then with another crash on the
// way.
func (l *lives) reopen() {
	for try := 0; ; try++ {
		l.o.Cache = cache.New(l.o.Pool, 4<<20)
		l.o.MapFS = l.m.o.MapFS.(*pebblefs.MemFS).CrashClone(pebblefs.CrashCloneCfg{UnsyncedDataPercent: l.rng.IntN(101), RNG: l.rng})
		disk := l.disk.Crash(l.rng.Uint64())
		l.o.FS = disk
		l.ops.Store(1 << 40)
		if try < 2 && l.rng.IntN(2) == 0 {
			l.ops.Store(1 + l.rng.Int64N(12))
		}
		l.watch(disk)
		l.m.o = l.o
		b, _, err := brick.Open(l.o)
		if err == nil {
			l.m.Brick = b
			if l.ops.Load() > 1<<39 {
				return
			}
			_ = b.Close()
			continue
		}
		if l.ops.Load() > 0 {
			l.t.Fatalf("seed %d: open after the crash: %v", l.seed, err)
		}
	}
}

// comeAndGo writes families of their own and drops them.
func (l *lives) comeAndGo(v *Volume) {
	for {
		l.family++
		f := l.family
		other := newVolume(v.c, &meta.Disk{Size: 1 << 30, BlockSize: 512, Family: f, Node: 1}, []placement.Node{1})
		for i := range uint64(6) {
			err := <-write(other, i*48<<10, sector(uint64(f), 32<<10), false)
			if err != nil && err != syscall.ENOSPC {
				return
			}
		}
		done := make(chan error, 1)
		if other.Close(l.t.Context()) != nil {
			return
		}
		l.m.DropFamily(f, func(err error) { done <- err })
		if <-done != nil {
			return
		}
		l.dropped = append(l.dropped, f)
	}
}

// run does random things until the power goes. The error is a wrong read.
func (w *livesWriter) run(v *Volume, r *rand.Rand) error {
	for {
		at := r.IntN(livesSectors)
		n := []int{1, 1, 3, 8, 8, 24, 128, 128, 400}[r.IntN(9)]
		if r.IntN(2) == 0 {
			at = at / 128 * 128
		} else if r.IntN(2) == 0 {
			at = at / 8 * 8
		}
		n = min(n, livesSectors-at)
		off := w.base + uint64(at)*512
		w.tag++
		value := w.tag<<8 | w.base/(livesSectors*512) + 1
		var err error
		switch r.IntN(10) {
		case 0, 1:
			value = 0
			if r.IntN(8) == 0 {
				at, n, off = 0, livesSectors, w.base
			}
			w.may(at, n, value)
			err = <-zero(v, off, uint64(n)*512)
		case 2:
			n = 1
			old := w.allowed[at][len(w.allowed[at])-1]
			w.may(at, n, value)
			res := <-caw(v, off, sector(old, 512), sector(value, 512))
			if err = res.err; err == nil && res.miscompare >= 0 {
				return fmt.Errorf("sector %d: compare and write found something else than %#x", at, old)
			}
		case 3:
			if err = <-flush(v); err == nil {
				for s, a := range w.allowed {
					w.allowed[s] = a[len(a)-1:]
				}
			}
			at, n = 0, 0
		case 4, 5:
			got := <-read(v, off, n*512)
			if got.err != nil {
				return nil
			}
			for i := range n {
				a := w.allowed[at+i]
				if x, ok := sectorValue(got.data[i*512 : (i+1)*512]); !ok || x != a[len(a)-1] {
					return fmt.Errorf("sector %d reads %#x, want %#x", at+i, x, a[len(a)-1])
				}
			}
			continue
		default:
			w.may(at, n, value)
			err = <-write(v, off, sector(value, n*512), r.IntN(5) == 0)
		}
		if err == syscall.ENOSPC { // some chunks of it may have been written
			got := <-read(v, off, n*512)
			if got.err != nil {
				return nil
			}
			for i := range n {
				a := w.allowed[at+i]
				x, _ := sectorValue(got.data[i*512 : (i+1)*512])
				if !slices.Contains(a, x) {
					return fmt.Errorf("sector %d reads %#x after ENOSPC, want one of %#x", at+i, x, a)
				}
				w.allowed[at+i] = append(a, x)
			}
		} else if err != nil {
			return nil
		}
		if !w.back {
			for s := at; s < at+n; s++ {
				a := w.allowed[s]
				w.allowed[s] = a[len(a)-1:]
			}
		}
	}
}

// may notes a write that has begun.
func (w *livesWriter) may(at, n int, value uint64) {
	for s := at; s < at+n; s++ {
		w.allowed[s] = append(slices.Clip(w.allowed[s]), value)
	}
}

// check compares the region with what may be there; that is then certain.
func (w *livesWriter) check(v *Volume) error {
	const step = 1 << 20
	for off := 0; off < livesSectors*512; off += step {
		got := <-read(v, w.base+uint64(off), step)
		if got.err != nil {
			return got.err
		}
		for i := range step / 512 {
			s := off/512 + i
			x, ok := sectorValue(got.data[i*512 : (i+1)*512])
			if !ok || !slices.Contains(w.allowed[s], x) {
				return fmt.Errorf("sector %d holds %#x (torn: %t), want one of %#x", s, x, !ok, w.allowed[s])
			}
			w.allowed[s] = []uint64{x}
		}
	}
	return nil
}
