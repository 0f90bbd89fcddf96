package cluster

import (
	"hash/crc32"
	"sync"
	"sync/atomic"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/placement"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// piece is the part of a command that lies in one chunk: a block lock, then
// one record. What it has to read first, it reads under the lock.
//
//	start -> locked -> (read) -> fill in -> submit -> settled -> stored
//	                      |         |                 visible    durable
//	                      '---------'--> fail
//
// settled and stored come in either order, the former first unless the record
// is lazy. Pieces are pooled; so their func values are made once.
type piece struct {
	v     *Volume
	owner pieceOwner
	st    *volumeState
	span  span
	kind  pieceKind
	lazy  bool
	op    brick.OpID
	buf   *slab.Buf // the blocks of span.mask(), whole
	held  bool      // has a lock of its own
	joint *writeOp  // that its record is to be one with; nil: alone

	lock blockLock
	rec  brick.Record
	read *brick.ReadOp // made by the first piece that reads
	edge int           // block that is being read

	// The bucket's queue.
	next  *piece
	ready bool  // to be committed, or with err to be dropped
	err   error // set with ready

	events atomic.Int32 // of settled and stored, those to come
}

// pieceOwner is the command that a piece belongs to.
type pieceOwner interface {
	// pieceSettled: the piece has taken effect, or err says why it never will.
	pieceSettled(p *piece, err error)
	// pieceFreed: the piece will not be heard of any more, and goes back to
	// the pool. It comes after pieceSettled.
	pieceFreed(p *piece)
	// fillIn is called under the piece's lock with the blocks that it asked
	// for. It returns false if there is nothing to write.
	fillIn(p *piece, blocks cache.Refs) bool
}

type pieceKind uint8

const (
	pieceWrite   pieceKind = iota // span of buf; the rest of the first and last block is read
	pieceZero                     // whole blocks become zeros
	pieceReplace                  // all blocks are read, then the owner decides what to write into buf
)

var pieces sync.Pool

// newPiece returns a piece for a span.
func (v *Volume) newPiece(owner pieceOwner, kind pieceKind, s span) *piece {
	p, ok := pieces.Get().(*piece)
	if !ok {
		p = new(piece)
		p.lock.granted = func(*blockLock) { p.locked() }
		p.rec.Done = p.durable
	}
	p.v, p.owner, p.kind, p.span = v, owner, kind, s
	return p
}

// free puts the piece back.
func (p *piece) free() {
	if p.buf != nil {
		p.buf.Release()
	}
	p.v, p.owner, p.st, p.buf, p.rec.Buf, p.next, p.err = nil, nil, nil, nil, nil, nil, nil
	p.held, p.joint = false, nil
	pieces.Put(p)
}

// start sets the piece going, behind those that it conflicts with.
func (p *piece) start(st *volumeState, op brick.OpID, lazy bool) {
	p.st, p.op, p.lazy, p.held = st, op, lazy, true
	p.lock.chunk, p.lock.mask = p.span.chunk, p.span.mask()
	if p.v.locks.acquire(&p.lock) {
		p.locked()
	}
}

// startLocked is start for a piece whose owner holds the blocks.
func (p *piece) startLocked(st *volumeState, op brick.OpID, lazy bool) {
	p.st, p.op, p.lazy, p.held = st, op, lazy, false
	p.locked()
}

// locked goes on when the blocks are held.
func (p *piece) locked() {
	switch {
	case p.kind == pieceReplace:
		p.load(p.span.first(), p.span.count())
	case p.kind == pieceWrite && p.span.head():
		p.load(p.span.first(), 1)
	case p.kind == pieceWrite && p.span.tail():
		p.load(p.span.first()+p.span.count()-1, 1)
	default:
		p.submit()
	}
}

// load reads blocks; loaded goes on.
func (p *piece) load(first, count int) {
	if p.read == nil {
		p.read = new(brick.ReadOp)
		p.read.Done = func(*brick.ReadOp) { p.loaded() }
	}
	r := p.read
	r.Family, r.Lineage, r.Chunk, r.First, r.Count = p.v.family, p.st.lineage, p.span.chunk, first, count
	p.edge = first
	p.v.c.brick.Read(r)
}

func (p *piece) loaded() {
	r := p.read
	if r.Err != nil {
		err := r.Err
		r.Bufs.Release()
		r.Lineage = nil
		p.fail(err)
		return
	}
	write, again := true, false
	if p.kind == pieceReplace {
		write = p.owner.fillIn(p, r.Bufs)
	} else {
		again = p.merge(r.Bufs[0].Bytes())
	}
	r.Bufs.Release()
	switch {
	case again:
		p.load(p.span.first()+p.span.count()-1, 1)
	case write:
		r.Lineage = nil
		p.submit()
	default:
		r.Lineage = nil
		p.fail(nil)
	}
}

// merge completes the block p.edge of buf with what the disk has around the
// span. It reports whether the last block has to be read too.
func (p *piece) merge(old []byte) (again bool) {
	const bs = placement.BlockSize
	at := (p.edge - p.span.first()) * bs
	block := p.buf.Bytes()[at : at+bs]
	last := p.span.first() + p.span.count() - 1
	if p.edge == p.span.first() {
		copy(block, old[:p.span.from%bs])
	}
	if p.edge == last && p.span.tail() {
		copy(block[p.span.to%bs:], old[p.span.to%bs:])
	}
	sum(p.buf, &p.rec, p.edge-p.span.first(), 1)
	return p.edge != last && p.span.tail()
}

// sum makes the checksums of count blocks of b from block first.
func sum(b *slab.Buf, r *brick.Record, first, count int) {
	const bs = placement.BlockSize
	mem := b.Bytes()
	for i := first; i < first+count; i++ {
		r.Sum[i] = crc32.Checksum(mem[i*bs:(i+1)*bs], castagnoli)
	}
}

// submit turns the piece into a record.
func (p *piece) submit() {
	r := &p.rec
	r.Kind, r.Buf = brick.Write, p.buf
	if p.kind == pieceZero {
		r.Kind, r.Buf = brick.Zero, nil
	}
	r.Key = placement.Key{Family: p.v.family, Node: p.st.node, Chunk: p.span.chunk}
	r.Bucket = placement.BucketOf(p.v.family, p.span.chunk)
	r.Mask, r.Op, r.Lazy = p.span.mask(), p.op, p.lazy
	p.events.Store(2)
	if p.joint != nil {
		p.joint.arrive(nil)
		return
	}
	p.v.c.append(p)
}

// weight is the memory that the piece's record holds, in bytes.
func (p *piece) weight() int64 {
	if p.rec.Buf == nil {
		return placement.BlockSize
	}
	return int64(p.rec.Buf.Size())
}

// fail ends a piece that makes no record; with err nil there was nothing to do.
func (p *piece) fail(err error) {
	if p.joint != nil {
		p.joint.arrive(err) // none of them will make a record
		return
	}
	p.drop(err)
}

// drop is fail for a piece that is alone, or will be followed by the others.
func (p *piece) drop(err error) {
	p.events.Store(1)
	p.settled(err)
}

// settled ends the piece for its command: committed, or failed.
func (p *piece) settled(err error) {
	v := p.v
	if p.held {
		v.locks.release(&p.lock)
	}
	if err != nil {
		err = v.fault(err, uint64(p.span.chunk)*placement.ChunkSize+uint64(p.span.from))
	}
	p.owner.pieceSettled(p, err)
	p.event()
}

// stored: the record is durable, or err says why it will never be.
func (p *piece) stored(err error) {
	v := p.v
	if p.rec.Lazy {
		if err != nil {
			first := err // so that err itself stays off the heap
			v.lost.CompareAndSwap(nil, &first)
		}
		v.lazy.Add(-1)
		v.c.lazyBytes.Add(-p.weight())
	}
	p.event()
}

func (p *piece) event() {
	if p.events.Add(-1) == 0 {
		p.owner.pieceFreed(p)
	}
}

// onlyZeros reports whether b is all zeros.
func onlyZeros(b []byte) bool {
	var zeros [512]byte
	for len(b) > len(zeros) {
		if string(b[:len(zeros)]) != string(zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return string(b) == string(zeros[:len(b)])
}

// copyBlocks copies the blocks of refs, in order, to dst.
func copyBlocks(dst []byte, refs cache.Refs) {
	for _, r := range refs {
		dst = dst[copy(dst, r.Bytes()):]
	}
}
