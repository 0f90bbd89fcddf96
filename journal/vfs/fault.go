package vfs

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
)

// Kind is a kind of operation.
type Kind uint8

const (
	OpOpen Kind = iota
	OpCreate
	OpRemove
	OpRename
	OpList
	OpSyncDir
	OpRead
	OpWrite
	OpSync
	OpAllocate
	OpPunch
	OpTruncate
)

var kindNames = [...]string{
	OpOpen: "open", OpCreate: "create", OpRemove: "remove", OpRename: "rename", OpList: "list", OpSyncDir: "syncdir",
	OpRead: "read", OpWrite: "write", OpSync: "sync", OpAllocate: "allocate", OpPunch: "punch", OpTruncate: "truncate",
}

func (k Kind) String() string { return kindNames[k] }

// Op is an operation about to happen. Name is the file or directory; Off and Len
// are bytes, where they apply.
type Op struct {
	Kind Kind
	Name string
	Off  int64
	Len  int64
}

// Fault is a file system with faults from a plan. See [ParsePlan] for the
// language.
type Fault struct {
	FS
	// OnOp, if set, is called before each operation; an error from it is the
	// operation's, which then does not happen. Calls come from the goroutines that
	// use the file system. Set it before use.
	OnOp func(Op) error

	mu   sync.Mutex
	plan Plan
	rng  *rand.Rand
}

// NewFault wraps a file system. The seed decides where the plan speaks of chance.
func NewFault(inner FS, plan Plan, seed uint64) *Fault {
	return &Fault{FS: inner, plan: plan.clone(), rng: newRand(seed)}
}

// SetPlan replaces the plan; counts start again.
func (f *Fault) SetPlan(plan Plan) {
	f.mu.Lock()
	f.plan = plan.clone()
	f.mu.Unlock()
}

// before is what happens to an operation: an error, or an effect that is for the
// caller to bring about, or nothing.
func (f *Fault) before(op Op) (*rule, error) {
	if f.OnOp != nil {
		if err := f.OnOp(op); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.plan.match(op, f.rng)
	if r != nil && r.effect == effectFail {
		return nil, &fs.PathError{Op: op.Kind.String(), Path: op.Name, Err: r.err}
	}
	return r, nil
}

// healed takes back read faults that a successful write has overwritten: disks
// give such a sector another place.
func (f *Fault) healed(off, n int64, name string) {
	f.mu.Lock()
	f.plan.heal(name, off, n)
	f.mu.Unlock()
}

// Open implements FS.
func (f *Fault) Open(name string, how Mode) (File, error) {
	if _, err := f.before(Op{Kind: OpOpen, Name: name}); err != nil {
		return nil, err
	}
	return f.wrap(name)(f.FS.Open(name, how))
}

// Create implements FS.
func (f *Fault) Create(name string, how Mode) (File, error) {
	if _, err := f.before(Op{Kind: OpCreate, Name: name}); err != nil {
		return nil, err
	}
	return f.wrap(name)(f.FS.Create(name, how))
}

func (f *Fault) wrap(name string) func(File, error) (File, error) {
	return func(inner File, err error) (File, error) {
		if err != nil {
			return nil, err
		}
		return &faultFile{File: inner, f: f, name: name}, nil
	}
}

// Remove implements FS.
func (f *Fault) Remove(name string) error {
	if _, err := f.before(Op{Kind: OpRemove, Name: name}); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// Rename implements FS.
func (f *Fault) Rename(from, to string) error {
	if _, err := f.before(Op{Kind: OpRename, Name: from}); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

// List implements FS.
func (f *Fault) List(dir string) ([]string, error) {
	if _, err := f.before(Op{Kind: OpList, Name: dir}); err != nil {
		return nil, err
	}
	return f.FS.List(dir)
}

// SyncDir implements FS.
func (f *Fault) SyncDir(dir string) error {
	if _, err := f.before(Op{Kind: OpSyncDir, Name: dir}); err != nil {
		return err
	}
	return f.FS.SyncDir(dir)
}

// faultFile is an open file of a Fault.
type faultFile struct {
	File
	f    *Fault
	name string
}

func (f *faultFile) op(k Kind, off, n int64) Op { return Op{Kind: k, Name: f.name, Off: off, Len: n} }

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	return f.ReadVec([][]byte{p}, off)
}

func (f *faultFile) ReadVec(vec [][]byte, off int64) (int, error) {
	r, err := f.f.before(f.op(OpRead, off, length(vec)))
	if err != nil {
		return 0, err
	}
	if r != nil && r.effect == effectMisdirect {
		off += r.n
	}
	n, err := f.File.ReadVec(vec, off)
	if r != nil && r.effect == effectFlip {
		flip(vec, r.bit(off)-off*8, int64(n)*8)
	}
	return n, err
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	return f.WriteVec([][]byte{p}, off)
}

func (f *faultFile) WriteVec(vec [][]byte, off int64) (int, error) {
	n := length(vec)
	r, err := f.f.before(f.op(OpWrite, off, n))
	if err != nil {
		return 0, err
	}
	if r != nil {
		return f.distort(r, vec, off, n)
	}
	written, err := f.File.WriteVec(vec, off)
	if err == nil {
		f.f.healed(off, n, f.name)
	}
	return written, err
}

// distort writes something else than was asked for.
func (f *faultFile) distort(r *rule, vec [][]byte, off, n int64) (int, error) {
	switch r.effect {
	case effectMisdirect:
		off += r.n
	case effectFlip:
		vec = [][]byte{flatten(vec)}
		flip(vec, r.bit(off)-off*8, n*8)
	case effectTear:
		if err := f.tear(flatten(vec), off, r.n); err != nil {
			return 0, err
		}
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: r.err}
	case effectLose:
		return int(n), nil
	}
	_, err := f.File.WriteVec(vec, off)
	return int(n), err
}

// tear writes only the first keep bytes, and what was there after them.
func (f *faultFile) tear(p []byte, off, keep int64) error {
	if keep >= int64(len(p)) {
		_, err := f.File.WriteAt(p, off)
		return err
	}
	was := AlignedBuffer(len(p))
	if _, err := f.File.ReadAt(was, off); err != nil && err != io.EOF {
		return err
	}
	copy(p[keep:], was[keep:])
	_, err := f.File.WriteAt(p, off)
	return err
}

func (f *faultFile) Sync() error {
	if _, err := f.f.before(f.op(OpSync, 0, 0)); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) Allocate(off, n int64, keepSize bool) error {
	if _, err := f.f.before(f.op(OpAllocate, off, n)); err != nil {
		return err
	}
	return f.File.Allocate(off, n, keepSize)
}

func (f *faultFile) Punch(off, n int64) error {
	if _, err := f.f.before(f.op(OpPunch, off, n)); err != nil {
		return err
	}
	return f.File.Punch(off, n)
}

func (f *faultFile) Truncate(size int64) error {
	if _, err := f.f.before(f.op(OpTruncate, size, 0)); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func length(vec [][]byte) (n int64) {
	for _, p := range vec {
		n += int64(len(p))
	}
	return n
}

func flatten(vec [][]byte) []byte {
	p := AlignedBuffer(int(length(vec)))[:0]
	for _, b := range vec {
		p = append(p, b...)
	}
	return p
}

// flip inverts a bit, counted from the start of vec, if it is among the first
// limit bits.
func flip(vec [][]byte, bit, limit int64) {
	if bit < 0 || bit >= limit {
		return
	}
	for _, p := range vec {
		if n := int64(len(p)) * 8; bit >= n {
			bit -= n
			continue
		}
		p[bit/8] ^= 1 << (bit % 8)
		return
	}
}
