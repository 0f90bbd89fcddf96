package peer

import (
	"cmp"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// counters are the figures of one class of a peer, over all its connections.
type counters struct {
	sentBytes, sentMessages, recvBytes, recvMessages, writes atomic.Uint64
}

// ClassStats are the figures of one class of a peer since this process began.
type ClassStats struct {
	SentBytes, SentMessages uint64 // bytes as the network has them but for TLS
	RecvBytes, RecvMessages uint64
	Writes                  uint64 // system calls, or records of TLS put together for one
	QueuedBytes             int64  // not yet written
	QueuedMessages          int
}

// Status is a peer as it is seen from here.
type Status struct {
	Server      placement.Server
	Name        string
	Data, Raft  bool          // connected
	Incarnation uint64        // of the last data connection
	Release     string        // of its program
	Since       time.Duration // the data classes are or were last connected, on the clock of Options
	Resets      uint64        // how often they were lost
	Why         error         // why they are not connected, if they are not
	Stranger    bool          // it says that this server is no member any more
	Superseded  bool          // it knows a later start of this server than this process
	Class       [wire.Classes]ClassStats
}

// Status returns what is known of each peer, in the order of their ids.
func (p *Peers) Status() []Status {
	var all []Status
	for id, peer := range *p.table.Load() {
		p.mu.Lock()
		s := Status{Server: id, Name: p.members[id].Name}
		p.mu.Unlock()
		peer.status(&s)
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Server, b.Server) })
	return all
}

func (p *peer) status(s *Status) {
	for _, b := range p.bundle {
		b.mu.Lock()
		if b.which == bundleRaft {
			s.Raft, s.Stranger = b.state == up, b.state != up && errors.Is(b.reason, unknownServer)
		} else {
			s.Data, s.Incarnation, s.Since, s.Resets, s.Why = b.state == up, b.highest, b.since, b.resets, b.reason
		}
		s.Superseded = s.Superseded || b.state != up && (errors.Is(b.reason, oldIncarnation) || errors.Is(b.reason, twin))
		s.Release = cmp.Or(s.Release, b.release)
		for _, class := range b.classes {
			c := &b.counters[class]
			x := &s.Class[class]
			x.SentBytes, x.SentMessages = c.sentBytes.Load(), c.sentMessages.Load()
			x.RecvBytes, x.RecvMessages, x.Writes = c.recvBytes.Load(), c.recvMessages.Load(), c.writes.Load()
			if conn := b.ready[class].Load(); conn != nil {
				x.QueuedBytes, x.QueuedMessages = conn.queue.depth()
			}
		}
		b.mu.Unlock()
	}
}
