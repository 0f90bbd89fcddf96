package placement

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// servers returns n servers from 1 on; server i+1 stands in sites[i % len(sites)].
func servers(n int, sites ...string) []Place {
	places := make([]Place, n)
	for i := range places {
		places[i].Server = Server(i + 1)
		if len(sites) > 0 {
			places[i].Site = sites[i%len(sites)]
		}
	}
	return places
}

func must(t rapid.TB, g *GMap, err error) *GMap {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestNewIsChainedDeclustering(t *testing.T) {
	g, err := New(7, Mirror, servers(4))
	must(t, g, err)
	if !slices.Equal(g.Ring, []Server{1, 2, 3, 4}) || !slices.Equal(g.Table[:6], []uint16{0, 1, 2, 3, 0, 1}) {
		t.Errorf("ring %v, table %v...", g.Ring, g.Table[:6])
	}
	for p, want := range [][]Server{{1, 2}, {2, 3}, {3, 4}, {4, 1}} {
		if got := g.Members(uint32(p)); !slices.Equal(got, want) {
			t.Errorf("members of %d: %v, want %v", p, got, want)
		}
	}
	if g.Members(4) != nil || g.Members(1<<32-1) != nil {
		t.Error("there are members beyond the ring")
	}
	if l := g.LinkOf(6); l != (LinkID{GMap: 7, Position: 2}) {
		t.Errorf("link of bucket 6: %v", l)
	}
	if l := g.Links(nil, 1); !slices.Equal(l, []LinkID{{7, 0}, {7, 3}}) {
		t.Errorf("links of server 1: %v", l)
	}
	if l := g.Links(nil, 9); l != nil {
		t.Errorf("links of a stranger: %v", l)
	}
}

// TestMembersAgree holds the methods to each other for rings of any kind.
func TestMembersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGMap(t)
		for p := range uint32(len(g.Ring)) {
			members := g.Members(p)
			if len(members) != g.Copies {
				t.Fatalf("%d members, %d copies", len(members), g.Copies)
			}
			for i, s := range members {
				if m, ok := g.MemberOf(p, s); !ok || int(m) != i {
					t.Fatalf("server %d is member %d of %v at %d: %v", s, m, members, p, ok)
				}
				if !slices.Contains(g.Links(nil, s), LinkID{g.ID, p}) {
					t.Fatalf("links of %d lack position %d", s, p)
				}
				if slices.Contains(members[:i], s) {
					t.Fatalf("%v holds two copies on %d", members, s)
				}
			}
			if _, ok := g.MemberOf(p, 9999); ok {
				t.Fatal("a stranger is a member")
			}
		}
		for _, s := range g.Ring {
			if links := g.Links(nil, s); len(links) != g.Copies || links[0].Position != uint32(slices.Index(g.Ring, s)) {
				t.Fatalf("links of %d: %v of ring %v", s, links, g.Ring)
			}
		}
	})
}

func drawGMap(t *rapid.T) *GMap {
	scheme := Scheme(rapid.IntRange(int(Stripe), int(Mirror3)).Draw(t, "scheme"))
	n := rapid.IntRange(scheme.Copies(), 12).Draw(t, "servers")
	sites := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), n, n).Draw(t, "sites")
	ids := rapid.SliceOfNDistinct(rapid.Uint32Range(1, 500), n, n, rapid.ID[uint32]).Draw(t, "ids")
	places := make([]Place, n)
	for i := range places {
		places[i] = Place{Server(ids[i]), sites[i]}
	}
	g, err := New(3, scheme, places)
	must(t, g, err)
	slices.Reverse(places)
	again, err := New(3, scheme, places)
	must(t, again, err)
	if !slices.Equal(g.Ring, again.Ring) || g.Table != again.Table {
		t.Fatalf("the order of the arguments matters: %v, %v", g.Ring, again.Ring)
	}
	return g
}

// TestLoadIsEven: no server has more than one bucket more than another.
func TestLoadIsEven(t *testing.T) {
	for n := 1; n <= MaxRing; n++ {
		g, err := New(1, Stripe, servers(n))
		must(t, g, err)
		checkEven(t, g)
	}
}

func checkEven(t rapid.TB, g *GMap) {
	count := make([]int, len(g.Ring))
	for _, p := range g.Table {
		count[p]++
	}
	if slices.Max(count)-slices.Min(count) > 1 {
		t.Fatalf("buckets of %d servers: %v", len(g.Ring), count)
	}
}

