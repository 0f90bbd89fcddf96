package cluster

import (
	"sync"
	"sync/atomic"

	"petal/placement"
)

// lockTable lets conflicting writes of one volume through in the order in
// which they came. It is a set of queues; a request may go ahead when no
// earlier one in its queue conflicts with it.
//
//	shard 0   [chunk 64, 00ff] <- [chunk 64, 0f00] <- [chunk 0, ffff]
//	           goes ahead          waits for the 1st    goes ahead
//	shard 1   ...
//
// A request for blocks of one chunk lies in one queue. A request for a long
// range of chunks lies in all of them. Nobody waits for a second lock while
// holding one, and long requests enter one at a time, so there is no deadlock.
// Readers take no locks: they see what is committed.
type lockTable struct {
	shards [lockShards]lockShard
	long   sync.Mutex // one long request enters at a time
}

const lockShards = 64 // a power of two

type lockShard struct {
	mu          sync.Mutex
	first, last *blockLock
	_           [40]byte
}

// blockLock is a request for blocks, embedded in what asks. The asker sets
// chunk, mask and granted; the rest belongs to the table. It may be reused
// after release.
type blockLock struct {
	chunk placement.Chunk
	end   placement.Chunk // last chunk of a long request, else equal to chunk
	mask  placement.Mask  // blocks; Full for a long request

	// granted is called when acquire has returned false, once, from the
	// goroutine that released what was in the way. It may release.
	granted func(*blockLock)

	waiting    bool
	prev, next *blockLock
	wake       *blockLock // list of those to be granted after the shard is unlocked
}

func (t *lockTable) shard(c placement.Chunk) *lockShard {
	return &t.shards[uint64(c)%lockShards]
}

// conflicts reports whether a and b may not go ahead together.
func (a *blockLock) conflicts(b *blockLock) bool {
	return a.chunk <= b.end && b.chunk <= a.end && a.mask&b.mask != 0
}

// acquire asks for l's blocks of one chunk. If it returns true they are held;
// else granted will be called.
func (t *lockTable) acquire(l *blockLock) bool {
	l.end = l.chunk
	s := t.shard(l.chunk)
	s.mu.Lock()
	held := s.push(l)
	s.mu.Unlock()
	return held
}

// push queues l and reports whether it may go ahead.
func (s *lockShard) push(l *blockLock) bool {
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
func (t *lockTable) release(l *blockLock) { t.shard(l.chunk).release(l) }

func (s *lockShard) release(l *blockLock) {
	var wake, tail *blockLock
	s.mu.Lock()
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
	s.mu.Unlock()
	for wake != nil {
		x := wake
		wake, x.wake = x.wake, nil
		x.granted(x)
	}
}

// longLock is a request for all blocks of many chunks.
type longLock struct {
	part    [lockShards]blockLock
	missing atomic.Int32
	granted func(*longLock)
}

// acquireLong asks for the chunks first to last. granted is called once when
// they are held, possibly before acquireLong returns, with what releaseLong
// wants.
func (t *lockTable) acquireLong(first, last placement.Chunk, granted func(*longLock)) {
	l := &longLock{granted: granted}
	l.missing.Store(lockShards + 1)
	t.long.Lock()
	for i := range l.part {
		p := &l.part[i]
		p.chunk, p.end, p.mask = first, last, placement.Full
		p.granted = func(*blockLock) { l.got() }
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

func (l *longLock) got() {
	if l.missing.Add(-1) == 0 {
		l.granted(l)
	}
}

// releaseLong gives a long request up.
func (t *lockTable) releaseLong(l *longLock) {
	for i := range l.part {
		t.shards[i].release(&l.part[i])
	}
}
