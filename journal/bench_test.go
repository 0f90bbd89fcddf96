package journal

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"petal/journal/record"
	"petal/journal/vfs"
)

// BenchmarkGroupCommit appends records of 4 KiB by a number of writers, each
// waiting for its own, to a real file under the directory for temporary files.
func BenchmarkGroupCommit(b *testing.B) {
	for _, writers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) { groupCommit(b, writers) })
	}
}

func groupCommit(b *testing.B, writers int) {
	sys := osFS(b)
	j, _ := mustOpen(b, Options{FS: sys, Dir: "journal", UUID: testUUID, Create: true, Capacity: 512 << 20})
	data := vfs.AlignedBuffer(BlockSize)
	crc := []uint32{record.Checksum(data)}
	head := make([]byte, 128)
	times := make([]time.Duration, b.N)
	b.ReportAllocs()
	b.SetBytes(BlockSize)
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			done := make(chan error, 1)
			r := &Record{Head: head, Data: [][]byte{data}, CRC: crc, Done: func(r *Record, err error) {
				if r.LSN%512 == 0 {
					j.Trim(r.LSN)
				}
				done <- err
			}}
			for i := w; i < b.N; i += writers {
				begin := time.Now()
				j.Append(r)
				if err := <-done; err != nil {
					b.Error(err)
					return
				}
				times[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-us")
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOpen recovers a full journal of 256 MiB.
func BenchmarkOpen(b *testing.B) {
	o := Options{FS: osFS(b), Dir: "journal", UUID: testUUID, Create: true, Capacity: 256 << 20}
	j, _ := mustOpen(b, o)
	data := vfs.AlignedBuffer(BlockSize)
	crc := []uint32{record.Checksum(data)}
	var wg sync.WaitGroup
	for {
		if used, capacity := j.Fill(); used > capacity-1<<20 {
			break
		}
		for range 64 {
			wg.Add(1)
			j.Append(&Record{Head: make([]byte, 128), Data: [][]byte{data}, CRC: crc, Done: func(*Record, error) { wg.Done() }})
		}
		wg.Wait()
	}
	o.Create = false
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(o.Capacity)
	for b.Loop() {
		j, _ := mustOpen(b, o)
		if err := j.Replay(0, func(Entry) error { return nil }); err != nil {
			b.Fatal(err)
		}
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// In the steady state nothing is allocated, whatever a record carries.
func TestAppendDoesNotAllocate(t *testing.T) {
	j := created(t, osFS(t), func(o *Options) { o.Manual, o.Segment, o.Capacity = true, 4<<20, 16<<20 })
	data := vfs.AlignedBuffer(4 * BlockSize)
	done := 0
	recs := make([]Record, 8)
	for i := range recs {
		recs[i] = Record{
			Head: make([]byte, 128), Data: [][]byte{data[:BlockSize], data[BlockSize : 3*BlockSize]},
			CRC: make([]uint32, 3), Done: func(*Record, error) { done++ },
		}
	}
	group := func() {
		for i := range recs {
			j.Append(&recs[i])
		}
		j.Commit()
	}
	group()
	// As many as one segment takes: what the runtime allocates for itself meanwhile is
	// less than one in each.
	if n := testing.AllocsPerRun(30, group); n != 0 {
		t.Errorf("a group of %d records allocates %v times", len(recs), n)
	}
	if done == 0 || j.Err() != nil {
		t.Fatal(done, j.Err())
	}
}
