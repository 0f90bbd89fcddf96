package explore

import (
	"math/rand/v2"
	"os"
	"testing"
)

// TestWalks goes at random through cases with three copies that are too large to be
// searched, each time to the end, where all should be well: as far down as no search
// comes, and along few of the ways.
func TestWalks(t *testing.T) {
	walks := 500
	if os.Getenv("PETAL_SOAK") != "" {
		walks = 300_000
	}
	starts := []Start{Healthy, Degraded, Lonely, Bereft, Unheard, Remembered, Outlived}
	for i, name := range []string{"healthy", "degraded", "lonely", "bereft", "unheard", "remembered", "outlived"} {
		k := three(starts[i], maxVers-1, Budget{Reads: 20, Crashes: 3, Cuts: 2, Lapses: 1, Fences: 1, Fetches: 3, Aborts: 1})
		t.Run(name, func(t *testing.T) {
			if v := walk(&k, walks); v != "" {
				t.Error(v)
			}
		})
	}
}

// TestWalksFind: they find what is broken, too.
func TestWalksFind(t *testing.T) {
	k := three(Bereft, 9, Budget{Reads: 20})
	k.Broken = NoHandover
	if walk(&k, 20_000) == "" {
		t.Error("marks that are not handed on are not found")
	}
}

// walk makes walks and returns what is wrong, with the way to it.
func walk(k *Case, walks int) string {
	first := newState(k)
	first.begin()
	from := first.encode(nil)
	s, rng := newState(k), rand.New(rand.NewPCG(1, 2))
	for range walks {
		s.decode(from)
		var way []string
		for {
			var moves []move
			s.each(func(mv move) { moves = append(moves, mv) })
			at := s.encode(nil)
			went := false
			for len(moves) > 0 && !went {
				i := rng.IntN(len(moves))
				mv := moves[i]
				moves[i] = moves[len(moves)-1]
				moves = moves[:len(moves)-1]
				text := s.describe(mv)
				if went = s.do(mv); went {
					way = append(way, text)
				} else {
					s.decode(at)
				}
			}
			bad := s.violation()
			if !went {
				bad = s.stuck()
			}
			if bad != "" {
				return (&Result{Violation: bad, Trace: way}).String()
			}
			if !went {
				break
			}
			s.hasten()
		}
	}
	return ""
}
