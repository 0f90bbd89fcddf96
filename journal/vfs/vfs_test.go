package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// systems are all file systems that must behave alike.
func systems(t *testing.T) map[string]FS {
	t.Helper()
	direct, err := NewOS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	buffered, err := NewBuffered(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]FS{
		"os": direct, "os buffered": buffered, "memory": NewMemory(64 << 20),
		"fault": NewFault(NewMemory(64<<20), nil, 1),
	}
}

func each(t *testing.T, f func(*testing.T, FS)) {
	for name, sys := range systems(t) {
		t.Run(name, func(t *testing.T) { f(t, sys) })
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// pattern returns n aligned bytes that are all b.
func pattern(n int, b byte) []byte {
	p := AlignedBuffer(n)
	for i := range p {
		p[i] = b
	}
	return p
}

func TestNames(t *testing.T) {
	each(t, func(t *testing.T, sys FS) {
		check(t, sys.MkdirAll("a/b"))
		check(t, sys.MkdirAll("a/b"))
		f, err := sys.Create("a/b/one", 0)
		check(t, err)
		check(t, f.Close())
		_, err = sys.Create("a/b/one", 0)
		wantErr(t, err, fs.ErrExist)
		_, err = sys.Create("a/none/one", 0)
		wantErr(t, err, fs.ErrNotExist)
		_, err = sys.Open("a/b/two", 0)
		wantErr(t, err, fs.ErrNotExist)
		_, err = sys.Open("../x", 0)
		wantErr(t, err, fs.ErrInvalid)
		check(t, sys.Rename("a/b/one", "a/b/two"))
		check(t, sys.SyncDir("a/b"))
		wantErr(t, sys.Rename("a/b/one", "a/b/two"), fs.ErrNotExist)
		names, err := sys.List("a/b")
		check(t, err)
		if len(names) != 1 || names[0] != "two" {
			t.Fatalf("names %q", names)
		}
		info, err := sys.Stat("a/b/two")
		check(t, err)
		if info.Size() != 0 || info.IsDir() || info.Name() != "two" {
			t.Fatalf("info %v", info)
		}
		if err := sys.Remove("a/b"); err == nil {
			t.Fatal("removed a directory that is not empty")
		}
		check(t, sys.Remove("a/b/two"))
		wantErr(t, sys.Remove("a/b/two"), fs.ErrNotExist)
		check(t, sys.Remove("a/b"))
		_, err = sys.List("a/b")
		wantErr(t, err, fs.ErrNotExist)
	})
}

func TestReadWrite(t *testing.T) {
	each(t, func(t *testing.T, sys FS) {
		f, err := sys.Create("f", Direct|DSync)
		check(t, err)
		defer f.Close()
		vec := [][]byte{pattern(4096, 1), pattern(8192, 2), nil, pattern(4096, 3)}
		n, err := f.WriteVec(vec, 4096)
		check(t, err)
		if n != 16384 {
			t.Fatalf("wrote %d", n)
		}
		size, err := f.Size()
		check(t, err)
		if size != 20480 {
			t.Fatalf("size %d", size)
		}
		got := AlignedBuffer(20480)
		_, err = f.ReadAt(got, 0)
		check(t, err)
		want := append(append(append(pattern(4096, 0), pattern(4096, 1)...), pattern(8192, 2)...), pattern(4096, 3)...)
		if !bytes.Equal(got, want) {
			t.Fatal("read differs from written")
		}
		parts := [][]byte{AlignedBuffer(4096), AlignedBuffer(12288)}
		n, err = f.ReadVec(parts, 4096)
		check(t, err)
		if n != 16384 || !bytes.Equal(parts[0], want[4096:8192]) || !bytes.Equal(parts[1], want[8192:]) {
			t.Fatal("ReadVec differs from written")
		}
		n, err = f.ReadAt(AlignedBuffer(8192), 16384)
		if n != 4096 || err != io.EOF {
			t.Fatalf("at the end: %d, %v", n, err)
		}
		n, err = f.ReadVec([][]byte{AlignedBuffer(4096), AlignedBuffer(4096)}, 16384)
		if n != 4096 || err != io.EOF {
			t.Fatalf("vector at the end: %d, %v", n, err)
		}
		n, err = f.ReadAt(AlignedBuffer(4096), 1<<20)
		if n != 0 || err != io.EOF {
			t.Fatalf("beyond the end: %d, %v", n, err)
		}
		check(t, f.Sync())
	})
}

func TestWriteVecOfManyParts(t *testing.T) {
	each(t, func(t *testing.T, sys FS) {
		f, err := sys.Create("f", Direct)
		check(t, err)
		defer f.Close()
		var vec [][]byte
		for i := range 2500 {
			vec = append(vec, pattern(4096, byte(i)))
		}
		n, err := f.WriteVec(vec, 0)
		check(t, err)
		if n != 2500*4096 {
			t.Fatalf("wrote %d", n)
		}
		back := AlignedBuffer(n)
		_, err = f.ReadAt(back, 0)
		check(t, err)
		for i := range 2500 {
			if back[i*4096] != byte(i) || back[i*4096+4095] != byte(i) {
				t.Fatalf("block %d differs", i)
			}
		}
	})
}

func TestSpace(t *testing.T) {
	each(t, func(t *testing.T, sys FS) {
		f, err := sys.Create("f", 0)
		check(t, err)
		defer f.Close()
		check(t, f.Allocate(0, 1<<20, true))
		if size, _ := f.Size(); size != 0 {
			t.Fatalf("size %d", size)
		}
		check(t, f.Allocate(0, 1<<20, false))
		if size, _ := f.Size(); size != 1<<20 {
			t.Fatalf("size %d", size)
		}
		_, err = f.WriteAt(pattern(16384, 9), 4096)
		check(t, err)
		if err := f.Punch(8192, 4096); !errors.Is(err, errors.ErrUnsupported) {
			check(t, err)
			got := make([]byte, 16384)
			_, err = f.ReadAt(got, 4096)
			check(t, err)
			want := pattern(16384, 9)
			clear(want[4096:8192])
			if !bytes.Equal(got, want) {
				t.Fatal("punched the wrong bytes")
			}
		}
		check(t, f.Truncate(6000))
		check(t, f.Truncate(10000))
		got := make([]byte, 10000)
		_, err = f.ReadAt(got, 0)
		check(t, err)
		want := append(append(make([]byte, 4096), pattern(6000-4096, 9)...), make([]byte, 4000)...)
		if !bytes.Equal(got, want) {
			t.Fatal("what was cut off came back")
		}
		avail, total, err := sys.Free()
		check(t, err)
		if avail == 0 || avail > total {
			t.Fatalf("free %d of %d", avail, total)
		}
	})
}

func TestLockRefusesTheSecond(t *testing.T) {
	each(t, func(t *testing.T, sys FS) {
		first, err := sys.Lock("lock")
		check(t, err)
		_, err = sys.Lock("lock")
		wantErr(t, err, ErrLocked)
		check(t, first.Close())
		again, err := sys.Lock("lock")
		check(t, err)
		check(t, again.Close())
	})
}

// strict reports whether the kernel itself refuses what is not aligned in files of
// a directory that bypass the page cache. On tmpfs there is nothing to refuse it.
func strict(t *testing.T, dir string) bool {
	t.Helper()
	fd, err := unix.Open(filepath.Join(dir, "strict"), unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Logf("%s has no O_DIRECT: %v", dir, err)
		return false
	}
	defer os.Remove(filepath.Join(dir, "strict"))
	defer unix.Close(fd)
	if _, err = unix.Pwrite(fd, AlignedBuffer(BlockSize), 100); err == nil {
		t.Logf("%s takes with O_DIRECT what is not aligned", dir)
	}
	return err != nil
}

func TestDirectIsStrict(t *testing.T) {
	dir := t.TempDir()
	disk, err := NewOS(dir)
	check(t, err)
	memory := NewMemory(1 << 20)
	list := []FS{memory}
	if strict(t, dir) {
		list = append(list, disk)
	}
	for _, sys := range list {
		f, err := sys.Create("f", Direct)
		check(t, err)
		_, err = f.WriteAt(AlignedBuffer(8192)[1:4097], 0)
		wantErr(t, err, syscall.EINVAL)
		_, err = f.WriteAt(AlignedBuffer(4096)[:100], 0)
		wantErr(t, err, syscall.EINVAL)
		_, err = f.WriteAt(AlignedBuffer(4096), 100)
		wantErr(t, err, syscall.EINVAL)
	}
	memory.SetDirect(false)
	f, err := memory.Open("f", Direct)
	check(t, err)
	if _, err = f.WriteAt(make([]byte, 100), 100); err != nil || memory.Direct() {
		t.Fatalf("without O_DIRECT: %v", err)
	}
}

// A file of the OS must carry the flags it was opened for, and no O_DIRECT where
// there is none.
func TestOSFlags(t *testing.T) {
	for _, open := range []func(string) (*OS, error){NewOS, NewBuffered} {
		sys, err := open(t.TempDir())
		check(t, err)
		f, err := sys.Create("f", Direct|DSync)
		check(t, err)
		flags, err := unix.FcntlInt(uintptr(f.(*osFile).fd), unix.F_GETFL, 0)
		check(t, err)
		if flags&unix.O_DSYNC == 0 {
			t.Error("no O_DSYNC")
		}
		if have := flags&unix.O_DIRECT != 0; have != sys.Direct() {
			t.Errorf("O_DIRECT %v, want %v", have, sys.Direct())
		}
		check(t, f.Close())
	}
}

func TestProbeLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	_, err := NewOS(dir)
	check(t, err)
	left, err := os.ReadDir(dir)
	check(t, err)
	if len(left) != 0 {
		t.Fatalf("left %v", left)
	}
	_, err = NewOS(filepath.Join(dir, "none"))
	wantErr(t, err, fs.ErrNotExist)
}

func TestCallsDoNotAllocate(t *testing.T) {
	sys, err := NewOS(t.TempDir())
	check(t, err)
	f, err := sys.Create("f", Direct)
	check(t, err)
	defer f.Close()
	p := AlignedBuffer(16384)
	vec := [][]byte{p[:4096], p[4096:8192], p[8192:]}
	_, err = f.WriteAt(p, 0) // something to read, whichever comes first
	check(t, err)
	for name, call := range map[string]func() (int, error){
		"WriteVec": func() (int, error) { return f.WriteVec(vec, 0) },
		"ReadVec":  func() (int, error) { return f.ReadVec(vec, 0) },
		"WriteAt":  func() (int, error) { return f.WriteAt(p, 0) },
		"ReadAt":   func() (int, error) { return f.ReadAt(p, 0) },
	} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := call(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
