package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/brick"
	"petal/journal/vfs"
	"petal/placement"
)

// memoryNode is a real node, alone, on disks of memory: one for its state, one
// for its brick.
type memoryNode struct {
	*Node
	t    testing.TB
	opt  Options
	env  Env
	disk *vfs.Memory // the brick's
	maps *pebblefs.MemFS
}

func newMemoryNode(t testing.TB, change func(*memoryNode)) *memoryNode {
	t.Helper()
	m := &memoryNode{t: t, disk: vfs.NewMemory(1 << 30), maps: pebblefs.NewCrashableMem(), opt: Options{
		Name: "n1", CacheBytes: 4 << 20, MemoryBytes: 128 << 20, Bricks: []BrickOptions{{Path: "/brick", Journal: 8 << 20, Capacity: 256 << 20}},
		brick: func(o *brick.Options) { o.SegmentBytes, o.DestageAge = 1<<20, 20*time.Millisecond },
	}}
	seed := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	m.env = Env{FS: vfs.NewMemory(1 << 30), Clock: virtualClock{time.Now().Add(-time.Hour)}, Wall: time.Now, Rand: func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		for i := range b {
			b[i] = byte(seed.Uint32())
		}
	}}
	if change != nil {
		change(m)
	}
	t.Cleanup(func() {
		if m.Node != nil {
			m.Node.Close(context.Background())
		}
	})
	m.start()
	return m
}

