package replica

import (
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// TestOnlyAnOpenHeadCancels: R12. The answer to a cancellation is final, so only
// who knows gives one: the head of an open link, under a lease. Anyone else says
// whom to ask, or that it is not known yet; and the operation is carried out when
// it comes.
func TestOnlyAnOpenHeadCancels(t *testing.T) {
	for _, c := range []struct {
		name string
		at   int
		lead func(w *world)
		want wire.Status
		head placement.Server
	}{
		{"open head", 0, func(*world) {}, wire.Canceled, 0},
		{"not head", 1, func(*world) {}, wire.Redirect, 1},
		{"not open", 0, func(w *world) { // the other is away
			w.nodes[1].stop(true)
			w.link(placement.LinkID{GMap: 1}).config.Ver++
			w.apply()
			w.run(5 * time.Millisecond)
		}, wire.NotReady, 0},
		{"out of sync", 1, func(w *world) {
			w.auto = false
			w.exclude(2)
			w.run(5 * time.Millisecond)
		}, wire.Redirect, 1},
		{"without lease", 0, func(w *world) { w.nodes[0].s.SetLease(0, 0) }, wire.NotReady, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1, 2, placement.Mirror)
			w.opened()
			x := w.op(w.nodes[0], Write, w.chunkOf(0, 0), 0, 4096)
			c.lead(w)
			st, head := wire.Status(0xff), placement.Server(0)
			w.nodes[c.at].s.Cancel(x.ID, x.Key, func(s wire.Status, h placement.Server) { st, head = s, h })
			if st != c.want || head != c.head {
				t.Errorf("%v, head %d; want %v, %d", st, head, c.want, c.head)
			}
			if w.nodes[c.at].s.canceled(x.ID) != (c.want == wire.Canceled) {
				t.Error("the answer says one thing and the server does another")
			}
		})
	}
}

// TestResendOfARecoveredRecordIsKnown: R12. A record came to this member when the
// link opened, from another that had it: it knows the operation by that, too.
func TestResendOfARecoveredRecordIsKnown(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	a, b := pattern(1, 4096), pattern(2, 4096)
	w.drop = func(_, _ placement.Server, m *wire.Message) bool { return m.Kind == wire.Replicate }
	x := w.write(w.nodes[0], c, 0, a)
	w.run(10 * time.Millisecond) // durable at the head only
	w.drop = nil
	w.nodes[0].stop(true)
	w.nodes[0].start()
	w.opened()
	w.nodes[0].stop(true)
	w.exclude(1)
	w.opened()
	w.want(w.nodes[1], c, 0, a)
	w.ok(w.write(w.nodes[1], c, 0, b))
	w.ok(w.again(w.nodes[1], x, a))
	w.want(w.nodes[1], c, 0, b)
}

// TestResendOfARangeIsKnown is the same for committed records that the other
// member had lost.
func TestResendOfARangeIsKnown(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	a, b := pattern(1, 4096), pattern(2, 4096)
	image := w.nodes[1].disk.Crash(1)
	x := w.write(w.nodes[0], c, 0, a)
	w.ok(x)
	w.run(10 * time.Millisecond)
	w.nodes[1].back(image)
	w.restartAll()
	w.nodes[0].stop(true)
	w.exclude(1)
	w.opened()
	w.ok(w.write(w.nodes[1], c, 0, b))
	w.ok(w.again(w.nodes[1], x, a))
	w.want(w.nodes[1], c, 0, b)
}

// TestResendAfterAllRestartedIsKnown: R12. A record has come home and left the
// journal everywhere, and then everybody loses the power: the operation is known
// still, of whatever kind it was.
func TestResendAfterAllRestartedIsKnown(t *testing.T) {
	oneThread(t)
	for name, data := range map[string][]byte{"block": pattern(1, 4096), "chunk": pattern(1, 65536), "zero": nil} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 2, placement.Mirror)
			w.opened()
			c := w.chunkOf(0, 0)
			later := pattern(2, 4096)
			x := w.op(w.nodes[0], Zero, c, 0, 4096)
			if data != nil {
				x = w.write(w.nodes[0], c, 0, data)
			} else {
				w.nodes[0].s.Do(&x.Op)
			}
			w.ok(x)
			w.nodes[0].forgetJournal()
			for round := range map[string]int{"block": 2, "chunk": 1, "zero": 1}[name] {
				if round > 0 { // what was read from the map is written there again
					w.nodes[0].forgetJournal()
				}
				for _, n := range w.nodes {
					n.stop(true)
				}
				w.restartAll()
				w.ok(w.write(w.nodes[0], c, 0, later))
				w.ok(w.again(w.nodes[0], x, data))
				w.want(w.nodes[0], c, 0, later)
			}
		})
	}
}
