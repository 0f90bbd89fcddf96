package journal

import (
	"fmt"

	"petal/journal/record"
)

// MaxTogether is the most data blocks of the records of one AppendAll: 1 MiB and
// another 64 KiB, so that 1 MiB fits that does not begin on a multiple of 64 KiB.
const MaxTogether = 272

// Fits reports whether AppendAll takes the records: they have at most MaxTogether
// data blocks, 4,096 records, and no more bytes of heads than a group has room for;
// and a segment of this journal is large enough.
func (j *Journal) Fits(rs []*Record) bool {
	bytes, blocks := record.HeaderSize, 0
	for _, r := range rs {
		bytes += record.FrameBytes(len(r.Head), len(r.CRC))
		blocks += r.blocks()
	}
	return len(rs) <= record.MaxRecords && blocks <= MaxTogether && bytes <= record.MaxHeaderBytes &&
		int64(record.HeaderBlocks(bytes)+blocks)*BlockSize <= j.MaxRecord()
}

// AppendAll is Append for records that are one: they get LSNs one after another,
// and of what a crash leaves, recovery finds all of them or none. Each has its
// Done called. If one is not Lazy, none is. It panics where Append does, and
// unless the records fit. It keeps the records, not the slice.
func (j *Journal) AppendAll(rs []*Record) {
	if !j.Fits(rs) {
		panic(fmt.Sprintf("journal: %d records are too much to be one", len(rs)))
	}
	for i, r := range rs {
		j.check(r)
		r.next, r.withNext = nil, i < len(rs)-1
	}
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		for _, r := range rs {
			r.Done(r, ErrClosed)
		}
		return
	}
	wake := false
	for _, r := range rs {
		j.enqueue(r)
		j.waiting.Add(r.diskBytes())
	}
	for _, r := range rs { // now that all are queued, for they are taken together
		wake = j.hurry(r, r.diskBytes()) || wake
	}
	j.mu.Unlock()
	if wake {
		signal(j.wake)
	}
}

// flags are those of the record's frame.
func (r *Record) flags() uint16 {
	if r.withNext {
		return record.WithNext
	}
	return 0
}
