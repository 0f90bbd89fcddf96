// Package vfs is the file system as the journal and the bricks need it: few
// operations, each with a stated durability. There are three of them: [OS]
// (O_DIRECT and O_DSYNC on a real file system), [Memory] (a disk that can
// crash: unsynced writes vanish, tear or reorder by a seed) and [Fault] (wraps
// either and injects errors from a plan).
//
// It is not a general file system: no permissions, no links, no offsets kept in
// files, no short writes.
//
// What is assumed of a disk: a write that was not synced may after a crash be
// there wholly, partly (torn at any 512-byte boundary) or not at all, in any
// order with others; a synced one is there, though it may rot later. A sync
// that failed says nothing about the data before it, ever (so callers fail the
// device instead of retrying).
package vfs

import (
	"io"
	"io/fs"
)

// BlockSize is the alignment of offsets, lengths and memory in files opened
// with Direct, in bytes.
const BlockSize = 4096

// SectorSize is the unit in which an unsynced write may tear, in bytes.
const SectorSize = 512

// FS is a directory tree that belongs to one owner. Names are slash-separated
// and relative to its root. Methods are safe for concurrent use.
type FS interface {
	// Open opens an existing file for reading and writing.
	Open(name string, how Mode) (File, error)
	// Create makes a new empty file; it fails with fs.ErrExist if the name is
	// taken. The name is durable after SyncDir of its directory.
	Create(name string, how Mode) (File, error)
	Remove(name string) error
	// Rename replaces to if it exists. Durable after SyncDir.
	Rename(from, to string) error
	MkdirAll(name string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	Stat(name string) (fs.FileInfo, error)
	SyncDir(dir string) error
	// Free returns the bytes that can still be allocated, and the total.
	Free() (avail, total uint64, err error)
	// Lock takes an exclusive lock on the named file, which it makes if need be,
	// for the life of the process. If another holds it the error is ErrLocked and
	// says who. Unlock by closing what it returns.
	Lock(name string) (io.Closer, error)
	// Direct reports whether files opened with Direct really bypass the page
	// cache (false on file systems without O_DIRECT, where Open falls back).
	Direct() bool
}

// Mode says how a file's writes behave.
type Mode uint8

const (
	// Direct bypasses the page cache: offsets, lengths and memory must be
	// multiples of 4096.
	Direct Mode = 1 << iota
	// DSync makes every write durable when it returns.
	DSync
)

// File is an open file. Methods are safe for concurrent use, except Close.
type File interface {
	// ReadAt reads len(p) bytes at off, or fails; a short read at the end of the
	// file is io.EOF as for io.ReaderAt. It does not allocate.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes all of p at off. Durable on return if the file was opened
	// with DSync, else after Sync.
	WriteAt(p []byte, off int64) (int, error)
	// WriteVec writes the parts one after another at off as one request where
	// the system allows (pwritev; more than 1,024 parts are several requests).
	// Same durability as WriteAt. It does not allocate and keeps nothing.
	WriteVec(vec [][]byte, off int64) (int, error)
	// ReadVec fills the parts one after another from off (preadv), else as
	// ReadAt.
	ReadVec(vec [][]byte, off int64) (int, error)
	// Sync makes all earlier writes of this file durable (fdatasync).
	Sync() error
	// Allocate reserves space for the range without changing what is read from
	// it and without changing the size if keepSize (fallocate). Where the file
	// system cannot, it returns errors.ErrUnsupported and changes nothing.
	Allocate(off, n int64, keepSize bool) error
	// Punch gives the space of the range back; it reads as zeros (fallocate
	// PUNCH_HOLE). On file systems without it, it returns errors.ErrUnsupported
	// and changes nothing.
	Punch(off, n int64) error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}
