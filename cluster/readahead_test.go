package cluster

import (
	"math"
	"math/rand/v2"
	"testing"

	"petal/placement"
)

// fetched collects what readahead asks for, as a set of chunks.
type fetched map[placement.Chunk]int

func (f fetched) note(r *readahead, off uint64, n int, size uint64) int {
	from, to := r.note(off, n, size)
	for c := from; c < to; c++ {
		f[c]++
	}
	return int(to - from)
}

// TestReadaheadSequential: from the third read on, every chunk was fetched
// before it is read, once, and at most windowMax ahead.
func TestReadaheadSequential(t *testing.T) {
	for _, n := range []int{512, 4096, 65536, 100 << 10 &^ 511, 1 << 20} {
		const size = 32 << 20
		var r readahead
		f := fetched{}
		for i := 0; uint64((i+1)*n) <= size; i++ {
			off := uint64(i * n)
			first, last := placement.Chunk(off/placement.ChunkSize), placement.Chunk((off+uint64(n)-1)/placement.ChunkSize)
			for c := first; c <= last; c++ {
				if c > placement.Chunk((3*n-1)/placement.ChunkSize) && f[c] != 1 {
					t.Fatalf("%d-byte reads: chunk %d was fetched %d times before it was read", n, c, f[c])
				}
			}
			f.note(&r, off, n, size)
			for c := range f {
				if limit := off + uint64(n) + 2*windowMax; uint64(c)*placement.ChunkSize > limit {
					t.Fatalf("%d-byte reads: chunk %d fetched while at %d", n, c, off)
				}
			}
		}
		for c := range f {
			if c >= size/placement.ChunkSize {
				t.Errorf("%d-byte reads: chunk %d beyond the end fetched", n, c)
			}
		}
	}
}

func TestReadaheadWindowGrows(t *testing.T) {
	var r readahead
	var sizes []int
	f := fetched{}
	for off := uint64(0); off < 16<<20; off += 65536 {
		if n := f.note(&r, off, 65536, 1<<40); n > 0 {
			sizes = append(sizes, n)
		}
	}
	if len(sizes) < 5 || sizes[0] > 4 {
		t.Fatalf("windows of %v chunks", sizes)
	}
	if r.streams[0].window != windowMax {
		t.Errorf("the window ended at %d", r.streams[0].window)
	}
}

func TestReadaheadLeavesRandomReadersAlone(t *testing.T) {
	var r readahead
	f := fetched{}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10000 {
		f.note(&r, rng.Uint64N(1<<30)*4096, 4096, 1<<42)
	}
	if len(f) != 0 {
		t.Errorf("%d chunks were fetched for random reads", len(f))
	}
}

// TestReadaheadStreams: several sequential readers and a random one at once.
func TestReadaheadStreams(t *testing.T) {
	var r readahead
	f := fetched{}
	rng := rand.New(rand.NewPCG(2, 2))
	const streams = streamsMax - 2
	for i := range uint64(200) {
		for s := range uint64(streams) {
			f.note(&r, s<<40+i*16384, 16384, 1<<44)
		}
		f.note(&r, 1<<43+rng.Uint64N(1<<30)*4096, 4096, 1<<44)
	}
	for s := range uint64(streams) {
		if f[placement.Chunk(s<<24+40)] != 1 {
			t.Errorf("stream %d: chunk 40 was fetched %d times", s, f[placement.Chunk(s<<24+40)])
		}
	}
}

// TestReadaheadOutOfOrder: a queue of reads that arrive a little shuffled is
// still a stream.
func TestReadaheadOutOfOrder(t *testing.T) {
	var r readahead
	f := fetched{}
	for i := range uint64(4) {
		f.note(&r, i*4096, 4096, 1<<40)
	}
	for i := uint64(4); i < 2000; i += 4 {
		for _, k := range []uint64{1, 0, 3, 2} {
			f.note(&r, (i+k)*4096, 4096, 1<<40)
		}
	}
	for c := placement.Chunk(4); c < 120; c++ {
		if f[c] != 1 {
			t.Errorf("chunk %d was fetched %d times", c, f[c])
		}
	}
}

func TestReadaheadAtTheEndOfEverything(t *testing.T) {
	var r readahead
	f := fetched{}
	const size = math.MaxUint64 - 511
	for off := uint64(size - 40*65536); off < size; off += 4096 {
		n := min(4096, size-off)
		f.note(&r, off, int(n), size)
	}
	for c := range f {
		if c > 1<<48-1 {
			t.Errorf("chunk %d", c)
		}
	}
	if f[1<<48-1] != 1 {
		t.Errorf("the last chunk was fetched %d times", f[1<<48-1])
	}
}

// TestVolumeReadsAhead: the volume passes it on.
func TestVolumeReadsAhead(t *testing.T) {
	f := newFake(t)
	v := testVolume(f, 1<<20, 4096, false)
	for off := uint64(0); off < 1<<20; off += 65536 {
		<-read(v, off, 65536)
	}
	if n := len(f.prefetched); n < 10 || f.prefetched[n-1] != 15 {
		t.Errorf("prefetched %v", f.prefetched)
	}
}

func BenchmarkReadaheadRandom(b *testing.B) {
	var r readahead
	rng := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		r.note(rng.Uint64N(1<<30)*4096, 4096, 1<<42)
	}
}
