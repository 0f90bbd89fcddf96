package replica

import (
	"bytes"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// again sends an operation again, to a server.
func (w *world) again(n *node, x *try, data []byte) *try {
	y := w.op(n, x.Kind, x.Key.Chunk, x.From, x.To)
	y.ID, y.Again = x.ID, true
	if data != nil {
		fillBuf(n.pool, &y.Op, data)
	}
	n.s.Do(&y.Op)
	return y
}

// TestResendAfterTakeoverIsKnown: R12. The head commits a write and dies before
// it has answered; another writes to the block at the new head; then the first
// is sent again. It must not be carried out a second time.
func TestResendAfterTakeoverIsKnown(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	a, b := pattern(1, 4096), pattern(2, 4096)
	x := w.write(w.nodes[0], c, 0, a)
	w.ok(x)
	w.nodes[0].stop(true)
	w.exclude(1)
	w.opened()
	w.ok(w.write(w.nodes[1], c, 0, b))
	w.ok(w.again(w.nodes[1], x, a))
	w.want(w.nodes[1], c, 0, b)
}

// TestResendAfterRestartIsKnown is the same after all have lost power: the
// journals tell.
func TestResendAfterRestartIsKnown(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	a, b := pattern(1, 4096), pattern(2, 4096)
	first := w.write(w.nodes[0], c, 0, pattern(3, 4096)) // where memory begins
	w.ok(first)
	x := w.write(w.nodes[0], c, 0, a)
	w.ok(x)
	for _, n := range w.nodes {
		n.stop(true)
	}
	for _, n := range w.nodes {
		n.start()
	}
	w.opened()
	w.ok(w.write(w.nodes[0], c, 0, b))
	w.ok(w.again(w.nodes[0], x, a))
	w.ok(w.again(w.nodes[0], first, pattern(3, 4096)))
	w.want(w.nodes[0], c, 0, b)
}

// TestResendIsKnownToWhoWasLetIn: the operation is carried out while a member is
// out, which then comes back and takes over.
func TestResendIsKnownToWhoWasLetIn(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	a, b := pattern(1, 4096), pattern(2, 4096)
	w.nodes[1].stop(true)
	w.exclude(2)
	w.opened()
	x := w.write(w.nodes[0], c, 0, a)
	w.ok(x)
	w.nodes[1].start()
	w.healed()
	w.nodes[0].stop(true)
	w.exclude(1)
	w.opened()
	w.ok(w.write(w.nodes[1], c, 0, b))
	w.ok(w.again(w.nodes[1], x, a))
	w.want(w.nodes[1], c, 0, b)
}

// TestCompareAndWriteOnce: a resent compare-and-write that had been carried out
// must not miscompare against itself.
func TestCompareAndWriteOnce(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	zeros, a := make([]byte, 512), pattern(1, 512)
	x := w.caw(w.nodes[0], c, 512, zeros, a, wire.OK)
	w.nodes[0].stop(true)
	w.exclude(1)
	w.opened()
	y := w.op(w.nodes[1], CompareAndWrite, c, 512, 1024)
	y.ID, y.Again, y.Buf = x.ID, true, w.nodes[1].pool.Get(1024)
	copy(y.Buf.Bytes()[copy(y.Buf.Bytes(), zeros):], a)
	w.nodes[1].s.Do(&y.Op)
	w.ok(y)
	w.caw(w.nodes[1], c, 512, zeros, a, wire.Miscompare) // another's does
}

// TestCancel: R12. What was carried out stays so; what comes after its
// cancellation has no effect; what is under way is waited for.
func TestCancel(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n, c := w.nodes[0], w.chunkOf(0, 0)
	a := pattern(1, 4096)
	cancel := func(x *try) *wire.Status {
		got := new(wire.Status)
		*got = 0xff
		n.s.Cancel(x.ID, x.Key, func(st wire.Status, _ placement.Server) { *got = st })
		return got
	}
	x := w.write(n, c, 0, a)
	st := cancel(x)
	if *st != 0xff {
		t.Errorf("a write under way: %v at once", *st)
	}
	w.ok(x)
	w.until("cancel is answered", time.Second, func() bool { return *st == wire.OK })
	if st := cancel(x); *st != wire.OK {
		t.Errorf("a write done: %v", *st)
	}
	late := w.op(n, Write, c, 0, 4096)
	if st := cancel(late); *st != wire.Canceled {
		t.Errorf("a write to come: %v", *st)
	}
	fillBuf(n.pool, &late.Op, pattern(2, 4096))
	n.s.Do(&late.Op)
	w.done(late)
	if late.Status != wire.Canceled {
		t.Errorf("a cancelled write ends %v", late.Status)
	}
	w.want(n, c, 0, a)
}

// TestNoStaleReadAfterExclusion: R5. A member that has not heard of its
// exclusion answers no read when its lease is over, and none that began before.
func TestNoStaleReadAfterExclusion(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	old, a := pattern(1, 4096), pattern(2, 4096)
	w.ok(w.write(w.nodes[0], c, 0, old))
	w.run(10 * time.Millisecond)
	w.want(w.nodes[1], c, 0, old)
	w.nodes[1].frozen, w.nodes[1].noLease = true, true
	w.cut(1, 2)
	w.run(1500 * time.Millisecond)
	w.want(w.nodes[1], c, 0, old) // its lease lives, so nobody may have written
	w.nodes[1].slow = time.Second
	w.run(240 * time.Millisecond)
	began := w.read(w.nodes[1], c, 0, 4096)
	w.run(600 * time.Millisecond)
	w.exclude(2)
	w.until("the head goes on", 3*time.Second, func() bool { return w.nodes[0].s.Status()[0].Config.InSync.Len() == 1 })
	w.ok(w.write(w.nodes[0], c, 0, a))
	x := w.read(w.nodes[1], c, 0, 4096)
	w.done(x, began)
	for _, x := range []*try{x, began} {
		if x.Status == wire.OK && bytes.Equal(x.data, old) {
			t.Error("a stale read")
		}
	}
}

// TestBarrier: operations of an older VVer are refused, and the barrier waits
// for those that were admitted.
func TestBarrier(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n, c := w.nodes[0], w.chunkOf(0, 0)
	a := pattern(1, 4096)
	w.nodes[1].slow = 50 * time.Millisecond // so that it takes a while
	x := w.write(n, c, 0, a)
	if x.over {
		t.Fatal("done already")
	}
	old := w.op(n, Write, c, 4096, 8192)
	w.disks[diskKey1].vver++
	w.apply()
	var got []LinkVer
	n.s.Barrier(BarrierID{1, 1}, testFamily, testNode, 2, func(v []LinkVer) {
		if !x.over {
			t.Error("the barrier is over before the write")
		}
		got = v
	})
	w.run(10 * time.Millisecond)
	if got != nil || x.over {
		t.Fatal("too early")
	}
	fillBuf(n.pool, &old.Op, a)
	n.s.Do(&old.Op)
	if old.Status != wire.OldVVer || old.VVerHere != 2 {
		t.Errorf("an operation of the old version: %v", old.Status)
	}
	w.until("the barrier is over", time.Second, func() bool { return got != nil })
	w.ok(x)
	if len(got) != 2 || got[0] != (LinkVer{placement.LinkID{GMap: 1}, 1}) {
		t.Errorf("links %v", got)
	}
	w.want(n, c, 0, a)
}

// TestOldMessageIsRefused: R13 and R1.
func TestOldMessageIsRefused(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n, c := w.nodes[0], w.chunkOf(0, 0)
	for _, x := range []struct {
		age  time.Duration
		ver  uint64
		vver uint64
		want wire.Status
	}{
		{0, 1, 1, wire.OK},
		{999 * time.Millisecond, 0, 1, wire.OK},
		{1001 * time.Millisecond, 0, 1, wire.TooOld},
		{0, 2, 1, wire.NotReady}, // of a version that never comes
		{0, 1, 2, wire.NotReady},
	} {
		y := w.op(n, Write, c, 0, 4096)
		y.ID.Coordinator, y.Age, y.Ver, y.VVer = 2, x.age, x.ver, x.vver
		fillBuf(n.pool, &y.Op, pattern(1, 4096))
		n.s.Do(&y.Op)
		w.done(y)
		if y.Status != x.want {
			t.Errorf("%+v: %v", x, y.Status)
		}
	}
	w.link(placement.LinkID{GMap: 1}).config.Ver++
	w.apply()
	w.opened()
	y := w.op(n, Write, c, 0, 4096)
	y.Ver = 1
	fillBuf(n.pool, &y.Op, pattern(1, 4096))
	n.s.Do(&y.Op)
	if y.Status != wire.Redirect || y.VerHere != 2 || y.Head != 1 {
		t.Errorf("of an older version of the link: %v, %d, %d", y.Status, y.VerHere, y.Head)
	}
}

// spaceStore is a brick of which the test says how much space it has.
type spaceStore struct {
	Store
	avail uint64
}

func (s *spaceStore) Space() (used, avail, total uint64) { return 0, s.avail, 1 << 40 }

// TestMemberShortOfSpace: a member that is nearly full stops allocating writes
// before it runs out in the middle of one. What has its space already can be
// written, and zeroed. When there is space again, the head is told, though it
// sends nothing that would be acknowledged.
func TestMemberShortOfSpace(t *testing.T) {
	w := newWorld(t, 1, 2, placement.Mirror)
	w.opened()
	n, c := w.nodes[0], w.chunkOf(0, 0)
	disk := &spaceStore{w.nodes[1].s.c.Store, 1 << 30}
	w.nodes[1].s.c.Store = disk
	w.ok(w.write(n, c, 0, pattern(1, 4096)))
	disk.avail = shortBytes - 1
	w.run(time.Second) // it says so by itself
	alloc := func(want wire.Status) {
		t.Helper()
		x := w.write(n, c, 4096, pattern(3, 4096))
		w.done(x)
		if x.Status != want {
			t.Errorf("a write that allocates ends %v, want %v", x.Status, want)
		}
	}
	for range 2 {
		alloc(wire.NoSpace)
		w.ok(w.write(n, c, 0, pattern(2, 4096)))
		w.ok(w.write(n, c, 512, pattern(4, 512)))
		z := w.op(n, Zero, c, 8192, 12288)
		n.s.Do(&z.Op)
		w.ok(z)
		w.run(20 * time.Second)
	}
	alloc(wire.NoSpace)
	disk.avail = shortBytes
	w.run(time.Second)
	alloc(wire.OK)
}
