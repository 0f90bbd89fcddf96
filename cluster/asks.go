package cluster

import (
	"sync"

	"petal/cluster/replica"
	"petal/cluster/wire"
	"petal/placement"
)

// asks are questions to other servers that are no operations on a chunk: what
// of a range holds data. Each has a number; who asks tries again if the server
// goes away.
type asks struct {
	mu   sync.Mutex
	list []*ask // in the order of asking; few
}

type ask struct {
	id   placement.OpID
	to   placement.Server
	done func(found []replica.MappedChunk, more bool, status wire.Status)
}

// add notes a question.
func (a *asks) add(q *ask) {
	a.mu.Lock()
	a.list = append(a.list, q)
	a.mu.Unlock()
}

// take takes the questions that which says, in order.
func (a *asks) take(which func(*ask) bool) (out []*ask) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := a.list[:0]
	for _, q := range a.list {
		if which(q) {
			out = append(out, q)
		} else {
			kept = append(kept, q)
		}
	}
	clear(a.list[len(kept):])
	a.list = kept
	return out
}

// down ends the questions that a server will not answer any more.
func (a *asks) down(peer placement.Server) {
	for _, q := range a.take(func(q *ask) bool { return q.to == peer }) {
		q.done(nil, false, wire.NotReady)
	}
}

// mappedMax is how many chunks this node itself is asked for at a time.
const mappedMax = 1024

// mapped asks a link's head which chunks of a disk, from key's to last, as far
// as they are the link's, hold data, in order; more says that there are more
// behind them. done may come before mapped returns.
func (c *coordinator) mapped(r *route, key placement.Key, last placement.Chunk, done func(found []replica.MappedChunk, more bool, status wire.Status)) {
	to := r.head()
	if to == c.self {
		if m := c.member(); m != nil {
			m.Mapped(r.link, key, last, mappedMax, done)
			return
		}
	}
	id := c.opID()
	if id.Incarnation = c.incarnation.Load(); id.Incarnation == 0 || to == c.self || c.net == nil {
		done(nil, false, wire.NotReady)
		return
	}
	q := &ask{id: id, to: to, done: done}
	c.asked.add(q)
	if c.lapsed.Load() || !c.net.Send(to, &wire.Message{Kind: wire.Mapped, Op: id, Link: r.link, Ver: r.Ver, Key: key, Index: uint64(last)}) {
		c.answer(id, to, nil, false, wire.NotReady)
	}
}

// answer ends a question.
func (c *coordinator) answer(id placement.OpID, from placement.Server, found []replica.MappedChunk, more bool, status wire.Status) {
	for _, q := range c.asked.take(func(q *ask) bool { return q.id == id && q.to == from }) {
		q.done(found, more, status)
	}
}

// receiveMapped gets another server's answer.
func (c *coordinator) receiveMapped(from placement.Server, m *wire.Message) {
	if m.Status != wire.OK {
		c.answer(m.Op, from, nil, false, m.Status)
		return
	}
	found, ok := replica.ParseMapped(m.Body)
	if !ok {
		c.answer(m.Op, from, nil, false, wire.Damaged)
		return
	}
	c.answer(m.Op, from, found, m.Flags&wire.FlagMore != 0, wire.OK)
}
