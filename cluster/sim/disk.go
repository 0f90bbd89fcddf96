package sim

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"syscall"

	"petal/journal/vfs"
)

// errDead is what a process's file system says after its end.
var errDead = errors.New("sim: the process that had this file open is dead")

// disk is one disk of a machine. It outlives processes; a crash of the machine
// replaces its content by what a crash leaves.
type disk struct {
	name string
	mem  *vfs.Memory
	rng  *rand.Rand

	// trouble, if set, is asked before each read, write and sync of file data.
	trouble func(op vfs.Op) verdict
	// dead: every operation fails with EIO, of this process and later ones.
	dead bool
	// refuse has the next write or sync fail with EIO, of a file whose name begins with
	// only; with syncs it is a sync. After that (hurt) nobody knows what of the unsynced
	// is left: a later sync of that file (lost) says yes, and what the system has given
	// up is gone all the same. The process can do no more with the disk.
	refuse, hurt bool
	syncs        bool
	only, lost   string
	// ops counts down to a crash in the middle of an operation; 0: none.
	crashIn int
	onCrash func()
}

// verdict is what a disk does to a read or write.
type verdict struct {
	err     error // it fails and nothing happens
	lose    bool  // a write claims success
	flip    bool  // one bit is inverted, for ever
	flipBit int64 // which one, of the operation's bits
	shift   int64 // it goes so many bytes further on
}

func newDisk(name string, bytes int64, rng *rand.Rand) *disk {
	return &disk{name: name, mem: vfs.NewMemory(bytes), rng: rng}
}

// crash takes the machine's power: what was not durable is lost, or not, by chance.
func (d *disk) crash() {
	d.mem = d.mem.Crash(d.rng.Uint64())
	d.crashIn, d.refuse, d.hurt = 0, false, false
}

// lives is a disk as one process sees it.
type lives struct {
	d     *disk
	life  *life
	locks map[string]bool
}

var _ vfs.FS = (*lives)(nil)

// attach returns the disk for a new process.
func (d *disk) attach(l *life) vfs.FS { return &lives{d: d, life: l, locks: map[string]bool{}} }

func (l *lives) check(kind vfs.Kind, name string) error {
	if l.life.over {
		return &fs.PathError{Op: kind.String(), Path: name, Err: errDead}
	}
	if l.d.dead {
		return &fs.PathError{Op: kind.String(), Path: name, Err: syscall.EIO}
	}
	return nil
}

// change is check for what changes the disk: the place for a crash in the middle.
func (l *lives) change(kind vfs.Kind, name string) error {
	if err := l.check(kind, name); err != nil {
		return err
	}
	if l.d.crashIn > 0 {
		if l.d.crashIn--; l.d.crashIn == 0 {
			l.d.mem.OnOp(func(vfs.Op) {
				l.d.mem.OnOp(nil)
				l.d.onCrash()
			})
		}
	}
	return nil
}

func (l *lives) Open(name string, how vfs.Mode) (vfs.File, error) {
	if err := l.check(vfs.OpOpen, name); err != nil {
		return nil, err
	}
	return l.wrap(name)(l.d.mem.Open(name, how))
}

func (l *lives) Create(name string, how vfs.Mode) (vfs.File, error) {
	if err := l.change(vfs.OpCreate, name); err != nil {
		return nil, err
	}
	return l.wrap(name)(l.d.mem.Create(name, how))
}

func (l *lives) wrap(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		return &file{File: f, l: l, name: name}, nil
	}
}

func (l *lives) Remove(name string) error {
	if err := l.change(vfs.OpRemove, name); err != nil {
		return err
	}
	return l.d.mem.Remove(name)
}

func (l *lives) Rename(from, to string) error {
	if err := l.change(vfs.OpRename, from); err != nil {
		return err
	}
	return l.d.mem.Rename(from, to)
}

func (l *lives) MkdirAll(name string) error {
	if err := l.check(vfs.OpCreate, name); err != nil {
		return err
	}
	return l.d.mem.MkdirAll(name)
}

func (l *lives) List(dir string) ([]string, error) {
	if err := l.check(vfs.OpList, dir); err != nil {
		return nil, err
	}
	return l.d.mem.List(dir)
}

