package meta

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
)

// TestWhatChangesNothingIsNotTold: a command that finds all as it wants it is no
// event, and leaves the diary to what has happened.
func TestWhatChangesNothingIsNotTold(t *testing.T) {
	const iqn = "iqn.2026-11.petal:a"
	s := clusterOf(t, 1).with(t, createCmd("d", 1, iqn))
	size, back := s.Disk("d").Size, false
	for what, cmd := range map[string]*metapb.Command{
		"the size that it has":       {Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: "d", Size: &size}}},
		"the cache that it has":      {Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: "d", WriteBack: &back}}},
		"writes that it takes":       {Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: "d", ReadOnly: &back}}},
		"the LUN that it is already": {Kind: &metapb.Command_MapLun{MapLun: &metapb.MapLun{Target: iqn, Disk: "d", Number: 0}}},
	} {
		if next := s.with(t, cmd); next.nextEvent != s.nextEvent {
			e := next.Events()
			t.Errorf("%s: told as %q", what, e[len(e)-1].Text)
		}
	}
}

// TestHalfOfACommandIsNotTold: what a command did before it was refused has not
// happened, and the diary does not say so.
func TestHalfOfACommandIsNotTold(t *testing.T) {
	const iqn = "iqn.2026-11.petal:a"
	s := clusterOf(t, 1).with(t, createCmd("d", 1, iqn)) // LUN 0
	cmd := createCmd("e", 2, iqn)
	cmd.GetCreateDisk().AutoLun = false
	data, err := proto.Marshal(&metapb.Proposal{Origin: 1, Session: 1, Number: 1, Floor: 1, Command: cmd})
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := applyEntryTo(s, s.term, s.index, data)
	if err == nil || !strings.Contains(err.Error(), "LUN 0") {
		t.Fatalf("a LUN that another disk has: %v", err)
	}
	if next.Disk("e") != nil || next.nextEvent != s.nextEvent {
		e := next.Events()
		t.Errorf("refused, and the disk is there: %t; the last event: %q", next.Disk("e") != nil, e[len(e)-1].Text)
	}
}
