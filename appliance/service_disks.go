package appliance

import (
	"context"
	"fmt"

	"petal/appliance/api"
	"petal/cluster"
	"petal/cluster/meta"
)

func (a *appliance) Disks(context.Context) ([]api.Disk, error) {
	state, sessions, used := a.node.State(), a.sessionsOf(), a.diskUsage()
	out := []api.Disk{}
	for _, d := range state.Disks() {
		x := describeDisk(state, d, sessions, used)
		x.Health = known(x.Health, a.Quorum())
		out = append(out, x)
	}
	return out, nil
}

func (a *appliance) Disk(_ context.Context, name string) (api.Disk, error) {
	state := a.node.State()
	d := state.Disk(name)
	if d == nil {
		return api.Disk{}, notFound("disk", name, "petal disk list")
	}
	x := describeDisk(state, d, a.sessionsOf(), a.diskUsage())
	x.Health = known(x.Health, a.Quorum())
	return x, nil
}

func describeDisk(state *meta.State, d *meta.Disk, sessions map[string]int, used map[meta.ID]uint64) api.Disk {
	out := api.Disk{ID: uuid(d.ID), Name: d.Name, Size: d.Size, Used: used[d.ID], BlockSize: d.BlockSize,
		WriteBack: d.WriteBack, ReadOnly: d.ReadOnly, Created: d.Created, Scheme: diskScheme(state, d), Health: diskHealth(state, d), Exports: []api.Export{}}
	for _, x := range state.Exports(d.ID) {
		out.Exports = append(out.Exports, api.Export{Target: x.Target, LUN: x.LUN})
	}
	for _, target := range exportingTargets(state, d.ID) {
		out.Sessions += sessions[target]
	}
	return out
}

// exportingTargets lists the targets that export a disk, each once.
func exportingTargets(state *meta.State, id meta.ID) []string {
	var out []string
	for _, x := range state.Exports(id) {
		if len(out) == 0 || out[len(out)-1] != x.Target {
			out = append(out, x.Target)
		}
	}
	return out
}

func uuid(id meta.ID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

func (a *appliance) CreateDisk(ctx context.Context, d api.NewDisk) (api.Disk, error) {
	spec := cluster.DiskSpec{Name: d.Name, Size: d.Size, BlockSize: d.BlockSize, WriteBack: d.WriteBack, ReadOnly: d.ReadOnly, Scheme: d.Scheme, Target: d.Target, LUN: d.LUN}
	if spec.BlockSize == 0 {
		spec.BlockSize = 512
	}
	if spec.Target == "" && !d.NoExport {
		spec.Target = a.defaultTarget(d.Name)
	}
	_, err := a.node.CreateDisk(ctx, spec)
	if err := a.changed(err); err != nil {
		return api.Disk{}, err
	}
	a.log.Info("disk created", "disk", d.Name, "bytes", d.Size, "target", spec.Target)
	return a.Disk(ctx, d.Name)
}

// defaultTarget is the target that exports a disk unless told otherwise.
func (a *appliance) defaultTarget(disk string) string { return a.conf.ISCSI.IQNBase + ":" + disk }

func (a *appliance) ChangeDisk(ctx context.Context, name string, c api.DiskChange) (api.Disk, error) {
	d := a.node.State().Disk(name)
	if d == nil {
		return api.Disk{}, notFound("disk", name, "petal disk list")
	}
	if !a.Quorum() { // a change of size asks the data first, which would say less
		return api.Disk{}, refusal(&meta.Error{Kind: meta.ErrNoQuorum, Thing: "node " + a.conf.Node.Name, Why: "nothing can be changed here now",
			Advice: "see `petal cluster status`; most of the voters must be up and in touch"})
	}
	if c.Size != nil && *c.Size < d.Size && c.Shrink && !c.Force {
		if err := a.idleDisk(ctx, d); err != nil {
			return api.Disk{}, err
		}
	}
	_, err := a.node.UpdateDisk(ctx, name, cluster.DiskChange{Size: c.Size, Shrink: c.Shrink, WriteBack: c.WriteBack, ReadOnly: c.ReadOnly})
	if err := a.changed(err); err != nil {
		return api.Disk{}, err
	}
	a.log.Info("disk changed", "disk", name)
	return a.Disk(ctx, name)
}

func (a *appliance) DeleteDisk(ctx context.Context, name string, force bool) error {
	d := a.node.State().Disk(name)
	if d == nil {
		return notFound("disk", name, "petal disk list")
	}
	if !force {
		if err := a.idleDisk(ctx, d); err != nil {
			return err
		}
	}
	if err := a.changed(a.node.DeleteDisk(ctx, name)); err != nil {
		return err
	}
	a.log.Info("disk deleted", "disk", name, "force", force)
	return a.dropDefaultTarget(ctx, name)
}

// dropDefaultTarget removes the target that was made for a disk, if nobody has
// made anything else of it since.
func (a *appliance) dropDefaultTarget(ctx context.Context, disk string) error {
	t := a.node.State().Target(a.defaultTarget(disk))
	if t == nil || len(t.LUNs) > 0 || len(t.ACL) > 0 || t.CHAP.Enabled() {
		return nil
	}
	return a.changed(a.node.DeleteTarget(ctx, t.Name))
}
