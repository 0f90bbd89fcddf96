package cluster

import (
	"testing"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/journal/vfs"
)

// BenchmarkOnDisk is a volume on a brick in a temporary directory, 32 commands
// in flight: what a node does without iSCSI in front.
func BenchmarkOnDisk(b *testing.B) {
	dir := b.TempDir()
	fsys, err := vfs.NewOS(dir)
	if err != nil {
		b.Fatal(err)
	}
	pool := slab.New(512 << 20)
	o := brick.Options{FS: fsys, Path: dir, Pool: pool, Cache: cache.New(pool, 128<<20), JournalBytes: 256 << 20, CapacityBytes: 4 << 30}
	if err := brick.Create(o, brick.Identity{Cluster: [16]byte{1}, Brick: [16]byte{2}, Server: 1}); err != nil {
		b.Fatal(err)
	}
	m := openMemoryBrick(b, o)
	defer m.Close()
	v := m.volume(1<<30, 512, false)
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
