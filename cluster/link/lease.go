package link

import "time"

// lease is what the machine knows of the server's lease.
type lease struct {
	until time.Duration // it ends then; 0: none
	done  uint64        // raft index applied
	live  bool          // it has counted: its end is a lapse
	next  struct {      // a grant that waits for its index
		until time.Duration
		index uint64
	}
}

// leased reports whether the lease counts and is not over (R5).
func (m *Machine) leased(now time.Duration) bool {
	return now < m.grant.until || m.broken(FaultNoLease) || m.broken(FaultSoloNoLease) && m.alone()
}

// granted takes a grant. One that comes after the end of the one before finds
// the machine lapsed already (Step). Of several that wait for their index the
// first is kept, so that a lagging application delays but never starves.
func (m *Machine) granted(until time.Duration, index uint64, now time.Duration) {
	g := &m.grant
	switch {
	case until == 0:
		g.until, g.next.until = 0, 0
		m.ended()
	case index <= g.done || m.broken(FaultLeaseEarly):
		g.until = max(g.until, until)
	case now >= g.next.until:
		g.next.until, g.next.index = until, index
	}
	m.count(now)
}

// applied moves the index that grants wait for.
func (m *Machine) applied(index uint64, now time.Duration) {
	g := &m.grant
	g.done = max(g.done, index)
	if g.next.until > 0 && g.next.index <= g.done {
		g.until = max(g.until, g.next.until)
		g.next.until = 0
	}
	m.count(now)
}

// count notices that a grant has begun to count: who is alone may open now,
// who lapsed asks for a new ver.
func (m *Machine) count(now time.Duration) {
	if m.grant.live || !m.leased(now) {
		return
	}
	m.grant.live = true
	m.tryOpen(now)
	m.reopen()
	if m.state == Out {
		m.rejoin()
	}
}

// lapse notices the end of a lease that counted.
func (m *Machine) lapse(now time.Duration) {
	if m.grant.live && now >= m.grant.until {
		m.ended()
	}
}

// ended is the end of a lease: a restart (R5). What is not yet durable
// everywhere is decided under a new ver, by R10.
func (m *Machine) ended() {
	if !m.grant.live {
		return
	}
	m.grant.live, m.grant.until = false, 0
	if !m.broken(FaultLapseNoRestart|FaultNoLease) && !(m.broken(FaultSoloNoLease) && m.alone()) {
		m.closeFor(CauseLapsed)
	}
}

// reopen asks for a new ver after a lapse.
func (m *Machine) reopen() {
	if m.state == Closed && m.cause == CauseLapsed && m.grant.live {
		m.propose(ProposeReopen, m.o.Self)
	}
}
