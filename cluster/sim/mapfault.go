package sim

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"
)

// mapFS is what a process sees of the file system of its brick's map. Pebble uses
// it from goroutines of its own, at moments that no seed decides; so only that
// fails which comes at a moment of ours: what a flush writes, for which the brick
// waits, and the first look at the map by Open. A compaction is never hurt.
type mapFS struct {
	pebblefs.FS
	fault *mapFault
}

// mapFault is what is wrong with it, from some moment on until the process ends.
type mapFault struct {
	flush  atomic.Int32 // a mapOp of all flushes that fails; 0: none
	unread atomic.Bool  // nothing can be opened
	tries  atomic.Int32
}

// mapOp is an operation on a table that a flush writes.
type mapOp int32

const (
	mapCreate mapOp = 1 + iota
	mapWrite
	mapSync
	mapOps = iota
)

// flushCategory is what Pebble says of the files that a flush writes.
const flushCategory pebblefs.DiskWriteCategory = "pebble-memtable-flush"

// fails is the error of an operation, or nil. Pebble repeats a flush that has
// failed until the process ends: in real time, of which this takes it some.
func (f *mapFault) fails(op mapOp, name string) error {
	if mapOp(f.flush.Load()) != op {
		return nil
	}
	if f.tries.Add(1) > 1 {
		time.Sleep(10 * time.Millisecond)
	}
	return &os.PathError{Op: "flush", Path: name, Err: syscall.EIO}
}

func (m mapFS) Unwrap() pebblefs.FS { return m.FS }

func (m mapFS) Open(name string, opts ...pebblefs.OpenOption) (pebblefs.File, error) {
	if m.fault.unread.Load() {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EIO}
	}
	return m.FS.Open(name, opts...)
}

func (m mapFS) Create(name string, category pebblefs.DiskWriteCategory) (pebblefs.File, error) {
	if category != flushCategory {
		return m.FS.Create(name, category)
	}
	if err := m.fault.fails(mapCreate, name); err != nil {
		return nil, err
	}
	f, err := m.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	return mapFile{f, name, m.fault}, nil
}

// mapFile is a table that a flush writes.
type mapFile struct {
	pebblefs.File
	name  string
	fault *mapFault
}

func (f mapFile) Write(p []byte) (int, error) {
	if err := f.fault.fails(mapWrite, f.name); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f mapFile) Sync() error {
	if err := f.fault.fails(mapSync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f mapFile) SyncData() error {
	if err := f.fault.fails(mapSync, f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

// mapFails makes the map of a machine's brick fail: its flushes, or the next
// start. The brick fails with it, and the node serves on without.
func (n *nemesis) mapFails() {
	m := n.target()
	if !m.alive() {
		return
	}
	n.s.report.Counts.MapErrors++
	if n.rng.IntN(4) == 0 {
		m.kill("to find its map unreadable")
		m.mapFault.unread.Store(true)
		m.start()
	} else {
		op := mapOp(1 + n.rng.IntN(mapOps))
		n.s.tracef("faults: the map of %d can't be flushed, operation %d", m.id, op)
		m.mapFault.flush.Store(int32(op))
	}
	fault := m.mapFault
	n.later(n.long(), func() {
		if m.mapFault == fault { // else it has been restarted meanwhile
			m.kill("for its map has failed it")
		}
		m.start()
	})
}

// hurt reports whether the map fails, or did.
func (f *mapFault) hurt() bool { return f.flush.Load() != 0 || f.unread.Load() }
