package load

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// event is one operation of a history on a single unit.
type event struct {
	read         bool
	op           uint64 // of a write; what a read returned
	began, ended int    // ended is far in the future if it has not
	sure         bool   // a write that was acknowledged
}

const never = 1 << 30

// readable is the slow twin of the model: whatever the last read in history
// may return, found by trying every order of all operations in which each
// takes effect between its begin and its end.
func readable(history []event) []uint64 {
	found := map[uint64]bool{}
	last := len(history) - 1
	// due: all that has ended must have its place in the order, after the last
	// read's too.
	due := func(done []bool) bool {
		return slices.ContainsFunc(history, func(o event) bool { return o.ended != never && !done[slices.Index(history, o)] })
	}
	var try func(done []bool, value, answer uint64)
	try = func(done []bool, value, answer uint64) {
		if !due(done) {
			found[answer] = true
			return
		}
		for i, e := range history {
			if done[i] || slices.ContainsFunc(history, func(o event) bool {
				return !done[slices.Index(history, o)] && o.ended < e.began
			}) {
				continue
			}
			if e.read && i != last && e.op != value {
				continue
			}
			next := slices.Clone(done)
			next[i] = true
			switch {
			case i == last:
				try(next, value, value)
			case e.read:
				try(next, value, answer)
			default:
				try(next, e.op, answer)
				if !e.sure {
					try(next, value, answer)
				}
			}
		}
	}
	try(make([]bool, len(history)), 0, 0)
	var out []uint64
	for op := range found {
		out = append(out, op)
	}
	slices.Sort(out)
	return out
}

// allowedNow is what the model lets a read that began at moment began return.
func allowedNow(m *model, began uint64) []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.list(0)
	floor := m.permitted(l, began)
	var out []uint64
	for _, v := range l.versions {
		if v.ended >= floor {
			out = append(out, v.op)
		}
	}
	slices.Sort(out)
	return out
}

// Random histories of overlapping writes and reads: the model must never
// refuse what some order explains (a false alarm), and must refuse all the
// rest at least as long as no read has returned a write that was under way.
func TestModelAgreesWithTwin(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	exact := 0
	for round := range 4000 {
		var history []event
		m := newModel(1, false)
		type running struct {
			index int
			op    uint64
			began uint64
		}
		var under []running
		strict := true
		for now := 0; now < 14; now++ {
			if len(under) > 0 && rng.IntN(2) == 0 {
				k := rng.IntN(len(under))
				r := under[k]
				under = slices.Delete(under, k, k+1)
				e := &history[r.index]
				if !e.read {
					e.ended, e.sure = now, rng.IntN(4) > 0
					m.endWrite(0, 1, r.op, e.sure)
					continue
				}
				e.ended = now
				// Put the read last, for the twin, with what is known so far.
				asked := append(slices.Delete(slices.Clone(history), r.index, r.index+1), *e)
				asked = slices.DeleteFunc(asked, func(o event) bool { return o.read && o.ended == never })
				want, got := readable(asked), allowedNow(m, r.began)
				for _, op := range want {
					if !slices.Contains(got, op) {
						t.Fatalf("round %d: read may return %v, the model allows %v: %+v", round, want, got, asked)
					}
				}
				if strict && !slices.Equal(want, got) {
					t.Fatalf("round %d: read may return %v only, the model allows %v: %+v", round, want, got, asked)
				}
				if strict {
					exact++
				}
				e.op = want[rng.IntN(len(want))]
				// What a read has seen tells the twin more than the model keeps.
				strict = false
				m.mu.Lock()
				m.observed(0, e.op, r.began)
				m.lists[m.units[0].versions].users--
				m.settle(0)
				m.mu.Unlock()
				continue
			}
			if len(under) == 4 {
				continue
			}
			r := running{index: len(history)}
			e := event{began: now, ended: never, read: rng.IntN(3) == 0}
			if e.read {
				r.began = m.beginRead(0, 1)
			} else {
				e.op = m.beginWrite(0, 1, false)
				r.op = e.op
			}
			history = append(history, e)
			under = append(under, r)
		}
	}
	if exact < 500 {
		t.Errorf("only %d reads were compared exactly", exact)
	}
}

// write and read run one operation from begin to end.
func write(m *model, sure bool) uint64 {
	op := m.beginWrite(0, 1, false)
	m.endWrite(0, 1, op, sure)
	return op
}

func allows(m *model) []uint64 {
	began := m.beginRead(0, 1)
	defer m.dropRead(0, 1)
	return allowedNow(m, began)
}

func TestModelAcrossCrashes(t *testing.T) {
	sync := func(m *model) { m.endSync(m.now()) }
	for name, c := range map[string]struct {
		volatile bool
		do       func(m *model)
		want     []uint64
	}{
		"acknowledged, write-through": {false, func(m *model) { write(m, true); write(m, true); m.connectionLost() }, []uint64{2}},
		"failed, write-through":       {false, func(m *model) { write(m, true); write(m, false) }, []uint64{1, 2}},
		"acknowledged after a failed": {false, func(m *model) { write(m, false); write(m, true) }, []uint64{2}},
		"cached, no crash":            {true, func(m *model) { write(m, true); write(m, true) }, []uint64{2}},
		"cached, crash":               {true, func(m *model) { write(m, true); write(m, true); m.connectionLost() }, []uint64{0, 1, 2}},
		"synced, crash":               {true, func(m *model) { write(m, true); sync(m); write(m, true); m.connectionLost() }, []uint64{1, 2}},
		"all synced, crash":           {true, func(m *model) { write(m, true); write(m, true); sync(m); m.connectionLost() }, []uint64{2}},
		"crash, then synced":          {true, func(m *model) { write(m, true); write(m, true); m.connectionLost(); sync(m) }, []uint64{0, 1, 2}},
		"crash, written, synced":      {true, func(m *model) { write(m, true); m.connectionLost(); write(m, true); sync(m); m.connectionLost() }, []uint64{2}},
		"sync began before the write": {true, func(m *model) {
			write(m, true)
			began := m.now()
			write(m, true)
			m.endSync(began)
			m.connectionLost()
		}, []uint64{1, 2}},
	} {
		m := newModel(1, c.volatile)
		c.do(m)
		if got := allows(m); !slices.Equal(got, c.want) {
			t.Errorf("%s: allowed are %v, want %v", name, got, c.want)
		}
	}
}

// Units that are settled keep no list: the state of a quiet disk is 16 bytes a
// unit.
func TestModelForgets(t *testing.T) {
	m := newModel(8, false)
	for range 1000 {
		op := m.beginWrite(0, 8, false)
		m.endWrite(0, 8, op, true)
	}
	if n := len(m.lists); n > 9 || len(m.free) != n-1 {
		t.Errorf("%d lists, %d of them free", n-1, len(m.free))
	}
}
