package session

import (
	"io"
	"sync/atomic"
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
	// sending: some goroutine writes a batch, without the baton.
	sending bool
	try     *iscsi.TryFlusher // nil where the connection has no descriptor (net.Pipe)
	header  iscsi.BHS
	// last: these are the last words; limited: they have been waited for.
	last, limited bool
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
// will. It does not wait for the connection. The baton is given away while a
// batch is being sent.
func (o *output) flush() {
	s := o.s
	for !o.sending && o.filling.Pending() > 0 && !s.dead {
		b := o.filling
		o.filling = o.spare
		o.sending = true
		o.send(b)
	}
	if s.leave == lastWords && !o.sending {
		s.fail(s.why)
	}
}

// idle reports whether flush has nothing to do.
func (o *output) idle() bool {
	return o.sending || o.filling.Pending() == 0 || o.s.dead
}

// send sends b: what the connection takes at once, and the rest on a goroutine
// of its own, so that an initiator that does not read keeps nobody else from
// ending its tasks or its session. The baton is held before and after, but not
// meanwhile.
func (o *output) send(b *batch) {
	s := o.s
	s.busy.Store(false)
	s.baton.Unlock()
	all, err := o.attempt(b)
	s.lock()
	if !all && err == nil {
		o.limit()
		go o.sendRest(b)
		return
	}
	o.sent(b, err)
}

// attempt writes what the connection takes without waiting.
func (o *output) attempt(b *batch) (all bool, err error) {
	defer o.s.outside(&err)
	if o.try == nil {
		return false, nil
	}
	return o.try.Flush(&b.Writer)
}

// sendRest writes what the connection did not take at once.
func (o *output) sendRest(b *batch) {
	s := o.s
	defer s.lastResort(false)
	err := o.write(b)
	s.lock()
	o.sent(b, err)
	s.unlock()
}

// write writes b and waits for the connection to take it.
func (o *output) write(b *batch) (err error) {
	defer o.s.outside(&err)
	if o.try != nil {
		return o.try.FlushWait(&b.Writer, &o.s.taken)
	}
	return b.Flush(&metered{o.s.conn, b.Pending(), &o.s.taken})
}

// metered is a connection that counts when it takes a part of what is left.
type metered struct {
	io.Writer
	left  int
	taken *atomic.Uint32
}

func (m *metered) Write(p []byte) (int, error) {
	n, err := m.Writer.Write(p)
	if m.left -= n; m.left > 0 {
		m.taken.Add(1)
	}
	return n, err
}

// sent notes that b has been sent, or not.
func (o *output) sent(b *batch, err error) {
	if err != nil {
		o.s.fail(err)
	}
	o.recycle(b)
	o.spare, o.sending = b, false
	o.s.rest.Broadcast()
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
	o.recycle(o.filling)
}

// backlogged reports whether the initiator does not read what it is sent.
func (o *output) backlogged() bool {
	return o.sending && o.filling.Pending() > backlogMax
}

// deadline bounds how long the last words may take, from when the connection
// does not take them at once: a process that stood still for a moment still says
// them.
func (o *output) deadline() {
	o.last = true
	if o.sending {
		o.limit()
	}
}

// limit begins the time for the last words.
func (o *output) limit() {
	if o.last && !o.limited {
		o.limited = true
		o.s.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	}
}
