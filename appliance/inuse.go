package appliance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"petal/appliance/api"
	"petal/cluster"
	"petal/cluster/meta"
)

// idle refuses to take something away from initiators that are logged in to it,
// at whichever node. targets are those that lead to the thing, by the state that
// is agreed on when the nodes have answered. Who logs in after that loses it as
// with force: initiators are told, and get I/O errors.
func (a *appliance) idle(ctx context.Context, thing string, targets func(*meta.State) []string) error {
	count, err := a.node.CountSessions(ctx)
	if err != nil {
		return refusal(err)
	}
	s := a.node.State()
	return inUse(s.Servers(), thing, targets(s), count)
}

// idleDisk is idle for a disk.
func (a *appliance) idleDisk(ctx context.Context, d *meta.Disk) error {
	return a.idle(ctx, fmt.Sprintf("disk %q", d.Name), func(s *meta.State) []string { return exportingTargets(s, d.ID) })
}

// inUse is the error for something that is in use, or may be.
func inUse(servers []*meta.Server, thing string, targets []string, count cluster.SessionCount) error {
	if len(targets) == 0 {
		return nil
	}
	total := 0
	var at, nodes, silent []string
	for _, srv := range servers {
		n := 0
		for _, t := range targets {
			n += count.At[srv.ID][t]
		}
		if total += n; n > 0 {
			at, nodes = append(at, fmt.Sprintf("%d at %s", n, srv.Name)), append(nodes, srv.Name)
		}
		if slices.Contains(count.Silent, srv.ID) {
			silent = append(silent, srv.Name)
		}
	}
	if total == 0 && len(silent) == 0 {
		return nil
	}
	var what, advice []string
	if total > 0 {
		used, list := "in use by "+plural(total, "session"), "`petal session list` shows them"
		if len(servers) > 1 {
			used, list = used+", "+strings.Join(at, ", "), "`petal session list` on "+strings.Join(nodes, " and ")+" shows them"
		}
		what, advice = append(what, used), append(advice, "log the initiators out first ("+list+")")
	}
	if len(silent) > 0 {
		who := strings.Join(silent, " and ")
		what, advice = append(what, "it may be in use at "+who+", of which there is no answer"), append(advice, "see with `petal node list` what is wrong with "+who)
	}
	return &api.Error{Kind: api.InUse, Message: thing + ": " + strings.Join(what, "; and "),
		Advice: strings.Join(advice, ", and ") + ", or use --force: who uses it gets I/O errors"}
}
