package brick

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"petal/placement"
)

// TestFull: on a full brick writes that allocate fail with ENOSPC, exactly;
// overwrites, whole chunks too, and reads go on; zeros make room again.
func TestFull(t *testing.T) {
	const chunks = 40
	g := newRig(11, func(o *Options) { o.CapacityBytes = chunks * extentSize })
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	put := func(c int, m placement.Mask, kind Kind) error {
		return g.append(&modelRecord{r: &Record{Kind: kind, Key: placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(c)}}, mask: m})
	}
	settle := func() {
		t.Helper()
		if err := g.settleAll(); err != nil {
			t.Fatal(err)
		}
	}
	for c := range chunks { // half by journal, half straight to extents
		m := placement.Full
		if c%2 == 0 {
			m = placement.Span(c%16, 1)
		}
		if err := put(c, m, Write); err != nil {
			t.Fatalf("chunk %d of %d: %v", c, chunks, err)
		}
	}
	for _, settled := range []bool{false, true} {
		if settled {
			settle()
		}
		for _, m := range []placement.Mask{1, placement.Full} {
			if err := put(chunks, m, Write); err != syscall.ENOSPC {
				t.Fatalf("settled %v: one chunk too many: %v, want ENOSPC", settled, err)
			}
		}
		for c := range chunks {
			for _, m := range []placement.Mask{placement.Span(c%16, 1), placement.Full, placement.Span(3, 9)} {
				if !settled && m == placement.Full {
					continue
				}
				if err := put(c, m, Write); err != nil {
					t.Fatalf("settled %v: overwrite %#x of chunk %d: %v", settled, m, c, err)
				}
				for g.b.Step() { // the journal is small
				}
			}
			g.b.StepDestage(0)
			if err := g.b.StepFlushMap(); err != nil {
				t.Fatal(err)
			}
			if err := g.verify(1, placement.Chunk(c)); err != nil {
				t.Fatal(err)
			}
		}
	}
	settle()
	if used, avail, total := g.b.Space(); used != chunks*extentSize || avail != 0 || total != used {
		t.Errorf("full: used %d available %d total %d", used, avail, total)
	}
	if err := put(chunks, 1, Write); err != syscall.ENOSPC {
		t.Fatalf("one chunk too many: %v, want ENOSPC", err)
	}
	for c := range 3 {
		if err := put(c, placement.Full, Zero); err != nil {
			t.Fatalf("zero on a full brick: %v", err)
		}
	}
	settle()
	if used, avail, _ := g.b.Space(); used != (chunks-3)*extentSize || avail != 3*extentSize {
		t.Errorf("three chunks zeroed: used %d available %d", used, avail)
	}
	for c := range 3 {
		if err := put(chunks+c, placement.Full, Write); err != nil {
			t.Fatalf("write into the room that was made: %v", err)
		}
	}
	settle()
	if err := g.audit(); err != nil {
		t.Error(err)
	}
}

