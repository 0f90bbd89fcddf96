package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"petal/cluster/meta"
	"petal/placement"
)

// await lets a queued fake run until ch has a result; without run it waits for
// the fake's worker.
func await[T any](t testing.TB, run func() bool, ch <-chan T) T {
	t.Helper()
	if run == nil {
		return <-ch
	}
	for began := time.Now(); ; {
		select {
		case x := <-ch:
			return x
		default:
		}
		if run() {
			began = time.Now()
		} else if runtime.Gosched(); time.Since(began) > time.Minute { // a long Zero has a goroutine of its own
			t.Fatal("the command never ends")
		}
	}
}

// TestVolumeTwin does random commands and compares with a byte slice, on both
// block sizes, with completions inside the call and in random order.
func TestVolumeTwin(t *testing.T) {
	for _, blockSize := range []int{512, 4096} {
		for _, writeBack := range []bool{false, true} {
			for _, queued := range []bool{false, true} {
				t.Run(fmt.Sprintf("block=%d,writeback=%t,queued=%t", blockSize, writeBack, queued), func(t *testing.T) {
					seeds := uint64(2)
					if testing.Short() {
						seeds = 1
					}
					for seed := range seeds {
						volumeTwin(t, seed, blockSize, writeBack, queued)
					}
				})
			}
		}
	}
}

func volumeTwin(t *testing.T, seed uint64, blockSize int, writeBack, queued bool) {
	const size = 12*placement.ChunkSize + 3*4096
	f := newFake(t)
	var run func() bool
	if queued {
		run = f.queued(seed)
	}
	v := testVolume(f, size, blockSize, writeBack)
	twin := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, uint64(blockSize)))
	tag := uint64(0)
	for step := range 1500 {
		n := blockSize * (1 + r.IntN(3))
		if r.IntN(3) == 0 {
			n = blockSize * (1 + r.IntN(3*placement.ChunkSize/blockSize))
		}
		off := r.IntN((size-n)/blockSize+1) * blockSize
		where := twin[off : off+n]
		switch r.IntN(7) {
		case 0, 1:
			tag++
			copy(where, pattern(tag, n))
			if err := await(t, run, write(v, uint64(off), where, r.IntN(4) == 0)); err != nil {
				t.Fatal(err)
			}
		case 2:
			clear(where)
			if err := await(t, run, zero(v, uint64(off), uint64(n))); err != nil {
				t.Fatal(err)
			}
		case 3:
			n = min(n, placement.BlockSize-off%placement.BlockSize)
			where = twin[off : off+n]
			tag++
			old, data := slices.Clone(where), pattern(tag, n)
			want := -1
			if r.IntN(2) == 0 {
				want = r.IntN(n)
				old[want] ^= 1
			} else {
				copy(where, data)
			}
			if got := await(t, run, caw(v, uint64(off), old, data)); got.err != nil || got.miscompare != want {
				t.Fatalf("seed %d step %d: compare and write: %+v, want %d", seed, step, got, want)
			}
		case 4:
			if err := await(t, run, flush(v)); err != nil {
				t.Fatal(err)
			}
		default:
			got := await(t, run, read(v, uint64(off), n))
			if got.err != nil || !bytes.Equal(got.data, where) {
				t.Fatalf("seed %d step %d: read of %d at %d is wrong (%v)", seed, step, n, off, got.err)
			}
		}
	}
	closing := make(chan error, 1)
	go func() { closing <- v.Close(context.Background()) }()
	for len(closing) == 0 && run != nil {
		run()
	}
	if err := <-closing; err != nil {
		t.Fatal(err)
	}
}

