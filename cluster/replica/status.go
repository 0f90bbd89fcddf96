package replica

import (
	"petal/cluster/link"
	"petal/cluster/wire"
	"petal/placement"
)

// Status returns how each link of this server is, in order of LinkID.
func (s *Server) Status() []LinkStatus {
	var out []LinkStatus
	for _, l := range s.all() {
		out = append(out, l.status0())
	}
	return out
}

func (l *seat) status0() LinkStatus {
	l.lock()
	defer l.unlock()
	now := l.s.now()
	l.pulls.rate.roll(now)
	st := LinkStatus{
		Link: l.id, Members: l.servers, Self: l.self, Config: l.m.Config(), Filling: l.filling,
		Serving: l.mayServe(now, false) == wire.OK, State: l.m.State().String(), InFlight: l.used,
		Missing: l.pulls.left, Copied: l.pulls.copied, Rate: l.pulls.rate.last, Joining: -1, Since: l.since, Full: l.full || l.pulls.full,
	}
	if l.m.Joining() {
		st.Joining = 1
	}
	for m := range l.servers {
		if m := placement.Member(m); !l.m.Config().InSync.Has(m) {
			st.Marks += uint64(max(0, l.s.c.Store.MarkCount(l.id, m)))
		}
	}
	if l.m.State() != link.Open || !l.filling.Has(l.self) {
		st.Missing = uint64(max(0, l.s.c.Store.MissingCount(l.id)))
	}
	st.Unrecoverable = l.pulls.unrecoverable(st.Missing)
	return st
}

// Load is how busy this server is, as it tells others.
func (s *Server) Load() (l wire.Load) {
	s.load.fill(&l)
	return l
}

// Damaged and Repaired count messages whose data did not match their checksums,
// and blocks that were bad here and were put back from another member.
func (s *Server) Damaged() uint64  { return s.damaged.Load() }
func (s *Server) Repaired() uint64 { return s.repaired.Load() }

// SetFillRate changes Config.FillRate.
func (s *Server) SetFillRate(bytesPerSecond int64) { s.fill.set(bytesPerSecond) }

// Close ends the server's service: operations under way are answered NotReady,
// whatever becomes of them, and nothing begins any more. The brick is closed
// afterwards, and may still make records durable; the transport before.
func (s *Server) Close() {
	if s.closed.Swap(true) {
		return
	}
	for _, l := range s.all() {
		l.lock()
		l.close()
		l.unlock()
	}
	s.retryAhead()
}

// close gives up what the seat has under way. The mutex is held.
func (l *seat) close() {
	l.dropFetches()
	l.stirred = true
	l.closed = true
	l.gate.Store(nil)
	if l.tick != nil {
		l.tick.Stop()
	}
	for i, t := range l.tasks {
		if t != nil {
			t.result = wire.NotReady
			l.over.push(t)
			l.tasks[i] = nil
		}
	}
}

// Prefetch reads a chunk into the cache, if there is nothing better to do.
func (s *Server) Prefetch(key placement.Key) {
	if d := s.view.Load().disk(key); d != nil && d.seat(placement.BucketOf(key.Family, key.Chunk)) != nil {
		s.c.Store.Prefetch(key.Family, d.lineage, key.Chunk)
	}
}