// TestFileSystemFull: the same when it is the file system that is full, by
// somebody else's doing.
func TestFileSystemFull(t *testing.T) {
	g := newRig(12, func(o *Options) { o.CapacityBytes = 0 })
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	for c := range placement.Chunk(200) { // so that the journal has its segments
		if err := g.append(&modelRecord{r: &Record{Key: placement.Key{Family: 1, Node: 1, Chunk: c % 20}}, mask: 0xff}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.settleAll(); err != nil {
		t.Fatal(err)
	}
	other, err := g.mem.Create("data.other", 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(64 << 20); n >= 4096; n /= 2 {
		for off := int64(0); other.Allocate(off, n, false) == nil; off += n {
			size, _ := other.Size()
			off = size - n
			if avail, _, _ := g.mem.Free(); avail < 4096 {
				break
			}
			off = max(off, 0)
		}
	}
	full := false
	for c := range placement.Chunk(1 << 14) {
		err := g.append(&modelRecord{r: &Record{Key: placement.Key{Family: 1, Node: 1, Chunk: c}}, mask: 1})
		for g.b.Step() {
		}
		if full = err == syscall.ENOSPC; full {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if c%64 == 0 {
			if err := g.settleAll(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := g.settleAll(); err != nil || !full || g.b.Failed() != nil {
		t.Fatalf("%v, full %v, failed %v", err, full, g.b.Failed())
	}
}

// TestPunch: space that is zeroed goes back to the file system, for real.
func TestPunch(t *testing.T) {
	o := realOptions(t)
	b := openNew(t, o)
	defer func() { b.Close() }()
	rng := rand.New(rand.NewPCG(1, 1))
	const chunks = 2000
	for _, kind := range []Kind{Write, Zero} {
		before := diskBytes(t, o.Path) // with what an open brick has ahead of need
		var wg sync.WaitGroup
		for c := range placement.Chunk(chunks) {
			r := record(b, rng, placement.Key{Family: 1, Node: 1, Chunk: c}, placement.Full, kind)
			wg.Add(1)
			r.Done = func(r *Record, err error) {
				if err != nil {
					t.Error(err)
				}
				b.Commit(r)
				if r.Buf != nil {
					r.Buf.Release()
				}
				wg.Done()
			}
			if err := b.Append(r); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		after := diskBytes(t, o.Path)
		if kind == Write && after < chunks*extentSize {
			t.Errorf("%d chunks take only %d bytes", chunks, after)
		}
		if kind == Zero && before-after < (chunks-stepExtents)*extentSize {
			t.Errorf("zeroing %d chunks gave back %d bytes", chunks, before-after)
		}
		b = reopen(t, o)
	}
}

// diskBytes is the space that the data files take on the disk.
func diskBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "data/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return n
}

// TestReadersAgainstDestage: readers, writers, zeros and destage all at once on
// a few chunks. A reader sees each record whole: all blocks of a chunk carry one
// number here, and it never goes back.
func TestReadersAgainstDestage(t *testing.T) {
	o := realOptions(t)
	o.DestageAge = time.Millisecond
	o.PendingBytes = 256 << 10
	o.CapacityBytes = 24 * extentSize // extents are reused at once
	b := openNew(t, o)
	defer b.Close()
	const chunks = 4
	records := uint64(1500)
	if testing.Short() {
		records = 500
	}
	var last [chunks]atomic.Uint64 // number of the last record committed
	var stop atomic.Bool
	var wg sync.WaitGroup
	for c := range chunks {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 3))
			for id := uint64(1); id <= records; id++ {
				k := placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(c)}
				r := numbered(b, k, id, rng.IntN(3) == 0)
				done := make(chan error, 1)
				r.Done = func(r *Record, err error) {
					if err == nil {
						b.Commit(r)
						last[c].Store(id)
					}
					done <- err
				}
				if err := b.Append(r); err != nil {
					t.Errorf("append: %v", err)
					return
				}
				r.Buf.Release()
				if err := <-done; err != nil {
					t.Error(err)
					return
				}
				if rng.IntN(8) == 0 {
					b.kickDestage()
				}
			}
		})
	}
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 4))
			for !stop.Load() {
				if rng.IntN(3) == 0 {
					o.Cache.DropFamily(1)
				}
				checkNumbered(t, b, rng.IntN(chunks), &last)
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	readers.Wait()
	if n := b.Stats().BadBlocks; n != 0 {
		t.Errorf("%d bad blocks were seen", n)
	}
}

// numbered makes a write of a chunk, or of its even blocks and then a rest that
// is written in the same record, all carrying one number.
func numbered(b *Brick, k placement.Key, id uint64, part bool) *Record {
	m := placement.Full
	if part { // journalled, and destaged in place
		m = placement.Full &^ 1
	}
	r := &Record{Key: k, Mask: m, Bucket: placement.BucketOf(k.Family, k.Chunk)}
	r.Buf = b.o.Pool.Get(blocks(m) * placement.BlockSize)
	for i := range blocks(m) {
		fill(block(r.Buf.Bytes(), i), id)
		r.Sum[i] = checksum(block(r.Buf.Bytes(), i))
	}
	return r
}

func checkNumbered(t *testing.T, b *Brick, c int, last *[4]atomic.Uint64) {
	before := last[c].Load()
	data, err := read(b, 1, []placement.Node{1}, placement.Chunk(c))
	if err != nil {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("read: %v", err)
		}
		return
	}
	first, ok := identify(block(data, 1))
	if !ok || first < before {
		t.Errorf("chunk %d: block 1 holds %d (sound: %v), %d was committed before", c, first, ok, before)
	}
	for i := 2; i < placement.BlocksPerChunk; i++ {
		if id, ok := identify(block(data, i)); !ok || id != first {
			t.Errorf("chunk %d: block %d holds %d (sound: %v), block 1 holds %d", c, i, id, ok, first)
		}
	}
}
