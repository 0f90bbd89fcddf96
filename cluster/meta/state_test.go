package meta

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"petal/cluster/meta/metapb"
)

func encoded(s *State) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&metapb.Snapshot{Index: s.index, State: s.encode()})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// checkState holds the facts that every state must satisfy. pairs remembers
// which disk each (target, LUN) pair has ever had.
func checkState(t *rapid.T, s *State, pairs map[retiredKey]ID) {
	families := map[uint32]string{}
	for _, d := range s.Disks() {
		if s.Disk(d.Name) != d || s.DiskByID(d.ID) != d {
			t.Fatalf("disk %q is not found by its name and id", d.Name)
		}
		if f := s.Family(d.Family); f == nil || f.Dropped {
			t.Fatalf("disk %q has no living family", d.Name)
		}
		if other, twice := families[uint32(d.Family)]; twice {
			t.Fatalf("disks %q and %q share family %d", d.Name, other, d.Family)
		}
		families[uint32(d.Family)] = d.Name
		if err := CheckSize(d.Size, d.BlockSize); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range s.Targets() {
		last := -1
		for _, l := range target.LUNs {
			if int(l.Number) <= last {
				t.Fatalf("LUNs of %s are out of order", target.Name)
			}
			last = int(l.Number)
			if s.DiskByID(l.Disk) == nil {
				t.Fatalf("LUN %d of %s maps no disk", l.Number, target.Name)
			}
			k := retiredKey{target.Name, l.Number}
			if had, ok := pairs[k]; ok && had != l.Disk {
				t.Fatalf("LUN %d of %s was given to a second disk", l.Number, target.Name)
			}
			pairs[k] = l.Disk
		}
	}
	for id := range s.reservations {
		if s.disks[id] == nil {
			t.Fatalf("reservations of no disk")
		}
	}
}

func TestLUNPairIsNeverReused(t *testing.T) {
	s := build(t, initCmd(), createCmd("a", 1, "iqn.2026-11.petal:t"), deleteCmd("a"), createCmd("b", 2, "iqn.2026-11.petal:t"))
	if got := s.Exports(s.Disk("b").ID); len(got) != 1 || got[0].LUN != 1 {
		t.Fatalf("the second disk is exported at %v, want LUN 1", got)
	}
	_, err := apply(s, &metapb.Command{Kind: &metapb.Command_MapLun{MapLun: &metapb.MapLun{Target: "iqn.2026-11.petal:t", Disk: "b", Number: 0}}})
	if !errors.Is(err, ErrInUse) || HintOf(err) == "" {
		t.Fatalf("LUN 0, which disk a had: %v", err)
	}
}

func TestLineage(t *testing.T) {
	f := &Family{Nodes: []EpochNode{{ID: 1}, {ID: 2, Parent: 1}, {ID: 3, Parent: 1}, {ID: 4, Parent: 2}}}
	if got := fmt.Sprint(f.Lineage(4)); got != "[4 2 1]" {
		t.Errorf("lineage of 4: %s", got)
	}
	if got := fmt.Sprint(f.Lineage(3)); got != "[3 1]" {
		t.Errorf("lineage of 3: %s", got)
	}
	loop := &Family{Nodes: []EpochNode{{ID: 1, Parent: 2}, {ID: 2, Parent: 1}}}
	if got := len(loop.Lineage(1)); got > 3 {
		t.Errorf("a loop gives a lineage of %d", got)
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"a": true, "data-1.x_y": true, "": false, "A": false, "-a": false, "a b": false, "a/b": false,
		"a23456789012345678901234567890123456789012345678901234567890123": true, "a234567890123456789012345678901234567890123456789012345678901234": false} {
		if err := CheckDiskName(name); (err == nil) != ok {
			t.Errorf("disk name %q: %v", name, err)
		}
	}
	for name, ok := range map[string]bool{"iqn.2026-11.petal:demo": true, "iqn.2026-11.com.example": true, "eui.02004567a425678d": true, "naa.52004567ba64678d": true,
		"iqn.2026-13.petal:x": false, "iqn.2026-11.petal:": false, "IQN.2026-11.petal:x": false, "demo": false, "iqn.2026-11.petal:a b": false} {
		if err := CheckISCSIName(name); (err == nil) != ok {
			t.Errorf("iSCSI name %q: %v", name, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		size  uint64
		block int
		ok    bool
	}{{512, 512, true}, {4096, 4096, true}, {0, 512, false}, {513, 512, false}, {512, 4096, false}, {MaxDiskSize, 4096, true}, {MaxDiskSize + 512, 512, false}, {512, 520, false}} {
		if err := CheckSize(c.size, c.block); (err == nil) != c.ok {
			t.Errorf("size %d in blocks of %d: %v", c.size, c.block, err)
		}
	}
}

func TestSeal(t *testing.T) {
	s, err := NewSealer([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.Seal("a", []byte("secret"))
	if got, err := s.Open("a", sealed); err != nil || string(got) != "secret" {
		t.Fatalf("open: %q, %v", got, err)
	}
	if _, err := s.Open("b", sealed); !errors.Is(err, ErrSeal) {
		t.Errorf("another owner's secret opens: %v", err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := s.Open("a", sealed); !errors.Is(err, ErrSeal) {
		t.Errorf("a changed secret opens: %v", err)
	}
	if _, err := s.Open("a", nil); !errors.Is(err, ErrSeal) {
		t.Errorf("nothing opens: %v", err)
	}
}

func initCmd() *metapb.Command {
	return &metapb.Command{Kind: &metapb.Command_Init{Init: &metapb.Init{ClusterId: append(make([]byte, 15), 1), ServerName: "n1"}}}
}

func createCmd(name string, id byte, target string) *metapb.Command {
	return &metapb.Command{Kind: &metapb.Command_CreateDisk{CreateDisk: &metapb.CreateDisk{Id: append(make([]byte, 15), id), Name: name, Size: 1 << 20, BlockSize: 512, Target: target, AutoLun: true}}}
}

func deleteCmd(name string) *metapb.Command {
	return &metapb.Command{Kind: &metapb.Command_DeleteDisk{DeleteDisk: &metapb.DeleteDisk{Name: name}}}
}

func build(t *testing.T, cmds ...*metapb.Command) *State {
	t.Helper()
	s := (&State{}).clone()
	for _, c := range cmds {
		next, err := apply(s, c)
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	return s
}
