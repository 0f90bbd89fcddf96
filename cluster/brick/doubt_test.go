package brick

import (
	"testing"
	"time"

	"petal/placement"
)

// TestCarriedHome: a record that was carried forward and has come home is not
// done again by replay over a later one that is behind the applied mark.
func TestCarriedHome(t *testing.T) {
	g := startMember(t, 3)
	k := placement.Key{Family: 1, Node: 1, Chunk: 7}
	p := g.put(t, k, 1, placement.Stamp{Ver: 1, Seq: 1}, false)
	for i := uint64(1); ; i++ {
		g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 8}, 0xff, placement.Stamp{Ver: 1, Seq: i}, true)
		if used, capacity := g.b.JournalFill(); used > capacity/2 {
			break
		}
	}
	q := g.put(t, k, 1, placement.Stamp{Ver: 1, Seq: 2}, false)
	g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 9}, 1, placement.Stamp{Ver: 1, Seq: 1}, false) // holds the mark back
	g.clock = g.clock.Add(time.Hour)
	for range 3 {
		g.b.StepDestage(0)
		g.settleDone()
	}
	if p.r.p.LSN() <= q.r.p.LSN() {
		t.Fatalf("the record is at %d, not carried behind %d", p.r.p.LSN(), q.r.p.LSN())
	}
	for _, o := range []*memberOp{p, q} {
		o.committed = true
		g.b.Commit(o.r)
	}
	for g.b.StepDestage(0) {
	}
	if err := g.b.StepFlushMap(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		g.again(t)
		if err := g.verify(k); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCarriedHomeAgain: the same, but what came before it is done again: then it
// is as well.
func TestCarriedHomeAgain(t *testing.T) {
	g := startMember(t, 3)
	k := placement.Key{Family: 1, Node: 1, Chunk: 7}
	z := g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 9}, 1, placement.Stamp{Ver: 1, Seq: 1}, false) // holds the mark back
	first := g.put(t, k, 1, placement.Stamp{Ver: 1, Seq: 1}, true)
	p := g.put(t, k, 1, placement.Stamp{Ver: 1, Seq: 2}, false)
	z.r.p.stays = true
	for i := uint64(1); ; i++ {
		g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 8}, 0xff, placement.Stamp{Ver: 1, Seq: i}, true)
		if used, capacity := g.b.JournalFill(); used > capacity/2 {
			break
		}
	}
	g.b.carry()
	g.settleDone()
	if p.r.p.LSN() == p.r.p.turn() {
		t.Fatal("the record was not carried")
	}
	p.committed = true
	g.b.Commit(p.r)
	g.clock = g.clock.Add(time.Hour)
	for g.b.StepDestage(0) {
	}
	if err := g.b.StepFlushMap(); err != nil {
		t.Fatal(err)
	}
	if applied, err := g.b.pmap.applied(); err != nil || applied >= first.r.LSN {
		t.Fatalf("the mark is at %d: %v", applied, err)
	}
	for range 2 {
		g.again(t)
		if err := g.verify(k); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAbandonedStays: a record whose abort is on its way is not carried forward: the
// copy would outlive the abort.
func TestAbandonedStays(t *testing.T) {
	g := startMember(t, 3)
	p := g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 7}, 1, placement.Stamp{Ver: 1, Seq: 1}, false)
	for i := uint64(1); ; i++ {
		g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 8}, 0xff, placement.Stamp{Ver: 1, Seq: i}, true)
		if used, capacity := g.b.JournalFill(); used > capacity/2 {
			break
		}
	}
	g.b.Abandon(p.r, func(error) {})
	g.b.carry()
	g.settleDone()
	if n := g.b.Stats().Carried; n != 0 {
		t.Errorf("%d records were carried", n)
	}
}

// TestAbandonedAbove: an extent-write that was acknowledged outlives records in
// doubt that cover all of it, when those are abandoned.
func TestAbandonedAbove(t *testing.T) {
	g := startMember(t, 3)
	k := placement.Key{Family: 1, Node: 1, Chunk: 7}
	g.put(t, k, placement.Full, placement.Stamp{Ver: 1, Seq: 1}, true)
	g.put(t, k, 0x00ff, placement.Stamp{Ver: 1, Seq: 2}, false)
	g.put(t, k, 0xff00, placement.Stamp{Ver: 1, Seq: 3}, false)
	g.again(t)
	prepared, err := g.survivors()
	if err != nil || len(prepared) < 2 {
		t.Fatalf("%d in doubt: %v", len(prepared), err)
	}
	for i := len(prepared) - 1; i >= 0; i-- {
		o := prepared[i]
		if o.n == 1 {
			o.committed = true
			g.b.Commit(o.r)
			continue
		}
		g.b.Abandon(o.r, func(error) { o.gone = true })
		g.settleDone()
	}
	if err := g.verify(k); err != nil {
		t.Fatal(err)
	}
	if err := g.audit(); err != nil {
		t.Fatal(err)
	}
	if err := g.verify(k); err != nil {
		t.Fatal(err)
	}
}

// TestTornBelowCut: an extent-write is torn where a later record wrote, which is
// undone because it lies behind another torn one: so it never came home there,
// and cannot have been what is found in the extent.
func TestTornBelowCut(t *testing.T) {
	g := startMember(t, 3)
	k := placement.Key{Family: 1, Node: 1, Chunk: 7}
	issue := func(m placement.Mask, seq uint64) *memberOp {
		o := g.enter(&memberOp{typ: typeWrite, key: k, mask: m, stamp: placement.Stamp{Ver: 1, Seq: seq}})
		o.r = g.record(o)
		if err := g.b.Append(o.r); err != nil {
			t.Fatal(err)
		}
		return o
	}
	first := issue(placement.Full, 1)
	g.b.StepWrite() // its extent is whole, but for what is damaged below
	issue(placement.Full, 2)
	issue(0x00f0, 3)
	g.b.StepJournal()
	at := int64(slot(first.r.p.ext<<4 | 5).offset())
	g.mem.Damage("data/00000000", at, func(p []byte) { p[0]++ }, 1)
	g.again(t)
	if n := len(g.recovery.Prepared); n != 0 {
		t.Fatalf("%d records are in doubt, all are torn or behind a torn one: %+v", n, g.recovery.Prepared[0])
	}
	if l := g.last(placement.BucketOf(1, 7)); l != (Last{}) {
		t.Errorf("claims %+v", l)
	}
	if got, err := g.at(k); err != nil || !same(k, got, state{}) {
		t.Errorf("holds %v, %v", got, err)
	}
}
