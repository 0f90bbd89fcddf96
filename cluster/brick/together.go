package brick

import (
	"slices"
	"syscall"

	"petal/journal"
)

// MaxTogether is the most blocks that the records of one AppendAll may write:
// 1 MiB, and a chunk more for where it begins.
const MaxTogether = journal.MaxTogether

// recordsTogether is the most records of one AppendAll.
const recordsTogether = 64

// AppendAll is Append for records of different chunks that are one: of what a crash
// leaves, Open finds all of them or none, and if there is no space for one of them,
// none is taken. Each has its Done called. All their data goes through the
// journal, whole chunks too: an extent-write stands or falls by its own extent.
//
// The caller makes them visible together, as far as that matters to it: each is
// committed like any other record.
//
// The errors are those of Append; too many records or blocks, or more than this
// brick's journal can hold together, are EINVAL. The slice is the caller's.
func (b *Brick) AppendAll(rs []*Record) error {
	if err := b.Failed(); err != nil {
		return err
	}
	blocks := 0
	for _, r := range rs {
		if r.local = 0; !r.valid() {
			return syscall.EINVAL
		}
		if r.Kind == Write {
			blocks += r.Buf.Len() / journal.BlockSize
		}
	}
	if len(rs) == 0 || len(rs) > recordsTogether || blocks > MaxTogether {
		return syscall.EINVAL
	}
	var taken [recordsTogether]*pend
	for i, r := range rs {
		p, err := b.take(r, true)
		if err != nil {
			b.untake(taken[:i])
			return err
		}
		taken[i] = p
	}
	var records [recordsTogether]*journal.Record
	all := records[:len(rs)]
	for i, r := range rs {
		b.encode(r, taken[i])
		all[i] = &r.Record
	}
	if !b.journal.Fits(all) {
		b.untake(taken[:len(rs)])
		return syscall.EINVAL
	}
	b.journal.AppendAll(all)
	return nil
}

// untake undoes take for records that were not appended, the last one first.
func (b *Brick) untake(ps []*pend) {
	for _, p := range slices.Backward(ps) {
		b.lasts.unnote(p)
		s := b.pending.shard(p.key)
		s.mu.Lock()
		c := s.chunks[p.key]
		c.close(p)
		b.pending.drop(p)
		if c.idle() {
			if c.reserved {
				b.alloc.unreserve(1)
			}
			delete(s.chunks, p.key)
		}
		s.mu.Unlock()
		b.pends.put(p)
	}
}
