package session

import (
	"sync"
	"sync/atomic"
)

// completions is where the device server's Done leaves finished tasks: a stack
// that any goroutine pushes to without a lock and whoever runs the session
// empties in one step.
type completions struct {
	top atomic.Pointer[task]
}

func (c *completions) push(t *task) {
	for {
		top := c.top.Load()
		t.next = top
		if c.top.CompareAndSwap(top, t) {
			return
		}
	}
}

// take empties the stack and returns its tasks, linked by next, in the order
// in which they were pushed.
func (c *completions) take() *task {
	if c.top.Load() == nil {
		return nil
	}
	var first *task
	for t := c.top.Swap(nil); t != nil; {
		below := t.next
		t.next, first = first, t
		t = below
	}
	return first
}

func (c *completions) empty() bool { return c.top.Load() == nil }

// calls is what others ask the session to do: rare events, such as a reset by
// another nexus, a timer or a drain.
type calls struct {
	mu      sync.Mutex
	waiting []func()
	closed  bool
	any     atomic.Bool // len(waiting) > 0, to be read without mu
}

// add queues f, or reports that the session has ended.
func (c *calls) add(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.waiting = append(c.waiting, f)
	c.any.Store(true)
	return true
}

func (c *calls) take() []func() {
	if !c.any.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fs := c.waiting
	c.waiting = nil
	c.any.Store(false)
	return fs
}

// close refuses further calls and returns those that still wait.
func (c *calls) close() []func() {
	fs := c.take()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	fs = append(fs, c.waiting...)
	c.waiting = nil
	return fs
}
