package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/journal/vfs"
	"petal/placement"
)

// TestLivesOfABrick leads one brick through several lives, each ended by a power
// cut at a random device call, some of them in the middle of recovery: with
// writes of all sizes, zeros short and long, compare-and-write, write cache, too
// little space for everything, and families that come and go.
func TestLivesOfABrick(t *testing.T) { virtual(t, livesOfABrick) }

func livesOfABrick(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		newLives(t, seed).live(8)
	}
}

const (
	livesWriters = 4
	livesSectors = 6 << 10 // of each writer: 3 MiB
)

// lives is a node with what the blocks of its disk may hold.
type lives struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	ops     atomic.Int64 // until the power goes
	m       *memoryNode
	writers [livesWriters]livesWriter
	others  int                // disks that came and went
	dropped []placement.Family // of those whose end was agreed on
}

// livesWriter is a region that one goroutine writes to.
type livesWriter struct {
	base    uint64     // bytes
	allowed [][]uint64 // what each sector may hold after a crash; the last is what it holds now
	tag     uint64
	back    bool
}

func newLives(t *testing.T, seed uint64) *lives {
	l := &lives{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 31))}
	l.ops.Store(1 << 40)
	l.m = newMemoryNode(t, func(m *memoryNode) {
		m.opt.Bricks[0].Journal, m.opt.Bricks[0].Capacity = 4<<20, 10<<20
		m.opt.brick = func(o *brick.Options) { o.DestageAge, o.SegmentBytes = time.Millisecond, 512<<10 }
		l.watch(m.disk)
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
	disk.OnOp(func(vfs.Op) {
		if l.ops.Add(-1) == 0 {
			disk.Stop(errors.New("the power is gone"))
		}
	})
}

func (l *lives) volume() *Volume {
	return l.m.volume("data", livesWriters*livesSectors*512, 512, l.writers[0].back)
}

func (l *lives) live(n int) {
	for life := range n {
		v := l.volume()
		l.ops.Store(20 + l.rng.Int64N(900))
		var wg sync.WaitGroup
		for i := range l.writers {
			rng := rand.New(rand.NewPCG(l.rng.Uint64(), 1))
			wg.Go(func() {
				if err := l.writers[i].run(v, rng); err != nil {
					l.t.Errorf("seed %d, life %d: %v", l.seed, life, err)
				}
			})
		}
		wg.Go(l.comeAndGo)
		wg.Wait()
		l.reopen()
		v = l.volume()
		for i := range l.writers {
			if err := l.writers[i].check(v); err != nil {
				l.t.Fatalf("seed %d, life %d, writer %d: %v", l.seed, life, i, err)
			}
		}
	}
	eventually(l.t, l.m.Node, func(s *meta.State) bool { return len(s.Families()) == len(s.Disks()) })
	if err := l.m.Close(l.t.Context()); err != nil {
		l.t.Error(err)
	}
	l.m.start()
	for _, f := range l.dropped {
		if n := l.m.store.Load().brick.Usage(f); n != 0 {
			l.t.Errorf("seed %d: family %d was dropped and takes %d bytes", l.seed, f, n)
		}
	}
	if err := l.m.Close(l.t.Context()); err != nil {
		l.t.Error(err)
	}
}

// reopen opens what the crash has left, now and then with another crash on the
// way.
func (l *lives) reopen() {
	for try := 0; ; try++ {
		l.ops.Store(1 << 40)
		l.m.crash(l.rng.Uint64(), l.rng)
		if try < 2 && l.rng.IntN(2) == 0 {
			l.ops.Store(1 + l.rng.Int64N(12))
		}
		l.watch(l.m.disk)
		err := l.m.try()
		if err == nil && l.ops.Load() > 1<<39 {
			return
		}
		if err != nil && l.ops.Load() > 0 {
			l.t.Fatalf("seed %d: open after the crash: %v", l.seed, err)
		}
	}
}

// comeAndGo makes disks, writes to them and deletes them.
func (l *lives) comeAndGo() {
	for {
		l.others++
		name := fmt.Sprintf("other%d", l.others)
		d, err := l.m.CreateDisk(context.Background(), DiskSpec{Name: name, Size: 1 << 30, BlockSize: 512})
		if err != nil {
			l.t.Error(err)
			return
		}
		v, err := l.m.Volume(d.ID)
		if err != nil {
			l.t.Error(err)
			return
		}
		for i := range uint64(6) {
			err := <-write(v, i*48<<10, sector(uint64(d.Family), 32<<10), false)
			if err != nil && err != syscall.ENOSPC {
				return // the power is gone; it stays, for the next life to delete
			}
		}
		if err := l.m.DeleteDisk(context.Background(), name); err != nil {
			l.t.Error(err)
			return
		}
		l.dropped = append(l.dropped, d.Family)
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
