package peer

import (
	"net"
	"sync"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// noCalm has every message that may be an attempt be one.
func noCalm(t *testing.T) {
	old := calm
	calm = 0
	t.Cleanup(func() { calm = old }) // before the servers close? They close first: they came later.
}

// asleep reports whether the writer's goroutine sleeps.
func asleep(c *conn) bool {
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	return c.queue.waiting
}

// asleepSoon waits a little for that.
func asleepSoon(c *conn) bool {
	for range 50 {
		if asleep(c) {
			return true
		}
		pass(time.Millisecond)
	}
	return false
}

// TestAttempts: what senders write themselves arrives in order and whole, also when
// the socket takes only a part of it, and beside what the goroutine writes.
func TestAttempts(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		noCalm(t)
		f := newFleet(t, plain)
		one, two, _, r2 := f.pair()
		classes := []wire.Class{wire.ClassRequest, wire.ClassReplicate}
		for _, class := range classes {
			if err := connOf(one, 2, class).raw.(*net.TCPConn).SetWriteBuffer(4 << 10); err != nil {
				t.Fatal(err)
			}
			if err := connOf(two, 1, class).raw.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
		}
		const n = 3000
		var mu sync.Mutex
		next := map[wire.Kind]uint64{}
		stall, done := make(chan struct{}), make(chan struct{})
		r2.handle(func(_ placement.Server, m *wire.Message) {
			<-stall
			mu.Lock()
			defer mu.Unlock()
			if !m.Verify() || m.Op.Number != next[m.Kind] {
				t.Errorf("%v %d in place of %d, or damaged", m.Kind, m.Op.Number, next[m.Kind])
			}
			if next[m.Kind]++; next[wire.Write] == n && next[wire.Replicate] == n {
				close(done)
			}
		})
		var senders, full sync.WaitGroup
		full.Add(len(classes))
		for _, kind := range []wire.Kind{wire.Write, wire.Replicate} {
			senders.Go(func() {
				m := f.writeOf(0, 3, 4096)
				defer m.Data.Release()
				m.Kind = kind
				if kind == wire.Replicate {
					m.From, m.To, m.Mask = 0, 0, 1
				}
				isFull := sync.OnceFunc(full.Done)
				defer isFull()
				alone := true
				for i := range uint64(n) {
					m.Op.Number, m.Hold = i, kind == wire.Replicate && i%7 != 0
					c := connOf(one, 2, kind.Class())
					switch {
					case alone && i < n/2:
						alone = asleepSoon(c) // until the socket is full
					case i > n*3/4 && i%3 == 0:
						eventually(t, func() bool { return asleep(c) })
					}
					if i == n/2 {
						if alone {
							t.Errorf("%v: the socket has taken everything at once", kind)
						}
						if isFull(); kind == wire.Write {
							full.Wait()
							close(stall)
						}
					}
					if !one.Send(2, m) {
						t.Errorf("%v %d not sent", kind, i)
						return
					}
					if m.Hold {
						one.Flush(2)
					}
				}
			})
		}
		senders.Wait()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			mu.Lock()
			t.Fatalf("not all came: %v", next)
		}
		for _, class := range classes {
			c := connOf(one, 2, class)
			if k := c.counters.attempts.Load(); k < n/16 || k > c.counters.sentMessages.Load() {
				t.Errorf("%v: %d attempts for %d messages", class, k, c.counters.sentMessages.Load())
			}
			eventually(t, func() bool { return depth(c) == 0 })
		}
	})
}

// TestAttemptsAreForTheCalm: in a row of messages only the first is an attempt.
func TestAttemptsAreForTheCalm(t *testing.T) {
	f := newFleet(t, true)
	one, _, _, r2 := f.pair()
	c := connOf(one, 2, wire.ClassRequest)
	const n = 5
	for i := range uint64(n) {
		m := &wire.Message{Kind: wire.Read, Key: placement.Key{Family: 1, Node: 1}, To: 512, Sent: time.Duration(i)}
		eventually(t, func() bool { // else the goroutine is busy, and there is nothing to decide
			return asleep(c)
		})
		m.Sent = time.Hour + time.Duration(i)*calm/n
		if got, write := c.queue.push(m, true); got != queued || write != (i == 0) {
			t.Errorf("message %d: %v, %v", i, got, write)
		} else if write {
			c.attempt()
		}
	}
	for range n {
		r2.want("read")
	}
	m := f.writeOf(0, 1, 2*attemptMax)
	defer m.Data.Release()
	m.Sent = 2 * time.Hour
	if _, write := c.queue.push(m, true); write {
		t.Error("a large message is an attempt")
	}
	r2.want("write")
}

// TestHoldWaitsForFlush: a message that is held is not given to the goroutine
// either, so that it is not written while its sender has locks.
func TestHoldWaitsForFlush(t *testing.T) {
	noCalm(t)
	f := newFleet(t, true)
	one, _, _, r2 := f.pair()
	c := connOf(one, 2, wire.ClassReplicate)
	eventually(t, func() bool { return asleep(c) })
	if !one.Send(2, &wire.Message{Kind: wire.Ack, Hold: true}) {
		t.Fatal("not sent")
	}
	if depth(c) != 1 || !asleep(c) {
		t.Errorf("%d messages wait, the goroutine sleeps: %v", depth(c), asleep(c))
	}
	one.Flush(2)
	if depth(c) != 0 || !asleep(c) {
		t.Errorf("after Flush %d messages wait, the goroutine sleeps: %v", depth(c), asleep(c))
	}
	r2.want("ack")
	one.Flush(2) // nothing to do
	one.Flush(7) // nobody
}

// TestAttemptsWhenConnectionsEnd: no message is lost without Down, and nothing is
// left behind, when connections end under the senders.
func TestAttemptsWhenConnectionsEnd(t *testing.T) {
	noCalm(t)
	TestNothingIsLostSilently(t)
}