func (l *lives) Stat(name string) (fs.FileInfo, error) {
	if err := l.check(vfs.OpOpen, name); err != nil {
		return nil, err
	}
	return l.d.mem.Stat(name)
}

func (l *lives) SyncDir(dir string) error {
	if err := l.change(vfs.OpSyncDir, dir); err != nil {
		return err
	}
	return l.d.mem.SyncDir(dir)
}

func (l *lives) Free() (avail, total uint64, err error) {
	if err := l.check(vfs.OpOpen, "."); err != nil {
		return 0, 0, err
	}
	return l.d.mem.Free()
}

// Lock implements vfs.FS. Locks are the process's: they end with it.
func (l *lives) Lock(name string) (io.Closer, error) {
	if err := l.check(vfs.OpOpen, name); err != nil {
		return nil, err
	}
	if l.locks[name] {
		return nil, vfs.ErrLocked
	}
	l.locks[name] = true
	return closer(func() error { delete(l.locks, name); return nil }), nil
}

type closer func() error

func (c closer) Close() error { return c() }

func (l *lives) Direct() bool { return true }

// file is an open file of a process.
type file struct {
	vfs.File
	l    *lives
	name string
}

func size(vec [][]byte) (n int64) {
	for _, p := range vec {
		n += int64(len(p))
	}
	return n
}

// verdict asks what happens to an operation on data.
func (f *file) verdict(kind vfs.Kind, off, n int64) (verdict, error) {
	var v verdict
	check := f.l.check
	if kind != vfs.OpRead {
		check = f.l.change
	}
	if err := check(kind, f.name); err != nil {
		return v, err
	}
	if f.l.d.trouble != nil {
		v = f.l.d.trouble(vfs.Op{Kind: kind, Name: f.name, Off: off, Len: n})
	}
	if d := f.l.d; d.refuse && (kind == vfs.OpSync || kind == vfs.OpWrite && !d.syncs) && strings.HasPrefix(f.name, d.only) {
		d.refuse, d.hurt, d.lost = false, true, f.name
		v.err = syscall.EIO
	}
	if v.err != nil {
		return v, &fs.PathError{Op: kind.String(), Path: f.name, Err: v.err}
	}
	return v, nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.ReadVec([][]byte{p}, off) }

func (f *file) ReadVec(vec [][]byte, off int64) (int, error) {
	v, err := f.verdict(vfs.OpRead, off, size(vec))
	if err != nil {
		return 0, err
	}
	return f.File.ReadVec(vec, off+v.shift)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) { return f.WriteVec([][]byte{p}, off) }

func (f *file) WriteVec(vec [][]byte, off int64) (int, error) {
	n := size(vec)
	v, err := f.verdict(vfs.OpWrite, off, n)
	switch {
	case err != nil:
		return 0, err
	case v.lose:
		return int(n), nil
	case v.flip:
		vec = flipped(vec, v.flipBit)
	}
	return f.File.WriteVec(vec, off+v.shift)
}

// flipped returns a copy of vec with one bit inverted.
func flipped(vec [][]byte, bit int64) [][]byte {
	p := vfs.AlignedBuffer(int(size(vec)))[:0]
	for _, b := range vec {
		p = append(p, b...)
	}
	p[bit/8] ^= 1 << (bit % 8)
	return [][]byte{p}
}

func (f *file) Sync() error {
	if _, err := f.verdict(vfs.OpSync, 0, 0); err != nil {
		return err
	}
	if d := f.l.d; d.hurt && d.lost == f.name {
		return nil
	}
	return f.File.Sync()
}

func (f *file) Allocate(off, n int64, keepSize bool) error {
	if err := f.l.change(vfs.OpAllocate, f.name); err != nil {
		return err
	}
	return f.File.Allocate(off, n, keepSize)
}

func (f *file) Punch(off, n int64) error {
	if err := f.l.change(vfs.OpPunch, f.name); err != nil {
		return err
	}
	return f.File.Punch(off, n)
}

func (f *file) Truncate(n int64) error {
	if err := f.l.change(vfs.OpTruncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(n)
}

func (f *file) Close() error { return f.File.Close() }
