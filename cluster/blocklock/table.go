// Package blocklock lets conflicting writes through in the order in which they
// came. A Table is a set of queues; a request may go ahead when no earlier one in
// its queue conflicts with it.
//
//	shard 0   [chunk 128, 00ff] <- [chunk 128, 0f00] <- [chunk 0, ffff]
//	           goes ahead           waits for the 1st    goes ahead
//	shard 1   ...
//
// A request for blocks of one chunk lies in one queue. A request for a long range
// of chunks lies in all of them. Nobody waits for a second lock while holding one,
// and long requests enter one at a time, so there is no deadlock. Readers take no
// locks: they see what is committed.
//
// It is used twice: by the head of a link, whose order is the one that counts, and
// by the node that got the commands, so that what it was told first also reaches
// the head first, however often it is resent.
//
// It starts no goroutine and reads no clock.
package blocklock

import (
	"sync"
	"sync/atomic"

	"petal/placement"
)

// Table is a set of locks on blocks. The zero value is ready to use. It is safe
// for concurrent use.
type Table struct {
	shards [shards]shard
	long   sync.Mutex // one long request enters at a time
}

const shards = 128 // a power of two

type shard struct {
	mu          sync.Mutex
	first, last *Lock
	_           [40]byte
}

// Lock is a request for blocks, embedded in what asks. The asker sets what is
// exported; the rest belongs to the table. It may be reused after Release.
type Lock struct {
	Key  placement.Key
	Mask placement.Mask // blocks of the chunk

	// Granted is called when Acquire has returned false, once, by the one who
	// released what was in the way, without locks of the table. It may release.
	Granted func()

	end        placement.Chunk // last chunk of a long request, else that of Key
	waiting    bool
	prev, next *Lock
	wake       *Lock // list of those to be granted after the shard is unlocked
}

func (t *Table) shard(k placement.Key) *shard {
	h := uint64(k.Chunk) + uint64(k.Family)*0x9e3779b97f4a7c15>>40
	return &t.shards[h%shards]
}

// conflicts reports whether a and b may not go ahead together.
func (a *Lock) conflicts(b *Lock) bool {
	return a.Mask&b.Mask != 0 && a.Key.Chunk <= b.end && b.Key.Chunk <= a.end && a.Key.Family == b.Key.Family && a.Key.Node == b.Key.Node
}

// Acquire asks for l's blocks. If it returns true they are held; else Granted
// will be called.
func (t *Table) Acquire(l *Lock) bool {
	l.end = l.Key.Chunk
	s := t.shard(l.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.push(l)
}

// push queues l and reports whether it may go ahead.
func (s *shard) push(l *Lock) bool {
	l.waiting = s.blocked(l, nil)
	l.prev, l.next = s.last, nil
	if s.last == nil {
		s.first = l
	} else {
		s.last.next = l
	}
	s.last = l
	return !l.waiting
}

// blocked reports whether a request before l, up to end, conflicts with it.
func (s *shard) blocked(l, end *Lock) bool {
	for x := s.first; x != end; x = x.next {
		if x.conflicts(l) {
			return true
		}
	}
	return false
}

// Release gives l's blocks up and lets those ahead that waited for them. Also a
// request that waits still may be given up, by the one who made it.
func (t *Table) Release(l *Lock) { t.shard(l.Key).release(l) }

func (s *shard) release(l *Lock) {
	s.mu.Lock()
	wake := s.remove(l)
	s.mu.Unlock()
	for wake != nil {
		x := wake
		wake, x.wake = x.wake, nil
		x.Granted()
	}
}

// remove takes l out of its queue and returns those that need not wait any more.
func (s *shard) remove(l *Lock) (wake *Lock) {
	after := l.next
	if l.prev == nil {
		s.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		s.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.prev, l.next = nil, nil
	var tail *Lock
	for x := after; x != nil; x = x.next {
		if !x.waiting || !x.conflicts(l) || s.blocked(x, x) {
			continue
		}
		x.waiting, x.wake = false, nil
		if tail == nil {
			wake = x
		} else {
			tail.wake = x
		}
		tail = x
	}
	return wake
}

// Long is a request for all blocks of many chunks.
type Long struct {
	part    [shards]Lock
	missing atomic.Int32
	granted func(*Long)
}

// AcquireLong asks for the chunks from first's to last. granted is called once
// when they are held, possibly before AcquireLong returns, with what ReleaseLong
// wants.
func (t *Table) AcquireLong(first placement.Key, last placement.Chunk, granted func(*Long)) {
	l := &Long{granted: granted}
	l.missing.Store(shards + 1)
	t.long.Lock()
	for i := range l.part {
		p := &l.part[i]
		p.Key, p.end, p.Mask = first, last, placement.Full
		p.Granted = l.got
		s := &t.shards[i]
		s.mu.Lock()
		held := s.push(p)
		s.mu.Unlock()
		if held {
			l.missing.Add(-1) // the last one is got's below
		}
	}
	t.long.Unlock()
	l.got()
}

func (l *Long) got() {
	if l.missing.Add(-1) == 0 {
		l.granted(l)
	}
}

// ReleaseLong gives a long request up.
func (t *Table) ReleaseLong(l *Long) {
	for i := range l.part {
		t.shards[i].release(&l.part[i])
	}
}
