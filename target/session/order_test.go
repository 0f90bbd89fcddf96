package session

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// slowSet is the twin of taskSet: it looks at all pairs each time.
type slowSet []*task

// ready are the tasks that no earlier one holds back.
func (s slowSet) ready() []*task {
	var out []*task
	for i, t := range s {
		if !slices.ContainsFunc(s[:i], func(e *task) bool { return mustWait[t.attr][e.attr] }) {
			out = append(out, t)
		}
	}
	return out
}

// TestTaskSet runs random tasks through a set and its slow twin.
func TestTaskSet(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var set taskSet
		var twin slowSet
		enabled := map[*task]bool{}
		for range 200 {
			if len(twin) == 0 || r.IntN(2) == 0 && len(twin) < 20 {
				n := &task{attr: attribute(r.IntN(int(attributes)))}
				set.enter(n)
				twin = append(twin, n)
				if n.enabled {
					enabled[n] = true
				}
			} else {
				i := r.IntN(len(twin)) // a dormant one may be aborted
				gone := twin[i]
				twin = slices.Delete(twin, i, i+1)
				delete(enabled, gone)
				for _, n := range set.leave(gone, nil) {
					if enabled[n] {
						t.Fatalf("seed %d: enabled twice", seed)
					}
					enabled[n] = true
				}
			}
			want := twin.ready()
			if len(want) != len(enabled) || slices.ContainsFunc(want, func(n *task) bool { return !enabled[n] }) {
				t.Fatalf("seed %d: %d tasks enabled, want %d", seed, len(enabled), len(want))
			}
		}
	}
}

// TestTaskTable: tags that fall on one chain, and removal while walking.
func TestTaskTable(t *testing.T) {
	var h taskTable
	for i := range uint32(300) {
		h.put(&task{itt: i * 64})
	}
	for i := range uint32(300) {
		if got := h.get(i * 64); got == nil || got.itt != i*64 {
			t.Fatalf("task %d not found", i*64)
		}
	}
	seen := 0
	h.each(func(n *task) {
		seen++
		if n.itt%128 == 0 {
			h.remove(n)
		}
	})
	if seen != 300 || h.count != 150 || h.get(128) != nil || h.get(64) == nil {
		t.Errorf("walked %d, left %d", seen, h.count)
	}
}

// TestCompletions: what many goroutines push comes out once, each one's in its
// order.
func TestCompletions(t *testing.T) {
	var c completions
	const each, pushers = 1000, 4
	for p := range pushers {
		go func() {
			for i := range each {
				c.push(&task{itt: uint32(p), came: i})
			}
		}()
	}
	next := [pushers]int{}
	for got := 0; got < each*pushers; {
		for n := c.take(); n != nil; n = n.next {
			if n.came != next[n.itt] {
				t.Fatalf("pusher %d: %d after %d", n.itt, n.came, next[n.itt]-1)
			}
			next[n.itt]++
			got++
		}
	}
	if !c.empty() {
		t.Error("something is left")
	}
}

// TestWindowWraps: serial numbers pass 2^32, and MaxCmdSN never goes back.
func TestWindowWraps(t *testing.T) {
	w := window{depth: 4}
	w.First, w.Last = 0xfffffffe, 0xfffffffd
	w.open(0)
	if w.Last != 1 {
		t.Fatalf("last %d", w.Last)
	}
	for i, n := range []uint32{0xfffffffe, 0xffffffff, 0, 1} {
		if o := w.admit(w.First); o != inOrder || uint32(w.First) != n+1 {
			t.Fatalf("%d: %v", i, o)
		}
		w.open(i + 1)
		if w.Last != 1 {
			t.Fatalf("last %d with %d in flight", w.Last, i+1)
		}
	}
	if w.admit(2) != outside || w.Len() != 0 {
		t.Error("the window is not closed")
	}
	w.open(5) // more than the depth, by immediate ones
	if w.open(3); w.Last != 2 {
		t.Errorf("last %d", w.Last)
	}
	w.open(4)
	if w.Last != 2 || w.admit(3) != outside || w.admit(1) != outside {
		t.Error("went back")
	}
}

// TestCursor walks pieces of all sizes, empty ones too.
func TestCursor(t *testing.T) {
	want := pattern(100)
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		var vec [][]byte
		for at := 0; at < len(want); {
			n := min(r.IntN(20), len(want)-at)
			vec = append(vec, want[at:at+n])
			at += n
		}
		c := cursor{vec: vec}
		var got []byte
		for len(got) < len(want) {
			got = append(got, c.next(1+r.IntN(30))...)
		}
		if !slices.Equal(got, want) || c.next(1) != nil || c.fill([]byte{1}) != 0 {
			t.Fatalf("seed %d: wrong bytes", seed)
		}
	}
}
