package peer

import (
	"testing"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/cluster/wire"
)

func small(n uint64) *wire.Message { return &wire.Message{Kind: wire.Ack, Index: n} }

// TestQueueKeepsCredit: not a byte more is taken than the receiver allowed, and
// what is said about the connection waits for no credit.
func TestQueueKeepsCredit(t *testing.T) {
	size := int64(len(small(0).Append(nil)))
	q := newQueue(3*size + 1)
	for i := range 5 {
		if got := q.push(small(uint64(i))); got != queued {
			t.Fatal(got)
		}
	}
	var p parcel
	n, _, ok := q.take(&p, 0, 0)
	if !ok || n != 3 {
		t.Fatalf("%d taken, credit is for 3", n)
	}
	b := p.done(n)
	q.say(func(c *control) { c.ping = true })
	n2, say, ok := q.take(&p, b, n)
	if !ok || n2 != 0 || !say.ping {
		t.Fatalf("%d taken without credit, %+v", n2, say)
	}
	if q.allow(3 * size) {
		t.Error("credit may go back")
	}
	q.allow(5 * size)
	if n, _, _ = q.take(&p, 0, 0); n != 2 {
		t.Fatalf("%d taken, credit is for 2 more", n)
	}
	b = p.done(n)
	q.say(func(c *control) { c.pong = true })
	q.take(&p, b, n)
	if bytes, messages := q.depth(); bytes != 0 || messages != 0 {
		t.Errorf("%d bytes, %d messages are left", bytes, messages)
	}
}

// TestQueueIsBounded in messages and in bytes, and gives all memory back.
func TestQueueIsBounded(t *testing.T) {
	q := newQueue(1 << 40)
	n := 0
	for q.push(small(0)) == queued {
		n++
	}
	if n < queueMessagesMax || n > queueMessagesMax+1 {
		t.Errorf("%d messages fit, not %d", n, queueMessagesMax)
	}
	q.close()
	if got := q.push(small(0)); got != closed {
		t.Errorf("push to a closed queue: %v", got)
	}

	pool := slab.New(128 << 20)
	buf := pool.Get(slab.Large)
	m := &wire.Message{Kind: wire.Write, To: slab.Large, Data: cache.Refs{{Buf: buf, Len: slab.Large}}}
	q = newQueue(1 << 40)
	for n = 0; q.push(m) == queued; n++ {
	}
	if bytes, _ := q.depth(); bytes < queueBytesMax || bytes > queueBytesMax+2*slab.Large {
		t.Errorf("%d bytes fit, not %d", bytes, queueBytesMax)
	}
	var p parcel
	taken, _, _ := q.take(&p, 0, 0)
	if taken*slab.Large > writeBytesMax {
		t.Errorf("%d messages of 64 KiB in one write", taken)
	}
	p.done(1)
	p.done(len(p.rest()))
	q.push(m)
	q.close()
	buf.Release()
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
}

// TestQueueWakesItsWriter whatever comes: a message, credit, something to say,
// the end.
func TestQueueWakesItsWriter(t *testing.T) {
	size := int64(len(small(0).Append(nil)))
	q := newQueue(0)
	type taken struct {
		n  int
		c  control
		ok bool
	}
	got := make(chan taken)
	go func() {
		var p parcel
		for {
			n, c, ok := q.take(&p, 0, 0)
			p.done(n)
			got <- taken{n, c, ok}
			if !ok {
				return
			}
		}
	}()
	q.push(small(1))
	q.say(func(c *control) { c.ping = true })
	if x := <-got; x.n != 0 || !x.c.ping {
		t.Errorf("%+v", x)
	}
	q.allow(size)
	if x := <-got; x.n != 1 {
		t.Errorf("%+v", x)
	}
	q.allow(2 * size)
	q.push(small(2))
	if x := <-got; x.n != 1 {
		t.Errorf("%+v", x)
	}
	q.close()
	if x := <-got; x.ok {
		t.Errorf("%+v", x)
	}
}
