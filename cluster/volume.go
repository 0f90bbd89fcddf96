package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"

	"petal/cluster/blocklock"
	"petal/cluster/meta"
	"petal/placement"
)

// Volume is a virtual disk in use at this node: the coordinator of its
// commands. It cuts them at chunk edges, makes the checksums, puts what
// conflicts in order and has each chunk's part carried out by the servers that
// hold the chunk.
//
//	Reserve  lend slab memory, cut at chunk edges
//	Write    checksum per block -> block locks, in order of the calls
//	         -> the head of the chunk's link -> done when all parts are
//	Read     a copy that is in sync: this node's if it has one, or the one
//	         that will answer first
//
// All methods may be called from any goroutine. What they promise about
// order, durability and errors is what lun.Disk asks for; this is that Disk.
// A write is linearized when it commits, a read when it is served. Every write
// is atomic within each chunk and not across chunks: one that fails may have
// been carried out in some chunks.
//
// What fails for a passing reason is tried again until Times.Command after the
// command began (R13), and then cancelled at the head (R12). Only then the
// command ends: with ErrBusy if it is certain that what has not happened of it
// never will, else with an error that says nothing.
//
// Write-back is for chunks that only this node keeps. Where there are copies,
// or the only one is elsewhere, every write is durable when it is acknowledged,
// whatever WriteCache says: an initiator learns from the end of its session that
// a cache is lost, and a server elsewhere may lose one without ending sessions
// here.
type Volume struct {
	c         *coordinator
	id        meta.ID
	family    placement.Family
	blockSize int

	state atomic.Pointer[volumeState]
	locks blocklock.Table
	ahead readahead

	lazy  atomic.Bool // something may have been acknowledged before it was durable
	busy  flights
	close sync.Once
}

// volumeState is what may change while the disk is in use. A command works
// with the state of its admission, but for where it is sent.
type volumeState struct {
	size      uint64 // bytes
	readOnly  bool
	writeBack bool
	vver      uint64
	revoked   uint64         // the vver that last took rights away from somebody
	node      placement.Node // where writes go
	routes    *routes
}

// newVolume returns the volume of disk d.
func newVolume(c *coordinator, d *meta.Disk, r *routes) *Volume {
	v := &Volume{c: c, id: d.ID, family: d.Family, blockSize: d.BlockSize}
	v.busy.init()
	v.update(d, r)
	return v
}

// update tells the volume what has been agreed about its disk: size, cache
// mode, read-only, where to write. Commands admitted earlier end by the old
// state, if the servers still take them.
func (v *Volume) update(d *meta.Disk, r *routes) {
	old := v.state.Swap(&volumeState{
		size: d.Size, readOnly: d.ReadOnly, writeBack: d.WriteBack, vver: d.VVer, revoked: d.Revoked, node: d.Node, routes: r,
	})
	if old != nil && old.writeBack && !d.WriteBack {
		v.c.flush(func(error) {}) // a failure shows at the next Flush
	}
}

// Size is the disk's present size in bytes.
func (v *Volume) Size() uint64 { return v.state.Load().size }

// BlockSize is the logical block length in bytes. It never changes.
func (v *Volume) BlockSize() int { return v.blockSize }

// WriteCache reports whether writes may be acknowledged before they are durable.
func (v *Volume) WriteCache() bool { return v.state.Load().writeBack }

// ReadOnly reports whether writes are refused with syscall.EROFS.
func (v *Volume) ReadOnly() bool { return v.state.Load().readOnly }

// Flush makes everything durable that was acknowledged before the call.
func (v *Volume) Flush(done func(error)) {
	if !v.busy.begin() {
		done(ErrVolumeClosed)
		return
	}
	if !v.lazy.Load() { // the usual case: all that was acknowledged is durable
		err := v.flushed()
		v.busy.end()
		done(err)
		return
	}
	v.c.flush(func(err error) {
		if err != nil {
			err = &unreachableError{err}
		}
		v.busy.end()
		done(err)
	})
}

// flushed is the error of a flush for which nothing is left to do. A disk of
// which nothing can be read or written any more is not well even so.
func (v *Volume) flushed() error {
	h := v.c.here.Load()
	if h == nil || !v.state.Load().routes.only(v.c.self) {
		return nil
	}
	if err := h.Failed(); err != nil {
		return &unreachableError{err}
	}
	return nil
}

// Close waits until every command in flight has ended and everything
// acknowledged is durable. From its call on, every new command ends with
// ErrVolumeClosed. Memory that is lent stays valid until its Release.
func (v *Volume) Close(ctx context.Context) error {
	v.shut()
	if err := v.busy.wait(ctx); err != nil || !v.lazy.Load() {
		return err
	}
	done := make(chan error, 1)
	v.c.flush(func(error) { done <- nil }) // a failure was told by Flush, or nobody asked
	return wait(ctx, done)
}

// shut refuses new commands.
func (v *Volume) shut() { v.close.Do(v.busy.shut) }

// check returns syscall.EINVAL unless n bytes at off are whole logical blocks
// of the disk. It takes care of sizes up to 2^64-1.
func (v *Volume) check(st *volumeState, off, n uint64) error {
	if bs := uint64(v.blockSize); off%bs != 0 || n%bs != 0 {
		return syscall.EINVAL
	}
	if off > st.size || n > st.size-off {
		return syscall.EINVAL
	}
	return nil
}

// checkWrite is check for commands that write.
func (v *Volume) checkWrite(st *volumeState, off, n uint64) error {
	if st.readOnly {
		return syscall.EROFS
	}
	return v.check(st, off, n)
}

// span is a range of bytes within one chunk: from < to <= ChunkSize.
type span struct {
	chunk    placement.Chunk
	from, to int
}

// spanAt returns the part of [off, off+n) that lies in off's chunk, n > 0.
func spanAt(off, n uint64) span {
	from := off % placement.ChunkSize
	n = min(n, placement.ChunkSize-from) // before adding: n may be up to 2^64-1
	return span{placement.Chunk(off / placement.ChunkSize), int(from), int(from + n)}
}

func (s span) bytes() int { return s.to - s.from }

// first and count are the blocks that the span touches.
func (s span) first() int { return s.from / placement.BlockSize }
func (s span) count() int { return (s.to-1)/placement.BlockSize - s.first() + 1 }

func (s span) mask() placement.Mask { return placement.Span(s.first(), s.count()) }

// offset is where the span begins, in bytes of the disk.
func (s span) offset() uint64 { return uint64(s.chunk)*placement.ChunkSize + uint64(s.from) }

// spansOf is the number of chunks that n > 0 bytes at off touch.
func spansOf(off, n uint64) uint64 {
	return (off+(n-1))/placement.ChunkSize - off/placement.ChunkSize + 1
}

// flights counts commands in flight, so that a volume can be closed.
type flights struct {
	n      atomic.Int64
	closed atomic.Bool
	idle   chan struct{} // capacity 1
}

func (f *flights) init() { f.idle = make(chan struct{}, 1) }

// begin counts a command, unless the volume is closed.
func (f *flights) begin() bool {
	f.n.Add(1)
	if f.closed.Load() {
		f.end()
		return false
	}
	return true
}

func (f *flights) end() {
	if f.n.Add(-1) == 0 && f.closed.Load() {
		select {
		case f.idle <- struct{}{}:
		default:
		}
	}
}

func (f *flights) shut() { f.closed.Store(true) }

// wait waits until nothing is in flight, after shut.
func (f *flights) wait(ctx context.Context) error {
	for f.n.Load() != 0 {
		select {
		case <-f.idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
