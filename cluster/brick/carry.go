package brick

import (
	"encoding/binary"
	"hash/crc32"

	"petal/cluster/slab"
	"petal/journal"
	"petal/placement"
)

// carry keeps the journal from filling up behind records that are not
// committed: a link whose other member has died commits nothing for seconds,
// while the other links go on. Such records are copied to the end of the
// journal before they come to be in its older half; each keeps its place among
// all records, by its origin.
//
//	before   [ 7 prepared | 8 | 9 ......... | 90 ]            7 holds 8 .. 90
//	after    [ 7 -------- | 8 | 9 ......... | 90 | 91: 7 ]    8 .. 90 may go
//
// Without it a journal could be full of what waits for a new configuration,
// while that waits for the journal: marks, aborts and missing blocks have to
// be written down, and what was taken before has to become durable.
//
// A copy that has come home is named in the map until everything before it has,
// too: replay does what is beyond the applied mark once more, which must not put
// it over records that came after it and are not done once more. If something of
// its chunk that came before it is done again, though, so is the copy: then all
// that came after it are, too.
//
//	'c' | LSN of the copy u64, big-endian -> nothing
//
// It is called by the destager, so that none of these records can come home, and
// be another, before the copy is on its way.
func (b *Brick) carry() {
	used, capacity := b.journal.Fill()
	if used < capacity/2 {
		return
	}
	bytes := int64(0)
	for _, p := range b.order.stuck() {
		if bytes >= capacity/8 {
			return
		}
		bytes += b.carryOne(p)
	}
}

const keyCarried = 'c'

func carriedHome(l journal.LSN) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyCarried}, uint64(l))
}

// atHome returns the carried records that the map has though it has not all
// before them.
func (m *pmap) atHome() (map[journal.LSN]bool, error) {
	home := map[journal.LSN]bool{}
	return home, m.raw([]byte{keyCarried}, []byte{keyCarried + 1}, func(k, _ []byte) error {
		if len(k) != 9 {
			return rotten("map", "names a carried record %x", k)
		}
		home[journal.LSN(binary.BigEndian.Uint64(k[1:]))] = true
		return nil
	})
}

// carryOne appends a copy of a record and returns how much that is.
func (b *Brick) carryOne(p *pend) int64 {
	s := b.pending.shard(p.key)
	s.mu.Lock()
	if p.carrying || p.stays || p.undone || p.state.Load()&stateCommitted != 0 {
		s.mu.Unlock()
		return 0
	}
	p.carrying = true
	pos, buf := p.pos, p.buf
	if buf != nil {
		buf.Retain()
	}
	s.mu.Unlock()
	if p.typ == typeWrite && buf == nil {
		if buf = b.readCarried(p, pos); buf == nil {
			s.mu.Lock()
			p.carrying, p.stays = false, true
			s.mu.Unlock()
			return 0
		}
	}
	h := head{Type: p.typ, Mask: p.mask, Key: p.key, Link: p.last.link, Bucket: p.last.bucket, Ver: p.stamp.Ver, Seq: p.stamp.Seq,
		Op: p.op, Excluded: p.excluded, Origin: p.turn()}
	b.stamp(&h)
	r := &journal.Record{}
	size := int64(0)
	switch {
	case p.typ == typeExtent:
		h.Target = p.ext
		copy(h.Sum[:], p.sums())
	case p.typ == typeWrite:
		r.Data, r.CRC = [][]byte{buf.Bytes()}, p.sums()
		size = int64(buf.Len())
	}
	r.Head = h.append(nil)
	r.Done = func(r *journal.Record, err error) {
		if buf != nil {
			buf.Release()
		}
		if err != nil {
			b.fail(err)
			return
		}
		b.carried(p, r)
	}
	b.stats.carried.Add(1)
	b.journal.Append(r)
	return size + placement.BlockSize
}

// carried moves a record to where its copy is.
func (b *Brick) carried(p *pend, r *journal.Record) {
	s := b.pending.shard(p.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.carrying = false
	if p.undone {
		b.order.skip(r.LSN)
		return
	}
	if p.typ == typeWrite {
		p.pos = r.Position
	}
	b.order.move(p, r.LSN)
}

// readCarried reads a record's data back from the journal; nil if it has rotted.
func (b *Brick) readCarried(p *pend, pos journal.Position) *slab.Buf {
	buf := b.o.Pool.Get(len(p.sums()) * placement.BlockSize)
	err := b.journal.ReadBlocks(pos, 0, buf.Bytes())
	for i, sum := range p.sums() {
		if err != nil || crc32.Checksum(block(buf.Bytes(), i), castagnoli) != sum {
			b.o.Log.Error("a record cannot be carried forward in the journal", "lsn", p.LSN(), "cause", err)
			buf.Release()
			return nil
		}
	}
	return buf
}
