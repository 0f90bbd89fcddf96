package brick

import (
	"testing"

	"petal/placement"
)

// TestOpenWithFullJournal: the journal is full to its last block when the power
// goes, and holds extent-writes that never completed. Open has to void those, and
// must not wait for room that only its own destage can make.
func TestOpenWithFullJournal(t *testing.T) {
	g := newRig(17, nil)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	for c := 0; ; c++ {
		m := placement.Full
		if c%2 == 0 {
			m = 3
		}
		k := placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(c % 200)}
		if err := g.append(&modelRecord{r: &Record{Key: k}, mask: m}); err != nil {
			t.Fatal(err)
		}
		if !g.b.StepJournal() {
			break // no segment is free
		}
	}
	g.crash()
	if err := g.restart(nil); err != nil {
		t.Fatal(err)
	}
	if g.recovery.Torn == 0 {
		t.Fatal("nothing is torn")
	}
	settle := func() {
		t.Helper()
		if err := g.settleAll(); err != nil { // makes room
			t.Fatal(err)
		}
		for g.b.Step() {
		}
		if err := g.audit(); err != nil {
			t.Fatal(err)
		}
	}
	g.crash() // once more, with none of that durable
	if err := g.restart(nil); err != nil {
		t.Fatal(err)
	}
	settle()
	g.crash()
	if err := g.restart(nil); err != nil {
		t.Fatal(err)
	}
	if g.recovery.Torn != 0 {
		t.Errorf("%d are torn again", g.recovery.Torn)
	}
	settle()
}
