package peer

import (
	"fmt"
	"io"

	"petal/cluster/cache"
	"petal/cluster/wire"
)

const (
	// readAhead is the reader's buffer. Small data are copied out of it, for one
	// system call for many messages costs less than one for each.
	readAhead = 64 << 10
	// directMin is from how many bytes of data on that are not buffered yet they
	// are read straight into their slab memory.
	directMin = 8 << 10
	// afterBulk is how much is read ahead behind large data: the next header,
	// and as little as can be of the large data that is likely to follow it.
	afterBulk = 1 << 10
)

// reader takes messages off a connection.
type reader struct {
	c          *conn
	buf        []byte
	head, tail int // buf[head:tail] has come and not been consumed
	m          wire.Message
	bulk       bool // the last data were large: read less ahead
}

// read hands what comes to the handler until the connection ends.
func (c *conn) read() error {
	r := reader{c: c, buf: make([]byte, readAhead)}
	for {
		if err := r.next(); err != nil {
			return err
		}
	}
}

// next reads one message and handles it.
func (r *reader) next() error {
	if err := r.fill(wire.HeaderSize); err != nil {
		return err
	}
	detail, payload, err := (*wire.Header)(r.buf[r.head:]).Lengths()
	if err != nil {
		return err
	}
	n := wire.HeaderSize + detail
	if err := r.fill(n); err != nil {
		return err
	}
	head := r.buf[r.head : r.head+n]
	if err := r.m.Decode(head); err != nil {
		return err
	}
	if r.m.Kind.HasBody() {
		err = r.readBody(n, payload)
	} else {
		r.head += n
		err = r.readData(payload)
	}
	if err != nil {
		return err
	}
	return r.deliver(n + payload)
}

// readData reads n bytes of data into slab memory.
func (r *reader) readData(n int) error {
	if n == 0 {
		return nil
	}
	buf := r.c.bundle.opt().Pool.Get(n)
	r.bulk = n >= directMin
	got := 0
	var err error
	if n-(r.tail-r.head) < directMin {
		err = r.fill(n)
	}
	if err == nil {
		got = copy(buf.Bytes(), r.buf[r.head:r.tail])
		r.head += got
		if got < n {
			got, err = io.ReadFull(r.c.net, buf.Bytes()[got:])
			r.came(got)
		}
	}
	if err != nil {
		buf.Release()
		return err
	}
	r.m.Data = append(r.m.Data, cache.Ref{Buf: buf, Len: n})
	return nil
}

// readBody reads a body of n bytes behind head bytes of header and detail. It
// stays in the buffer if it fits.
func (r *reader) readBody(head, n int) error {
	if head+n <= len(r.buf) {
		if err := r.fill(head + n); err != nil {
			return err
		}
		b := r.buf[r.head : r.head+head+n]
		r.head += head + n
		return r.m.DecodeBody(b[:head], b[head:])
	}
	h := append(make([]byte, 0, wire.HeaderSize+wire.MaxDetail), r.buf[r.head:r.head+head]...)
	r.head += head
	b := make([]byte, n) // seldom: a piece of a snapshot, or a long list
	got := copy(b, r.buf[r.head:r.tail])
	r.head += got
	k, err := io.ReadFull(r.c.net, b[got:])
	r.came(k)
	if err != nil {
		return err
	}
	return r.m.DecodeBody(h, b)
}

// fill has at least n bytes in the buffer, n <= len(buf).
func (r *reader) fill(n int) error {
	if r.tail-r.head >= n {
		return nil
	}
	if r.head == r.tail {
		r.head, r.tail = 0, 0
	} else if r.head+n > len(r.buf) {
		r.tail = copy(r.buf, r.buf[r.head:r.tail])
		r.head = 0
	}
	end := len(r.buf)
	if r.bulk {
		end = min(end, max(r.head+n, r.tail+afterBulk))
	}
	for r.tail-r.head < n {
		k, err := r.c.net.Read(r.buf[r.tail:end])
		r.tail += k
		r.came(k)
		if err != nil && r.tail-r.head < n {
			return err
		}
	}
	return nil
}

// came notes that n bytes came.
func (r *reader) came(n int) {
	if n > 0 {
		r.c.counters.recvBytes.Add(uint64(n))
	}
}

// deliver hands the message, of so many bytes on the wire, to whom it is for.
func (r *reader) deliver(bytes int) error {
	c, m := r.c, &r.m
	now := c.bundle.opt().Clock.Now()
	if m.Kind.Class() == wire.ClassAny {
		return c.onControl(m, now)
	}
	defer m.Data.Release()
	if m.Kind.Class() != c.class {
		return fmt.Errorf("%v on the connection for %v", m.Kind, c.class)
	}
	c.arrived += int64(bytes)
	if c.arrived-c.handled.Load() > c.window {
		return fmt.Errorf("more than the %d bytes that it has credit for", c.window)
	}
	c.counters.recvMessages.Add(1)
	m.Age = c.offsets.age(m.Sent, now)
	m.Room = wire.Room{From: c, Bytes: bytes}
	c.busy.Store(true)
	c.bundle.opt().Handler.Receive(c.bundle.peer.id, c.incarnation, m)
	c.busy.Store(false)
	m.Room.Return() // nothing, if the handler kept it
	return nil
}
