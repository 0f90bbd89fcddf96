package cluster

import (
	"sync"

	"petal/placement"
)

// readahead finds sequential streams among the reads of a volume and says what
// to fetch before it is asked for.
//
//	read      read      read
//	|---------|---------|---------|. . . . . . . . . .|
//	                              next     window      ahead
//
// A stream is a read that begins where another has ended. From its third read
// on there is a window, which doubles each time it is topped up, to
// windowMax. A random reader never gets one: each of its reads takes the place
// of the stream that was used longest ago.
type readahead struct {
	mu      sync.Mutex
	clock   uint64
	streams [streamsMax]stream
}

type stream struct {
	next   uint64 // where the next read would begin
	ahead  uint64 // up to where it has been fetched
	window uint64 // bytes; 0: not a stream yet
	reads  int
	used   uint64 // clock
}

const (
	streamsMax  = 8
	streamReads = 3         // reads that make a stream
	windowMin   = 128 << 10 // bytes
	windowMax   = 2 << 20
)

// note takes down a read of n bytes at off of a disk of size bytes, and
// returns the chunks to be fetched, from <= c < to. If another goroutine is at
// it, it does nothing: a missed read costs a stream at most a little window.
func (r *readahead) note(off uint64, n int, size uint64) (from, to placement.Chunk) {
	if !r.mu.TryLock() {
		return 0, 0
	}
	defer r.mu.Unlock()
	r.clock++
	s := r.find(off)
	end := off + uint64(n)
	if s == nil {
		s = r.oldest()
		*s = stream{next: end, ahead: end, reads: 1, used: r.clock}
		return 0, 0
	}
	s.next, s.used = max(s.next, end), r.clock
	s.ahead = max(s.ahead, s.next)
	if s.reads++; s.reads < streamReads || s.ahead-s.next > s.window/2 {
		return 0, 0
	}
	s.window = min(windowMax, max(windowMin, 2*s.window, 2*uint64(n)))
	goal := min(size, s.next+min(s.window, size-s.next))
	if goal <= s.ahead {
		return 0, 0
	}
	from = placement.Chunk(s.ahead / placement.ChunkSize)
	if s.ahead%placement.ChunkSize != 0 {
		from++ // that one was read or fetched in part
	}
	to = placement.Chunk((goal-1)/placement.ChunkSize) + 1
	s.ahead = goal
	return from, max(from, to)
}

// find returns the stream that a read at off continues. Reads that were issued
// together may arrive a little out of order.
func (r *readahead) find(off uint64) *stream {
	for i := range r.streams {
		s := &r.streams[i]
		if s.reads == 0 {
			continue
		}
		if off <= s.next && s.next-off <= s.slack() || off > s.next && off-s.next <= s.slack() {
			return s
		}
	}
	return nil
}

// slack is how far from its place a read may lie.
func (s *stream) slack() uint64 {
	if s.window == 0 {
		return 0
	}
	return windowMin
}

func (r *readahead) oldest() *stream {
	s := &r.streams[0]
	for i := range r.streams {
		if r.streams[i].used < s.used {
			s = &r.streams[i]
		}
	}
	return s
}
