package cluster

import (
	"context"
	"testing"
)

// BenchmarkOnDisk is a volume on a brick in a temporary directory, 32 commands
// in flight: what a node does without iSCSI in front.
func BenchmarkOnDisk(b *testing.B) {
	dir := b.TempDir()
	n, err := Open(Options{Dir: dir + "/node", Name: "n1", CacheBytes: 128 << 20, MemoryBytes: 384 << 20,
		Bricks: []BrickOptions{{Path: dir + "/brick", Journal: 256 << 20, Capacity: 4 << 30}}})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close(context.Background())
	d, err := n.CreateDisk(b.Context(), DiskSpec{Name: "data", Size: 1 << 30, BlockSize: 512})
	if err != nil {
		b.Fatal(err)
	}
	v, err := n.Volume(d.ID)
	if err != nil {
		b.Fatal(err)
	}
	const hot = 64 << 20 // fits in the cache
	for off := uint64(0); off < hot; off += 1 << 20 {
		if err := <-write(v, off, pattern(off, 1<<20), false); err != nil {
			b.Fatal(err)
		}
	}
	for _, x := range []struct {
		name string
		n    int
		op   func(v *Volume, off uint64, n int, loan *any, got func([][]byte, any, error), room chan struct{}, wrote func(error))
	}{{"cached read4k", 4096, readOnce}, {"write4k", 4096, writeOnce}, {"write64k", 65536, writeOnce}} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(x.n))
			var loan any
			got := func(_ [][]byte, l any, err error) {
				if err != nil {
					b.Error(err)
				}
				loan = l
			}
			room := make(chan struct{}, 32)
			wrote := func(err error) {
				if err != nil {
					b.Error(err)
				}
				<-room
			}
			off := uint64(0)
			for b.Loop() {
				x.op(v, off, x.n, &loan, got, room, wrote)
				off = (off + 7919*uint64(x.n)) % hot
			}
			for range cap(room) {
				room <- struct{}{}
			}
		})
	}
}
