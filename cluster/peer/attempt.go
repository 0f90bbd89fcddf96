package peer

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"petal/cluster/wire"
)

// A message that comes alone is written by who sends it: to wake the writer's
// goroutine for it costs as much CPU as the write, and a good part of the time
// that a message takes. The sender borrows the goroutine's place in the queue for
// that, and never waits: what the socket does not take at once is left to the
// goroutine.

// alone are the kinds that are written so when they are sent, for their senders
// hold no locks. Others, whose senders do, say so with Hold, and come with Flush.
var alone = [256]bool{wire.Write: true, wire.Read: true, wire.Zero: true, wire.CompareAndWrite: true, wire.Reply: true}

// attemptMax is how many bytes are written so at most: they are copied, and
// whoever sends has other things to do.
const attemptMax = 16 << 10

// attempt is the memory of a writer's attempts.
type attempt struct {
	raw  syscall.RawConn // nil: the socket can't be written without waiting
	call func(fd uintptr) bool
	b    []byte // to be written by call
	n    int
	err  error

	left []byte // plain: what the socket has not taken
	dead error  // why the connection is no good any more
}

func (a *attempt) init(c net.Conn) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	a.raw = raw
	a.call = func(fd uintptr) bool {
		a.n, a.err = unix.Write(int(fd), a.b)
		return true
	}
}

// write writes as much of b as the socket takes at once.
func (a *attempt) write(b []byte) (int, error) {
	a.b, a.n, a.err = b, 0, nil
	err := a.raw.Write(a.call)
	a.b = nil
	switch {
	case err != nil:
		return 0, err
	case a.err == unix.EAGAIN || a.err == unix.EINTR:
		return 0, nil
	}
	return max(a.n, 0), a.err
}

// attempt writes what is queued, if nobody else does, or leaves it to the
// goroutine. The caller holds no locks that others might wait for.
func (c *conn) attempt() {
	w := &c.writer
	n, say, ok := c.queue.borrow(&w.current)
	if !ok {
		return
	}
	c.counters.attempts.Add(1)
	all := w.try(n, say)
	bytes := w.current.done(n)
	c.counters.sentMessages.Add(uint64(n))
	c.queue.giveBack(&w.current, bytes, n, !all)
}

// try writes n messages and what is to be said, as far as the socket takes it. It
// reports whether the goroutine has nothing left to do about them.
func (w *writer) try(n int, say control) (all bool) {
	w.encode(say)
	w.copied = append(w.copied[:0], w.control...)
	p := &w.current
	head, ref := p.doneHeads, p.doneRefs
	for _, it := range p.rest()[:n] {
		w.copied = append(w.copied, p.heads[head:head+it.head]...)
		head += it.head
		for range it.refs {
			w.copied = append(w.copied, p.refs[ref].Bytes()...)
			ref++
		}
	}
	if len(w.copied) == 0 {
		return true
	}
	a := &w.tried
	w.count(int64(len(w.copied)))
	if g := w.c.gather; g != nil {
		g.hold()
		_, a.dead = w.c.net.Write(w.copied)
		all, err := g.try(a.write)
		if a.dead == nil {
			a.dead = err
		}
		return all && a.dead == nil
	}
	k, err := a.write(w.copied)
	a.left, a.dead = w.copied[k:], err
	return len(a.left) == 0 && err == nil
}

// finish writes what an attempt has left.
func (w *writer) finish() error {
	a := &w.tried
	if a.dead != nil {
		return a.dead
	}
	if w.c.gather != nil {
		return w.c.gather.flush()
	}
	if len(a.left) == 0 {
		return nil
	}
	_, err := w.c.net.Write(a.left)
	a.left = nil
	return err
}
