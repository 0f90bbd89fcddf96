package session

import (
	"errors"
	"runtime/debug"
)

// A panic in a session is a bug of ours, and costs the session, not the node.
// There are two kinds: with the baton, when the session's state is in doubt,
// and without, when only the call has failed.

var errBug = errors.New("session: dropped by a bug; its stack is in the log")

// outside is deferred by what runs without the baton: a panic becomes an error.
func (s *Session) outside(err *error) {
	if r := recover(); r != nil {
		s.log.Error("a bug", "panic", r, "stack", string(debug.Stack()))
		*err = errBug
	}
}

// lastResort is deferred by the session's two goroutines: a panic with the
// baton drops the session. What it borrowed is lost, and its tasks are not
// waited for, since nothing that it knows of them can be trusted.
func (s *Session) lastResort(reader bool) {
	r := recover()
	if r == nil {
		return
	}
	s.log.Error("session dropped by a bug", "panic", r, "stack", string(debug.Stack()))
	s.conn.Close()
	s.calls.close()
	s.broken.Store(true)
	if s.busy.Swap(false) { // we hold the baton
		s.dead = true
		if s.err == nil {
			s.err = errBug
		}
		s.rest.Broadcast()
		s.baton.Unlock()
	}
	if reader {
		s.endOnce.Do(func() { close(s.ended) })
	}
}
