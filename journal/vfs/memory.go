package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Memory is a disk in memory that can crash.
//
// It keeps two states. The volatile one is what calls see. The durable one is
// what Crash starts from: file content written with DSync or followed by Sync,
// names followed by SyncDir. Of what is volatile only, Crash keeps a part that a
// seed chooses: of file content any 512-byte sectors of any writes, of names a
// prefix in the order they were changed, as file systems with a metadata journal
// do it.
//
//	write ----> pending ----Sync----> durable
//	               |                     |
//	               +--some, by seed--> Crash
//
// Files opened with Direct are strict about alignment, so that a mistake shows
// in a test and not first on a real disk.
type Memory struct {
	capacity int64 // bytes
	strict   bool

	mu      sync.Mutex
	names   map[string]*inode // volatile; directories too; "." is the root
	durable map[string]*inode
	renames []nameChange // pending, in order
	locks   map[string]bool
	used    int64 // bytes of allocated pages
	dead    error
	onOp    func(Op)
}

// nameChange is a change of names that no SyncDir has made durable.
type nameChange struct {
	set, del string // set names node; del goes; either may be empty
	node     *inode
}

func (c *nameChange) in(dir string) bool {
	return c.set != "" && path.Dir(c.set) == dir || c.del != "" && path.Dir(c.del) == dir
}

func (c *nameChange) apply(names map[string]*inode) {
	if c.del != "" {
		delete(names, c.del)
	}
	if c.set != "" {
		names[c.set] = c.node
	}
}

// inode is a file or directory.
type inode struct {
	dir     bool
	now     content // volatile
	durable content
	pending []*change // in order
}

// NewMemory returns an empty disk of so many bytes.
func NewMemory(capacity int64) *Memory {
	root := &inode{dir: true}
	return &Memory{
		capacity: capacity, strict: true,
		names: map[string]*inode{".": root}, durable: map[string]*inode{".": root}, locks: map[string]bool{},
	}
}

// SetDirect says whether the disk has O_DIRECT; it has at first.
func (m *Memory) SetDirect(on bool) { m.strict = on }

// OnOp sets a function that is called for each operation that changes the disk,
// at the moment when it has begun and nothing of it is durable: a Crash inside
// the function may keep all of the operation, parts of it, or nothing. Calls come
// from the goroutines that use the disk. Set it before use.
func (m *Memory) OnOp(f func(Op)) { m.onOp = f }

// Stop makes every later operation fail with err: the disk, or the process that
// used it, is gone. What was durable stays so for Crash.
func (m *Memory) Stop(err error) {
	m.mu.Lock()
	m.dead = err
	m.mu.Unlock()
}

func (m *Memory) hook(op Op) {
	if m.onOp != nil {
		m.onOp(op)
	}
}

