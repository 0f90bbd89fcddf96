package link

import "petal/placement"

// bucket is what the machine knows of one bucket: how far it is, and how far
// the others are.
//
//	committed <= have[self] <= last; the list holds what is above committed
type bucket struct {
	last      placement.Stamp                      // last record taken
	committed placement.Stamp                      // last record committed
	have      [placement.MaxCopies]placement.Stamp // durable at each member, as far as known; of one out of sync: all after it names it
	first     int32                                // records above committed, in order; slot index + 1
	tail      int32
	fresh     int32             // first of them that is not durable here
	aside     placement.Stamp   // at the head how far the joiner says it is, at the joiner how far the Cut goes that is being stored
	loose     placement.Members // out of sync, but records here do not name them: the head that let them in is gone
	cut       placement.Members // who is let in (R9): at the head the joiner, at the joiner itself
	held      bool              // head: admits nothing until the cut is sent
	gathering bool              // head: EffectSendCut is under way
	awaited   bool              // head: the cut is sent and not acknowledged
	storing   bool              // not head: a Cut is being stored
	noted     bool              // in Machine.notes
}

// touched reports whether anything was ever written to the bucket, here or at
// the joiner.
func (b *bucket) touched() bool { return b.last != placement.Stamp{} || b.aside != placement.Stamp{} }

// pageBuckets is how many buckets are made at a time.
const pageBuckets = 8

type page [pageBuckets]bucket

// touch returns the bucket, made if need be.
func (m *Machine) touch(b placement.Bucket) *bucket {
	i := int(b) / pageBuckets
	for i >= len(m.pages) {
		m.pages = append(m.pages, nil)
	}
	if m.pages[i] == nil {
		m.pages[i] = new(page)
	}
	return &m.pages[i][int(b)%pageBuckets]
}

// look returns the bucket, or nil if nothing was ever said of it.
func (m *Machine) look(b placement.Bucket) *bucket {
	if i := int(b) / pageBuckets; i < len(m.pages) && m.pages[i] != nil {
		return &m.pages[i][int(b)%pageBuckets]
	}
	return nil
}

// each calls f for all buckets that were made, in order.
func (m *Machine) each(f func(placement.Bucket, *bucket)) {
	for i, p := range m.pages {
		if p == nil {
			continue
		}
		for j := range p {
			f(placement.Bucket(i*pageBuckets+j), &p[j])
		}
	}
}

// slot is a record in flight or in doubt.
type slot struct {
	rec     Record
	next    int32 // slot index + 1
	durable bool  // here
	marking bool  // EffectMark is under way: not to be committed before
	leaving bool  // EffectDiscard is under way
	left    bool  // and done
}

// push appends a record to the bucket's list.
func (m *Machine) push(b *bucket, r Record) {
	i := m.free
	if i == 0 {
		m.slots = append(m.slots, slot{})
		i = int32(len(m.slots))
	} else {
		m.free = m.slots[i-1].next
	}
	m.slots[i-1] = slot{rec: r}
	if b.first == 0 {
		b.first = i
	} else {
		m.slots[b.tail-1].next = i
	}
	b.tail = i
	if b.fresh == 0 {
		b.fresh = i
	}
	b.last = r.Stamp
	m.used++
	m.undurable++
}

// shift takes the first record off the list. Its durability may be outstanding
// only if it is being discarded.
func (m *Machine) shift(b *bucket) Record {
	i := b.first
	s := &m.slots[i-1]
	if b.fresh == i {
		b.fresh = s.next
	}
	b.first = s.next
	if b.first == 0 {
		b.tail = 0
	}
	r := s.rec
	*s = slot{next: m.free}
	m.free = i
	m.used--
	return r
}

// find returns the slot of a record above from, or nil.
func (m *Machine) find(from int32, s placement.Stamp) *slot {
	for i := from; i != 0; i = m.slots[i-1].next {
		if m.slots[i-1].rec.Stamp == s {
			return &m.slots[i-1]
		}
	}
	return nil
}

// markDurable notes that the record is durable here and reports whether the
// bucket's durable prefix grew.
func (m *Machine) markDurable(b *bucket, s placement.Stamp) bool {
	sl := m.find(b.fresh, s)
	if sl == nil || sl.durable {
		return false
	}
	sl.durable = true
	m.undurable--
	return m.advance(b)
}

// advance moves have[self] over the durable records at the front.
func (m *Machine) advance(b *bucket) bool {
	grew := false
	for b.fresh != 0 && m.slots[b.fresh-1].durable {
		s := &m.slots[b.fresh-1]
		b.have[m.o.Self] = s.rec.Stamp
		grew = true
		b.fresh = s.next
	}
	return grew
}

// forList calls f for each record of the bucket's list, in order.
func (m *Machine) forList(b *bucket, f func(*slot)) {
	for i := b.first; i != 0; {
		s := &m.slots[i-1]
		i = s.next
		f(s)
	}
}
