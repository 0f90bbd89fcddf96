package cluster

import (
	"testing"

	"petal/cluster/meta"
	"petal/placement"
)

// Three copies, of which two are lost, in every order that matters: together, then
// the survivor as soon as one of them takes part again and before that one has
// copied what it missed, while the third is still away (R9); then each pair in turn.
// No acknowledged write is lost, and the writers notice nothing but a pause.
func TestTwoOfThreeLost(t *testing.T) { virtual(t, twoOfThreeLost) }

func twoOfThreeLost(t *testing.T) {
	c := newMemCluster(t, 5, 0.5)
	if _, err := c.nodes[0].CreateDisk(t.Context(), DiskSpec{Name: "data", Size: 16 << 20, BlockSize: 4096, Scheme: "mirror3"}); err != nil {
		t.Fatal(err)
	}
	l := &load{c: c}
	for i := range 4 {
		l.writers = append(l.writers, newSteadyWriter(i*512, 512))
	}
	v := c.volume(0, "data")
	for i := range uint64(2560) { // so that every block that can be missing is
		if err := <-write(v, i*placement.BlockSize, sector(i<<8, placement.BlockSize), false); err != nil {
			t.Fatal(err)
		}
		if w := int(i) / 512; w < 4 {
			l.writers[w].allowed[i%512] = []uint64{i << 8}
		}
	}
	const first = 2 // of the nodes of the link that is looked at: 3, 4 and 5
	link := c.linkAt(first)
	all := placement.MembersOf(3)
	sync := func(in placement.Members) {
		t.Helper()
		eventually(t, c.nodes[0].Node, func(s *meta.State) bool { return s.Link(link).InSync == in })
	}
	l.during(func() { l.some(); c.kill(first + 1); c.kill(first + 2); sync(1); l.some() })
	l.during(func() {
		c.start(first + 1)
		sync(3)
		c.kill(first)
		sync(2)
		l.some()
		c.start(first + 2)
		sync(2 | 4)
		c.start(first)
		c.whole(0)
	})
	if s := c.nodes[0].State().Link(link); s.InSync != all {
		t.Fatalf("%+v", s)
	}
	l.check("all are back")
	pairs := 3
	if testing.Short() {
		pairs = 1
	}
	for i := range pairs {
		dead := [2]int{first + (i+1)%3, first + (i+2)%3}
		l.during(func() {
			for _, d := range dead {
				c.kill(d)
			}
			sync(placement.Members(0).With(placement.Member(i)))
		})
		l.check("two are dead")
		for _, d := range dead {
			c.start(d)
		}
		c.whole(0)
	}
	l.check("whole again")
}

// linkAt is the link whose first server is node i.
func (c *memCluster) linkAt(i int) placement.LinkID {
	c.t.Helper()
	s := c.nodes[0].State()
	for _, id := range s.Links() {
		if s.LinkServers(id)[0] == c.nodes[i].id {
			return id
		}
	}
	c.t.Fatalf("no link begins at node %d", i+1)
	return placement.LinkID{}
}
