package brick

import (
	"encoding/binary"
	"slices"
	"syscall"

	"petal/placement"
)

// AddMissing says that this copy lacks blocks of a bucket and another member of
// the link has them (R9): whatever the brick has of them is hidden, and reads of
// them are ErrElsewhere, until a record writes them that is appended later, or
// AppendFill brings them. Records that were appended before stay hidden even if
// they are committed later.
//
// If last is not zero, everything of the bucket up to that stamp is committed
// from now on (Lasts): with the marks of this call and of those before it, the
// copy knows what of it it has and what it lacks. After a crash no record up to
// it is in doubt. Records appended later have greater stamps.
//
// done is called when all that is durable and in force, or with the reason why
// it never will be; it may be called before AddMissing returns if the brick has
// failed, and must not block. At most MarksMax marks; it panics beyond.
func (b *Brick) AddMissing(link LinkID, bucket placement.Bucket, marks []Mark, last placement.Stamp, done func(error)) {
	marks = slices.Clone(marks)
	for i := range marks {
		marks[i].Bucket = bucket
	}
	var cut *head
	if last != (placement.Stamp{}) {
		cut = &head{Type: typeCut, Link: link, Bucket: bucket, Ver: last.Ver, Seq: last.Seq}
	}
	b.appendNotes(typeMissing, link, 0, marks, 0, cut, func(err error) {
		b.dropCached(marks)
		done(err)
	})
}

// dropCached forgets what younger nodes have been cached with of these blocks.
func (b *Brick) dropCached(marks []Mark) {
	var last placement.Family
	for _, m := range marks {
		if b.o.Cache != nil && m.Key.Family != last {
			last = m.Key.Family
			b.o.Cache.DropFamily(last)
		}
	}
}

// AppendFill takes a record that brings blocks which are missing here. It is
// like Append, but
//
//   - it counts for a block only if that is missing at the fill's place in the
//     journal, prepared records before it included: what was written meanwhile
//     is newer, and stays
//   - Kind may be Absent: nothing was ever written there at this node
//   - it has no stamp and needs no Commit: at Done(nil) it is in force.
//
// The caller drops fills whose data was asked for before the latest AddMissing
// of their blocks.
func (b *Brick) AppendFill(r *Record) error {
	switch r.Kind {
	case Write:
		return b.appendLocal(r, typeFill)
	case Zero:
		return b.appendLocal(r, typeFillZero)
	}
	return b.appendLocal(r, typeFillAbsent)
}

// AppendRepair takes a record that brings blocks again which are here but cannot
// be read (D.5). It is like AppendFill, but it counts for a block only if its
// checksum on record is the one of the block that is brought: so it never changes
// what a block holds, only where it is read from. Kind is Write.
func (b *Brick) AppendRepair(r *Record) error {
	if r.Kind != Write {
		return syscall.EINVAL
	}
	return b.appendLocal(r, typeRepair)
}

func (b *Brick) appendLocal(r *Record, typ headType) error {
	if err := b.Failed(); err != nil {
		return err
	}
	if r.local = typ; !r.valid() || r.Kind > Absent {
		return syscall.EINVAL
	}
	p, err := b.take(r, true)
	if err != nil {
		return err
	}
	b.send(r, p)
	return nil
}

// Missing appends to dst which blocks of a link are missing here, by bucket, then
// as Marks does, after from (all of which counts but its Mask), or from the
// beginning if that is zero. It is exact: none means that nothing is missing any
// more, as far as is committed. It may wait for the disk.
func (b *Brick) Missing(link LinkID, from Mark, dst []Mark) ([]Mark, error) {
	after := from.Key
	for bucket := from.Bucket; ; {
		l := b.lasts.find(link, bucket)
		var pending []Mark
		if l != nil {
			pending = b.lasts.pendingNotes(l, 0, true, after)
		}
		var err error
		if dst, err = b.missingIn(link, bucket, after, pending, dst); err != nil || len(dst) == cap(dst) {
			return dst, err
		}
		after = placement.Key{}
		var ok bool
		if bucket, ok, err = b.nextLacking(link, bucket+1); err != nil || !ok {
			return dst, err
		}
	}
}

