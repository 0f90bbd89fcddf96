package meta

import (
	"fmt"
	"testing"

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
