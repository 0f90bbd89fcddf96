package replica

import (
	"sync"

	"petal/placement"
)

// lockTable lets conflicting writes through in the order in which they came. It
// is a set of queues; a request may go ahead when no earlier one in its queue
// conflicts with it.
//
//	shard 0   [chunk 64, 00ff] <- [chunk 64, 0f00] <- [chunk 0, ffff]
//	           goes ahead          waits for the 1st    goes ahead
//	shard 1   ...
//
// A request lies in one queue, and nobody waits for a second lock while holding
// one, so there is no deadlock. Readers take no locks: they see what is
// committed. A lock is held until its record is committed, so who holds it sees
// every earlier write of its blocks.
type lockTable struct {
	shards [lockShards]lockShard
}

const lockShards = 256 // a power of two

type lockShard struct {
	mu          sync.Mutex
	first, last *blockLock
	_           [40]byte
}

// blockLock is a request for blocks, embedded in what asks. The asker sets key,
// mask and granted; the rest belongs to the table. It may be reused after
// release.
type blockLock struct {
	key  placement.Key
	mask placement.Mask

	// granted is called when acquire has returned false, once, by the one who
	// released what was in the way, without locks of the table. It may release.
	granted func()

	waiting    bool
	prev, next *blockLock
	wake       *blockLock // list of those to be granted after the shard is unlocked
}

func (t *lockTable) shard(k placement.Key) *lockShard {
	h := uint64(k.Chunk) + uint64(k.Family)*0x9e3779b97f4a7c15>>40
	return &t.shards[h%lockShards]
}

// conflicts reports whether a and b may not go ahead together.
func (a *blockLock) conflicts(b *blockLock) bool { return a.mask&b.mask != 0 && a.key == b.key }

// acquire asks for l's blocks. If it returns true they are held; else granted
// will be called.
func (t *lockTable) acquire(l *blockLock) bool {
	s := t.shard(l.key)
	s.mu.Lock()
	defer s.mu.Unlock()
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
func (s *lockShard) blocked(l, end *blockLock) bool {
	for x := s.first; x != end; x = x.next {
		if x.conflicts(l) {
			return true
		}
	}
	return false
}

// release gives l's blocks up and lets those ahead that waited for them.
func (t *lockTable) release(l *blockLock) {
	s := t.shard(l.key)
	s.mu.Lock()
	wake := s.remove(l)
	s.mu.Unlock()
	grant(wake)
}

// remove takes l out of its queue and returns those that need not wait any more.
func (s *lockShard) remove(l *blockLock) (wake *blockLock) {
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
	var tail *blockLock
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

func grant(wake *blockLock) {
	for wake != nil {
		x := wake
		wake, x.wake = x.wake, nil
		x.granted()
	}
}
