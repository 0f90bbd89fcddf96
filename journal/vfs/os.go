package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned by Lock when another process, or another part of this
// one, holds the lock.
var ErrLocked = errors.New("vfs: locked")

// OS is a directory of a real file system.
//
// Where the file system has no O_DIRECT (open or the first write says EINVAL,
// as some network and overlay file systems do) files fall back to the page
// cache. Durability is the same, because DSync and Sync do not depend on it;
// what is lost is speed, and that a failed write-back is blamed on the write
// that caused it.
type OS struct {
	root   string
	direct bool
}

// NewOS returns the tree under root, which must exist. It finds out whether
// O_DIRECT works by writing a small file there and removing it.
func NewOS(root string) (*OS, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: root, Err: unix.ENOTDIR}
	}
	o := &OS{root: root}
	if o.direct, err = probeDirect(root); err != nil {
		return nil, err
	}
	return o, nil
}

// NewBuffered is NewOS without O_DIRECT: it behaves as on a file system that
// has none.
func NewBuffered(root string) (*OS, error) {
	o, err := NewOS(root)
	if err != nil {
		return nil, err
	}
	o.direct = false
	return o, nil
}

// probeDirect reports whether a block can be written with O_DIRECT under root.
// Only EINVAL means no; any other failure is a failure.
func probeDirect(root string) (bool, error) {
	temp, err := os.CreateTemp(root, ".direct-*")
	if err != nil {
		return false, err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	fd, err := open(temp.Name(), unix.O_RDWR|unix.O_DIRECT)
	if errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	_, err = unix.Pwrite(fd, AlignedBuffer(BlockSize), 0)
	if errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	return err == nil, err
}

// open is open(2) with O_CLOEXEC, repeated while signals interrupt it.
func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o640)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

// path returns the place of name on the machine.
func (o *OS) path(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return filepath.Join(o.root, name), nil
}

// Direct reports whether O_DIRECT is in use.
func (o *OS) Direct() bool { return o.direct }

// Open implements FS.
func (o *OS) Open(name string, how Mode) (File, error) { return o.open(name, how, 0) }

// Create implements FS.
func (o *OS) Create(name string, how Mode) (File, error) {
	return o.open(name, how, unix.O_CREAT|unix.O_EXCL)
}

func (o *OS) open(name string, how Mode, flags int) (File, error) {
	path, err := o.path("open", name)
	if err != nil {
		return nil, err
	}
	flags |= unix.O_RDWR
	if how&DSync != 0 {
		flags |= unix.O_DSYNC
	}
	if how&Direct != 0 && o.direct {
		flags |= unix.O_DIRECT
	}
	fd, err := open(path, flags)
	if err != nil {
		return nil, err
	}
	return &osFile{fd: fd, path: path, direct: flags&unix.O_DIRECT != 0}, nil
}

// Remove implements FS.
func (o *OS) Remove(name string) error {
	path, err := o.path("remove", name)
	if err != nil {
		return err
	}
	return os.Remove(path)
}

// Rename implements FS.
func (o *OS) Rename(from, to string) error {
	source, err := o.path("rename", from)
	if err != nil {
		return err
	}
	target, err := o.path("rename", to)
	if err != nil {
		return err
	}
	return os.Rename(source, target)
}

// MkdirAll implements FS.
func (o *OS) MkdirAll(name string) error {
	path, err := o.path("mkdir", name)
	if err != nil {
		return err
	}
	return os.MkdirAll(path, 0o750)
}

// List implements FS.
func (o *OS) List(dir string) ([]string, error) {
	path, err := o.path("readdir", dir)
	if err != nil {
		return nil, err
	}
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

// Stat implements FS.
func (o *OS) Stat(name string) (fs.FileInfo, error) {
	path, err := o.path("stat", name)
	if err != nil {
		return nil, err
	}
	return os.Stat(path)
}

// SyncDir implements FS.
func (o *OS) SyncDir(dir string) error {
	path, err := o.path("sync", dir)
	if err != nil {
		return err
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Free implements FS.
func (o *OS) Free() (avail, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(o.root, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: o.root, Err: err}
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// Lock implements FS with flock(2). The file holds the number of the process
// that has the lock, for the error message of the next.
func (o *OS) Lock(name string) (io.Closer, error) {
	path, err := o.path("lock", name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is held by process %s", ErrLocked, path, holder(f))
		}
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// holder reads who wrote the lock file; the answer is only for people.
func holder(f *os.File) string {
	var b [20]byte
	n, _ := f.ReadAt(b[:], 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return pid
	}
	return "unknown"
}

// osFile is an open file. It keeps the bare descriptor: os.File would set
// non-blocking mode aside but adds a lock and a poller to every call.
type osFile struct {
	fd     int
	path   string
	direct bool
}

func (f *osFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, f.fail("read", err)
		case n == 0:
			return done, io.EOF
		default:
			if done += n; done < len(p) && f.stoppedAtEnd(done) {
				return done, io.EOF
			}
		}
	}
	return done, nil
}

// stoppedAtEnd reports whether a read of n bytes, fewer than wanted, has met the
// end of the file: a direct read stops inside a block only there, and asking on
// from there would be refused as unaligned.
func (f *osFile) stoppedAtEnd(n int) bool { return f.direct && n%BlockSize != 0 }

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, f.fail("write", err)
		case n == 0:
			return done, f.fail("write", io.ErrUnexpectedEOF)
		default:
			done += n
		}
	}
	return done, nil
}

