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
	waiting bool // the writer's goroutine sleeps, and is to be woken
	closed  bool

	borrowed bool          // a sender writes in the place of the goroutine, which sleeps: see conn.attempt
	started  bool          // somebody has left the goroutine something to finish
	pushed   time.Duration // when the last message was pushed

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

// calm is how long nothing must have been pushed before a message for its sender
// to write it. Where messages follow each other faster, the goroutine gathers
// many into one write: at 5,000 writes a second and calm at 300 us the cluster took
// a tenth more CPU for each, while at one at a time the median fell by 65 us.
var calm = time.Millisecond // a constant but for tests

// push takes m, which has passed Check and has its time of sending. If now is
// true and all is calm, it is the caller who is to write it, with conn.attempt.
func (q *queue) push(m *wire.Message, now bool) (o outcome, write bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return closed, false
	}
	if q.bytes > queueBytesMax || q.messages > queueMessagesMax {
		return overfull, false
	}
	write = now && q.waiting && len(q.pending.items) == 0 && m.Sent-q.pushed >= calm
	q.pushed = m.Sent
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
	if write = write && it.bytes <= attemptMax; !write {
		q.signal()
	}
	return queued, write
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
		if !q.borrowed {
			if n, c = q.next(current); n > 0 || c != (control{}) || q.started {
				q.started = false
				return n, c, true
			}
			q.waiting = true
		}
		q.wake.Wait()
	}
	for q.borrowed { // current is in use
		q.wake.Wait()
	}
	return 0, c, false
}

// next returns what is to be written next, and takes the credit for it.
func (q *queue) next(current *parcel) (n int, c control) {
	if len(current.rest()) == 0 && len(q.pending.items) > 0 {
		current.reset()
		*current, q.pending = q.pending, *current
	}
	n = q.affordable(current.rest())
	c, q.control = q.control, control{}
	return n, c
}

// borrow gives the caller the writer's place, with n messages to write, if the
// goroutine sleeps and there are any. Else the goroutine is woken if need be.
func (q *queue) borrow(current *parcel) (n int, c control, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.waiting || q.closed || q.bytes > attemptMax || len(q.pending.items) == 0 || len(current.rest()) > 0 {
		q.signal()
		return 0, c, false
	}
	n, c = q.next(current)
	q.waiting, q.borrowed = false, true
	return n, c, true
}

// giveBack ends a borrow, in which so much has been written, and wakes the
// goroutine if there is something left for it.
func (q *queue) giveBack(current *parcel, bytes int64, messages int, unfinished bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= bytes
	q.messages -= messages
	q.borrowed, q.started = false, q.started || unfinished
	q.waiting = true
	if q.closed || q.started || len(current.rest()) > 0 || len(q.pending.items) > 0 || q.control != (control{}) {
		q.signal()
	}
}

// finish has the goroutine finish what somebody else has begun.
func (q *queue) finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.started = true
	q.signal()
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
