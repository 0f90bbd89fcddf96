package meta

import (
	"flag"
	"fmt"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"petal/cluster/meta/metapb"
)

// What is drawn is the same from one run to the next, unless -rapid.seed says
// otherwise: what is red was made so by a change.
func init() { flag.Set("rapid.seed", "1") }

// drawn draws commands that are mostly acceptable, from few names, so that they
// meet each other.
type drawn struct{ t *rapid.T }

func (d drawn) n(lo, hi int, label string) int { return rapid.IntRange(lo, hi).Draw(d.t, label) }

func (d drawn) bool(label string) bool { return rapid.Bool().Draw(d.t, label) }

func (d drawn) id() []byte { return append(make([]byte, 15), byte(d.n(0, 5, "id"))) }

func (d drawn) disk() string { return fmt.Sprintf("d%d", d.n(0, 3, "disk")) }

func (d drawn) target() string { return fmt.Sprintf("iqn.2026-11.petal:t%d", d.n(0, 2, "target")) }

func (d drawn) hash() []byte { return append(make([]byte, 31), byte(d.n(0, 2, "hash"))) }

// link draws a link that is there, mostly, and its version.
func (d drawn) link(s *State) (gmap, position uint32, ver uint64) {
	all := s.Links()
	if len(all) == 0 || d.n(0, 9, "foreign") == 0 {
		return uint32(d.n(0, 3, "gmap")), uint32(d.n(0, 9, "position")), uint64(d.n(0, 3, "ver"))
	}
	l := all[d.n(0, len(all)-1, "link")]
	return l.GMap, l.Position, s.Link(l).Ver - uint64(d.n(0, 9, "old")/9)
}

func (d drawn) command(s *State) *metapb.Command {
	c := d.diskCommand()
	if d.n(0, 2, "cluster") > 0 {
		c = d.serverCommand()
		if d.n(0, 2, "links") > 0 {
			c = d.linkCommand(s)
		}
	}
	c.UnixMs = int64(d.n(0, 5000, "unix"))
	return c
}

func (d drawn) diskCommand() *metapb.Command {
	lun := uint32(d.n(0, 3, "lun"))
	switch d.n(0, 10, "kind") {
	case 0, 1, 2:
		c := &metapb.CreateDisk{Id: d.id(), Name: d.disk(), Size: uint64(d.n(0, 9, "size")) * 512, BlockSize: 512, Lun: lun, AutoLun: d.bool("auto"),
			Scheme: []string{"", "stripe", "mirror", "mirror3", "raid9"}[d.n(0, 4, "scheme")]}
		if d.bool("export") {
			c.Target = d.target()
		}
		return &metapb.Command{Kind: &metapb.Command_CreateDisk{CreateDisk: c}}
	case 3:
		return &metapb.Command{Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: d.disk(), Size: proto.Uint64(uint64(d.n(0, 9, "size")) * 512), AllowShrink: d.bool("shrink")}}}
	case 4:
		return &metapb.Command{Kind: &metapb.Command_DeleteDisk{DeleteDisk: &metapb.DeleteDisk{Name: d.disk()}}}
	case 5:
		return &metapb.Command{Kind: &metapb.Command_CreateTarget{CreateTarget: &metapb.CreateTarget{Name: d.target()}}}
	case 6:
		return &metapb.Command{Kind: &metapb.Command_DeleteTarget{DeleteTarget: &metapb.DeleteTarget{Name: d.target()}}}
	case 7:
		return &metapb.Command{Kind: &metapb.Command_MapLun{MapLun: &metapb.MapLun{Target: d.target(), Disk: d.disk(), Number: lun, Auto: d.bool("auto")}}}
	case 8:
		return &metapb.Command{Kind: &metapb.Command_UnmapLun{UnmapLun: &metapb.UnmapLun{Target: d.target(), Number: lun}}}
	case 9:
		return &metapb.Command{Kind: &metapb.Command_SwapReservation{SwapReservation: &metapb.SwapReservation{Disk: d.id(), Version: uint64(lun), Value: []byte{byte(lun)}, Revokes: d.bool("revokes")}}}
	}
	return &metapb.Command{Kind: &metapb.Command_FamilyFreed{FamilyFreed: &metapb.FamilyFreed{Family: uint32(d.n(1, 6, "family")), Server: uint32(d.n(0, 5, "server"))}}}
}