// missingIn does one bucket of Missing: candidates from the index, judged by
// what the chunk really is.
func (b *Brick) missingIn(link LinkID, bucket placement.Bucket, after placement.Key, pending []Mark, dst []Mark) ([]Mark, error) {
	candidates := make([]Mark, 0, 256)
	for {
		candidates, err := b.mergeNotes(candidates[:0], bucket, lackingBucket(link, bucket), 0, after, pending)
		if err != nil {
			return dst, err
		}
		for _, c := range candidates {
			m, err := b.missingAt(c.Key)
			if err != nil {
				return dst, err
			}
			if m == 0 {
				continue
			}
			if len(dst) == cap(dst) {
				return dst, nil
			}
			dst = append(dst, Mark{bucket, c.Key, m})
		}
		if len(candidates) < cap(candidates) {
			return dst, nil
		}
		after = candidates[len(candidates)-1].Key
		n, _ := slices.BinarySearchFunc(pending, after, func(m Mark, k placement.Key) int { return compareKeys(m.Key, k) })
		for pending = pending[n:]; len(pending) > 0 && pending[0].Key == after; {
			pending = pending[1:]
		}
	}
}

// missingAt returns which blocks of a chunk at one node are missing.
func (b *Brick) missingAt(k placement.Key) (placement.Mask, error) {
	var at places
	if _, err := b.findAt(k, placement.Full, &at); err != nil {
		at.release()
		return 0, err
	}
	at.release()
	return at.of(elsewhere), nil
}

// nextLacking returns the first bucket of a link, from one on, that may have
// missing blocks.
func (b *Brick) nextLacking(link LinkID, from placement.Bucket) (next placement.Bucket, ok bool, err error) {
	if from >= placement.Buckets {
		return 0, false, nil
	}
	next, ok = b.lasts.nextMissing(link, from)
	_, hi := linkBounds(keyLacking, link)
	err = b.pmap.raw(lackingBucket(link, from), hi, func(k, _ []byte) error {
		if found := placement.Bucket(binary.BigEndian.Uint16(k[9:])); !ok || found < next {
			next, ok = found, true
		}
		return errEnough
	})
	if err == errEnough {
		err = nil
	}
	return next, ok, err
}

// nextMissing returns the first bucket from one on that has pending records of
// missing blocks.
func (x *lasts) nextMissing(link LinkID, from placement.Bucket) (placement.Bucket, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.links[link]
	for bucket := from; t != nil && bucket < placement.Buckets; bucket++ {
		if l := t[bucket]; l != nil && slices.ContainsFunc(l.notes, func(p *pend) bool { return p.typ == typeMissing }) {
			return bucket, true
		}
	}
	return 0, false
}

// find is get for those who make none.
func (x *lasts) find(link LinkID, bucket placement.Bucket) *last {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t := x.links[link]; t != nil && bucket < placement.Buckets {
		return t[bucket]
	}
	return nil
}

// MissingCount returns how many blocks of a link are missing here: those that
// were when the map was last changed, and those said since. For progress; only
// Missing is exact.
func (b *Brick) MissingCount(link LinkID) (n int64) {
	b.usageMu.Lock()
	n = b.lacking[link]
	b.usageMu.Unlock()
	b.lasts.mu.Lock()
	defer b.lasts.mu.Unlock()
	if t := b.lasts.links[link]; t != nil {
		for _, l := range t {
			if l == nil {
				continue
			}
			for _, p := range l.notes {
				if p.typ == typeMissing {
					n += int64(blocks(p.mask))
				}
			}
		}
	}
	return n
}

// Conflict reports whether a record of a link's order touches one of these blocks
// that was appended and is neither committed nor abandoned, at any node of the
// lineage (R4). It is quick: no disk, no map.
func (b *Brick) Conflict(f placement.Family, lineage []placement.Node, c placement.Chunk, m placement.Mask) bool {
	k := placement.Key{Family: f, Chunk: c}
	for _, k.Node = range lineage {
		s := b.pending.shard(k)
		s.mu.Lock()
		x := s.chunks[k]
		hit := x != nil && x.conflicts(m)
		s.mu.Unlock()
		if hit {
			return true
		}
	}
	return false
}
