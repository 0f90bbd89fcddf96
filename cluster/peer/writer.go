package peer

import (
	"net"

	"petal/cluster/wire"
)

// write sends what is queued until the connection ends.
func (c *conn) write() error {
	var (
		w        = writer{c: c}
		bytes    int64
		messages int
	)
	defer func() { w.current.done(len(w.current.rest())) }()
	for {
		n, say, ok := c.queue.take(&w.current, bytes, messages)
		if !ok {
			return net.ErrClosed
		}
		if err := w.send(n, say); err != nil {
			return err
		}
		bytes, messages = w.current.done(n), n
		c.counters.sentMessages.Add(uint64(n))
	}
}

// writer puts messages on the connection.
type writer struct {
	c        *conn
	current  parcel
	control  []byte
	credited int64 // what the last Credit said was handled
	vector   [][]byte
	out      net.Buffers
	copied   []byte // secure: what is written is put together here
}

// send writes what is to be said about the connection and the next n messages.
func (w *writer) send(n int, say control) error {
	w.encode(say)
	if w.c.gather != nil {
		return w.sendCopy(n)
	}
	return w.sendVector(n)
}

// encode makes the bytes of what is to be said. Times are those of now, as close
// to the wire as can be.
func (w *writer) encode(say control) {
	w.control = w.control[:0]
	if say == (control{}) {
		return
	}
	m := wire.Message{Sent: w.c.bundle.opt().Clock.Now()}
	if say.ping {
		m.Kind = wire.Ping
		w.control = m.Append(w.control)
	}
	if say.pong {
		m.Kind, m.At = wire.Pong, say.pongAt
		w.control = m.Append(w.control)
	}
	if say.credit && say.handled > w.credited { // two who returned room may have overtaken each other
		w.credited = say.handled
		m.Kind, m.Index = wire.Credit, uint64(say.handled+w.c.window)
		w.control = m.Append(w.control)
	}
}

// sendVector writes heads and data from where they are, with writev.
func (w *writer) sendVector(n int) error {
	p := &w.current
	v := w.vector[:0]
	if len(w.control) > 0 {
		v = append(v, w.control)
	}
	head, ref := p.doneHeads, p.doneRefs
	start := head
	for _, it := range p.rest()[:n] {
		head += it.head
		if it.refs == 0 {
			continue // its head is one part with the next
		}
		v = append(v, p.heads[start:head])
		start = head
		for range it.refs {
			v = append(v, p.refs[ref].Bytes())
			ref++
		}
	}
	if head > start {
		v = append(v, p.heads[start:head])
	}
	if len(v) == 0 {
		return nil
	}
	w.vector, w.out = v, v
	sent, err := w.out.WriteTo(w.c.net)
	clear(w.vector)
	w.count(sent)
	return err
}

// copyMax is how much is put together for one write of TLS: some records.
const copyMax = 64 << 10

// sendCopy puts heads and data together, so that TLS makes few records of them.
func (w *writer) sendCopy(n int) error {
	p := &w.current
	w.copied = append(w.copied[:0], w.control...)
	head, ref := p.doneHeads, p.doneRefs
	for _, it := range p.rest()[:n] {
		if err := w.spill(it.head); err != nil {
			return err
		}
		w.copied = append(w.copied, p.heads[head:head+it.head]...)
		head += it.head
		for range it.refs {
			if err := w.spill(p.refs[ref].Len); err != nil {
				return err
			}
			w.copied = append(w.copied, p.refs[ref].Bytes()...)
			ref++
		}
	}
	return w.flush()
}

// spill makes room for n more bytes.
func (w *writer) spill(n int) error {
	if len(w.copied)+n <= copyMax {
		return nil
	}
	return w.flush()
}

func (w *writer) flush() error {
	if len(w.copied) == 0 {
		return nil
	}
	w.c.gather.hold()
	sent, err := w.c.net.Write(w.copied)
	if e := w.c.gather.flush(); err == nil {
		err = e
	}
	if w.copied = w.copied[:0]; cap(w.copied) > keepBytes {
		w.copied = nil
	}
	w.count(int64(sent))
	return err
}

func (w *writer) count(bytes int64) {
	w.c.counters.writes.Add(1)
	w.c.counters.sentBytes.Add(uint64(bytes))
}
