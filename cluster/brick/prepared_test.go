package brick

import (
	"testing"

	"petal/placement"
)

// TestPrepared: records that are not known to be committed come back as
// prepared: invisible until Commit, gone for good after Abandon.
func TestPrepared(t *testing.T) {
	hold := func(o *Options) { o.HoldPrepared = true }
	g := newRig(14, hold)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	k := placement.Key{Family: 1, Node: 1, Chunk: 4}
	masks := []placement.Mask{placement.Full, 0x0f0f, placement.Full, 0x00ff}
	for i, m := range masks {
		if err := g.append(&modelRecord{r: &Record{Key: k, Ver: 7, Op: OpID{Coordinator: 1, Incarnation: 2, Number: uint64(i)}, Excluded: 9}, mask: m}); err != nil {
			t.Fatal(err)
		}
		for g.b.Step() { // each record's stamp vouches for those before it
		}
	}
	records := g.model.chunk(k).records
	g.crash()
	c := g.crashed
	again := &crash{mem: c.mem.Crash(1), peb: clonePebble(c.peb)}
	if err := g.reopen(hold); err != nil {
		t.Fatal(err)
	}
	if n := len(g.recovery.Prepared); n != 1 {
		t.Fatalf("%d records are prepared, want 1", n)
	}
	r := g.recovery.Prepared[0]
	if r.Key != k || r.Mask != 0x00ff || r.Ver != 7 || r.Seq != 4 || r.Op != (OpID{Coordinator: 1, Incarnation: 2, Number: 3}) || r.Excluded != 9 {
		t.Fatalf("prepared is %+v", r)
	}
	check := func(when string, n int) {
		t.Helper()
		want := state{}
		for _, r := range records[:n] {
			r.apply(&want)
		}
		got, err := g.read(1, 4, 0, 16)
		if err != nil || state(got) != want {
			t.Fatalf("%s: %v, %v, want %v", when, got, err, want)
		}
	}
	check("prepared", 3)
	g.b.Commit(r)
	check("committed", 4)
	if err := g.audit(); err != nil {
		t.Fatal(err)
	}
	g.crashed = again
	if err := g.reopen(hold); err != nil {
		t.Fatal(err)
	}
	done := false
	g.b.Abandon(g.recovery.Prepared[0], func(err error) { done = err == nil })
	for g.b.Step() {
	}
	if !done {
		t.Fatal("abandon does not end")
	}
	check("abandoned", 3)
	g.crash()
	if err := g.reopen(hold); err != nil {
		t.Fatal(err)
	}
	if n := len(g.recovery.Prepared); n != 0 {
		t.Fatalf("%d records are prepared after one was abandoned", n)
	}
	check("abandoned, after another crash", 3)
	if err := g.audit(); err != nil {
		t.Fatal(err)
	}
}
