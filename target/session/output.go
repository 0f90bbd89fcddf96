package session

import (
	"syscall"
	"time"

	"petal/target/iscsi"
)

// output is the sending side of a session: two batches, one being filled while
// the other is being sent.
type output struct {
	s       *Session
	filling *batch
	spare   *batch
	// sending: some goroutine writes a batch without the baton, or has left one
	// in stuck, which the pump is to finish.
	sending bool
	stuck   *batch
	try     *iscsi.TryFlusher // nil where the connection has no descriptor (net.Pipe)
	header  iscsi.BHS
}

// batch is PDUs on their way out, with the tasks whose lent memory they refer
// to.
type batch struct {
	iscsi.Writer
	tasks []*task
}

func (o *output) init(s *Session) {
	o.s = s
	o.filling, o.spare = new(batch), new(batch)
	for _, b := range []*batch{o.filling, o.spare} {
		b.HeaderDigest, b.DataDigest = s.par.HeaderDigest, s.par.DataDigest
	}
	if c, ok := s.conn.(syscall.Conn); ok {
		o.try, _ = iscsi.NewTryFlusher(c)
	}
}

// begin returns a cleared header, to be filled and given to add.
func (o *output) begin(op iscsi.Opcode) *iscsi.BHS {
	o.header.Reset(op)
	o.header.SetFinal(true)
	return &o.header
}

// flush sends what has been filled, unless somebody is sending: then that one
// will. Without wait, what the socket does not take is left to the pump. The
// baton is given away while a batch is being sent.
func (o *output) flush(wait bool) {
	s := o.s
	if wait && o.stuck != nil {
		b := o.stuck
		o.stuck = nil
		o.send(b, true)
	}
	for !o.sending && o.filling.Pending() > 0 && !s.dead {
		b := o.filling
		o.filling = o.spare
		o.sending = true
		o.send(b, wait)
	}
	if s.leave == lastWords && !o.sending {
		s.fail(s.why)
	}
}

// idle reports whether flush has nothing to do.
func (o *output) idle() bool {
	return o.sending || o.filling.Pending() == 0 || o.s.dead
}

// send sends b. The baton is held before and after, but not meanwhile.
func (o *output) send(b *batch, wait bool) {
	s := o.s
	s.busy.Store(false)
	s.baton.Unlock()
	all, err := o.write(b, wait)
	s.baton.Lock()
	s.busy.Store(true)
	switch {
	case err != nil:
		s.fail(err)
	case !all && !s.dead:
		o.stuck = b
		s.wakePump()
		return
	}
	o.recycle(b)
	o.spare, o.sending = b, false
	s.rest.Broadcast()
}

// write sends b on the connection: what it takes at once, or all.
func (o *output) write(b *batch, wait bool) (all bool, err error) {
	defer o.s.outside(&err)
	if o.try != nil {
		if all, err = o.try.Flush(&b.Writer); all || err != nil || !wait {
			return all, err
		}
	}
	if !wait {
		return false, nil
	}
	return true, b.Flush(o.s.conn)
}

// recycle gives back what the batch referred to.
func (o *output) recycle(b *batch) {
	for _, t := range b.tasks {
		o.s.release(t)
	}
	clear(b.tasks)
	b.tasks = b.tasks[:0]
}

// discard ends what was never sent, after the end of the session.
func (o *output) discard() {
	if o.stuck != nil {
		o.recycle(o.stuck)
	}
	o.recycle(o.filling)
}

// wakePump makes the pump run even though the baton is held.
func (s *Session) wakePump() {
	if s.woken.CompareAndSwap(false, true) {
		s.wake <- struct{}{}
	}
}

// backlogged reports whether the initiator does not read what it is sent.
func (o *output) backlogged() bool {
	return o.sending && o.filling.Pending() > backlogMax
}

// deadline bounds how long the last words may take.
func (o *output) deadline() {
	o.s.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
}
