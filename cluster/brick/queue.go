package brick

import "sync"

// queue is an unbounded first-in, first-out queue. Its length is bounded by
// what its users have in flight: a record or a read each, with their buffers.
type queue[T any] struct {
	mu     sync.Mutex
	wake   sync.Cond
	items  []T // ring
	first  int
	n      int
	closed bool
}

func (q *queue[T]) init() { q.wake.L = &q.mu }

func (q *queue[T]) push(v T) {
	q.mu.Lock()
	if q.n == len(q.items) {
		bigger := make([]T, max(64, 2*q.n))
		for i := range q.n {
			bigger[i] = q.items[(q.first+i)%len(q.items)]
		}
		q.items, q.first = bigger, 0
	}
	q.items[(q.first+q.n)%len(q.items)] = v
	q.n++
	q.mu.Unlock()
	q.wake.Signal()
}

// pop takes the oldest item. With wait it waits for one until close, after
// which what is left is still handed out.
func (q *queue[T]) pop(wait bool) (v T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 {
		if !wait || q.closed {
			return v, false
		}
		q.wake.Wait()
	}
	return q.shift(), true
}

// popSome appends up to most of the oldest items to dst, and waits like pop for
// the first.
func (q *queue[T]) popSome(dst []T, most int, wait bool) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 {
		if !wait || q.closed {
			return dst
		}
		q.wake.Wait()
	}
	for range min(q.n, most) {
		dst = append(dst, q.shift())
	}
	return dst
}

// shift takes the oldest item. The lock is held, and there is one.
func (q *queue[T]) shift() (v T) {
	var none T
	v = q.items[q.first]
	q.items[q.first] = none
	q.first = (q.first + 1) % len(q.items)
	q.n--
	return v
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

func (q *queue[T]) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake.Broadcast()
}
