package brick

import (
	"testing"
	"time"

	"petal/placement"
)

// carryRig has records in doubt, and a journal that has gone round since.
func carryRig(t *testing.T, masks []placement.Mask) (g *memberRig, held []*memberOp) {
	g = newMemberRig(1)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	for i, m := range masks {
		o := g.enter(&memberOp{typ: typeWrite, key: placement.Key{Family: 1, Node: 1, Chunk: 7}, mask: m, stamp: placement.Stamp{Ver: 1, Seq: uint64(i + 1)}})
		if i == 1 {
			o.typ = typeZero
		}
		o.r = g.record(o)
		if err := g.b.Append(o.r); err != nil {
			t.Fatal(err)
		}
		held = append(held, o)
	}
	for i := range 600 { // of 4 KiB and more, in a journal of 1 MiB
		o := g.enter(&memberOp{typ: typeWrite, key: placement.Key{Family: 1, Node: 1, Chunk: 8}, mask: placement.Span(g.rng.IntN(16), 1), stamp: placement.Stamp{Ver: 1, Seq: uint64(i + 1)}})
		o.r = g.record(o)
		if err := g.b.Append(o.r); err != nil {
			t.Fatal(err)
		}
		o.r.Buf.Release()
		g.settleDone()
		if !o.done {
			t.Fatalf("the journal is full behind a record in doubt: %+v", g.b.Stats())
		}
		o.committed = true
		g.b.Commit(o.r)
		g.clock = g.clock.Add(time.Second)
		for g.b.StepDestage(0) {
		}
		if err := g.b.StepFlushMap(); err != nil {
			t.Fatal(err)
		}
	}
	if g.b.Stats().Carried < 5 {
		t.Fatalf("%d records were carried forward", g.b.Stats().Carried)
	}
	return g, held
}

// TestCarry: records that nobody commits do not fill the journal up, and keep
// their content and their order through it and through crashes.
func TestCarry(t *testing.T) {
	masks := []placement.Mask{placement.Full, 0x00f0, 0x0f80, 0x8001}
	k := placement.Key{Family: 1, Node: 1, Chunk: 7}
	for _, commit := range []bool{true, false} {
		g, held := carryRig(t, masks)
		for range 2 { // lives
			g.crash()
			if err := g.reopen(hold); err != nil {
				t.Fatal(err)
			}
			prepared, err := g.survivors()
			if err != nil || len(prepared) != len(masks) {
				t.Fatalf("%d in doubt: %v", len(prepared), err)
			}
			if err := g.readPrepared(prepared); err != nil {
				t.Fatal(err)
			}
			if err := g.verify(k); err != nil {
				t.Fatal(err)
			}
		}
		for _, o := range held {
			if commit {
				o.committed = true
				g.b.Commit(o.r)
				continue
			}
			o.gone = true
		}
		if !commit {
			g.discardPrepared(held)
			for _, o := range g.ops { // what was missing is there again
				o.gone = o.gone || o.typ == typeMissing
			}
			g.settleDone()
			w := g.enter(&memberOp{typ: typeWrite, key: k, mask: placement.Full, stamp: placement.Stamp{Ver: 2, Seq: 1}})
			w.r = g.record(w)
			if err := g.b.Append(w.r); err != nil {
				t.Fatal(err)
			}
			g.settleDone()
			w.committed = true
			g.b.Commit(w.r)
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
}
