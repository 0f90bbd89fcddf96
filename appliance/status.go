package appliance

import (
	"context"
	"fmt"
	"os"
	"strings"

	"petal/appliance/api"
	"petal/cluster"
	"petal/cluster/meta"
	"petal/target"
)

// Status says how the node is.
func (a *appliance) Status(context.Context) (api.Status, error) {
	state, n := a.node.State(), a.node.Status()
	agreed := a.clusterStatus(state)
	out := api.Status{
		Node: nodeName(state, a), Version: Version, State: "ok", ClusterID: uuid(state.ClusterID()), Incarnation: n.Incarnation,
		PID: os.Getpid(), Started: a.started, RecoveryMS: float64(a.recovery.Microseconds()) / 1000,
		Portals: []api.Portal{}, Bricks: []api.Brick{}, Problems: a.exports.Problems(), Cluster: agreed, Unhealthy: unwell(state, agreed.Quorum), Resync: a.resync(),
		Cache: api.Cache{Used: n.Cache.Used, Budget: n.Cache.Budget, Hits: n.Cache.Hits, Misses: n.Cache.Misses},
		Disks: len(state.Disks()), Targets: len(state.Targets()), Sessions: len(a.server.Sessions()),
	}
	for i, p := range a.server.Portals() {
		out.Portals = append(out.Portals, describePortal(p, a.conf.Portals[i].Group))
	}
	out.Problems = append(out.Problems, clusterProblems(state, agreed, Times(a.conf.Time).Replace)...)
	out.Problems = append(out.Problems, resyncProblems(out.Resync)...)
	if who := a.node.Superseded(); len(who) > 0 && !agreed.Lease {
		out.Problems = append(out.Problems, "another process runs with this node's identity, say "+strings.Join(who, ", ")+": two copies of one node; stop this one, and delete it or the other")
	}
	if who := a.node.Removed(); len(who) > 0 && !agreed.Lease {
		out.Problems = append(out.Problems, "this node is no member of the cluster any more, say "+strings.Join(who, ", ")+": stop it; to come back it joins anew, with an empty directory and brick")
	}
	for _, b := range n.Bricks {
		out.Bricks = append(out.Bricks, describeBrick(b))
		out.Problems = append(out.Problems, brickProblems(b)...)
	}
	if len(out.Problems) > 0 {
		out.State = "degraded"
		if !agreed.Lease {
			out.State = "suspended"
		}
	} else {
		out.Problems = []string{}
	}
	select {
	case <-a.draining:
		out.State = "draining"
	default:
	}
	return out, nil
}

// nodeName is the node's name as the cluster has it.
func nodeName(s *meta.State, a *appliance) string {
	if srv := s.Server(a.node.Self()); srv != nil {
		return srv.Name
	}
	return a.conf.Node.Name
}

func describePortal(p target.PortalInfo, group uint16) api.Portal {
	out := api.Portal{Listen: p.Address, Group: group, State: "closed"}
	if p.Listening {
		out.State = "listening"
	}
	if p.Err != nil {
		out.Error = p.Err.Error()
	}
	return out
}

func describeBrick(b cluster.BrickStatus) api.Brick {
	out := api.Brick{Path: b.Path, State: "ok", Direct: b.Direct, Used: b.Used, Available: b.Available, Total: b.Total,
		JournalUsed: b.JournalUsed, JournalCapacity: b.JournalCapacity, ChecksumErrors: b.ChecksumErrors}
	if b.Failed != nil {
		out.State, out.Error = "failed", b.Failed.Error()
	}
	return out
}

// brickProblems lists what an operator should look at.
func brickProblems(b cluster.BrickStatus) (out []string) {
	if b.Failed != nil {
		out = append(out, fmt.Sprintf("brick %s has failed and serves nothing: %v", b.Path, b.Failed))
	}
	if b.ChecksumErrors > 0 {
		out = append(out, fmt.Sprintf("brick %s: %d blocks failed their checksum; `petal brick check` (node stopped) lists them", b.Path, b.ChecksumErrors))
	}
	if b.Total > 0 && b.Available < b.Total/50 {
		out = append(out, fmt.Sprintf("brick %s is full: writes to new places fail, all else goes on", b.Path))
	}
	return out
}

// diskUsage is the space that each disk occupies, in bytes.
func (a *appliance) diskUsage() map[meta.ID]uint64 {
	used := map[meta.ID]uint64{}
	for _, d := range a.node.State().Disks() {
		if v, err := a.node.Volume(d.ID); err == nil {
			used[d.ID], _, _, _ = v.Usage()
		}
	}
	return used
}
