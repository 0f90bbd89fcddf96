package replica

import (
	"petal/cluster/link"
	"petal/placement"
)

// barrier waits until nothing of a virtual disk that was admitted under an older
// VVer can newly take effect through one seat (DESIGN B).
type barrier struct {
	key  diskKey
	vver uint64
	left int // operations admitted under an older one and not committed
	done func(LinkVer)
}

// Barrier calls done when no operation on the virtual disk at (family, node)
// that was admitted under a VVer below vver can newly take effect through this
// server: it refuses them from its Apply of vver on, and those that it had
// admitted are committed, those of an earlier head too (R10). done gets the
// links of the disk's gmap that this server is a member of, with the Ver under
// which that holds. It is called once, without locks; not before vver has been
// applied here.
func (s *Server) Barrier(family placement.Family, node placement.Node, vver uint64, done func([]LinkVer)) {
	key := diskKey{family, node}
	s.mu.Lock()
	d := s.view.Load().disks[key]
	if d == nil || d.vver < vver {
		s.barriers = append(s.barriers, func() { s.Barrier(family, node, vver, done) })
		s.mu.Unlock()
		return
	}
	var seats []*seat
	for _, l := range d.seats {
		if l != nil {
			seats = append(seats, l)
		}
	}
	s.mu.Unlock()
	left, out := len(seats), make([]LinkVer, len(seats))
	if left == 0 {
		done(nil)
		return
	}
	for i, l := range seats {
		l.lock()
		l.barriers = append(l.barriers, &barrier{key: key, vver: vver, done: func(v LinkVer) {
			s.mu.Lock()
			out[i] = v
			left--
			last := left == 0
			s.mu.Unlock()
			if last {
				done(out)
			}
		}})
		l.recount()
		l.checkBarriers()
		l.unlock()
	}
}

// retryBarriers looks again at those that waited for a state.
func (s *Server) retryBarriers() {
	s.mu.Lock()
	fs := s.barriers
	s.barriers = nil
	s.mu.Unlock()
	for _, f := range fs {
		f()
	}
}

// holds reports whether the barrier has to wait for a task in flight.
func (b *barrier) holds(t *task) bool {
	return t.rec.Key.Family == b.key.family && t.rec.Key.Node == b.key.node && t.vver < b.vver
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
		l.later = append(l.later, func() { b.done(v) })
	}
	clear(l.barriers[len(kept):])
	l.barriers = kept
}