// TestOverlapInOrder issues overlapping commands without waiting; whatever the
// order in which their records become durable, the result is as if each had
// been done when it was called.
func TestOverlapInOrder(t *testing.T) {
	for seed := range uint64(30) {
		const size = 3 * placement.ChunkSize
		f := newFake(t)
		run := f.queued(seed)
		v := testVolume(f, size, 512, seed%2 == 0)
		twin := make([]byte, size)
		r := rand.New(rand.NewPCG(seed, 8))
		var ends []<-chan error
		for i := range 60 {
			n := 512 * (1 + r.IntN(60))
			off := r.IntN((size-n)/512+1) * 512
			if i%5 == 4 {
				clear(twin[off : off+n])
				ends = append(ends, zero(v, uint64(off), uint64(n)))
			} else {
				copy(twin[off:], pattern(uint64(i), n))
				ends = append(ends, write(v, uint64(off), twin[off:off+n], false))
			}
			if r.IntN(3) == 0 {
				run()
			}
		}
		for _, ch := range ends {
			if err := await(t, run, ch); err != nil {
				t.Fatal(err)
			}
		}
		if got := await(t, run, read(v, 0, size)); got.err != nil || !bytes.Equal(got.data, twin) {
			t.Fatalf("seed %d: the writes did not take effect in the order of their calls", seed)
		}
		if err := await(t, run, flush(v)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRangeChecks(t *testing.T) {
	f := newFake(t)
	const size = 1<<20 + 512
	v := testVolume(f, size, 512, false)
	for _, x := range []struct {
		off uint64
		n   int
		ok  bool
	}{
		{0, 512, true}, {size - 512, 512, true}, {0, 1, false}, {1, 512, false}, {256, 512, false},
		{size, 512, false}, {size - 512, 1024, false}, {math.MaxUint64 - 511, 512, false}, {math.MaxUint64 &^ 511, 1024, false},
		{0, 0, false}, {0, -512, false}, {0, maxTransfer + 512, false},
	} {
		if got := <-read(v, x.off, x.n); (got.err == nil) != x.ok || !x.ok && got.err != syscall.EINVAL {
			t.Errorf("Read(%d, %d): %v", x.off, x.n, got.err)
		}
		_, loan, err := v.Reserve(x.off, x.n)
		if (err == nil) != x.ok || !x.ok && err != syscall.EINVAL {
			t.Errorf("Reserve(%d, %d): %v", x.off, x.n, err)
		}
		if loan != nil {
			v.Release(loan)
		}
	}
	for _, x := range []struct{ off, n uint64 }{{0, size + 512}, {512, math.MaxUint64 - 511}, {0, 100}, {math.MaxUint64 - 511, 512}} {
		if err := <-zero(v, x.off, x.n); err != syscall.EINVAL {
			t.Errorf("Zero(%d, %d): %v", x.off, x.n, err)
		}
	}
	if err := <-zero(v, size, 0); err != nil {
		t.Errorf("Zero of nothing at the end: %v", err)
	}
	one := make([]byte, 512)
	if got := <-caw(v, placement.ChunkSize-512, make([]byte, 1024), make([]byte, 1024)); got.err != syscall.EINVAL {
		t.Errorf("compare and write across chunks: %+v", got)
	}
	if got := <-caw(v, 0, one, one[:256]); got.err != syscall.EINVAL {
		t.Errorf("compare and write of different lengths: %+v", got)
	}
}

// TestEnormousDisk works at the very end of the greatest address space.
func TestEnormousDisk(t *testing.T) {
	f := newFake(t)
	const size = math.MaxUint64 - 511 // 2^64 - 512
	v := testVolume(f, size, 512, false)
	data := pattern(1, 5*512)
	off := uint64(size - 5*512)
	if err := <-write(v, off, data, false); err != nil {
		t.Fatal(err)
	}
	if err := <-write(v, 512, data, false); err != nil {
		t.Fatal(err)
	}
	if got := <-read(v, off, len(data)); !bytes.Equal(got.data, data) {
		t.Fatalf("read at the end: %v", got.err)
	}
	mapped, run, err := v.Provisioned(8192, math.MaxUint64&^511)
	if want := off/4096*4096 - 8192; err != nil || mapped || run != want {
		t.Errorf("Provisioned = %t %d %v, want a hole of %d", mapped, run, err, want)
	}
	mapped, run, err = v.Provisioned(off, math.MaxUint64&^511)
	if err != nil || !mapped || run != 5*512 {
		t.Errorf("Provisioned at the end = %t %d %v", mapped, run, err)
	}
	if err := <-zero(v, 0, size); err != nil {
		t.Fatal(err)
	}
	if len(f.blocks) != 0 {
		t.Errorf("%d blocks are left", len(f.blocks))
	}
	if f.lookups > 20 || f.zeros > 10 {
		t.Errorf("zeroing nothing took %d look-ups and %d records", f.lookups, f.zeros)
	}
	if got := <-read(v, off, len(data)); got.err != nil || !onlyZeros(got.data) {
		t.Errorf("the end is not zero: %v", got.err)
	}
}

// TestSmallWriteKeepsTheRestOfItsBlock is read-modify-write, on a block with
// data, on a hole, and with two writers of one block at the same time.
func TestSmallWriteKeepsTheRestOfItsBlock(t *testing.T) {
	f := newFake(t)
	run := f.queued(1)
	v := testVolume(f, 1<<20, 512, false)
	twin := pattern(1, 3*4096)
	await(t, run, write(v, 0, twin, false))
	a, b := pattern(2, 512), pattern(3, 4096)
	copy(twin[1024:], a)
	copy(twin[2048:], b) // the first block's tail and the second one's head
	ca, cb := write(v, 1024, a, false), write(v, 2048, b, false)
	if err := errors.Join(await(t, run, ca), await(t, run, cb)); err != nil {
		t.Fatal(err)
	}
	if got := await(t, run, read(v, 0, len(twin))); !bytes.Equal(got.data, twin) {
		t.Error("the rest of a block was lost")
	}
	await(t, run, write(v, 65536+512, a, false))
	want := make([]byte, 4096)
	copy(want[512:], a)
	if got := await(t, run, read(v, 65536, 4096)); !bytes.Equal(got.data, want) {
		t.Error("a small write into a hole")
	}
}

func TestCompareAndWrite(t *testing.T) {
	f := newFake(t)
	run := f.queued(2)
	v := testVolume(f, 1<<20, 512, true)
	one := pattern(1, 512)
	await(t, run, write(v, 512, one, false))
	wrong := slices.Clone(one)
	wrong[17] ^= 0x80
	wrong[400] ^= 1
	appends := f.records
	if got := await(t, run, caw(v, 512, wrong, pattern(2, 512))); got.err != nil || got.miscompare != 17 {
		t.Errorf("miscompare: %+v", got)
	}
	if f.records != appends {
		t.Error("a miscompare wrote")
	}
	// Two at once with the same expectation: exactly one wins.
	x, y := caw(v, 512, one, pattern(2, 512)), caw(v, 512, one, pattern(3, 512))
	rx, ry := await(t, run, x), await(t, run, y)
	if rx.miscompare != -1 || ry.miscompare < 0 || rx.err != nil || ry.err != nil {
		t.Errorf("two at once: %+v %+v", rx, ry)
	}
	if f.lazy > 1 { // the first write's; compare and write is durable even with write cache
		t.Errorf("compare and write left %d records lazy", f.lazy)
	}
	await(t, run, flush(v))
}

func TestWriteThroughWaitsForTheDisk(t *testing.T) {
	f := newFake(t)
	run := f.queued(3)
	v := testVolume(f, 1<<20, 4096, false)
	ch := write(v, 0, pattern(1, 4096), false)
	if len(ch) != 0 {
		t.Fatal("done before it was durable")
	}
	got := make(chan readResult, 1)
	go func() { got <- <-read(v, 0, 4096) }()
	for len(ch) == 0 {
		run()
	}
	for len(got) == 0 {
		run()
	}
	<-got
}

func TestWriteBack(t *testing.T) {
	f := newFake(t)
	v := testVolume(f, 1<<20, 4096, true)
	data := pattern(1, 4096)
	if err := <-write(v, 0, data, false); err != nil {
		t.Fatal(err)
	}
	if f.lazy != 1 {
		t.Fatal("a cached write was not left lazy, or is not visible")
	}
	if got := <-read(v, 0, 4096); !bytes.Equal(got.data, data) {
		t.Error("an acknowledged write is not readable")
	}
	if err := <-write(v, 4096, data, true); err != nil || f.lazy != 1 {
		t.Errorf("fua: %v, %d lazy", err, f.lazy)
	}
	if err := <-write(v, 0, pattern(2, 4096), false); err != nil || f.lazy != 2 {
		t.Errorf("an overwrite of a lazy block: %v, %d lazy", err, f.lazy)
	}
	if err := <-flush(v); err != nil || f.lazy != 0 {
		t.Errorf("flush: %v, %d lazy", err, f.lazy)
	}
	<-write(v, 0, data, false)
	change(v, func(d *meta.Disk) { d.WriteBack = false })
	if f.lazy != 0 {
		t.Error("turning the cache off did not flush it")
	}
	if err := <-write(v, 8192, data, false); err != nil || f.lazy != 0 {
		t.Errorf("after that a write was lazy: %v", err)
	}
}

// TestLostCacheIsToldByFlush: an acknowledged write that fails later makes
// Flush fail, and every one after it.
func TestLostCacheIsToldByFlush(t *testing.T) {
	f := newFake(t)
	v := testVolume(f, 1<<20, 4096, true)
	<-write(v, 0, pattern(1, 4096), false)
	f.fail(errors.New("sync failed"))
	for range 2 {
		if err := <-flush(v); err == nil || errors.Is(err, syscall.ENOSPC) {
			t.Errorf("flush after a loss: %v", err)
		}
	}
}

func TestErrors(t *testing.T) {
	f := newFake(t)
	v := testVolume(f, 1<<20, 512, false)
	await(t, nil, write(v, 0, pattern(1, 8*4096), false))
	f.bad[fakeBlock{3, 0, 3}] = true
	f.bad[fakeBlock{3, 0, 4}] = true
	f.bad[fakeBlock{3, 0, 7}] = true

	var bad interface{ BadRange() (off, n uint64) }
	got := <-read(v, 512, 8*4096-512)
	if !errors.As(got.err, &bad) {
		t.Fatalf("medium error is %v", got.err)
	}
	if off, n := bad.BadRange(); off != 3*4096 || n != 2*4096 {
		t.Errorf("bad range %d+%d", off, n)
	}
	got = <-read(v, 3*4096+1024, 512)
	if !errors.As(got.err, &bad) {
		t.Fatalf("medium error is %v", got.err)
	}
	if off, n := bad.BadRange(); off != 3*4096+1024 || n != 3072 {
		t.Errorf("bad range inside a block %d+%d", off, n)
	}
	if err := <-write(v, 3*4096+512, pattern(2, 512), false); !errors.As(err, &bad) {
		t.Errorf("writing part of a bad block: %v", err)
	}
	if err := <-write(v, 3*4096, pattern(2, 4096), false); err != nil {
		t.Errorf("writing over a bad block: %v", err)
	}
	if got := <-read(v, 3*4096, 4096); got.err != nil {
		t.Errorf("reading it then: %v", got.err)
	}
	if got := <-read(v, 0, 3*4096); got.err != nil {
		t.Errorf("its neighbours: %v", got.err)
	}

	f.space = 0
	if err := <-write(v, 1<<19, pattern(2, 4096), false); err != syscall.ENOSPC {
		t.Errorf("no space: %v", err)
	}
	if err := <-write(v, 0, pattern(2, 4096), false); err != nil {
		t.Errorf("an overwrite without space: %v", err)
	}
	f.space = -1

	change(v, func(d *meta.Disk) { d.ReadOnly = true })
	if _, _, err := v.Reserve(0, 512); err != syscall.EROFS || !v.ReadOnly() {
		t.Errorf("read-only Reserve: %v", err)
	}
	if err := <-zero(v, 0, 512); err != syscall.EROFS {
		t.Errorf("read-only Zero: %v", err)
	}
	if got := <-caw(v, 0, make([]byte, 512), make([]byte, 512)); got.err != syscall.EROFS {
		t.Errorf("read-only compare and write: %v", got.err)
	}
	change(v, func(d *meta.Disk) { d.ReadOnly = false })

	_, loan, err := v.Reserve(1<<19, 4096)
	if err != nil {
		t.Fatal(err)
	}
	change(v, func(d *meta.Disk) { d.Size = 1 << 18 })
	ch := make(chan error, 1)
	v.Write(loan, false, func(err error) { ch <- err })
	if err := <-ch; err != syscall.EINVAL {
		t.Errorf("a write that a resize has put beyond the end: %v", err)
	}

	f.fail(fmt.Errorf("journal: %w", syscall.ENOSPC)) // the journal's file system, not the pool
	if err := <-write(v, 0, pattern(2, 4096), false); err == nil || errors.Is(err, syscall.ENOSPC) {
		t.Errorf("failed brick, write: %v", err)
	}
	if got := <-read(v, 0, 4096); got.err == nil || errors.As(got.err, &bad) {
		t.Errorf("failed brick, read: %v", got.err)
	}
	if err := <-flush(v); err == nil {
		t.Error("failed brick: flush succeeded")
	}
	if _, _, err := v.Provisioned(0, 4096); err == nil {
		t.Error("failed brick: Provisioned succeeded")
	}
	if err := <-zero(v, 0, 1<<18); err == nil {
		t.Error("failed brick: Zero succeeded")
	}
}

// TestNoSpaceInTheMiddle: the other pieces of the command end, the error is
// told once, and the blocks are free again.
func TestNoSpaceInTheMiddle(t *testing.T) {
	f := newFake(t)
	run := f.queued(4)
	v := testVolume(f, 1<<20, 4096, true)
	f.space = 20
	if err := await(t, run, write(v, 0, pattern(1, 4*placement.ChunkSize), true)); err != syscall.ENOSPC {
		t.Errorf("%v", err)
	}
	if err := await(t, run, write(v, 4*placement.ChunkSize-4096, pattern(1, 4096), false)); err != syscall.ENOSPC {
		t.Errorf("lazy: %v", err)
	}
	f.space = -1
	if err := await(t, run, write(v, 0, pattern(2, 4*placement.ChunkSize), false)); err != nil {
		t.Errorf("after space came back: %v", err)
	}
	if err := await(t, run, flush(v)); err != nil {
		t.Errorf("flush: %v", err)
	}
}

func TestClose(t *testing.T) {
	f := newFake(t)
	run := f.queued(5)
	v := testVolume(f, 1<<20, 4096, true)
	a := write(v, 0, pattern(1, 4096), true)
	b := write(v, 8192, pattern(1, 4096), false)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := v.Close(ctx); err != context.Canceled {
		t.Errorf("Close with commands in flight: %v", err)
	}
	for run() {
	}
	closing := make(chan error, 1)
	go func() { closing <- v.Close(context.Background()) }()
	if err := await(t, run, closing); err != nil {
		t.Errorf("Close: %v", err)
	}
	if len(a) != 1 || len(b) != 1 || <-a != nil || <-b != nil {
		t.Error("Close returned before its commands")
	}
	if len(f.open) != 0 || f.lazy != 0 {
		t.Error("Close left records under way")
	}
	if err := <-write(v, 0, pattern(1, 4096), false); err != ErrVolumeClosed {
		t.Errorf("write after Close: %v", err)
	}
	if got := <-read(v, 0, 4096); got.err != ErrVolumeClosed {
		t.Errorf("read after Close: %v", got.err)
	}
	if err := <-flush(v); err != ErrVolumeClosed {
		t.Errorf("flush after Close: %v", err)
	}
}

func TestLoans(t *testing.T) {
	f := newFake(t)
	v := testVolume(f, 1<<20, 512, false)
	vec, loan, err := v.Reserve(placement.ChunkSize-4096, 3*4096)
	if err != nil || len(vec) != 2 || len(vec[0]) != 4096 || len(vec[1]) != 8192 {
		t.Fatalf("a loan over a chunk's edge: %d parts, %v", len(vec), err)
	}
	v.Release(loan)
	defer func() {
		if recover() == nil {
			t.Error("a second Release did not panic")
		}
	}()
	v.Release(loan)
}

func TestUsage(t *testing.T) {
	f := newFake(t)
	v := testVolume(f, 1<<20, 512, false)
	<-write(v, 0, pattern(1, 8192), false)
	if used, avail, total, soft := v.Usage(); used != 8192 || avail != 20 || total != 100 || !soft {
		t.Errorf("Usage = %d %d %d %t", used, avail, total, soft)
	}
}

func TestSpans(t *testing.T) {
	for _, off := range []uint64{0, 512, 65535, 65536, 1 << 40} { // the rest of the address space, cut at the chunk
		if s := spanAt(off, max(-off, 1)); off > 0 && s.to != placement.ChunkSize || s.from >= s.to {
			t.Errorf("span of all from %d: %+v", off, s)
		}
	}
	for _, x := range []struct {
		off, n uint64
		chunks uint64
	}{{0, 1, 1}, {0, 65536, 1}, {1, 65536, 2}, {65535, 2, 2}, {math.MaxUint64, 1, 1}, {0, math.MaxUint64, 1 << 48}, {65536, math.MaxUint64 - 65535, 1<<48 - 1}} {
		if got := spansOf(x.off, x.n); got != x.chunks {
			t.Errorf("%d bytes at %d touch %d chunks, want %d", x.n, x.off, got, x.chunks)
		}
	}
}