func (d drawn) serverCommand() *metapb.Command {
	server := uint32(d.n(1, 5, "server"))
	switch d.n(0, 8, "kind") {
	case 0, 1:
		return &metapb.Command{Kind: &metapb.Command_Start{Start: &metapb.Start{Server: server, Bricks: [][]byte{d.id()}, Release: uint32(d.n(1, 3, "release")), AcceptLoss: d.bool("loss"),
			HasWitness: d.bool("witness"), Witnessed: uint64(d.n(0, 6, "witnessed"))}}}
	case 2, 3:
		c := &metapb.Join{Name: fmt.Sprintf("n%d", d.n(1, 6, "name")), Release: Release, Kind: metapb.ServerKind(d.n(0, 1, "kind")), Site: fmt.Sprint(d.n(0, 2, "site")), Addresses: []string{fmt.Sprintf("h%d", d.n(1, 6, "addr"))}}
		if d.bool("token") {
			c.TokenHash = d.hash()
		}
		return &metapb.Command{Kind: &metapb.Command_Join{Join: c}}
	case 4:
		return &metapb.Command{Kind: &metapb.Command_Leave{Leave: &metapb.Leave{Name: fmt.Sprintf("n%d", d.n(1, 6, "name"))}}}
	case 5:
		return &metapb.Command{Kind: &metapb.Command_Confirm{Confirm: &metapb.Confirm{Server: server, Incarnation: uint64(d.n(0, 4, "incarnation"))}}}
	case 6:
		return &metapb.Command{Kind: &metapb.Command_CreateToken{CreateToken: &metapb.CreateToken{Hash: d.hash(), ExpiresMs: int64(d.n(0, 6000, "expires")), Uses: uint32(d.n(0, 2, "uses"))}}}
	case 7:
		return &metapb.Command{Kind: &metapb.Command_SetCa{SetCa: &metapb.SetCA{Certificate: d.hash(), SealedKey: d.id()}}}
	}
	return &metapb.Command{Kind: &metapb.Command_Reopen{Reopen: &metapb.Reopen{Server: server, Incarnation: uint64(d.n(0, 4, "incarnation"))}}}
}

func (d drawn) linkCommand(s *State) *metapb.Command {
	gmap, position, ver := d.link(s)
	member := uint32(d.n(0, 3, "member"))
	switch d.n(0, 8, "kind") {
	case 0, 1:
		return &metapb.Command{Kind: &metapb.Command_Reconfigure{Reconfigure: &metapb.Reconfigure{
			Links: []*metapb.LinkChange{{Gmap: gmap, Position: position, Ver: ver, InSync: uint32(d.n(0, 8, "insync")), Head: member, Reason: "x"}},
			Down:  []uint32{uint32(d.n(0, 5, "down"))}, Up: []uint32{uint32(d.n(0, 5, "up"))}}}}
	case 2:
		return &metapb.Command{Kind: &metapb.Command_Fence{Fence: &metapb.Fence{Gmap: gmap, Position: position, Ver: ver, Member: member, Lift: d.bool("lift")}}}
	case 3:
		return &metapb.Command{Kind: &metapb.Command_FenceConfirm{FenceConfirm: &metapb.FenceConfirm{Gmap: gmap, Position: position, Ver: ver, Member: member}}}
	case 4, 5:
		return &metapb.Command{Kind: &metapb.Command_Rejoined{Rejoined: &metapb.Rejoined{Gmap: gmap, Position: position, Ver: ver, Member: member}}}
	case 6:
		return &metapb.Command{Kind: &metapb.Command_Filled{Filled: &metapb.Filled{Gmap: gmap, Position: position, Member: member, Incarnation: uint64(d.n(0, 4, "incarnation"))}}}
	case 7:
		return &metapb.Command{Kind: &metapb.Command_ForceLink{ForceLink: &metapb.ForceLink{Gmap: gmap, Position: position, Member: member, AcceptLoss: d.bool("loss"), Over: []uint32{1, 2, 3}[:d.n(0, 3, "over")], Who: "root"}}}
	}
	return &metapb.Command{Kind: &metapb.Command_CompleteBarrier{CompleteBarrier: &metapb.CompleteBarrier{Disk: d.id(), Vver: uint64(d.n(0, 2, "vver")), Over: []uint32{1, 2, 3, 4, 5}[:d.n(0, 5, "over")],
		Answers: []*metapb.BarrierAnswer{{Gmap: gmap, Position: position, Ver: ver, Member: member}}}}}
}
