package meta

import (
	"fmt"
	"testing"
	"time"

	"petal/cluster/meta/metapb"
)

// BenchmarkApply is the cost of a command beside many disks: each state is a copy.
func BenchmarkApply(b *testing.B) {
	s := (&State{}).clone()
	first := initCmd()
	first.GetInit().Release = Release
	s, _ = apply(s, first)
	for i := range 2000 {
		c := createCmd(fmt.Sprintf("d%d", i), 0, "")
		c.GetCreateDisk().Id = append(make([]byte, 14), byte(i>>8), byte(i))
		var err error
		if s, err = apply(s, c); err != nil {
			b.Fatal(err)
		}
	}
	id := s.Disk("d77").ID
	c := &metapb.Command{Kind: &metapb.Command_BumpVver{BumpVver: &metapb.BumpVVer{Disk: id[:]}}}
	b.ReportAllocs()
	for b.Loop() {
		n, err := apply(s, c)
		if err != nil {
			b.Fatal(err)
		}
		s = n
	}
}

// BenchmarkTick is what a leader of four servers spends 20 times a second while
// nothing happens.
func BenchmarkTick(b *testing.B) {
	w := clusterWorld(b, 1, 4)
	w.must(1, diskOf("a", 1, "mirror"))
	w.must(1, diskOf("b", 2, "mirror3"))
	w.run(10 * time.Second)
	g := w.hosts[w.leader()].group
	g.timer.Stop()
	b.ReportAllocs()
	for b.Loop() {
		g.enter(g.tickLeader)
	}
}
