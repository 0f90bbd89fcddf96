package replica

import (
	"maps"
	"math"

	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/placement"
)

// trust says of a link of two members up to which version there may be records
// here that do not name the other one, which is out of sync: up to the last one
// under which it was in sync or was being let in. All later ones name it (R8). So
// a head that does not know any more what the other has, since it was restarted,
// may trust its marks, if the other has all that there is up to there: it copies
// what it has missed, and not whole buckets.
//
// It is in the superblock before the version opens, or the first cut is sent. The
// loss of records from the journal, marks among them, ends it.
type trust struct {
	both    uint64 // what held before the present attempt to let the other in; 0: nothing is known
	noted   uint64 // with it
	session uint64 // the attempt
	lost    bool   // records
}

func (x *trust) init(l *seat) {
	if rec := l.s.c.Recovery; rec != nil && len(rec.Lost) > 0 {
		x.lost = true
		return
	}
	if len(l.servers) == 2 {
		x.both = uint64(l.s.c.Store.Super().Links[l.id].Both)
		x.noted = x.both
	}
}

// again forgets the attempt to let the other in: what it got by that, it may lose.
func (x *trust) again() { x.both, x.session = x.noted, 0 }

// known returns the last record of a bucket before those that name the other
// member, if that is known. The mutex is held.
func (l *seat) known(e *link.Effect) (till placement.Stamp, ok bool) {
	x := &l.trust
	if x.session != e.Session {
		x.again()
		x.session = e.Session
	}
	if x.both == 0 || x.lost {
		return placement.Stamp{}, false
	}
	h := l.s.c.Store.History(l.id, e.Bucket)
	till, ok = h.Common(placement.Stamp{Ver: x.both, Seq: math.MaxUint64})
	// A bucket that nobody had written to needed no cut, and so nothing was noted.
	return till, ok && till != placement.Stamp{}
}

// noteJoin makes it durable that a member is being let in, before the first cut of
// a version is sent. The mutex is not held.
func (l *seat) noteJoin(ver uint64) bool {
	l.lock()
	done := l.trust.noted >= ver || len(l.servers) != 2
	l.unlock()
	if done {
		return true
	}
	if err := l.s.mark(l.id, func(m *brick.LinkMark) { m.Both = short(ver) }); err != nil {
		return false
	}
	l.lock()
	l.trust.noted = max(l.trust.noted, ver)
	l.unlock()
	return true
}

// short is a version as the superblock has it.
func short(ver uint64) uint32 {
	if ver > math.MaxUint32 {
		return 0
	}
	return uint32(ver)
}

// witness writes down in the brick's superblock under which ver this server has
// served (R14), so that a set-back disk or state is noticed.
func (l *seat) witness(ver uint64, solo bool) {
	x := &l.trust
	both := !solo && len(l.servers) == 2
	lost := x.lost
	l.later = append(l.later, func() {
		err := l.s.witness(l.id, ver, solo, func(m *brick.LinkMark) {
			switch {
			case both:
				m.Both = short(ver)
			case lost:
				m.Both = 0
			}
		})
		if err != nil {
			l.s.c.Log.Error("cannot note the link's version", "link", l.id, "ver", ver, "error", err)
			return
		}
		l.call(func() {
			if both {
				x.lost, x.noted = false, max(x.noted, ver)
				x.again()
			}
			l.step(&link.Event{Kind: link.EventWitnessed, Ver: ver})
		})
	})
}

// witness notes a link's version in the brick's superblock (R14).
func (s *Server) witness(id placement.LinkID, ver uint64, solo bool, more func(*brick.LinkMark)) error {
	if s.c.Witness != nil {
		return s.c.Witness(id, ver, solo)
	}
	return s.mark(id, func(m *brick.LinkMark) {
		if m.Ver <= ver { // two may be on their way, in any order
			m.Ver, m.Solo = ver, solo
			more(m)
		}
	})
}

// mark changes what the superblock says of a link.
func (s *Server) mark(id placement.LinkID, f func(*brick.LinkMark)) error {
	return s.c.Store.UpdateSuper(func(x *brick.Super) error {
		// Those of links that are no more say nothing, and there is room for so many.
		gmaps := s.view.Load().gmaps
		maps.DeleteFunc(x.Links, func(id placement.LinkID, _ brick.LinkMark) bool { return gmaps[id.GMap] == nil })
		m := x.Links[id]
		f(&m)
		x.Links[id] = m
		return nil
	})
}
