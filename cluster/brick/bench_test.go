package brick

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"petal/cluster/slab"
	"petal/journal/vfs"
	"petal/placement"
)

// benchOptions are options of a brick as it is by default, without a cache.
func benchOptions(b *testing.B) Options {
	dir := b.TempDir()
	fsys, err := vfs.NewOS(dir)
	if err != nil {
		b.Fatal(err)
	}
	return Options{FS: fsys, Path: dir, Pool: slab.New(512 << 20), CapacityBytes: 8 << 30}
}

// BenchmarkWrite appends and commits records of n blocks at random places of
// 1 GiB, 64 at a time; what destage costs behind them is in the CPU time.
func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct {
		name   string
		blocks int
	}{{"4K", 1}, {"16K", 4}, {"64K", 16}} {
		b.Run(c.name, func(b *testing.B) {
			k := openBench(b)
			defer k.Close()
			b.SetBytes(int64(c.blocks) * placement.BlockSize)
			benchWrite(b, k, c.blocks, b.N)
		})
	}
}

func openBench(b *testing.B) *Brick {
	o := benchOptions(b)
	if err := Create(o, testID); err != nil {
		b.Fatal(err)
	}
	k, _, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	return k
}

func benchWrite(b *testing.B, k *Brick, n, total int) {
	rng := rand.New(rand.NewPCG(1, 1))
	free := make(chan *Record, 64)
	for range cap(free) {
		r := record(k, rng, placement.Key{Family: 1, Node: 1}, placement.Span(0, n), Write)
		r.Done = func(r *Record, err error) {
			if err != nil {
				b.Error(err)
			}
			k.Commit(r)
			free <- r
		}
		free <- r
	}
	b.ResetTimer()
	for range total {
		r := <-free
		r.Key.Chunk = placement.Chunk(rng.IntN(1 << 14))
		r.Mask = placement.Span(rng.IntN(placement.BlocksPerChunk/n)*n, n)
		r.Bucket = placement.BucketOf(1, r.Key.Chunk)
		if err := k.Append(r); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(free) {
		<-free
	}
	b.StopTimer()
}

// BenchmarkDestage takes random 4 KiB blocks home.
func BenchmarkDestage(b *testing.B) {
	o := benchOptions(b)
	o.Manual, o.PendingBytes = true, 1<<30
	if err := Create(o, testID); err != nil {
		b.Fatal(err)
	}
	k, _, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	const batch = 1 << 14
	for done := 0; done < b.N; done += batch {
		b.StopTimer()
		benchFill(b, k, min(batch, b.N-done))
		b.StartTimer()
		for k.StepDestage(0) {
		}
		if err := k.StepFlushMap(); err != nil {
			b.Fatal(err)
		}
	}
}

// benchFill journals and commits n random blocks of a Manual brick.
func benchFill(b *testing.B, k *Brick, n int) {
	rng := rand.New(rand.NewPCG(2, 2))
	var records []*Record
	for range n {
		r := record(k, rng, placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(rng.IntN(1 << 14))}, placement.Span(rng.IntN(16), 1), Write)
		r.Done = func(r *Record, err error) {
			if err != nil {
				b.Error(err)
			}
			k.Commit(r)
			r.Buf.Release()
		}
		if err := k.Append(r); err != nil {
			b.Fatal(err)
		}
		if records = append(records, r); len(records)%64 == 0 {
			for k.Step() {
			}
		}
	}
	for k.Step() {
	}
}

// BenchmarkRead reads random 4 KiB blocks from their homes.
func BenchmarkRead(b *testing.B) {
	k := openBench(b)
	defer k.Close()
	benchWrite(b, k, 16, 1<<14)
	if err := k.drainIdle(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(placement.BlockSize)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 9))
			done := make(chan struct{}, 1)
			op := &ReadOp{Family: 1, Lineage: []placement.Node{1}, Count: 1, Done: func(*ReadOp) { done <- struct{}{} }}
			for range (b.N + 15) / 16 {
				op.Chunk, op.First = placement.Chunk(rng.IntN(1<<14)), rng.IntN(16)
				k.Read(op)
				<-done
				if op.Err != nil {
					b.Error(op.Err)
				}
				op.Bufs.Release()
			}
		})
	}
	wg.Wait()
}

// drainIdle waits until nothing is on its way home.
func (b *Brick) drainIdle() error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for b.Stats().PendingChunks > 0 && b.Failed() == nil {
		b.kickDestage()
		<-tick.C
	}
	return b.Failed()
}

// BenchmarkRecovery opens a brick whose journal of 1 GiB is full of 4 KiB
// records, none of them at home yet. It should stay under 3 s.
func BenchmarkRecovery(b *testing.B) {
	o := benchOptions(b)
	o.Manual, o.PendingBytes = true, 1
	if err := Create(o, testID); err != nil {
		b.Fatal(err)
	}
	k, _, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	for used, capacity := k.JournalFill(); used < capacity/100*85; used, capacity = k.JournalFill() {
		benchFill(b, k, 1<<12)
	}
	kill(k)
	b.ResetTimer()
	for range b.N {
		k, rec, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(rec.Replayed), "records")
		b.ReportMetric(rec.Took.Seconds(), "s/open")
		b.StopTimer()
		kill(k)
		b.StartTimer()
	}
}

// kill lets go of a brick without destaging anything.
func kill(b *Brick) {
	b.journal.Close()
	b.pmap.close()
	b.closeFiles()
}
