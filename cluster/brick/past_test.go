package brick

import (
	"reflect"
	"testing"

	"petal/placement"
)

func ends(pairs ...uint64) (e []placement.Stamp) {
	for i := 0; i < len(pairs); i += 2 {
		e = append(e, placement.Stamp{Ver: pairs[i], Seq: pairs[i+1]})
	}
	return e
}

func TestHistoryCommon(t *testing.T) {
	var h History
	for _, s := range ends(5, 2, 2, 7, 5, 9, 5, 3, 2, 1) {
		h.add(s)
	}
	if want := ends(2, 7, 5, 9); !reflect.DeepEqual(h.Ends, want) {
		t.Fatalf("%v, want %v", h.Ends, want)
	}
	for _, c := range []struct{ of, is placement.Stamp }{
		{ends(1, 9)[0], placement.Stamp{}},
		{ends(2, 3)[0], ends(2, 3)[0]},
		{ends(2, 8)[0], ends(2, 7)[0]}, // 2/8 never was committed
		{ends(3, 1)[0], ends(2, 7)[0]},
		{ends(5, 9)[0], ends(5, 9)[0]},
		{ends(6, 1)[0], ends(5, 9)[0]},
	} {
		if got, ok := h.Common(c.of); got != c.is || !ok {
			t.Errorf("common of %v is %v (%v), want %v", c.of, got, ok, c.is)
		}
	}
	h.begin(3)
	if _, ok := h.Common(ends(4, 1)[0]); ok {
		t.Error("it knows of a version that it has forgotten")
	}
	if got, ok := h.Common(ends(5, 1)[0]); !ok || got != ends(5, 1)[0] {
		t.Errorf("5/1: %v %v", got, ok)
	}
	for v := uint64(6); v < 100; v++ {
		h.add(placement.Stamp{Ver: v, Seq: 1})
	}
	if len(h.Ends) != historyEnds || h.From != h.Ends[0].Ver {
		t.Errorf("%d ends from %d on", len(h.Ends), h.From)
	}
}

// TestHistoryStays: through crash, destage, flush and crash; with what was told by
// another member and what was committed here; until the link is discarded.
func TestHistoryStays(t *testing.T) {
	g := startMember(t, 4)
	bucket := placement.BucketOf(1, 9)
	write := func(ver, seq uint64, commit bool) {
		t.Helper()
		o := g.enter(&memberOp{typ: typeWrite, key: placement.Key{Family: 1, Node: 1, Chunk: 9}, mask: 3, stamp: placement.Stamp{Ver: ver, Seq: seq}})
		o.r = g.record(o)
		if err := g.b.Append(o.r); err != nil {
			t.Fatal(err)
		}
		g.settleDone()
		if commit {
			g.b.Commit(o.r)
		}
	}
	check := func(when string, from uint64, want []placement.Stamp) {
		t.Helper()
		if got := g.b.History(memberLink, bucket); got.From != from || len(got.Ends)+len(want) > 0 && !reflect.DeepEqual(got.Ends, want) {
			t.Errorf("%s: %+v, want %v from %d on", when, got, want, from)
		}
	}
	flush := func() {
		t.Helper()
		for range 3 {
			g.b.StepDestage(0)
		}
		if err := g.b.StepFlushMap(); err != nil {
			t.Fatal(err)
		}
	}
	write(1, 1, true)
	write(1, 2, true)
	write(3, 1, true)
	write(3, 2, false)
	check("at once", 0, ends(1, 2, 3, 1))
	g.again(t)
	for _, r := range g.recovery.Prepared { // a crash leaves all of this life in doubt
		if r.Stamp() != (placement.Stamp{Ver: 3, Seq: 2}) {
			g.b.Commit(r)
		}
	}
	check("after a crash", 0, ends(1, 2, 3, 1))
	g.b.AddHistory(memberLink, bucket, History{Ends: ends(2, 5, 3, 1)})
	g.settleDone()
	check("told", 0, ends(1, 2, 2, 5, 3, 1))
	g.again(t)
	for _, r := range g.recovery.Prepared {
		g.b.Commit(r)
	}
	check("told, after a crash", 0, ends(1, 2, 2, 5, 3, 2))
	flush()
	g.again(t)
	check("at home, after a crash", 0, ends(1, 2, 2, 5, 3, 2))
	g.b.AddHistory(memberLink, bucket, History{From: 2, Ends: ends(2, 5, 3, 2)})
	g.settleDone()
	check("told less", 2, ends(2, 5, 3, 2))
	over := false
	g.b.AddMissing(memberLink, bucket, nil, placement.Stamp{Ver: 4, Seq: 4}, func(err error) { over = err == nil })
	g.settleDone()
	flush()
	g.again(t)
	if check("cut, after a crash", 2, ends(2, 5, 3, 2, 4, 4)); !over {
		t.Error("the cut does not end")
	}
	g.b.Discard(memberLink, func(placement.Bucket) bool { return true }, []placement.Family{1}, func(error) {})
	g.settleDone()
	check("discarded", 0, nil)
	flush()
	g.again(t)
	check("discarded, after a crash", 0, nil)
}

// TestHistoryOfOld: a map from before there was a history.
func TestHistoryOfOld(t *testing.T) {
	var l, m last
	old := make([]byte, 16)
	old[0], old[8] = 7, 9
	if !l.parse(old) || l.Committed != ends(7, 9)[0] || l.past.From != 7 || !reflect.DeepEqual(l.past.Ends, ends(7, 9)) {
		t.Errorf("%+v", l)
	}
	if !m.parse(l.value()) || m.Committed != l.Committed || !reflect.DeepEqual(m.past, l.past) {
		t.Errorf("%+v, want %+v", m, l)
	}
	for _, n := range []int{0, 8, 15, 17, 32, 24 + 16*historyEnds + 16} {
		if m.parse(make([]byte, n)) {
			t.Errorf("%d bytes are a last", n)
		}
	}
}
