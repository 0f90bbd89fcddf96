package placement

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// moved is the part of all copies that are on other servers in b than in a.
func moved(a, b *GMap) float64 {
	n := 0
	for x := range Bucket(Buckets) {
		for _, s := range b.Members(b.Position(x)) {
			if _, ok := a.MemberOf(a.Position(x), s); !ok {
				n++
			}
		}
	}
	return float64(n) / float64(Buckets*b.Copies)
}

// TestGrowthMovesAsDesigned holds growth to the figures of DESIGN F, beside
// what a new mod-n table moves.
func TestGrowthMovesAsDesigned(t *testing.T) {
	for _, c := range []struct{ n, percent, modPercent int }{{4, 25, 60}, {8, 15, 78}, {16, 8, 88}} {
		a, err := New(1, Mirror, servers(c.n))
		must(t, a, err)
		b, err := Grow(a, 2, servers(c.n+1))
		must(t, b, err)
		mod, err := New(3, Mirror, servers(c.n+1))
		must(t, mod, err)
		got, gotMod := 100*moved(a, b), 100*moved(a, mod)
		t.Logf("%d to %d servers: %.1f %% of all copies move, mod n %.1f %%", c.n, c.n+1, got, gotMod)
		if math.Abs(got-float64(c.percent)) > 0.75 || math.Abs(gotMod-float64(c.modPercent)) > 0.75 {
			t.Errorf("%d to %d: %.2f %%, mod n %.2f %%; the design computed %d and %d", c.n, c.n+1, got, gotMod, c.percent, c.modPercent)
		}
	}
}

// striping returns mean and worst, over all windows of 64 chunks in a row, of
// the busiest server's chunks against the mean.
func striping(g *GMap) (mean, worst float64) {
	count := make([]int, len(g.Ring))
	for i := range 64 {
		count[g.Table[i]]++
	}
	for w := range g.Table {
		most := 0
		for _, c := range count {
			most = max(most, c)
		}
		r := float64(most*len(g.Ring)) / 64
		mean, worst = mean+r/Buckets, max(worst, r)
		count[g.Table[w]]--
		count[g.Table[(w+64)%Buckets]]++
	}
	return mean, worst
}

// TestGrowthKeepsStriping holds 64 consecutive chunks to DESIGN F: 1.03 to 1.24
// on average, the worst window 1.33.
func TestGrowthKeepsStriping(t *testing.T) {
	for _, n := range []int{4, 5, 8, 16} {
		a, err := New(1, Mirror, servers(n))
		must(t, a, err)
		b, err := Grow(a, 2, servers(n+1))
		must(t, b, err)
		mean, worst := striping(b)
		t.Logf("%d to %d servers: max/mean %.2f, worst window %.2f", n, n+1, mean, worst)
		if mean > 1.24 || worst > 1.33 {
			t.Errorf("%d to %d servers: max/mean %.3f, worst window %.3f", n, n+1, mean, worst)
		}
	}
}

// TestGrowthStepByStep: many growths on top of each other stay even in the
// large, and tolerable in any 64 chunks.
func TestGrowthStepByStep(t *testing.T) {
	g, err := New(1, Mirror, servers(3))
	must(t, g, err)
	for n := 4; n <= 16; n++ {
		next, err := Grow(g, uint32(n), servers(n))
		must(t, next, err)
		checkEven(t, next)
		if limit := 1.3 * growthMoves(n-1); moved(g, next) > limit {
			t.Errorf("%d to %d servers: %.3f of all copies move, more than %.3f", n-1, n, moved(g, next), limit)
		}
		mean, worst := striping(next)
		t.Logf("%d servers: moved %.3f, max/mean %.2f, worst %.2f", n, moved(g, next), mean, worst)
		if mean > 1.6 || worst > 2.4 {
			t.Errorf("%d servers: max/mean %.3f, worst %.3f", n, mean, worst)
		}
		g = next
	}
}

// growthMoves is the part of the copies that must move if each bucket of the new
// server comes evenly from the others: those of the buckets it takes, but for
// the neighbours', and the second copies behind it.
func growthMoves(n int) float64 {
	share := 1 / float64(n+1)
	return (share*(2-2/float64(n)) + share) / 2
}

// TestGrowthOnlyAdds: servers keep their order on the ring, buckets move to new
// servers only, and the load is even.
func TestGrowthOnlyAdds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := drawGMap(t)
		places := make([]Place, 0, 20)
		for _, s := range old.Ring {
			places = append(places, Place{s, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "site")})
		}
		fresh := rapid.IntRange(0, 4).Draw(t, "fresh")
		for i := range fresh {
			places = append(places, Place{Server(1000 + i), rapid.SampledFrom([]string{"a", "b"}).Draw(t, "new site")})
		}
		g, err := Grow(old, 9, places)
		must(t, g, err)
		if len(g.Ring) != len(places) || g.ID != 9 || g.Scheme != old.Scheme {
			t.Fatalf("%d servers, gmap %d, %v", len(g.Ring), g.ID, g.Scheme)
		}
		var kept []Server
		for _, s := range g.Ring {
			if s < 1000 {
				kept = append(kept, s)
			}
		}
		for i, s := range old.Ring {
			if kept[i] != s {
				t.Fatalf("ring %v became %v", old.Ring, g.Ring)
			}
		}
		for b := range Bucket(Buckets) {
			if now, was := g.Ring[g.Position(b)], old.Ring[old.Position(b)]; now != was && now < 1000 {
				t.Fatalf("bucket %d moved from %d to the old server %d", b, was, now)
			}
		}
		checkEven(t, g)
	})
}

// TestGrowthMindsSites: the new server goes where it has no neighbour of its
// site.
func TestGrowthMindsSites(t *testing.T) {
	old := []Place{{1, "a"}, {2, "b"}, {3, "a"}, {4, "c"}}
	a, err := New(1, Mirror, old)
	must(t, a, err)
	for _, site := range []string{"b", "c", "d"} {
		places := append(old[:4:4], Place{5, site})
		b, err := Grow(a, 2, places)
		must(t, b, err)
		if n := equalNeighbours(sitesOf(b.Ring, places)); n != 0 {
			t.Errorf("one more in %s: ring %v has %d neighbours in one site", site, sitesOf(b.Ring, places), n)
		}
	}
}