func TestRestore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGMap(t)
		ring, table := slices.Clone(g.Ring), slices.Clone(g.Table[:])
		r, err := Restore(g.ID, g.Scheme, ring, table)
		must(t, r, err)
		ring[0], table[0] = 999, 999
		if !slices.Equal(r.Ring, g.Ring) || r.Table != g.Table || r.Copies != g.Copies || !slices.Equal(r.Members(0), g.Members(0)) {
			t.Fatalf("%v came back as %v", g.Ring, r.Ring)
		}
	})
}

func TestWhatNoGMapIs(t *testing.T) {
	table := make([]uint16, Buckets)
	beyond := slices.Clone(table)
	beyond[Buckets-1] = 2
	twice := append(servers(3), Place{Server: 2})
	old, _ := New(1, Mirror, servers(3))
	for _, c := range []struct {
		name string
		make func() (*GMap, error)
		want error
		text string
	}{
		{"mirror on one", func() (*GMap, error) { return New(1, Mirror, servers(1)) }, ErrTooFewServers, "mirror keeps 2 copies, each on another server, and there are 1"},
		{"mirror3 on two", func() (*GMap, error) { return New(1, Mirror3, servers(2)) }, ErrTooFewServers, "mirror3 keeps 3"},
		{"stripe on none", func() (*GMap, error) { return New(1, Stripe, nil) }, ErrTooFewServers, "stripe"},
		{"a large ring", func() (*GMap, error) { return New(1, Stripe, servers(MaxRing+1)) }, ErrTooManyServers, "at most 64"},
		{"number 0", func() (*GMap, error) { return New(0, Stripe, servers(3)) }, ErrInvalidGMap, "number 0"},
		{"no scheme", func() (*GMap, error) { return New(1, 4, servers(9)) }, ErrInvalidGMap, "scheme 4"},
		{"server 0", func() (*GMap, error) { return New(1, Stripe, []Place{{0, ""}}) }, ErrInvalidGMap, "server 0"},
		{"twice", func() (*GMap, error) { return New(1, Stripe, twice) }, ErrInvalidGMap, "server 2 twice"},
		{"short table", func() (*GMap, error) { return Restore(1, Mirror, []Server{1, 2}, table[1:]) }, ErrInvalidGMap, "4095"},
		{"beyond", func() (*GMap, error) { return Restore(1, Mirror, []Server{1, 2}, beyond) }, ErrInvalidGMap, "bucket 4095 at position 2 of a ring of 2"},
		{"restore twice", func() (*GMap, error) { return Restore(1, Mirror, []Server{2, 2}, table) }, ErrInvalidGMap, "twice"},
		{"restore a large ring", func() (*GMap, error) { return Restore(1, Mirror, make([]Server, 1<<20), table) }, ErrTooManyServers, "64"},
		{"grow into fewer", func() (*GMap, error) { return Grow(old, 2, servers(2)) }, ErrInvalidGMap, "lacks its server 3"},
		{"grow twice", func() (*GMap, error) { return Grow(old, 2, twice) }, ErrInvalidGMap, "twice"},
	} {
		g, err := c.make()
		if g != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %v; want %v with %q", c.name, g, err, c.want, c.text)
		}
	}
}

func TestSchemeNames(t *testing.T) {
	for s := Stripe; s <= Mirror3; s++ {
		if got, err := ParseScheme(s.String()); got != s || err != nil {
			t.Errorf("%v parses as %v, %v", s, got, err)
		}
	}
	for _, name := range []string{"", "raid5", "Mirror", "scheme 0"} {
		if s, err := ParseScheme(name); err == nil || s != 0 {
			t.Errorf("%q parses as %v", name, s)
		}
	}
	if Scheme(0).Copies() != 0 || Scheme(200).Copies() != 0 || Scheme(200).String() != "scheme 200" {
		t.Error("a scheme that is none has copies or a name")
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	g, err := New(1, Mirror3, servers(9))
	must(t, g, err)
	sum := 0
	if n := testing.AllocsPerRun(1000, func() {
		for b := range Bucket(64) {
			l := g.LinkOf(b)
			m, _ := g.MemberOf(l.Position, 5)
			sum += int(m) + len(g.Members(g.Position(b)))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
