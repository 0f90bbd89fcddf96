package cluster

import (
	"slices"
	"sync/atomic"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// Where a read goes (DESIGN H): to the copy in sync that will probably answer
// first, by what this node has outstanding there, the length of the queue that
// the server reported last, and the time that it takes for one. So a server
// with a failed neighbour passes on the reads that others can serve, and these
// pass on theirs.
const (
	hop        = 50 * time.Microsecond // a remote copy must be better by that
	probeEvery = 50                    // of so many reads one goes to any copy
	slowFactor = 4                     // slower than its twin by that: no reads for shunTime
	slowLeast  = 20 * time.Millisecond
	shunTime   = time.Second
	lateFirst  = 10 * time.Millisecond
)

// copyTable is what is known about servers that hold copies.
type copyTable struct {
	servers atomic.Pointer[[]*copyState] // by server id
	reads   atomic.Uint64                // that had a choice
	paid    atomic.Uint64                // of them, by which hedges were paid for
}

// copyState is one server's. Times are nanoseconds.
type copyState struct {
	up      atomic.Bool
	down    atomic.Int64  // when up has ended; 0: it never was
	live    atomic.Int64  // since when it has had a lease, as the leader said; 0: it has none
	own     atomic.Int32  // reads of this node that it has
	queue   atomic.Uint32 // as it reported last
	service atomic.Int64  // of a read, a moving average
	high    atomic.Int64  // p99, roughly
	late    atomic.Int64  // p99.5: see lateness
	shunned atomic.Int64  // until then
}

// serversMax bounds the ids that are looked after: those of a cluster are small.
const serversMax = 1 << 16

// grow makes room for the servers of a state. One call at a time.
func (t *copyTable) grow(ids []placement.Server) {
	var list []*copyState
	if old := t.servers.Load(); old != nil {
		list = append(list, *old...)
	}
	for _, id := range ids {
		for int(id) >= len(list) && id < serversMax {
			list = append(list, new(copyState))
		}
	}
	t.servers.Store(&list)
}

// of returns what is known about a server, or nil.
func (t *copyTable) of(id placement.Server) *copyState {
	list := t.servers.Load()
	if list == nil || int(id) >= len(*list) {
		return nil
	}
	return (*list)[id]
}

// setUp notes that there is a connection to a server, or, since now, none.
func (t *copyTable) setUp(id placement.Server, up bool, now time.Duration) {
	if s := t.of(id); s != nil {
		if s.up.Swap(up) && !up {
			s.down.Store(int64(now))
		}
		if !up {
			s.queue.Store(0)
		}
	}
}

// setLive notes who is in service, as the leader said last.
func (t *copyTable) setLive(ids []placement.Server, now time.Duration) {
	if list := t.servers.Load(); list != nil {
		for id, s := range *list {
			if live := slices.Contains(ids, placement.Server(id)); !live {
				s.live.Store(0)
			} else if s.live.Load() == 0 {
				s.live.Store(int64(now))
			}
		}
	}
}

// lost reports whether a server is in service and out of this node's reach, both
// for so long.
func (s *copyState) lost(now, patience time.Duration) bool {
	live := s.live.Load()
	return live != 0 && !s.up.Load() && now-time.Duration(max(live, s.down.Load())) > patience
}

// note takes down what a server says of itself.
func (t *copyTable) note(id placement.Server, l wire.Load) {
	if s := t.of(id); s != nil {
		s.queue.Store(l.Queue)
	}
}

// begin and end count a read's attempt. A cached local read ends at once and is
// not timed.
func (t *copyTable) begin(p *piece) {
	if p.writes() || p.cancelling {
		return
	}
	if s := t.of(p.server); s != nil {
		s.own.Add(1)
	}
	if p.server != p.v.c.self {
		p.sent = p.v.c.clock.Now()
	}
}

func (t *copyTable) end(p *piece, c *coordinator, ok bool) {
	if p.writes() || p.cancelling {
		return
	}
	s := t.of(p.server)
	if s == nil {
		return
	}
	s.own.Add(-1)
	if p.server == c.self {
		s.queue.Store(p.Load.Queue)
	}
	if p.sent == 0 {
		return
	}
	took := int64(c.clock.Now() - p.sent)
	p.sent = 0
	if ok {
		s.took(took)
	}
}

// took averages a service time in, the better ones faster: who was slow is asked
// so seldom that it would stay out of favour for long. Races between readers lose
// a sample.
func (s *copyState) took(ns int64) {
	old := s.service.Load()
	if ns < old/2 {
		s.service.Store(old / 2)
	} else {
		s.service.Store(old + (ns-old)/8)
	}
	s.late.Store(lateness(int64(s.lateAfter()), ns))
	high := s.high.Load()
	if ns > high {
		s.high.Store(high + (ns-high)/8)
	} else {
		s.high.Store(high - (high-ns)/800)
	}
}

// lateAfter is how long nearly all reads take: lateFirst as long as none was
// measured.
func (s *copyState) lateAfter() time.Duration {
	if late := s.late.Load(); late != 0 {
		return time.Duration(late)
	}
	return lateFirst
}

// lateness moves an estimate of a quantile by one sample: up by a lot if the
// sample is above it, down by a little if it is not, so that it stays where one of
// 200 is above.
func lateness(old, ns int64) int64 {
	if ns > old {
		return old + old/16
	}
	return max(old-old/(16*199), 1)
}

// estimate is how long a read would take there, in nanoseconds.
func (s *copyState) estimate() int64 {
	return (int64(s.own.Load()) + int64(s.queue.Load()) + 1) * s.service.Load()
}

// choose returns the server that a read goes to.
func (c *coordinator) choose(p *piece, r *route) placement.Server {
	t := &c.copies
	n := t.reads.Add(1)
	if r.InSync.Len() == 1 {
		return r.servers[r.InSync.First()]
	}
	probe := n%probeEvery == 0
	now := time.Duration(0)
	best, least := placement.Server(0), int64(0)
	for i, id := range r.servers {
		s := t.of(id)
		if !r.InSync.Has(placement.Member(i)) || s == nil || id == p.shun || id != c.self && !s.up.Load() {
			continue
		}
		e := s.estimate()
		if id != c.self {
			e += int64(hop)
		}
		if until := s.shunned.Load(); until != 0 {
			if now == 0 {
				now = c.clock.Now()
			}
			if time.Duration(until) > now {
				e += int64(time.Hour)
			} else {
				s.shunned.CompareAndSwap(until, 0)
			}
		}
		if probe && e < int64(time.Hour) { // the worst is whom least is known about
			e = -e
		}
		if best == 0 || e < least {
			best, least = id, e
		}
	}
	if best == 0 { // nobody is left to try: begin again
		p.shun = 0
		return r.head()
	}
	c.shunSlow(r, best)
	return best
}

// shunSlow takes the reads from a copy that takes far longer than its twin.
func (c *coordinator) shunSlow(r *route, best placement.Server) {
	twin := c.copies.of(best)
	for i, id := range r.servers {
		s := c.copies.of(id)
		if id == best || s == nil || !r.InSync.Has(placement.Member(i)) || s.shunned.Load() != 0 {
			continue
		}
		if took := s.service.Load(); took > slowFactor*twin.high.Load() && took > int64(slowLeast) {
			s.shunned.Store(int64(c.clock.Now() + shunTime))
		}
	}
}
