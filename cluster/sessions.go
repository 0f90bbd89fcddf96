package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"petal/cluster/meta"
	"petal/cluster/wire"
	"petal/placement"
)

// Who is logged in where is nothing that servers agree on: it changes too often,
// and only who takes something away needs to know. So it is asked for, and only an
// answer to this very question counts.
//
//	read index, so that the members are those of now
//	ask all that hold data       <- targets, and how many sessions each has
//	    one has no lease (Down): it has none, since a node without a lease drops
//	        its sessions and takes no new ones (R5); it is asked once all the same,
//	        because it may be back without anybody having noted it yet
//	    one does not answer:     asked again until patience ends, then Silent

// SessionCount says at which servers initiators are logged in.
type SessionCount struct {
	// At has the sessions of each target that has any, for each server that
	// answered.
	At map[placement.Server]map[string]int
	// Silent are those that may have sessions and did not say, by number.
	Silent []placement.Server
}

// sessionCounts are the questions that wait for answers, and what this node
// answers itself.
type sessionCounts struct {
	mu   sync.Mutex
	own  func() map[string]int // nil: not known yet
	last uint64
	list []*sessionCount
}

// sessionCount is one question.
type sessionCount struct {
	n      *Node
	number uint64
	since  time.Duration
	done   func(SessionCount, error)

	// Under sessionCounts.mu until it has ended.
	tries int
	at    map[placement.Server]map[string]int
	ended bool
}

// ServeSessions has f answer how many sessions each target has at this node. It
// must not block. Until then the node does not answer who asks.
func (n *Node) ServeSessions(f func() map[string]int) {
	n.sessions.mu.Lock()
	defer n.sessions.mu.Unlock()
	n.sessions.own = f
}

// CountSessions asks all servers who is logged in at theirs. The answer is of a
// moment after the call; whoever logs in later is not in it. It takes at most
// 3 Times.Lease. Without a majority the error is meta.ErrNoQuorum: nobody knows
// then which servers there are.
func (n *Node) CountSessions(ctx context.Context) (SessionCount, error) {
	type result struct {
		count SessionCount
		err   error
	}
	c := make(chan result, 1)
	n.CountSessionsAsync(func(count SessionCount, err error) { c <- result{count, err} })
	select {
	case r := <-c:
		return r.count, r.err
	case <-ctx.Done():
		return SessionCount{}, ctx.Err()
	}
}

// CountSessionsAsync is CountSessions for who must not wait.
func (n *Node) CountSessionsAsync(done func(SessionCount, error)) {
	n.group.ReadIndexAsync(func(_ *meta.State, err error) {
		if err != nil {
			done(SessionCount{}, err)
			return
		}
		c := &sessionCount{n: n, since: n.env.Clock.Now(), done: done, at: map[placement.Server]map[string]int{}}
		cs := &n.sessions
		cs.mu.Lock()
		cs.last++
		c.number = cs.last
		cs.list = append(cs.list, c)
		cs.mu.Unlock()
		c.round()
	})
}

// open returns who has still to answer. Under sessionCounts.mu.
func (c *sessionCount) open() (out []placement.Server) {
	for _, srv := range c.n.State().Servers() {
		_, answered := c.at[srv.ID]
		idle := srv.Kind == meta.Witness || srv.Incarnation == 0 || !srv.Down.IsZero() && c.tries > 0
		if srv.ID != c.n.self && !answered && !idle {
			out = append(out, srv.ID)
		}
	}
	return out
}

// round asks those who have not answered, again and again.
func (c *sessionCount) round() {
	n, cs := c.n, &c.n.sessions
	cs.mu.Lock()
	if c.ended {
		cs.mu.Unlock()
		return
	}
	ask := c.open()
	c.tries++
	cs.mu.Unlock()
	late := n.ctx.Err() != nil || n.env.Clock.Now()-c.since >= 2*n.opt.Times.Lease
	if len(ask) == 0 || late {
		c.end(ask)
		return
	}
	for _, srv := range ask {
		if n.net != nil {
			n.net.Send(srv, &wire.Message{Kind: wire.Sessions, Index: c.number})
		}
	}
	n.env.Clock.AfterFunc(n.opt.Times.Renewal/2, c.round)
}

// end ends the question, once.
func (c *sessionCount) end(silent []placement.Server) {
	cs := &c.n.sessions
	cs.mu.Lock()
	first, own := !c.ended, cs.own
	c.ended = true
	cs.list = slices.DeleteFunc(cs.list, func(x *sessionCount) bool { return x == c })
	cs.mu.Unlock()
	if !first {
		return
	}
	if own != nil {
		c.at[c.n.self] = own()
	} else {
		silent = append(silent, c.n.self)
		slices.Sort(silent)
	}
	c.done(SessionCount{At: c.at, Silent: silent}, nil)
}

// receive takes a server's answer.
func (cs *sessionCounts) receive(from placement.Server, m *wire.Message) {
	count, ok := parseSessions(m.Body)
	if !ok {
		return
	}
	cs.mu.Lock()
	i := slices.IndexFunc(cs.list, func(x *sessionCount) bool { return x.number == m.Index })
	if i < 0 {
		cs.mu.Unlock()
		return
	}
	c := cs.list[i]
	c.at[from] = count
	over := len(c.open()) == 0
	cs.mu.Unlock()
	if over {
		c.end(nil)
	}
}

// tellSessions answers another server.
func (n *Node) tellSessions(from placement.Server, question uint64) {
	n.sessions.mu.Lock()
	own := n.sessions.own
	n.sessions.mu.Unlock()
	if own == nil {
		return // it asks again
	}
	if body, ok := appendSessions(nil, own()); ok {
		n.net.Send(from, &wire.Message{Kind: wire.SessionsHere, Index: question, Body: body})
	}
}

// maxSessionTargets bounds the targets of an answer: with the longest names they
// fit a message. A node takes no more sessions than that.
const maxSessionTargets = wire.MaxBody / (1 + meta.MaxTargetName + 4)

// appendSessions encodes, by name, for each target: length of its name u8, name,
// sessions u32, little-endian. It reports false if there are too many.
func appendSessions(b []byte, count map[string]int) ([]byte, bool) {
	if len(count) > maxSessionTargets {
		return nil, false
	}
	for _, name := range slices.SortedFunc(maps.Keys(count), cmp.Compare) {
		if len(name) == 0 || len(name) > meta.MaxTargetName || count[name] <= 0 {
			continue // no target has such a name
		}
		b = append(append(b, byte(len(name))), name...)
		b = binary.LittleEndian.AppendUint32(b, uint32(min(count[name], 1<<31)))
	}
	return b, true
}

func parseSessions(b []byte) (map[string]int, bool) {
	out, last := map[string]int{}, ""
	for len(b) > 0 {
		n := int(b[0])
		if n == 0 || n > meta.MaxTargetName || len(b) < 1+n+4 || len(out) == maxSessionTargets {
			return nil, false
		}
		name, count := string(b[1:1+n]), binary.LittleEndian.Uint32(b[1+n:])
		if name <= last || count == 0 || count > 1<<31 {
			return nil, false
		}
		out[name], last, b = int(count), name, b[1+n+4:]
	}
	return out, true
}
