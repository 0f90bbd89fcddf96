package brick

import (
	"github.com/cockroachdb/pebble/v2"

	"petal/placement"
)

// AddMarks notes that members of a link lack blocks, beside what records say
// that exclude them (R8). done is called when that is durable, or with the
// reason why it never will be; it may be called before AddMarks returns if the
// brick has failed, and must not block. At most MarksMax marks; it panics
// beyond.
func (b *Brick) AddMarks(link LinkID, members placement.Members, marks []Mark, done func(error)) {
	b.appendNotes(typeMarks, link, members, marks, done)
}

// Marks appends to dst what a member of a link lacks in a bucket: what was marked
// by records that exclude it and by AddMarks, since DropMarks. Marks ascend by
// family, chunk, and node from new to old; they begin after the key from, or at
// the beginning if that is zero, and end when dst is full. Fewer than fit mean
// that there are no more. It may wait for the disk.
//
// Records that are prepared count: so whoever copies blocks to the member must
// wait until they are committed (Conflict).
func (b *Brick) Marks(link LinkID, m placement.Member, bucket placement.Bucket, from placement.Key, dst []Mark) ([]Mark, error) {
	// The index before the map: destage moves records the other way.
	pending, u := b.lasts.pendingNotes(b.lasts.get(link, bucket), m, false, from)
	var prefix []byte
	if u.lsn == 0 || u.inMap {
		prefix = staleBucket(markSpace{link, m}, bucket)
	}
	return b.mergeNotes(dst, bucket, prefix, from, pending)
}

// DropMarks voids the marks of a member in a bucket that records appended so far
// have made: it has stored them as missing. done is called when that is durable;
// as in AddMarks.
func (b *Brick) DropMarks(link LinkID, m placement.Member, bucket placement.Bucket, done func(error)) {
	h := head{Type: typeUnmark, Link: link, Bucket: bucket, Excluded: placement.Members(0).With(m)}
	b.appendMark(h, func(err error) {
		b.kickDestage()
		done(err)
	})
}

// MarkCount returns in how many chunks a member has marks, as far as they have
// been destaged.
func (b *Brick) MarkCount(link LinkID, m placement.Member) int64 {
	b.usageMu.Lock()
	defer b.usageMu.Unlock()
	return b.stale[markSpace{link, m}]
}

// destageUnmark takes marks out of the map: its batch. Every record before it
// that was ready has been destaged, and none behind it.
func (b *Brick) destageUnmark(p *pend) error {
	batch := b.pmap.db.NewBatch()
	defer batch.Close()
	less := map[markSpace]int64{}
	for s := p.excluded; s != 0; s = s.Without(s.First()) {
		space := markSpace{p.last.link, s.First()}
		if err := b.deleteNotes(batch, staleBucket(space, p.last.bucket), func() { less[space]-- }); err != nil {
			return err
		}
	}
	if err := b.commitDone(batch, []*pend{p}); err != nil {
		return err
	}
	b.count(nil, less)
	b.lasts.mu.Lock()
	for s := p.excluded; s != 0; s = s.Without(s.First()) {
		if u, ok := p.last.unmarked[s.First()]; ok && u.lsn == p.LSN() {
			p.last.unmarked[s.First()] = unmarkPoint{u.lsn, true}
		}
	}
	b.lasts.mu.Unlock()
	return nil
}

// deleteNotes deletes all notes under a prefix, and calls each for every one.
func (b *Brick) deleteNotes(batch *pebble.Batch, prefix []byte, each func()) error {
	found := false
	err := b.pmap.raw(prefix, keyAfter(prefix), func(_, _ []byte) error {
		found = true
		each()
		return nil
	})
	if err != nil || !found {
		return err
	}
	return batch.DeleteRange(prefix, keyAfter(prefix), nil)
}
