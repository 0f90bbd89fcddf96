package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// manyRequests makes n requests of one to three parts each that do not overlap,
// in random order, and what the file is to hold after them.
func manyRequests(f File, n int) (rs []Request, want []byte) {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for range n {
		r := Request{File: f, Off: int64(len(want))}
		for range 1 + rng.IntN(3) {
			part := AlignedBuffer((1 + rng.IntN(2)) * BlockSize)
			for i := range part {
				part[i] = byte(rng.Uint32())
			}
			r.Vec = append(r.Vec, part)
			want = append(want, part...)
		}
		rs = append(rs, r)
	}
	rng.Shuffle(n, func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
	return rs, want
}

func newOS(t *testing.T, make func(string) (*OS, error)) *OS {
	t.Helper()
	o, err := make(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func create(t *testing.T, o FS, name string, how Mode) File {
	t.Helper()
	f, err := o.Create(name, how)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// withoutAIO runs f as if the kernel gave no context.
func withoutAIO(f func()) {
	contexts.Lock()
	first, none := contexts.first, contexts.none
	contexts.first, contexts.none = nil, true
	contexts.Unlock()
	f()
	contexts.Lock()
	contexts.first, contexts.none = first, none
	contexts.Unlock()
}

// TestWriteMany: in each way of doing it, every part ends where it belongs.
func TestWriteMany(t *testing.T) {
	memory := create(t, NewMemory(64<<20), "f", Direct)
	buffered := create(t, newOS(t, NewBuffered), "f", Direct)
	direct := create(t, newOS(t, NewOS), "f", Direct)
	for _, n := range []int{0, 1, 2, manyDepth, manyDepth + 1, 10 * manyDepth} {
		check := func(name string, f File) {
			rs, want := manyRequests(f, n)
			if err := WriteMany(rs); err != nil {
				t.Errorf("%s, %d requests: %v", name, n, err)
			}
			got := AlignedBuffer(len(want))
			if len(want) > 0 {
				if _, err := f.ReadAt(got, 0); err != nil {
					t.Errorf("%s, %d requests: reading: %v", name, n, err)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %d requests did not all get where they belong", name, n)
			}
		}
		check("memory", memory)
		check("buffered", buffered)
		check("direct", direct)
		withoutAIO(func() { check("direct without AIO", direct) })
	}
	if a := takeContext(); a == nil {
		t.Log("the kernel gives no AIO here")
	} else {
		defer a.giveBack()
		if len(a.free) != manyDepth {
			t.Errorf("%d of %d slots are free afterwards", len(a.free), manyDepth)
		}
	}
}

// TestWriteManyErrors: what is wrong is named, wherever it is in the row, and
// nothing is under way any more.
func TestWriteManyErrors(t *testing.T) {
	o := newOS(t, NewOS)
	strict := strict(t, o.root)
	for _, at := range []int{0, 1, manyDepth, 3*manyDepth - 1} {
		check := func() {
			f := create(t, o, "f", Direct)
			defer o.Remove("f")
			closed := create(t, o, "closed", Direct)
			defer o.Remove("closed")
			unix.Close(closed.(*osFile).fd)
			closed.(*osFile).fd = 1 << 20 // nobody else's
			rs, _ := manyRequests(f, 3*manyDepth)
			rs[at].File = closed
			var path *fs.PathError
			if err := WriteMany(rs); !errors.Is(err, unix.EBADF) || !errors.As(err, &path) || path.Path != closed.(*osFile).path {
				t.Errorf("file %d is closed: %v", at, err)
			}
			if !strict {
				return
			}
			rs, _ = manyRequests(f, 3*manyDepth)
			rs[at].Off++ // refused by the device
			if err := WriteMany(rs); !errors.Is(err, unix.EINVAL) {
				t.Errorf("request %d is not aligned: %v", at, err)
			}
		}
		check()
		withoutAIO(check)
	}
	if a := takeContext(); a != nil {
		defer a.giveBack()
		if len(a.free) != manyDepth {
			t.Errorf("%d of %d slots are free afterwards", len(a.free), manyDepth)
		}
	}
}

// TestWriteManyParts: more parts than one system call takes are written too.
func TestWriteManyParts(t *testing.T) {
	f := create(t, newOS(t, NewOS), "f", Direct)
	block := AlignedBuffer(BlockSize)
	block[7] = 7
	rs := make([]Request, 2)
	for i := range rs {
		rs[i] = Request{File: f, Off: int64(i) * (iovMax + 1) * BlockSize}
		for range iovMax + 1 {
			rs[i].Vec = append(rs[i].Vec, block)
		}
	}
	if err := WriteMany(rs); err != nil {
		t.Fatal(err)
	}
	got := AlignedBuffer(2 * (iovMax + 1) * BlockSize)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat(block, 2*(iovMax+1))) {
		t.Errorf("not all is there: %v", err)
	}
}

// TestWriteManyAllocates nothing once there is a context whose slots have all had
// requests of as many parts: which slot gets which depends on the order in which
// the disk does them.
func TestWriteManyAllocates(t *testing.T) {
	a := takeContext()
	if a == nil {
		t.Log("the kernel gives no AIO here")
		return
	}
	a.giveBack()
	f := create(t, newOS(t, NewOS), "f", Direct)
	rs, _ := manyRequests(f, 3*manyDepth)
	for i := range rs {
		r := &rs[i]
		r.Vec = [][]byte{AlignedBuffer(BlockSize), AlignedBuffer(BlockSize), AlignedBuffer(BlockSize)}
		r.Off = int64(i) * 3 * BlockSize
	}
	// So many runs that what the runtime itself allocates meanwhile, a garbage
	// collection's workers for example, is less than one in each.
	if n := testing.AllocsPerRun(50, func() {
		if err := WriteMany(rs); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWriteMany(b *testing.B) {
	o, err := NewOS(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	f, err := o.Create("f", Direct)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const n = 256
	block := AlignedBuffer(BlockSize)
	rs := make([]Request, n)
	for i := range rs {
		rs[i] = Request{File: f, Off: int64(i) * 3 * BlockSize, Vec: [][]byte{block}}
	}
	b.SetBytes(BlockSize)
	for range (b.N + n - 1) / n {
		if err := WriteMany(rs); err != nil {
			b.Fatal(err)
		}
	}
}