// iovMax is IOV_MAX of Linux, the most parts one pwritev takes.
const iovMax = 1024

// vectors lends the arrays that pwritev and preadv read, so that a call
// allocates nothing.
var vectors = sync.Pool{New: func() any { return new([iovMax]unix.Iovec) }}

func (f *osFile) WriteVec(vec [][]byte, off int64) (int, error) {
	return f.vector("write", unix.SYS_PWRITEV, vec, off)
}

func (f *osFile) ReadVec(vec [][]byte, off int64) (int, error) {
	return f.vector("read", unix.SYS_PREADV, vec, off)
}

// vector moves all of vec at off with as few system calls as it takes: one,
// unless there are more than iovMax parts or the kernel moves less than asked.
func (f *osFile) vector(op string, call uintptr, vec [][]byte, off int64) (int, error) {
	iov := vectors.Get().(*[iovMax]unix.Iovec)
	defer vectors.Put(iov)
	total, part, skip := 0, 0, 0 // skip: bytes of vec[part] already moved
	for {
		count := 0
		for i, from := part, skip; i < len(vec) && count < iovMax; i, from = i+1, 0 {
			if len(vec[i]) > from {
				iov[count].Base = &vec[i][from]
				iov[count].SetLen(len(vec[i]) - from)
				count++
			}
		}
		if count == 0 {
			return total, nil
		}
		n, err := moveVector(call, f.fd, iov, count, off+int64(total))
		clear(iov[:count])
		if err == unix.EINTR {
			continue
		}
		if err != 0 {
			return total, f.fail(op, err)
		}
		if n == 0 {
			if call == unix.SYS_PREADV {
				return total, io.EOF
			}
			return total, f.fail(op, io.ErrUnexpectedEOF)
		}
		total += n
		for skip += n; part < len(vec) && skip >= len(vec[part]); part++ {
			skip -= len(vec[part])
		}
		if call == unix.SYS_PREADV && part < len(vec) && f.stoppedAtEnd(total) {
			return total, io.EOF
		}
	}
}

// moveVector is preadv(2) or pwritev(2). The offset goes in two halves as the
// system call wants it; on 64-bit machines the first holds all of it.
func moveVector(call uintptr, fd int, iov *[iovMax]unix.Iovec, count int, off int64) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(iov)), uintptr(count),
		uintptr(off), uintptr(uint64(off)>>32), 0)
	return int(n), errno
}

func (f *osFile) Sync() error {
	for {
		err := unix.Fdatasync(f.fd)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return f.fail("fdatasync", err)
		}
		return nil
	}
}

func (f *osFile) Allocate(off, n int64, keepSize bool) error {
	var mode uint32
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	return f.fallocate(mode, off, n)
}

func (f *osFile) Punch(off, n int64) error {
	return f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (f *osFile) fallocate(mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(f.fd, mode, off, n)
		switch {
		case err == unix.EINTR:
		case err == unix.EOPNOTSUPP || err == unix.ENOSYS:
			return f.fail("fallocate", errors.ErrUnsupported)
		case err != nil:
			return f.fail("fallocate", err)
		default:
			return nil
		}
	}
}

func (f *osFile) Truncate(size int64) error {
	if err := unix.Ftruncate(f.fd, size); err != nil {
		return f.fail("truncate", err)
	}
	return nil
}

func (f *osFile) Size() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, f.fail("stat", err)
	}
	return st.Size, nil
}

func (f *osFile) Close() error {
	if err := unix.Close(f.fd); err != nil {
		return f.fail("close", err)
	}
	return nil
}
