package replica

import (
	"petal/cluster/wire"
	"petal/placement"
)

// Cancel ends the operation id on a chunk for good (R12). done gets OK: it has
// taken effect; Canceled: it never did and never will, here or on any other
// member; else NotReady, NoLease or Redirect with the server to ask instead:
// nothing is known yet. Only the head of an open link can say: it has committed
// whatever may have taken effect anywhere (R10).
func (s *Server) Cancel(id placement.OpID, key placement.Key, done func(st wire.Status, head placement.Server)) {
	d := s.view.Load().disk(key)
	if d == nil {
		done(wire.NotReady, 0)
		return
	}
	l := d.seat(placement.BucketOf(key.Family, key.Chunk))
	if l == nil {
		done(wire.Redirect, 0)
		return
	}
	l.lock()
	st, wait := l.cancel(id, done)
	l.unlock()
	if !wait {
		var head placement.Server
		if st == wire.Redirect {
			head, _ = l.head()
		}
		done(st, head)
	}
}

// cancel decides, or has done called later. The mutex is held, so that the op
// can't be admitted in between.
func (l *seat) cancel(id placement.OpID, done func(wire.Status, placement.Server)) (st wire.Status, wait bool) {
	now := l.s.now()
	if st := l.mayServe(now, true); st != wire.OK {
		return st, false
	}
	for _, t := range l.tasks {
		if t != nil && t.rec.Op == id && !t.shown {
			t.cancels = append(t.cancels, done)
			return wire.OK, true
		}
		if t != nil && t.rec.Op == id {
			return wire.OK, false
		}
	}
	if l.past.did(id) {
		return wire.OK, false
	}
	l.s.refused.add(id, now, l.past.keep())
	l.stir() // if it waits, it is told
	return wire.Canceled, false
}

// canceled reports whether the operation was cancelled before it was admitted.
func (s *Server) canceled(id placement.OpID) bool { return s.refused.has(id) }

// cancelFor cancels an operation of another server.
func (s *Server) cancelFor(from placement.Server, m *wire.Message) {
	reply := wire.Message{Kind: wire.CancelReply, Op: m.Op, Key: m.Key, Link: m.Link}
	if m.Op.Coordinator != uint32(from) {
		return
	}
	s.Cancel(m.Op, m.Key, func(st wire.Status, head placement.Server) {
		reply.Status, reply.Head = st, head
		s.c.Transport.Send(from, &reply)
	})
}
