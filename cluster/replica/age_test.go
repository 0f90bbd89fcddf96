package replica

import (
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// TestAgeCountsAtTheHead: R13. An operation of another server that was young when
// it came, and waits here for its block, is refused when it has become too old:
// its coordinator may have given it up.
func TestAgeCountsAtTheHead(t *testing.T) {
	for _, c := range []struct {
		age, wait time.Duration
		want      wire.Status
	}{
		{0, 900 * time.Millisecond, wire.OK},
		{0, 1100 * time.Millisecond, wire.TooOld},
		{600 * time.Millisecond, 300 * time.Millisecond, wire.OK},
		{600 * time.Millisecond, 500 * time.Millisecond, wire.TooOld},
	} {
		w := newWorld(t, 1, 2, placement.Mirror)
		w.opened()
		n, chunk := w.nodes[0], w.chunkOf(0, 0)
		w.cut(1, 2)
		first := w.write(n, chunk, 0, pattern(1, 4096))
		x := w.op(n, Write, chunk, 0, 4096)
		x.ID.Coordinator, x.Age = 2, c.age
		fillBuf(n.pool, &x.Op, pattern(2, 4096))
		n.s.Do(&x.Op)
		w.run(c.wait)
		if first.over || x.over {
			t.Fatal("nothing waits: the test shows nothing")
		}
		w.heal(1, 2)
		w.ok(first)
		w.done(x)
		if x.Status != c.want {
			t.Errorf("%v old, waited for %v: %v, want %v", c.age, c.wait, x.Status, c.want)
		}
	}
}

// TestAgeOfTheMessageCounts: R13. It is the operation's.
func TestAgeOfTheMessageCounts(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n, c := w.nodes[0], w.chunkOf(0, 0)
	for i, age := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		x := w.op(w.nodes[1], Write, c, 0, 4096)
		fillBuf(n.pool, &x.Op, pattern(1, 4096))
		m := wire.Message{Kind: wire.Write, Op: x.ID, Key: x.Key, To: 4096, VVer: 1, Ver: 1, Sum: x.Sum, Age: age}
		m.Data = append(m.Data, refOf(x.Buf))
		st := wire.Status(0xff)
		w.nodes[1].waits[x.ID] = func(m *wire.Message) { st = m.Status }
		n.s.Receive(2, 1, &m)
		x.Buf.Release()
		w.until("an answer", time.Second, func() bool { return st != 0xff })
		if want := []wire.Status{wire.OK, wire.TooOld}[i]; st != want {
			t.Errorf("%v old: %v, want %v", age, st, want)
		}
	}
}

// TestGivenUpIsNotAcknowledged: R9. A head is excluded with a write in doubt that
// nobody else has. When it is let in again, that is given up, and who waits for it
// is told to look for it elsewhere.
func TestGivenUpIsNotAcknowledged(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	old, other := pattern(1, 4096), pattern(3, 4096)
	w.ok(w.write(w.nodes[0], c, 0, old))
	w.run(10 * time.Millisecond)
	w.cut(1, 2)
	x := w.write(w.nodes[0], c, 0, pattern(2, 4096))
	w.run(10 * time.Millisecond)
	w.exclude(1)
	w.until("the other goes on", time.Second, func() bool {
		st := w.nodes[1].s.Status()[0]
		return st.Serving && st.InSync.Len() == 1
	})
	w.want(w.nodes[1], c, 0, old)
	w.ok(w.write(w.nodes[1], c, 4096, other))
	w.heal(1, 2)
	w.healed()
	w.done(x)
	if x.Status == wire.OK {
		t.Error("a write is acknowledged that was given up")
	}
	w.same()
	for _, n := range w.nodes {
		w.want(n, c, 0, old)
		w.want(n, c, 4096, other)
	}
}
