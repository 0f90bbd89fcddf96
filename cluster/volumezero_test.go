package cluster

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"petal/placement"
)

// TestLongZeroInOrder: a Zero of many chunks waits for the write before it,
// and the writes after it wait for the Zero, but not those beside it.
func TestLongZeroInOrder(t *testing.T) {
	for seed := range uint64(10) {
		f := newFake(t)
		run := f.queued(seed)
		const size = 300 * placement.ChunkSize
		v := testVolume(f, size, 512, seed%2 == 0)
		data := pattern(1, 8192)
		if err := await(t, run, write(v, 299*placement.ChunkSize, data, true)); err != nil {
			t.Fatal(err)
		}
		before := write(v, 100*placement.ChunkSize, data, true)
		long := zero(v, 512, 200*placement.ChunkSize)
		second := zero(v, 150*placement.ChunkSize, 149*placement.ChunkSize)
		after := write(v, 150*placement.ChunkSize, data, true)
		beside := write(v, 299*placement.ChunkSize+8192, data, true)
		for _, ch := range []<-chan error{beside, before, long, second, after} {
			if err := await(t, run, ch); err != nil {
				t.Fatal(err)
			}
		}
		want := make([]byte, size)
		copy(want[150*placement.ChunkSize:], data)
		copy(want[299*placement.ChunkSize:], data)
		copy(want[299*placement.ChunkSize+8192:], data)
		if got := await(t, run, read(v, 0, maxTransfer)); got.err != nil || !bytes.Equal(got.data, want[:maxTransfer]) {
			t.Fatalf("seed %d: not in the order of the calls (%v)", seed, got.err)
		}
		if got := await(t, run, read(v, maxTransfer, size-maxTransfer)); got.err != nil || !bytes.Equal(got.data, want[maxTransfer:]) {
			t.Fatalf("seed %d: what lies beside was touched (%v)", seed, got.err)
		}
		if err := await(t, run, flush(v)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestZeroOfNothingWritesNothing: holes stay holes, even the partial blocks.
func TestZeroOfNothingWritesNothing(t *testing.T) {
	f := newFake(t)
	v := testVolume(f, 1<<30, 512, false)
	if err := <-zero(v, 512, 1024); err != nil || f.records != 0 {
		t.Errorf("part of a block in a hole: %v, %d records", err, f.records)
	}
	// One record is for the whole blocks of the first chunk, which is not looked up.
	if err := <-zero(v, 512, 1<<30-512); err != nil || f.records > 1 {
		t.Errorf("a long hole: %v, %d records", err, f.records)
	}
	if err := <-write(v, 4096, pattern(1, 512), false); err != nil {
		t.Fatal(err)
	}
	if err := <-zero(v, 4096, 512); err != nil || len(f.blocks) != 0 {
		t.Errorf("the last bytes of a block: %v, %d blocks are left", err, len(f.blocks))
	}
}

func TestTrimBeyondEnd(t *testing.T) {
	f := newFake(t)
	big := testVolume(f, 1<<40, 4096, false)
	for _, off := range []uint64{0, 1<<20 - 4096, 1 << 20, 1<<20 + 4096, 1 << 39} {
		if err := <-write(big, off, pattern(off, 4096), false); err != nil {
			t.Fatal(err)
		}
	}
	v := volumeOver(f, f.pool, 1<<20, 4096, false)
	v.c = big.c
	done := make(chan error, 1)
	v.trimBeyondEnd(func(err error) { done <- err })
	if err := <-done; err != nil || len(f.blocks) != 2 {
		t.Errorf("%v, %d blocks are left, want 2", err, len(f.blocks))
	}
}

// TestTrimBeyondTheEndOfATinyDisk: its last chunk is its first.
func TestTrimBeyondTheEndOfATinyDisk(t *testing.T) {
	f := newFake(t)
	big := testVolume(f, 1<<40, 512, false)
	for _, off := range []uint64{0, 512, 8192, 1 << 39} {
		if err := <-write(big, off, pattern(off, 512), false); err != nil {
			t.Fatal(err)
		}
	}
	v := volumeOver(f, f.pool, 512, 512, false)
	v.c = big.c
	done := make(chan error, 1)
	v.trimBeyondEnd(func(err error) { done <- err })
	if err := <-done; err != nil || len(f.blocks) != 1 {
		t.Errorf("%v, %d blocks are left, want 1", err, len(f.blocks))
	}
	if got := <-read(big, 0, 1024); got.err != nil || !bytes.Equal(got.data[:512], pattern(0, 512)) || !onlyZeros(got.data[512:]) {
		t.Errorf("the first block: %v", got.err)
	}
}

// TestProvisionedTwin compares with a slow look at every block.
func TestProvisionedTwin(t *testing.T) {
	const blocks = 20 * placement.BlocksPerChunk
	for seed := range uint64(20) {
		f := newFake(t)
		v := testVolume(f, blocks*4096, 512, false)
		r := rand.New(rand.NewPCG(seed, 3))
		var mapped [blocks]bool
		for range r.IntN(12) {
			b, n := r.IntN(blocks), 1+r.IntN(40)
			n = min(n, blocks-b)
			if err := <-write(v, uint64(b)*4096, pattern(1, n*4096), false); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				mapped[b+i] = true
			}
		}
		for range 200 {
			off := uint64(r.IntN(blocks*8)) * 512
			limit := 512 * (1 + r.Uint64N(blocks*9))
			end := min(off+limit, blocks*4096)
			at := off/4096*4096 + 4096
			for at < end && mapped[at/4096] == mapped[off/4096] {
				at += 4096
			}
			want := min(at, end) - off
			got, run, err := v.Provisioned(off, limit)
			if err != nil || got != mapped[off/4096] || run != want {
				t.Fatalf("seed %d: Provisioned(%d, %d) = %t %d %v, want %t %d", seed, off, limit, got, run, err, mapped[off/4096], want)
			}
		}
	}
}
