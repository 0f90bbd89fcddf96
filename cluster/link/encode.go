package link

import (
	"encoding/binary"
	"time"

	"petal/placement"
)

// AppendState appends all that decides what the machine will do, in a canonical
// form: two machines that behave alike from here on, but for their complaints,
// have the same bytes. Times of progress are left out. For package explore.
func (m *Machine) AppendState(b []byte) []byte {
	u := func(vs ...uint64) {
		for _, v := range vs {
			b = binary.AppendUvarint(b, v)
		}
	}
	stamp := func(s placement.Stamp) { u(s.Ver, s.Seq) }
	u(uint64(m.state), m.cfg.Ver, uint64(m.cfg.InSync), uint64(m.cfg.Head), uint64(m.cause), uint64(m.up), uint64(m.known), uint64(m.before), m.witnessed, m.session, uint64(m.dropping), bit(m.failed)|bit(m.whole)<<1)
	u(uint64(m.grant.until), m.grant.done, bit(m.grant.live), uint64(m.grant.next.until), m.grant.next.index)
	u(uint64(m.open.got), bit(m.open.planned), uint64(m.open.behind), bit(m.open.opened))
	u(bit(m.join.active), bit(m.join.proposed), bit(m.join.whole), uint64(m.join.member), m.join.session, uint64(m.join.next), uint64(m.join.pipeline))
	for i := range m.wait {
		u(uint64(m.wait[i].records))
	}
	u(uint64(len(m.notes)))
	for _, n := range m.notes {
		u(uint64(n))
	}
	m.each(func(n placement.Bucket, k *bucket) {
		if *k == (bucket{}) {
			return
		}
		u(uint64(n) + 1)
		stamp(k.last)
		stamp(k.committed)
		for _, h := range k.have {
			stamp(h)
		}
		stamp(k.aside)
		u(uint64(k.loose), uint64(k.cut), bit(k.held)|bit(k.gathering)<<1|bit(k.awaited)<<2|bit(k.storing)<<3|bit(k.noted)<<4)
		m.forList(k, func(s *slot) {
			u(1 + bit(s.durable)<<1 + bit(s.marking)<<2 + bit(s.leaving)<<3 + bit(s.left)<<4)
			stamp(s.rec.Stamp)
			u(uint64(s.rec.Excluded), s.rec.Ref)
		})
		u(0)
	})
	u(0)
	return b
}

// LoadState makes m, from New with the same Options, what AppendState was
// called on, and returns the rest of b. It panics on anything else.
func (m *Machine) LoadState(b []byte) []byte {
	u := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			panic("link: not a machine's state")
		}
		b = b[n:]
		return v
	}
	set := func() bool { return u() != 0 }
	stamp := func() placement.Stamp { v := u(); return placement.Stamp{Ver: v, Seq: u()} }
	m.reset()
	m.state = State(u())
	m.cfg = placement.Config{Ver: u(), InSync: placement.Members(u()), Head: placement.Member(u())}
	m.cause, m.up, m.known, m.before, m.witnessed, m.session, m.dropping = Cause(u()), placement.Members(u()), placement.Members(u()), placement.Members(u()), u(), u(), int(u())
	f := u()
	m.failed, m.whole = f&1 != 0, f&2 != 0
	m.grant.until, m.grant.done, m.grant.live = time.Duration(u()), u(), set()
	m.grant.next.until, m.grant.next.index = time.Duration(u()), u()
	m.open = opening{got: placement.Members(u()), planned: set(), behind: int(u()), opened: set()}
	m.join = joining{active: set(), proposed: set(), whole: set(), member: placement.Member(u()), session: u(), next: int(u()), pipeline: int(u())}
	for i := range m.wait {
		m.wait[i].records = int(u())
	}
	for n := u(); n > 0; n-- {
		m.notes = append(m.notes, placement.Bucket(u()))
	}
	for n := u(); n != 0; n = u() {
		m.loadBucket(placement.Bucket(n-1), u, stamp)
	}
	return b
}

func (m *Machine) loadBucket(n placement.Bucket, u func() uint64, stamp func() placement.Stamp) {
	k := m.touch(n)
	last := stamp()
	k.committed = stamp()
	for i := range k.have {
		k.have[i] = stamp()
	}
	k.aside = stamp()
	k.loose, k.cut = placement.Members(u()), placement.Members(u())
	f := u()
	k.held, k.gathering, k.awaited, k.storing, k.noted = f&1 != 0, f&2 != 0, f&4 != 0, f&8 != 0, f&16 != 0
	if k.storing {
		m.storing++
	}
	for f := u(); f != 0; f = u() {
		m.push(k, Record{Bucket: n, Stamp: stamp(), Excluded: placement.Members(u()), Ref: u()})
		s := &m.slots[k.tail-1]
		s.durable, s.marking, s.leaving, s.left = f&2 != 0, f&4 != 0, f&8 != 0, f&16 != 0
		if s.durable {
			m.undurable--
		}
		if s.marking {
			m.marking++
		}
		if s.leaving {
			m.discarding++
		}
	}
	for k.fresh != 0 && m.slots[k.fresh-1].durable {
		k.fresh = m.slots[k.fresh-1].next
	}
	k.last = last
}

// reset makes m as New did, but keeps its memory.
func (m *Machine) reset() {
	o, all := m.o, m.all
	pages, slots, notes, entries, out := m.pages, m.slots[:0], m.notes[:0], m.entries[:0], m.out[:0]
	for _, p := range pages {
		if p != nil {
			*p = page{}
		}
	}
	*m = Machine{o: o, all: all, pages: pages, slots: slots, notes: notes, entries: entries, out: out}
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
