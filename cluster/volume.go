package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/slab"
	"petal/placement"
)

// Volume is a virtual disk in use at this node: the coordinator of its
// commands. It cuts them at chunk edges, makes the checksums, puts conflicting
// writes in order and turns the rest into records and reads of a brick.
//
//	Reserve  lend slab memory, cut at chunk edges
//	Write    checksum per 4 KiB -> block locks, in order of the calls
//	         -> (part of a block: read the rest) -> Append -> Commit -> done
//	Read     brick's cache, or its disk; holes are the shared zeros
//
// All methods may be called from any goroutine. What they promise about
// order, durability and errors is what lun.Disk asks for; this is that Disk.
// A write is linearized when it commits, a read when it is served. Every write
// is atomic within each chunk and not across chunks: one that fails may have
// been carried out in some chunks. WriteAtomic is atomic as a whole.
type Volume struct {
	c         *coordinator
	id        meta.ID
	family    placement.Family
	blockSize int

	state atomic.Pointer[volumeState]
	locks lockTable
	ahead readahead
	joint jointCommits

	lazy  atomic.Int64          // records acknowledged and not yet durable
	lost  atomic.Pointer[error] // why such a record will never be durable
	busy  flights
	close sync.Once
}

// volumeState is what may change while the disk is in use. A command works
// with the state of its admission.
type volumeState struct {
	size      uint64 // bytes
	readOnly  bool
	writeBack bool
	vver      uint64
	node      placement.Node   // where writes go
	lineage   []placement.Node // where reads look, newest first; lineage[0] == node
}

// store is what a Volume asks of a brick.
type store interface {
	Append(*brick.Record) error
	AppendAll([]*brick.Record) error
	Commit(*brick.Record)
	Read(*brick.ReadOp)
	Prefetch(placement.Family, []placement.Node, placement.Chunk)
	Provisioned(placement.Family, []placement.Node, placement.Chunk) (placement.Mask, error)
	NextMapped(placement.Family, placement.Chunk) (placement.Chunk, bool, error)
	Mapped(f placement.Family, from, last placement.Chunk, dst []placement.Chunk) ([]placement.Chunk, error)
	Flush(func(error))
	Usage(placement.Family) int64
	Space() (used, avail, total uint64)
	Failed() error
}

// newVolume returns the volume of disk d, whose data is written at the first
// node of lineage.
func newVolume(c *coordinator, d *meta.Disk, lineage []placement.Node) *Volume {
	v := &Volume{c: c, id: d.ID, family: d.Family, blockSize: d.BlockSize}
	v.busy.init()
	v.update(d, lineage)
	return v
}

// update tells the volume what has been agreed about its disk: size, cache
// mode, read-only, where to write. Commands admitted earlier end by the old
// state.
func (v *Volume) update(d *meta.Disk, lineage []placement.Node) {
	old := v.state.Swap(&volumeState{
		size: d.Size, readOnly: d.ReadOnly, writeBack: d.WriteBack, vver: d.VVer, node: d.Node, lineage: lineage,
	})
	if old != nil && old.writeBack && !d.WriteBack {
		v.c.brick.Flush(func(error) {}) // a failure shows at the next Flush
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

// softPercent is the part of a pool's space beyond which it is nearly full.
const softPercent = 80

// Usage is what the disk occupies, what the pool has left and has in all, in
// bytes, and whether the pool is beyond its soft threshold.
func (v *Volume) Usage() (used, poolAvailable, poolTotal uint64, soft bool) {
	poolUsed, avail, total := v.c.brick.Space()
	return uint64(v.c.brick.Usage(v.family)), avail, total, poolUsed >= total/100*softPercent
}

// Flush makes everything durable that was acknowledged before the call.
func (v *Volume) Flush(done func(error)) {
	if !v.busy.begin() {
		done(ErrVolumeClosed)
		return
	}
	if v.lazy.Load() == 0 { // the usual case: all that was acknowledged is durable
		err := v.flushed()
		v.busy.end()
		done(err)
		return
	}
	v.c.brick.Flush(func(err error) {
		if e := v.flushed(); e != nil {
			err = e
		}
		err = v.fault(err, 0)
		v.busy.end()
		done(err)
	})
}

// flushed is the error of a flush for which nothing is left to do.
func (v *Volume) flushed() error {
	if e := v.lost.Load(); e != nil {
		return v.fault(*e, 0)
	}
	return v.fault(v.c.brick.Failed(), 0)
}

// Close waits until every command in flight has ended and everything
// acknowledged is durable. From its call on, every new command ends with
// ErrVolumeClosed. Memory that is lent stays valid until its Release.
func (v *Volume) Close(ctx context.Context) error {
	v.close.Do(func() {
		v.busy.shut()
		v.c.brick.Flush(func(error) {}) // so that lazy records don't wait for their interval
	})
	return v.busy.wait(ctx)
}

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

// head and tail report whether the first and last block are touched in part.
func (s span) head() bool { return s.from%placement.BlockSize != 0 }
func (s span) tail() bool { return s.to%placement.BlockSize != 0 }

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

// coordinator is what the volumes of a node share.
type coordinator struct {
	brick       store
	pool        *slab.Pool
	server      uint32
	incarnation uint64
	number      atomic.Uint64 // of the last op id
	lazyBytes   atomic.Int64  // memory of lazy records that are not durable yet
	lazyMax     int64         // beyond it, writes wait for the disk even with write cache
	buckets     [placement.Buckets]bucketQueue
}

// newCoordinator returns the coordinator of a server's incarnation. Sequence
// numbers begin anew in each incarnation.
func newCoordinator(b store, pool *slab.Pool, server uint32, incarnation uint64) *coordinator {
	return &coordinator{brick: b, pool: pool, server: server, incarnation: incarnation, lazyMax: lazyBytesMax}
}

// lazyBytesMax bounds what a write cache holds, over all volumes of a node, in
// bytes: a disk slower than the network must slow its writers down.
const lazyBytesMax = 64 << 20
