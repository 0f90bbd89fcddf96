package cluster

import (
	"sync"

	"petal/cluster/brick"
)

// bucketQueue numbers the records of a bucket without gaps and commits them in
// that order, whatever the order in which they become durable (DESIGN A.1, R3).
//
//	Append ->  [ 7 durable ]  [ 8 ]  [ 9 durable ]
//	             committed            waits for 8
//
// Records that conflict are never in it together: the block locks see to that.
type bucketQueue struct {
	mu          sync.Mutex
	seq         uint64 // of the last record appended
	first, last *piece
	draining    bool // someone commits; it will see what becomes ready meanwhile
}

// append gives p's record its number and hands it to the brick. A record that
// the brick refuses leaves no gap.
func (c *coordinator) append(p *piece) {
	r := &p.rec
	q := &c.buckets[r.Bucket]
	lazy := r.Lazy
	if lazy && c.lazyBytes.Add(p.weight()) > c.lazyMax {
		c.lazyBytes.Add(-p.weight())
		lazy, r.Lazy = false, false // as with FUA: its sync takes the lazy ones along
	}
	p.ready, p.next, p.err = lazy, nil, nil // a lazy record is committed before it is durable

	q.mu.Lock()
	r.Ver, r.Seq = c.incarnation, q.seq+1
	if lazy {
		p.v.lazy.Add(1)
	}
	if err := c.brick.Append(r); err != nil {
		q.mu.Unlock()
		if lazy {
			p.v.lazy.Add(-1)
			c.lazyBytes.Add(-p.weight())
		}
		p.fail(err)
		return
	}
	q.seq++
	q.push(p)
	q.mu.Unlock()

	if lazy {
		c.drain(q)
	}
}

// push queues a piece whose record the brick has taken. The lock is held.
func (q *bucketQueue) push(p *piece) {
	if q.last == nil {
		q.first = p
	} else {
		q.last.next = p
	}
	q.last = p
}

// durable is the Done of a piece's record. It comes from another goroutine
// than Append's, so it finds the record in its queue.
func (p *piece) durable(r *brick.Record, err error) {
	c := p.v.c
	if p.joint != nil {
		p.joint.durable(err)
		p.stored(err)
		return
	}
	q := &c.buckets[r.Bucket]
	q.mu.Lock()
	if !p.ready {
		p.ready, p.err = true, err
	}
	q.mu.Unlock()
	c.drain(q)
	p.stored(err)
}

// drain commits what is ready at the front of the queue. Only one goroutine
// does so at a time, without the lock, so that what it calls may append again.
func (c *coordinator) drain(q *bucketQueue) {
	q.mu.Lock()
	if q.draining {
		q.mu.Unlock()
		return
	}
	q.draining = true
	for q.first != nil && q.first.ready {
		p := q.first
		if q.first = p.next; q.first == nil {
			q.last = nil
		}
		q.mu.Unlock()
		if p.err == nil {
			c.brick.Commit(&p.rec)
		}
		p.settled(p.err)
		q.mu.Lock()
	}
	q.draining = false
	q.mu.Unlock()
}

// opID makes the identity of a command.
func (c *coordinator) opID() brick.OpID {
	return brick.OpID{Coordinator: c.server, Incarnation: uint32(c.incarnation), Number: c.number.Add(1)}
}
