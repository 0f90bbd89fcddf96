package replica

import (
	"slices"
	"sync/atomic"
	"time"

	"petal/cluster/link"
	"petal/placement"
)

// barrier waits until nothing of a virtual disk that was admitted under an older
// VVer can newly take effect through one seat (DESIGN B).
type barrier struct {
	q    *inquiry
	left int // operations admitted under an older one and not committed
}

// BarrierID names a barrier: who asks, and a number of its own. It is asked for
// again and again until it is answered.
type BarrierID struct {
	Asker  placement.Server
	Number uint64
}

// inquiry is a barrier that somebody waits for.
type inquiry struct {
	id    BarrierID
	key   diskKey
	vver  uint64
	until time.Duration // then whoever asked has given up
	done  func([]LinkVer)

	// Under the server's mutex.
	begun bool // at the seats
	left  int  // seats that have not answered
	links []LinkVer

	dead atomic.Bool // forgotten, or answered
}

// inquiriesMax bounds those that are open at a time: two for each server that a
// cluster may have. Who is not heard asks again.
const inquiriesMax = 1024

// Barrier calls done when no operation on the virtual disk at (family, node)
// that was admitted under a VVer below vver can newly take effect through this
// server: it refuses them from its Apply of vver on, and those that it had
// admitted are committed, those of an earlier head too (R10). done gets the
// links of the disk's gmap that this server is a member of, with the Ver under
// which that holds. It is called at most once, without locks; not before vver has
// been applied here. It is not called if the same barrier was asked for before and
// that one is not answered yet, and after Times.Barrier it is forgotten.
func (s *Server) Barrier(id BarrierID, family placement.Family, node placement.Node, vver uint64, done func([]LinkVer)) {
	now := s.now()
	q := &inquiry{id: id, key: diskKey{family, node}, vver: vver, until: now + s.c.Times.Barrier, done: done}
	s.mu.Lock()
	s.forgetBarriers(now)
	known := slices.ContainsFunc(s.barriers, func(x *inquiry) bool { return x.id == q.id && x.key == q.key && x.vver == q.vver })
	if known || len(s.barriers) >= inquiriesMax || s.closed.Load() {
		s.mu.Unlock()
		return
	}
	s.barriers = append(s.barriers, q)
	s.mu.Unlock()
	s.inquire(q)
}

// forgetBarriers ends those that nobody waits for any more. s.mu is held.
func (s *Server) forgetBarriers(now time.Duration) {
	s.barriers = slices.DeleteFunc(s.barriers, func(q *inquiry) bool {
		if q.until <= now {
			q.dead.Store(true)
		}
		return q.dead.Load()
	})
}

// inquire asks the seats, once the state is here.
func (s *Server) inquire(q *inquiry) {
	s.mu.Lock()
	d := s.view.Load().disks[q.key]
	if q.begun || d == nil || d.vver < q.vver {
		s.mu.Unlock()
		return
	}
	q.begun = true
	var seats []*seat
	for _, l := range d.seats {
		if l != nil {
			seats = append(seats, l)
		}
	}
	q.left = len(seats) + 1
	s.mu.Unlock()
	for _, l := range seats {
		l.lock()
		l.barriers = append(slices.DeleteFunc(l.barriers, func(b *barrier) bool { return b.q.dead.Load() }), &barrier{q: q})
		l.recount()
		l.checkBarriers()
		l.unlock()
	}
	s.inquired(q, nil)
}

// inquired takes a seat's answer; the last one is the server's.
func (s *Server) inquired(q *inquiry, v *LinkVer) {
	now := s.now()
	s.mu.Lock()
	if v != nil {
		q.links = append(q.links, *v)
	}
	q.left--
	last := q.left == 0 && !q.dead.Load()
	if last {
		q.dead.Store(true)
	}
	s.forgetBarriers(now)
	s.mu.Unlock()
	if last {
		slices.SortFunc(q.links, func(a, b LinkVer) int { return compareLinks(a.Link, b.Link) })
		q.done(q.links)
	}
}

// retryBarriers looks again at those that wait for a state.
func (s *Server) retryBarriers() {
	now := s.now()
	s.mu.Lock()
	s.forgetBarriers(now)
	list := slices.Clone(s.barriers)
	s.mu.Unlock()
	for _, q := range list {
		s.inquire(q)
	}
}

// holds reports whether the barrier has to wait for a task in flight.
func (b *barrier) holds(t *task) bool {
	return t.rec.Key.Family == b.q.key.family && t.rec.Key.Node == b.q.key.node && t.vver < b.q.vver
}

// recount counts anew what the barriers wait for.
func (l *seat) recount() {
	for _, b := range l.barriers {
		b.left = 0
		for _, t := range l.tasks {
			if t != nil && b.holds(t) {
				b.left++
			}
		}
	}
}

// settled tells the barriers that a task is not in flight any more.
func (l *seat) settled(t *task) {
	if len(l.barriers) == 0 {
		return
	}
	for _, b := range l.barriers {
		if b.holds(t) {
			b.left--
		}
	}
	l.checkBarriers()
}

// checkBarriers ends the barriers that need not wait any more: an open link has
// committed all that its earlier heads admitted, and one that is out of sync has
// nothing that will ever count.
func (l *seat) checkBarriers() {
	switch l.m.State() {
	case link.Open, link.Leaving, link.Out:
	default:
		return
	}
	kept := l.barriers[:0]
	for _, b := range l.barriers {
		if b.left > 0 {
			kept = append(kept, b)
			continue
		}
		v := LinkVer{l.id, l.ver}
		l.later = append(l.later, func() { l.s.inquired(b.q, &v) })
	}
	clear(l.barriers[len(kept):])
	l.barriers = kept
}
