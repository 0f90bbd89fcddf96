package brick

import (
	"encoding/binary"

	"petal/placement"
)

// AddMarks notes that members of a link lack blocks, beside what records say
// that exclude them (R8). The marks count as made under a version of the link:
// see DropMarks. done is called when they are durable, or
// with the reason why they never will be; it may be called before AddMarks
// returns if the brick has failed or there are no marks, and must not block. At
// most MarksMax marks; it panics beyond.
func (b *Brick) AddMarks(link LinkID, members placement.Members, marks []Mark, ver uint64, done func(error)) {
	b.appendNotes(typeMarks, link, members, marks, ver, nil, done)
}

// Marks appends to dst what a member of a link lacks in a bucket: what was marked
// by records that exclude it and by AddMarks, and not dropped. Marks ascend by
// family, chunk, and node from new to old; they begin after the key from, or at
// the beginning if that is zero, and end when dst is full. Fewer than fit mean
// that there are no more. It may wait for the disk.
//
// Records that are prepared count: so whoever copies blocks to the member must
// wait until they are committed (Conflict).
func (b *Brick) Marks(link LinkID, m placement.Member, bucket placement.Bucket, from placement.Key, dst []Mark) ([]Mark, error) {
	// The index before the map: destage moves records the other way.
	space := markSpace{link, m}
	pending := b.lasts.pendingNotes(b.lasts.get(link, bucket), m, false, from)
	return b.mergeNotes(dst, bucket, staleBucket(space, bucket), b.lasts.voidAt(space), from, pending)
}

// DropMarks forgets all marks of a member that were made under a lower version of
// the link than ver: under that it has been in sync, and has what it lacks as
// missing blocks of its own. Later marks are not touched, whenever they come. done is
// called when that is durable; as in AddMarks.
func (b *Brick) DropMarks(link LinkID, m placement.Member, ver uint64, done func(error)) {
	h := head{Type: typeUnmark, Link: link, Ver: ver, Excluded: placement.Members(0).With(m)}
	b.appendMark(h, func(err error) {
		b.kickDestage()
		done(err)
	})
}

// MarkCount returns in how many chunks a member has marks. While records are on
// their way home it may be more than that, never less.
func (b *Brick) MarkCount(link LinkID, m placement.Member) (n int64) {
	space := markSpace{link, m}
	b.lasts.mu.Lock()
	void := b.lasts.void[space]
	if t := b.lasts.links[link]; t != nil {
		for _, l := range t {
			if l == nil {
				continue
			}
			for _, p := range l.notes {
				if p.typ != typeMissing && p.marks(m, void) {
					n++
				}
			}
		}
	}
	b.lasts.mu.Unlock()
	b.usageMu.Lock()
	defer b.usageMu.Unlock()
	return n + b.stale[space]
}

// destageUnmark takes marks out of the map: its batch.
func (b *Brick) destageUnmark(p *pend) error {
	batch := b.pmap.db.NewBatch()
	defer batch.Close()
	less := map[markSpace]int64{}
	for s := p.excluded; s != 0; s = s.Without(s.First()) {
		space := markSpace{p.last.link, s.First()}
		void := b.lasts.voidAt(space)
		if err := batch.Set(space.key(keyUnmarked), binary.LittleEndian.AppendUint64(nil, void), nil); err != nil {
			return err
		}
		prefix := space.key(keyStale)
		err := b.pmap.raw(prefix, keyAfter(prefix), func(k, v []byte) error {
			if len(k) != staleSize {
				return rotten("map", "has a note %x", k)
			}
			_, _, ver, err := parseNote(k[staleSize-tailSize:], v)
			if err != nil || ver >= void {
				return err
			}
			less[space]--
			return batch.Delete(k, nil)
		})
		if err != nil {
			return err
		}
	}
	if err := b.commitDone(batch, []*pend{p}); err != nil {
		return err
	}
	b.count(nil, less)
	return nil
}
