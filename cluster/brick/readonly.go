package brick

import (
	"io/fs"
	"sync"

	"petal/journal/vfs"
	"petal/placement"
)

// readOnly is a file system whose changes go nowhere: what is written to a file
// is seen by those who have it open, and forgotten when they close it. It lets
// Check open a journal, which marks its opening, without changing a byte.
type readOnly struct{ vfs.FS }

func (readOnly) Remove(string) error { return nil }
func (readOnly) Rename(string, string) error {
	return &fs.PathError{Op: "rename", Err: fs.ErrPermission}
}
func (readOnly) MkdirAll(string) error { return nil }
func (readOnly) SyncDir(string) error  { return nil }

func (readOnly) Create(name string, _ vfs.Mode) (vfs.File, error) {
	return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrPermission}
}

func (r readOnly) Open(name string, how vfs.Mode) (vfs.File, error) {
	f, err := r.FS.Open(name, how)
	if err != nil {
		return nil, err
	}
	return &readOnlyFile{File: f, over: map[int64][]byte{}}, nil
}

// readOnlyFile keeps what was written to it, by block, in memory.
type readOnlyFile struct {
	vfs.File
	mu   sync.Mutex
	over map[int64][]byte // offset of a block -> its content
}

func (f *readOnlyFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 0; i+placement.BlockSize <= n; i += placement.BlockSize {
		if b := f.over[off+int64(i)]; b != nil {
			copy(p[i:], b)
		}
	}
	return n, err
}

func (f *readOnlyFile) ReadVec(vec [][]byte, off int64) (n int, err error) {
	for _, p := range vec {
		k, err := f.ReadAt(p, off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f *readOnlyFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 0; i < len(p); i += placement.BlockSize {
		f.over[off+int64(i)] = append([]byte(nil), p[i:min(len(p), i+placement.BlockSize)]...)
	}
	return len(p), nil
}

func (f *readOnlyFile) WriteVec(vec [][]byte, off int64) (n int, err error) {
	for _, p := range vec {
		f.WriteAt(p, off+int64(n))
		n += len(p)
	}
	return n, nil
}

func (f *readOnlyFile) Sync() error                       { return nil }
func (f *readOnlyFile) Allocate(int64, int64, bool) error { return nil }
func (f *readOnlyFile) Punch(int64, int64) error          { return nil }
func (f *readOnlyFile) Truncate(int64) error              { return nil }
