package brick

import (
	"bytes"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
	"testing"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/journal/vfs"
	"petal/placement"
)

var testID = Identity{Cluster: [16]byte{1}, Brick: [16]byte{2}, Server: 3}

// realOptions are options of a brick in a temporary directory.
func realOptions(t testing.TB) Options {
	dir := t.TempDir()
	fsys, err := vfs.NewOS(dir)
	if err != nil {
		t.Fatal(err)
	}
	pool := slab.New(256 << 20)
	return Options{FS: fsys, Path: dir, Pool: pool, Cache: cache.New(pool, 16<<20), JournalBytes: 16 << 20, SegmentBytes: 1 << 20, CapacityBytes: 1 << 30}
}

func openNew(t testing.TB, o Options) *Brick {
	t.Helper()
	if err := Create(o, testID); err != nil {
		t.Fatal(err)
	}
	return reopen(t, o)
}

func reopen(t testing.TB, o Options) *Brick {
	t.Helper()
	b, _, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// record makes a write of random data, or a zero.
func record(b *Brick, rng *rand.Rand, k placement.Key, m placement.Mask, kind Kind) *Record {
	r := &Record{Kind: kind, Key: k, Mask: m, Bucket: placement.BucketOf(k.Family, k.Chunk)}
	if kind == Zero {
		return r
	}
	n := bits.OnesCount16(uint16(m))
	r.Buf = b.o.Pool.Get(n * placement.BlockSize)
	for i := range n {
		d := block(r.Buf.Bytes(), i)
		x := rng.Uint64()
		for j := 0; j < len(d); j += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			copy(d[j:], []byte{byte(x), byte(x >> 8), byte(x >> 16), byte(x >> 24), byte(x >> 32), byte(x >> 40), byte(x >> 48), byte(x >> 56)})
		}
		r.Sum[i] = crc32.Checksum(d, castagnoli)
	}
	return r
}

// write appends and commits a record and waits for it.
func write(t testing.TB, b *Brick, r *Record) {
	t.Helper()
	done := make(chan error, 1)
	r.Done = func(r *Record, err error) {
		if err == nil {
			b.Commit(r)
		}
		done <- err
	}
	if err := b.Append(r); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// read reads a whole chunk.
func read(b *Brick, f placement.Family, lineage []placement.Node, c placement.Chunk) ([]byte, error) {
	done := make(chan struct{})
	op := &ReadOp{Family: f, Lineage: lineage, Chunk: c, Count: placement.BlocksPerChunk, Done: func(*ReadOp) { close(done) }}
	b.Read(op)
	<-done
	var data []byte
	for _, r := range op.Bufs {
		data = append(data, r.Bytes()...)
	}
	op.Bufs.Release()
	return data, op.Err
}

func TestWriteReadReopen(t *testing.T) {
	o := realOptions(t)
	b := openNew(t, o)
	rng := rand.New(rand.NewPCG(1, 2))
	k := placement.Key{Family: 1, Node: 1, Chunk: 7}
	want := make([]byte, placement.ChunkSize)
	put := func(m placement.Mask, kind Kind) {
		r := record(b, rng, k, m, kind)
		write(t, b, r)
		for i, n := 0, 0; i < placement.BlocksPerChunk; i++ {
			if m>>i&1 == 0 {
				continue
			}
			if kind == Zero {
				clear(block(want, i))
			} else {
				copy(block(want, i), block(r.Buf.Bytes(), n))
			}
			n++
		}
	}
	check := func(when string) {
		t.Helper()
		got, err := read(b, 1, []placement.Node{1}, 7)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %v, equal %v", when, err, bytes.Equal(got, want))
		}
	}
	for _, step := range []struct {
		mask placement.Mask
		kind Kind
	}{{placement.Span(3, 2), Write}, {placement.Full, Write}, {placement.Span(0, 1) | placement.Span(9, 4), Write}, {placement.Span(1, 3), Zero}, {placement.Span(2, 1), Write}} {
		put(step.mask, step.kind)
		check("after commit")
		o.Cache.DropFamily(1)
		check("without cache")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = reopen(t, o)
		o.Cache.DropFamily(1)
		check("after reopen")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
