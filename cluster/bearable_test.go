package cluster

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/journal/record"
	"petal/placement"
)

// What a journal has lost comes back from another member, if one is in sync
// whose records of that bucket they were. Everything else stops the start, unless
// the operator accepts the loss.
func TestBearable(t *testing.T) { virtual(t, bearable) }

func bearable(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	newLoad(c)
	c.kill(2)
	c.without(2)
	n := c.nodes[0].Node
	var both, alone placement.LinkID
	for _, id := range n.State().LinksOf(1) {
		if n.State().Link(id).InSync.Len() == 2 {
			both = id
		} else {
			alone = id
		}
	}
	lost := []brick.LostRange{{From: 7, To: 8}}
	for _, x := range []struct {
		name   string
		rec    brick.Recovery
		accept bool
		ok     bool
	}{
		{"another has it", brick.Recovery{Lost: lost, Gaps: []brick.Gap{{Link: both}}}, false, true},
		{"only this server had it", brick.Recovery{Lost: lost, Gaps: []brick.Gap{{Link: both}, {Link: alone}}}, false, false},
		{"a link that is no more", brick.Recovery{Lost: lost, Gaps: []brick.Gap{{Link: placement.LinkID{GMap: 99}}}}, false, false},
		{"nobody knows what it was", brick.Recovery{Lost: lost, LostUnknown: 1}, false, false},
		{"and that is accepted", brick.Recovery{Lost: lost, LostUnknown: 1}, true, true},
	} {
		n.opt.AcceptLoss = x.accept
		if err := n.bearable(&x.rec); (err == nil) != x.ok {
			t.Errorf("%s: %v", x.name, err)
		}
		var given []brick.GivenUp // others have what is lost of the rest
		if x.accept {
			m, _ := n.State().MemberOf(alone, 1)
			given = []brick.GivenUp{{Link: alone, Ver: n.State().Link(alone).Ver, Lacking: placement.MembersOf(2).Without(m)}}
		}
		if !slices.Equal(x.rec.GivenUp, given) {
			t.Errorf("%s: gives up %v, want %v", x.name, x.rec.GivenUp, given)
		}
	}
}

// A start that is refused for lost records leaves the rest of the journal as it
// is: when the disk can be read again after all, nothing is missing.
func TestRefusedStartUndoesNothing(t *testing.T) { virtual(t, refusedStartUndoesNothing) }

func refusedStartUndoesNothing(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	l := newLoad(c)
	s := c.nodes[0]
	c.kill(0)
	s.opt.brick = func(o *brick.Options) { o.SegmentBytes, o.DestageAge = 1<<20, time.Hour } // all stays in the journal
	c.start(0)
	c.whole(0)
	c.kill(2)
	c.without(2) // server 1 goes on alone with one link
	l.during(l.some)
	l.check("before")
	c.kill(0)

	// Groups of this life, and none at the end, which would count as torn.
	type group struct {
		opening, first uint64
		flip           func()
	}
	var groups []group
	for _, name := range s.disk.Files() {
		if !strings.HasPrefix(name, "journal/") {
			continue
		}
		for at := int64(0); at < 1<<20; at += placement.BlockSize {
			if err := s.disk.Damage(name, at, func(p []byte) {
				if v := record.View(p); string(p[:8]) == "petalgrp" {
					groups = append(groups, group{v.Opening(), v.First(), func() { s.disk.Damage(name, at+17, func(p []byte) { p[0] ^= 1 }, 1) }})
				}
			}, record.HeaderSize); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.SortFunc(groups, func(a, b group) int { return cmp.Or(cmp.Compare(b.opening, a.opening), cmp.Compare(a.first, b.first)) })
	last := slices.IndexFunc(append(groups, group{}), func(g group) bool { return g.opening != groups[0].opening })
	rotten := groups[last/2 : last/2+8]
	for _, g := range rotten {
		g.flip()
	}
	for range 2 {
		c.open(0)
		<-s.Ready()
		if err := s.Failed(); err == nil || !strings.Contains(err.Error(), "rotted") {
			t.Fatalf("it starts: %v", err)
		}
		c.kill(0)
	}
	for _, g := range rotten {
		g.flip()
	}
	c.start(0)
	l.check("the disk can be read again")
}