// enter locks the disk for an operation on a name; the caller unlocks.
func (m *Memory) enter(op, name string) error {
	m.mu.Lock()
	if m.dead != nil {
		m.mu.Unlock()
		return &fs.PathError{Op: op, Path: name, Err: m.dead}
	}
	if !fs.ValidPath(name) {
		m.mu.Unlock()
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// Direct implements FS.
func (m *Memory) Direct() bool { return m.strict }

// Open implements FS.
func (m *Memory) Open(name string, how Mode) (File, error) {
	if err := m.enter("open", name); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if n.dir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	return &memFile{m: m, n: n, name: name, how: how}, nil
}

// Create implements FS.
func (m *Memory) Create(name string, how Mode) (File, error) {
	if err := m.enter("create", name); err != nil {
		return nil, err
	}
	err := m.parent(name)
	if err == nil && m.names[name] != nil {
		err = fs.ErrExist
	}
	if err != nil {
		m.mu.Unlock()
		return nil, &fs.PathError{Op: "create", Path: name, Err: err}
	}
	n := &inode{}
	m.change(nameChange{set: name, node: n})
	m.mu.Unlock()
	m.hook(Op{Kind: OpCreate, Name: name})
	return &memFile{m: m, n: n, name: name, how: how}, nil
}

// parent checks that the directory of name is there.
func (m *Memory) parent(name string) error {
	switch d := m.names[path.Dir(name)]; {
	case d == nil:
		return fs.ErrNotExist
	case !d.dir:
		return syscall.ENOTDIR
	}
	return nil
}

func (m *Memory) change(c nameChange) {
	c.apply(m.names)
	m.renames = append(m.renames, c)
}

// Remove implements FS.
func (m *Memory) Remove(name string) error {
	if err := m.enter("remove", name); err != nil {
		return err
	}
	n := m.names[name]
	var err error
	switch {
	case n == nil:
		err = fs.ErrNotExist
	case n.dir && m.hasChildren(name):
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		m.mu.Unlock()
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	m.change(nameChange{del: name})
	m.used -= n.now.allocated() * BlockSize
	m.mu.Unlock()
	m.hook(Op{Kind: OpRemove, Name: name})
	return nil
}

func (m *Memory) hasChildren(dir string) bool {
	for name := range m.names {
		if name != "." && path.Dir(name) == dir {
			return true
		}
	}
	return false
}

// Rename implements FS, for files.
func (m *Memory) Rename(from, to string) error {
	if err := m.enter("rename", from); err != nil {
		return err
	}
	n := m.names[from]
	err := m.parent(to)
	if n == nil {
		err = fs.ErrNotExist
	} else if n.dir || m.names[to] != nil && m.names[to].dir {
		err = syscall.EISDIR
	}
	if err != nil || from == to {
		m.mu.Unlock()
		if err != nil {
			err = &fs.PathError{Op: "rename", Path: from, Err: err}
		}
		return err
	}
	if old := m.names[to]; old != nil {
		m.used -= old.now.allocated() * BlockSize
	}
	m.change(nameChange{set: to, del: from, node: n})
	m.mu.Unlock()
	m.hook(Op{Kind: OpRename, Name: from})
	return nil
}

// MkdirAll implements FS.
func (m *Memory) MkdirAll(name string) error {
	if err := m.enter("mkdir", name); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for i := range len(name) + 1 {
		if i < len(name) && name[i] != '/' {
			continue
		}
		dir := name[:i]
		if n := m.names[dir]; n == nil {
			m.change(nameChange{set: dir, node: &inode{dir: true}})
		} else if !n.dir {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
	}
	return nil
}

// List implements FS.
func (m *Memory) List(dir string) ([]string, error) {
	if err := m.enter("readdir", dir); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if n := m.names[dir]; n == nil || !n.dir {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: fs.ErrNotExist}
	}
	var names []string
	for name := range m.names {
		if name != "." && path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	sort.Strings(names)
	return names, nil
}

// Stat implements FS.
func (m *Memory) Stat(name string) (fs.FileInfo, error) {
	if err := m.enter("stat", name); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return memInfo{name: path.Base(name), size: n.now.size, dir: n.dir}, nil
}

// SyncDir implements FS.
func (m *Memory) SyncDir(dir string) error {
	if err := m.enter("sync", dir); err != nil {
		return err
	}
	n := m.names[dir]
	m.mu.Unlock()
	if n == nil || !n.dir {
		return &fs.PathError{Op: "sync", Path: dir, Err: fs.ErrNotExist}
	}
	m.hook(Op{Kind: OpSyncDir, Name: dir})
	if err := m.enter("sync", dir); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.renames = slices.DeleteFunc(m.renames, func(c nameChange) bool {
		if !c.in(dir) {
			return false
		}
		c.apply(m.durable)
		return true
	})
	return nil
}

// Free implements FS.
func (m *Memory) Free() (avail, total uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead != nil {
		return 0, 0, m.dead
	}
	return uint64(max(0, m.capacity-m.used)), uint64(m.capacity), nil
}

// Lock implements FS. The lock is a file, as on a real file system, and ends
// with a Crash.
func (m *Memory) Lock(name string) (io.Closer, error) {
	if err := m.enter("lock", name); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if err := m.parent(name); err != nil {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	if m.locks[name] {
		return nil, fmt.Errorf("%w: %s is held by this process", ErrLocked, name)
	}
	if m.names[name] == nil {
		m.change(nameChange{set: name, node: &inode{}})
	}
	m.locks[name] = true
	return &memLock{m, name}, nil
}

type memLock struct {
	m    *Memory
	name string
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if !l.m.locks[l.name] {
		return fs.ErrClosed
	}
	delete(l.m.locks, l.name)
	return nil
}

// Crash returns the disk as it may be after losing power now: what is durable,
// and a part of the rest that depends on seed alone. The disk itself goes on
// unharmed, so one run can be crashed at many points, and at one point in many
// ways.
func (m *Memory) Crash(seed uint64) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	rng := newRand(seed)
	after := NewMemory(m.capacity)
	after.strict = m.strict
	names := maps.Clone(m.durable)
	for i := range m.renames[:rng.IntN(len(m.renames)+1)] {
		m.renames[i].apply(names)
	}
	copies := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if reachable(names, name) {
			n := names[name]
			if copies[n] == nil {
				copies[n] = n.crash(rng)
				after.used += copies[n].now.allocated() * BlockSize
			}
			after.names[name], after.durable[name] = copies[n], copies[n]
		}
	}
	return after
}

// reachable reports whether all directories above name are there.
func reachable(names map[string]*inode, name string) bool {
	for name != "." {
		name = path.Dir(name)
		if names[name] == nil {
			return false
		}
	}
	return true
}

// Files returns the names of all files, sorted, for tests that look at bytes.
func (m *Memory) Files() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var files []string
	for name, n := range m.names {
		if !n.dir {
			files = append(files, name)
		}
	}
	sort.Strings(files)
	return files
}

// Damage changes bytes of a file behind everybody's back, durably: what rot does.
func (m *Memory) Damage(name string, off int64, change func(p []byte), n int) error {
	if err := m.enter("damage", name); err != nil {
		return err
	}
	defer m.mu.Unlock()
	node := m.names[name]
	if node == nil {
		return fs.ErrNotExist
	}
	p := make([]byte, n)
	node.now.read(p, off)
	change(p)
	c := newWrite([][]byte{p}, off)
	c.apply(&node.now, all)
	c.apply(&node.durable, all)
	return nil
}

type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string { return i.name }
func (i memInfo) Size() int64  { return i.size }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o750
	}
	return 0o640
}
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) String() string     { return strings.TrimSpace(fs.FormatFileInfo(i)) }
