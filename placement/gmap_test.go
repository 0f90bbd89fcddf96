package placement

import "testing"

func TestNew(t *testing.T) {
	g, err := New(7, Mirror, []Place{{3, ""}, {1, ""}, {2, ""}, {4, ""}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(g.Ring, g.Table[:8], g.Members(3))
	for n := 1; n < 33; n++ {
		var pl []Place
		for i := range n {
			pl = append(pl, Place{Server(i + 1), ""})
		}
		s := Mirror
		if n == 1 {
			s = Stripe
		}
		a, err := New(1, s, pl)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Grow(a, 2, append(pl, Place{Server(n + 1), ""}))
		if err != nil {
			t.Fatal(err)
		}
		worst, sum := 0.0, 0.0
		for w := range Buckets {
			c := make([]int, n+1)
			mx := 0
			for i := range 64 {
				p := b.Table[(w+i)%Buckets]
				c[p]++
				mx = max(mx, c[p])
			}
			r := float64(mx) / (64 / float64(n+1))
			worst = max(worst, r)
			sum += r
		}
		moved := 0
		for x := range Bucket(Buckets) {
			for _, m := range b.Members(b.Position(x)) {
				if _, ok := a.MemberOf(a.Position(x), m); !ok {
					moved++
				}
			}
		}
		t.Log(n, worst, sum/4096, float64(moved)/float64(Buckets*a.Copies))
	}
}
