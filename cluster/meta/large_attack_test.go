package meta

import (
	"testing"

	"petal/cluster/meta/metapb"
	"petal/journal/vfs"
)

// TestLargestReservation: the largest value that the state machine accepts fits
// the log, wherever the log is in its segment.
func TestLargestReservation(t *testing.T) {
	s, err := Open(vfs.NewMemory(64<<20), "meta")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	disk := ID{7}
	for _, c := range []*metapb.Command{
		{Kind: &metapb.Command_Init{Init: &metapb.Init{ClusterId: disk[:], ServerName: "n1"}}},
		{Kind: &metapb.Command_CreateDisk{CreateDisk: &metapb.CreateDisk{Id: disk[:], Name: "d", Size: 1 << 20, BlockSize: 512}}},
	} {
		if _, err := s.Propose(c); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(20) {
		_, err := s.Propose(&metapb.Command{Kind: &metapb.Command_SwapReservation{
			SwapReservation: &metapb.SwapReservation{Disk: disk[:], Version: i, Value: make([]byte, MaxReservation)}}})
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
}
