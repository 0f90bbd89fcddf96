package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"petal/journal/record"
	"petal/journal/vfs"
)

var testUUID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func osFS(t testing.TB) vfs.FS {
	t.Helper()
	f, err := vfs.NewOS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// small are options of a journal whose segments fill up soon.
func small(f vfs.FS) Options {
	return Options{FS: f, Dir: "journal", UUID: testUUID, Segment: segmentMin, Capacity: 16 * segmentMin}
}

func mustOpen(t testing.TB, o Options) (*Journal, *Recovery) {
	t.Helper()
	j, rec, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return j, rec
}

// fill makes r the n'th test record: its content follows from n alone.
func fill(r *Record, n uint64) *Record {
	rng := rand.New(rand.NewPCG(n, 7))
	r.Head = binary.LittleEndian.AppendUint64(r.Head[:0], n)
	for range rng.IntN(200) {
		r.Head = append(r.Head, byte(rng.Uint32()))
	}
	r.Data, r.CRC = r.Data[:0], r.CRC[:0]
	for range rng.IntN(4) {
		b := vfs.AlignedBuffer(BlockSize)
		binary.LittleEndian.PutUint64(b, n)
		binary.LittleEndian.PutUint64(b[BlockSize-8:], rng.Uint64())
		r.Data = append(r.Data, b)
		r.CRC = append(r.CRC, record.Checksum(b))
	}
	return r
}

// checkEntry compares what was read back with fill.
func checkEntry(j *Journal, e Entry, n uint64) error {
	want := fill(new(Record), n)
	if !bytes.Equal(e.Head, want.Head) {
		return fmt.Errorf("record %d: head of test record %x, want %d", e.LSN, e.Head[:min(8, len(e.Head))], n)
	}
	if e.Blocks != len(want.Data) {
		return fmt.Errorf("record %d: %d blocks, want %d", e.LSN, e.Blocks, len(want.Data))
	}
	for i, d := range want.Data {
		got := vfs.AlignedBuffer(BlockSize)
		if err := j.ReadBlocks(e.Position, i, got); err != nil {
			return err
		}
		if !bytes.Equal(got, d) {
			return fmt.Errorf("record %d: block %d differs", e.LSN, i)
		}
	}
	return nil
}

func TestAppendCloseReplay(t *testing.T) {
	f := osFS(t)
	o := small(f)
	o.Create = true
	j, _ := mustOpen(t, o)
	const n = 40
	var wg sync.WaitGroup
	var last LSN
	for i := range uint64(n) {
		r := fill(new(Record), i+1)
		wg.Add(1)
		r.Done = func(r *Record, err error) {
			if err != nil {
				t.Error(err)
			}
			if r.LSN != last+1 {
				t.Errorf("Done of %d after %d", r.LSN, last)
			}
			last = r.LSN
			wg.Done()
		}
		j.Append(r)
	}
	wg.Wait()
	if j.Durable() != n {
		t.Fatalf("durable %d, want %d", j.Durable(), n)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	o.Create = false
	j, rec := mustOpen(t, o)
	defer j.Close()
	if rec.First != 1 || rec.Last != n || rec.Cut || rec.Rotten != nil {
		t.Fatalf("recovery %+v", rec)
	}
	next := uint64(1)
	err := j.Replay(0, func(e Entry) error {
		if e.LSN != LSN(next) {
			return fmt.Errorf("LSN %d, want %d", e.LSN, next)
		}
		next++
		return checkEntry(j, e, uint64(e.LSN))
	})
	if err != nil {
		t.Fatal(err)
	}
	if next != n+1 {
		t.Fatalf("replayed %d, want %d", next-1, n)
	}
}