// start opens the node on its disks.
func (m *memoryNode) start() {
	m.t.Helper()
	if err := m.try(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *memoryNode) try() (err error) {
	m.env.Bricks = []BrickEnv{{FS: m.disk, MapFS: m.maps, Path: "/brick"}}
	n, err := OpenWith(m.opt, m.env)
	if err == nil {
		m.Node = n
	}
	return err
}

// volume returns the volume of the disk of that name, which is made if need be.
func (m *memoryNode) volume(name string, size uint64, blockSize int, writeBack bool) *Volume {
	m.t.Helper()
	d := m.State().Disk(name)
	if d == nil {
		var err error
		if d, err = m.CreateDisk(context.Background(), DiskSpec{Name: name, Size: size, BlockSize: blockSize, WriteBack: writeBack}); err != nil {
			m.t.Fatal(err)
		}
	}
	if d.WriteBack != writeBack {
		if _, err := m.UpdateDisk(context.Background(), name, DiskChange{WriteBack: &writeBack}); err != nil {
			m.t.Fatal(err)
		}
	}
	v, err := m.Volume(d.ID)
	if err != nil {
		m.t.Fatal(err)
	}
	return v
}

// crash replaces the brick's disk by what a power cut leaves of it, and the
// state's by what it leaves of that.
func (m *memoryNode) crash(seed uint64, r *rand.Rand) {
	_ = m.Node.Close(context.Background()) // says that the disk is gone
	m.disk = m.disk.Crash(seed)
	m.maps = m.maps.CrashClone(pebblefs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
	m.env.FS = m.env.FS.(*vfs.Memory).Crash(seed)
}

func TestLinearizableOnBrick(t *testing.T) { virtual(t, linearizableOnBrick) }

func linearizableOnBrick(t *testing.T) {
	for seed := range uint64(4) {
		m := newMemoryNode(t, func(m *memoryNode) {
			m.opt.brick = func(o *brick.Options) { o.SegmentBytes, o.DestageAge = 1<<20, time.Millisecond }
		})
		v := m.volume("data", 1<<20, 512, seed%2 == 1)
		linearize(t, v, seed, 6, 60)
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTwinOnBrick is random commands on a real brick, several at a time on
// ranges of their own, with destaging, and every so often a reopening.
func TestTwinOnBrick(t *testing.T) { virtual(t, twinOnBrick) }

func twinOnBrick(t *testing.T) {
	const size, part = 8 << 20, 2 << 20
	m := newMemoryNode(t, nil)
	twin := make([]byte, size)
	for round := range 6 {
		v := m.volume("data", size, 512, round%2 == 1)
		errs := make(chan error, size/part)
		for i := range size / part {
			go func() { errs <- twinOn(v, twin[i*part:(i+1)*part], uint64(i*part), uint64(round*10+i)) }()
		}
		for range size / part {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.start()
	}
	v := m.volume("data", size, 512, false)
	for off := 0; off < size; off += 1 << 20 {
		if got := <-read(v, uint64(off), 1<<20); got.err != nil || !bytes.Equal(got.data, twin[off:off+1<<20]) {
			t.Fatalf("after reopening: %v", got.err)
		}
	}
	if err := <-zero(v, 0, size); err != nil {
		t.Fatal(err)
	}
	if mapped, run, err := v.Provisioned(0, size); err != nil || mapped || run != size {
		t.Errorf("after zeroing all: Provisioned = %t %d %v", mapped, run, err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func twinOn(v *Volume, twin []byte, base, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 12))
	for range 150 {
		n := 512 * (1 + r.IntN(16))
		if r.IntN(3) == 0 {
			n = 4096 * (1 + r.IntN(64))
		}
		off := r.IntN((len(twin)-n)/512+1) * 512
		if r.IntN(2) == 0 {
			off = min(off/4096*4096, len(twin)-n)
		}
		where := twin[off : off+n]
		at := base + uint64(off)
		switch r.IntN(6) {
		case 0, 1, 2:
			copy(where, pattern(r.Uint64()>>24, n))
			if err := <-write(v, at, where, r.IntN(4) == 0); err != nil {
				return err
			}
		case 3:
			clear(where)
			if err := <-zero(v, at, uint64(n)); err != nil {
				return err
			}
		default:
			got := <-read(v, at, n)
			if got.err != nil || !bytes.Equal(got.data, where) {
				return fmt.Errorf("read of %d at %d is wrong (%v)", n, at, got.err)
			}
			mapped, run, err := v.Provisioned(at, uint64(len(twin)-off))
			if err != nil {
				return err
			}
			if end := off + int(run); run == 0 || end > len(twin) || !mapped && !onlyZeros(twin[off:end]) {
				return fmt.Errorf("Provisioned(%d) = %t %d hides data", at, mapped, run)
			}
		}
	}
	return nil
}

// TestPowerLoss stops the disk in the middle of writes and looks at what a
// crash leaves: what was acknowledged (with write cache: before a flush), or
// something that was written later, and never half of a write to a chunk.
func TestPowerLoss(t *testing.T) { virtual(t, powerLosses) }

func powerLosses(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		powerLoss(t, seed, seed%3 == 2)
	}
}

// powerWriter writes to a region of its own until the power goes.
type powerWriter struct {
	first, n int        // blocks
	allowed  [][]uint64 // what each block may hold
	at, len  int        // the last write: blocks, and
	value    uint64     // its value
}

func (w *powerWriter) run(v *Volume, r *rand.Rand) {
	for tag := uint64(1); ; tag++ {
		if v.WriteCache() && r.IntN(10) == 0 {
			if <-flush(v) != nil {
				return
			}
			for i, a := range w.allowed {
				w.allowed[i] = a[len(a)-1:]
			}
		}
		w.at, w.len, w.value = r.IntN(w.n), 1, tag<<8|uint64(w.first/w.n)
		if r.IntN(4) == 0 { // a whole chunk
			w.at, w.len = w.at/placement.BlocksPerChunk*placement.BlocksPerChunk, placement.BlocksPerChunk
		}
		for i := w.at; i < w.at+w.len; i++ {
			w.allowed[i] = append(w.allowed[i], w.value)
		}
		data := sector(w.value, w.len*placement.BlockSize)
		if <-write(v, uint64(w.first+w.at)*placement.BlockSize, data, false) != nil {
			return
		}
		if !v.WriteCache() {
			for i := w.at; i < w.at+w.len; i++ {
				w.allowed[i] = []uint64{w.value}
			}
		}
	}
}

// check compares a region with what may be there.
func (w *powerWriter) check(v *Volume) error {
	got := <-read(v, uint64(w.first)*placement.BlockSize, w.n*placement.BlockSize)
	if got.err != nil {
		return got.err
	}
	news := 0
	for i, allowed := range w.allowed {
		value, ok := sectorValue(got.data[i*placement.BlockSize : (i+1)*placement.BlockSize])
		if !ok || !slices.Contains(allowed, value) {
			return fmt.Errorf("block %d holds %#x, want one of %#x", w.first+i, value, allowed)
		}
		if i >= w.at && i < w.at+w.len && value == w.value {
			news++
		}
	}
	if news != 0 && news != w.len {
		return fmt.Errorf("%d of %d blocks of a chunk's write are there", news, w.len)
	}
	return nil
}

func powerLoss(t *testing.T, seed uint64, writeBack bool) {
	const writers, blocks = 4, 256 // of each
	r := rand.New(rand.NewPCG(seed, 13))
	var ops atomic.Int64 // until the power goes
	ops.Store(1 << 40)
	m := newMemoryNode(t, func(m *memoryNode) {
		m.opt.brick = func(o *brick.Options) { o.SegmentBytes, o.DestageAge = 1<<20, time.Millisecond }
		m.disk.OnOp(func(vfs.Op) {
			if ops.Add(-1) == 0 {
				m.disk.Stop(errors.New("the power is gone"))
			}
		})
	})
	v := m.volume("data", writers*blocks*placement.BlockSize, 4096, writeBack)
	ops.Store(50 + r.Int64N(600))
	var all [writers]powerWriter
	var wg sync.WaitGroup
	for i := range all {
		w := &all[i]
		w.first, w.n, w.allowed = i*blocks, blocks, make([][]uint64, blocks)
		for b := range w.allowed {
			w.allowed[b] = []uint64{0}
		}
		wg.Go(func() { w.run(v, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	wg.Wait()
	m.crash(seed, r)
	m.start()
	v = m.volume("data", writers*blocks*placement.BlockSize, 4096, writeBack)
	for i := range all {
		if err := all[i].check(v); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
