package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// sitesOf returns the sites along a ring.
func sitesOf(ring []Server, places []Place) []string {
	var sites []string
	for _, s := range ring {
		i := slices.IndexFunc(places, func(p Place) bool { return p.Server == s })
		sites = append(sites, places[i].Site)
	}
	return sites
}

func equalNeighbours(sites []string) (n int) {
	for i := range sites {
		if sites[i] == sites[(i+1)%len(sites)] {
			n++
		}
	}
	return n
}

// TestSitesAlternate: two copies are never in one site if no site has more than
// half of the servers.
func TestSitesAlternate(t *testing.T) {
	for a := range 9 {
		for b := range 9 {
			for c := range 9 {
				n := a + b + c
				if n < 2 {
					continue
				}
				places := servers(n)
				for i := range places {
					places[i].Site = []string{"a", "b", "c"}[at(i, a, b)]
				}
				g, err := New(1, Mirror, places)
				must(t, g, err)
				sites := sitesOf(g.Ring, places)
				got, want := equalNeighbours(sites), max(0, 2*max(a, b, c)-n)
				if n == 2 && a*b+b*c+a*c > 0 {
					want = 0
				}
				if got != want {
					t.Errorf("%d+%d+%d servers: ring %v has %d neighbours in one site, %d can't be avoided", a, b, c, sites, got, want)
				}
			}
		}
	}
}

// at tells which of three groups, the first two of a and b, i belongs to.
func at(i, a, b int) int {
	switch {
	case i < a:
		return 0
	case i < a+b:
		return 1
	}
	return 2
}

// TestRingIsBest compares with all rings there are, for few servers.
func TestRingIsBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scheme := rapid.SampledFrom([]Scheme{Mirror, Mirror3}).Draw(t, "scheme")
		sites := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), scheme.Copies(), 7).Draw(t, "sites")
		places := servers(len(sites))
		for i := range places {
			places[i].Site = sites[i]
		}
		g, err := New(1, scheme, places)
		must(t, g, err)
		got := siteCost(sitesOf(g.Ring, places), scheme.Copies())
		best := got
		permute(sites, 1, func() { best = min(best, siteCost(sites, scheme.Copies())) })
		if got != best {
			t.Fatalf("%v: sites %v cost %d, the best ring %d", scheme, sitesOf(g.Ring, places), got, best)
		}
	})
}

// permute calls f for all orders of s from from on.
func permute(s []string, from int, f func()) {
	if from >= len(s) {
		f()
		return
	}
	for i := from; i < len(s); i++ {
		s[from], s[i] = s[i], s[from]
		permute(s, from+1, f)
		s[from], s[i] = s[i], s[from]
	}
}

// TestThreeSitesHoldThreeCopies: with as many servers in each of three sites,
// the loss of one takes one copy of each bucket.
func TestThreeSitesHoldThreeCopies(t *testing.T) {
	for n := 3; n <= 24; n += 3 {
		places := servers(n, "x", "y", "z")
		g, err := New(1, Mirror3, places)
		must(t, g, err)
		for p := range uint32(n) {
			s := sitesOf(g.Members(p), places)
			if s[0] == s[1] || s[1] == s[2] || s[0] == s[2] {
				t.Errorf("%d servers: a link in %v", n, s)
			}
		}
	}
}

func ExampleNew() {
	g, _ := New(1, Mirror, []Place{{1, "north"}, {2, "north"}, {3, "south"}, {4, "south"}})
	fmt.Println(g.Ring)
	b := BucketOf(1, 0)
	fmt.Println(b, g.LinkOf(b), g.Members(g.Position(b)))
	// Output:
	// [1 3 2 4]
	// 2231 1.3 [4 1]
}
