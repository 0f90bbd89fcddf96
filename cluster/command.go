package cluster

import (
	"encoding/json"
	"fmt"

	"petal/cluster/meta/metapb"
)

// command wraps what is to be agreed on.
func command(kind any) *metapb.Command {
	switch k := kind.(type) {
	case *metapb.Start:
		return &metapb.Command{Kind: &metapb.Command_Start{Start: k}}
	case *metapb.Confirm:
		return &metapb.Command{Kind: &metapb.Command_Confirm{Confirm: k}}
	case *metapb.Join:
		return &metapb.Command{Kind: &metapb.Command_Join{Join: k}}
	case *metapb.Leave:
		return &metapb.Command{Kind: &metapb.Command_Leave{Leave: k}}
	case *metapb.Note:
		return &metapb.Command{Kind: &metapb.Command_Note{Note: k}}
	case *metapb.BrickFailed:
		return &metapb.Command{Kind: &metapb.Command_BrickFailed{BrickFailed: k}}
	case *metapb.UpdateServer:
		return &metapb.Command{Kind: &metapb.Command_UpdateServer{UpdateServer: k}}
	case *metapb.SetCA:
		return &metapb.Command{Kind: &metapb.Command_SetCa{SetCa: k}}
	case *metapb.CreateToken:
		return &metapb.Command{Kind: &metapb.Command_CreateToken{CreateToken: k}}
	case *metapb.ForceLink:
		return &metapb.Command{Kind: &metapb.Command_ForceLink{ForceLink: k}}
	case *metapb.Rejoined:
		return &metapb.Command{Kind: &metapb.Command_Rejoined{Rejoined: k}}
	case *metapb.Filled:
		return &metapb.Command{Kind: &metapb.Command_Filled{Filled: k}}
	case *metapb.FenceConfirm:
		return &metapb.Command{Kind: &metapb.Command_FenceConfirm{FenceConfirm: k}}
	case *metapb.Reopen:
		return &metapb.Command{Kind: &metapb.Command_Reopen{Reopen: k}}
	case *metapb.BumpVVer:
		return &metapb.Command{Kind: &metapb.Command_BumpVver{BumpVver: k}}
	case *metapb.CompleteBarrier:
		return &metapb.Command{Kind: &metapb.Command_CompleteBarrier{CompleteBarrier: k}}
	case *metapb.CreateDisk:
		return &metapb.Command{Kind: &metapb.Command_CreateDisk{CreateDisk: k}}
	case *metapb.UpdateDisk:
		return &metapb.Command{Kind: &metapb.Command_UpdateDisk{UpdateDisk: k}}
	case *metapb.DeleteDisk:
		return &metapb.Command{Kind: &metapb.Command_DeleteDisk{DeleteDisk: k}}
	case *metapb.FamilyFreed:
		return &metapb.Command{Kind: &metapb.Command_FamilyFreed{FamilyFreed: k}}
	case *metapb.CreateTarget:
		return &metapb.Command{Kind: &metapb.Command_CreateTarget{CreateTarget: k}}
	case *metapb.DeleteTarget:
		return &metapb.Command{Kind: &metapb.Command_DeleteTarget{DeleteTarget: k}}
	case *metapb.MapLun:
		return &metapb.Command{Kind: &metapb.Command_MapLun{MapLun: k}}
	case *metapb.UnmapLun:
		return &metapb.Command{Kind: &metapb.Command_UnmapLun{UnmapLun: k}}
	case *metapb.SetAcl:
		return &metapb.Command{Kind: &metapb.Command_SetAcl{SetAcl: k}}
	case *metapb.SetChap:
		return &metapb.Command{Kind: &metapb.Command_SetChap{SetChap: k}}
	case *metapb.SwapReservation:
		return &metapb.Command{Kind: &metapb.Command_SwapReservation{SwapReservation: k}}
	}
	panic(fmt.Sprintf("cluster: no command %T", kind))
}

// extra is what a newcomer says beyond what package peer has fields for.
type extra struct {
	Release uint32 `json:"release"`
	Times   uint32 `json:"times"` // permille of the default intervals
}

func encodeExtra(r *JoinRequest) ([]byte, error) { return json.Marshal(extra{r.Release, r.Times}) }

func decodeExtra(b []byte, r *JoinRequest) error {
	var x extra
	if err := json.Unmarshal(b, &x); err != nil {
		return fmt.Errorf("what the newcomer says of itself is not readable: %w", err)
	}
	r.Release, r.Times = x.Release, x.Times
	return nil
}
