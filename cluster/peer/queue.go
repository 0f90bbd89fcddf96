package peer

import (
	"sync"
	"time"

	"petal/cluster/cache"
	"petal/cluster/wire"
)

// queue is what is to be sent on one connection. Messages are encoded when they
// are pushed; what is pushed while the writer writes goes out together with its
// next write.
//
// Invariant: while closed is false, bytes and messages count what has been
// pushed and not yet been written.
type queue struct {
	mu      sync.Mutex
	wake    sync.Cond
	waiting bool // the writer sleeps, and is to be woken
	closed  bool

	pending  parcel
	control  control
	bytes    int64
	messages int

	allowed int64 // bytes that the receiver takes in all, counted from the beginning
	taken   int64 // bytes that the writer has taken for writing
}

// parcel is a row of messages: the encoded heads one after another, the data
// beside them, and how far it has been written.
type parcel struct {
	heads []byte
	refs  []cache.Ref // each from doneRefs on holds one reference
	items []item

	doneHeads, doneRefs, doneItems int
}

// item is a message of a parcel.
type item struct {
	head  int // bytes in heads
	refs  int // number of refs
	bytes int // on the wire
}

// rest are the messages not yet written.
func (p *parcel) rest() []item { return p.items[p.doneItems:] }

// done leaves the first n messages of the rest behind and gives their data back.
// It returns how many bytes they had.
func (p *parcel) done(n int) (bytes int64) {
	for _, it := range p.rest()[:n] {
		for i := range it.refs {
			p.refs[p.doneRefs+i].Buf.Release()
		}
		p.doneHeads += it.head
		p.doneRefs += it.refs
		bytes += int64(it.bytes)
	}
	p.doneItems += n
	return bytes
}

// reset empties a parcel without rest. Its memory stays, unless it is much.
func (p *parcel) reset() {
	if cap(p.heads) > keepBytes {
		*p = parcel{}
		return
	}
	clear(p.refs)
	*p = parcel{heads: p.heads[:0], refs: p.refs[:0], items: p.items[:0]}
}

// control is what is to be said about the connection. Each kind at most once:
// only the last counts. It waits for no credit, for it is what brings it.
type control struct {
	ping, pong, credit bool
	pongAt             time.Duration
	handled            int64
}

// keepBytes is how much memory for heads a queue keeps when it is empty.
const keepBytes = 256 << 10

func newQueue(allowed int64) *queue {
	q := &queue{allowed: allowed}
	q.wake.L = &q.mu
	return q
}

// outcome of a push.
type outcome uint8

const (
	queued outcome = iota
	closed
	overfull
)

// push takes m, which has passed Check and has its time of sending.
func (q *queue) push(m *wire.Message) outcome {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return closed
	}
	if q.bytes > queueBytesMax || q.messages > queueMessagesMax {
		return overfull
	}
	p := &q.pending
	at := len(p.heads)
	p.heads = m.Append(p.heads)
	it := item{head: len(p.heads) - at, refs: len(m.Data)}
	it.bytes = it.head
	for i := range m.Data {
		r := m.Data[i]
		r.Buf.Retain()
		p.refs = append(p.refs, r)
		it.bytes += r.Len
	}
	p.items = append(p.items, it)
	q.bytes += int64(it.bytes)
	q.messages++
	q.signal()
	return queued
}

func (q *queue) signal() {
	if q.waiting {
		q.waiting = false
		q.wake.Signal()
	}
}

// say changes what is to be said about the connection.
func (q *queue) say(f func(c *control)) {
	q.mu.Lock()
	f(&q.control)
	q.signal()
	q.mu.Unlock()
}

// allow raises what the receiver takes in all. It reports false if the receiver
// takes back what it has promised.
func (q *queue) allow(total int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if total < q.allowed {
		return false
	}
	q.allowed = total
	q.signal()
	return true
}

// take waits until there is something to write. current is what the writer took
// earlier: once it has been written it is exchanged for all that is pending. n is
// how many of its messages are to be written now, and c what is to be said before
// them. bytes and messages are what the writer has written since the last time.
// ok is false when the queue is closed.
func (q *queue) take(current *parcel, bytes int64, messages int) (n int, c control, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= bytes
	q.messages -= messages
	for !q.closed {
		if len(current.rest()) == 0 && len(q.pending.items) > 0 {
			current.reset()
			*current, q.pending = q.pending, *current
		}
		n = q.affordable(current.rest())
		c, q.control = q.control, control{}
		if n > 0 || c != (control{}) {
			return n, c, true
		}
		q.waiting = true
		q.wake.Wait()
	}
	return 0, c, false
}

// Limits of one write. A vector has at most 1024 parts.
const (
	writeBytesMax = 1 << 20
	writePartsMax = 1000
)

// affordable returns how many of the items there is credit for, at most as many
// as make one write, and takes the credit.
func (q *queue) affordable(items []item) (n int) {
	bytes, parts := 0, 0
	for n < len(items) {
		it := items[n]
		if q.taken+int64(it.bytes) > q.allowed || n > 0 && (bytes+it.bytes > writeBytesMax || parts+1+it.refs > writePartsMax) {
			break
		}
		q.taken += int64(it.bytes)
		bytes += it.bytes
		parts += 1 + it.refs
		n++
	}
	return n
}

// close makes the queue refuse messages and drops those that it has.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.pending.done(len(q.pending.items))
	q.pending = parcel{}
	q.wake.Broadcast()
}

func (q *queue) depth() (bytes int64, messages int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.messages
}
