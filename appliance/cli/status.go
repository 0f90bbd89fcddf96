package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) status() *cli.Command {
	return s.command(spec{
		name: "status", usage: "show how a node is, and the disks that are not healthy",
		description: "Exit status 1 if something is listed under problems, or a disk is not healthy.\n" +
			"petal cluster status shows the other nodes too.",
		flags: nodeFlags(), run: runStatus,
	})
}

func runStatus(c *call) error {
	st, err := c.node().Status(c.Context.Context)
	if err != nil {
		return err
	}
	if err := c.result(st, func(w io.Writer) { showStatus(w, st) }); err != nil {
		return err
	}
	if st.State == "degraded" || st.State == "suspended" || len(st.Unhealthy) > 0 {
		return statusError(exitFailed)
	}
	return nil
}

// count is "1 disk" or "2 disks".
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func showStatus(w io.Writer, st api.Status) {
	lines := []string{
		"node", fmt.Sprintf("%s, version %s, pid %d", st.Node, st.Version, st.PID),
		"state", st.State,
		"started", fmt.Sprintf("%s (%s ago), start number %d, ready after %.0f ms", st.Started.Local().Format(time.RFC3339), ago(st.Started), st.Incarnation, st.RecoveryMS),
		"cluster", clusterName(st.Cluster),
	}
	lines = append(lines, agreement(st.Cluster)...)
	lines = append(lines,
		"serving", fmt.Sprintf("%s, %s, %s", count(st.Disks, "disk"), count(st.Targets, "target"), count(st.Sessions, "session")),
		"cache", fmt.Sprintf("%s of %s, %s", size(st.Cache.Used), size(st.Cache.Budget), hitRate(st.Cache)))
	for _, p := range st.Portals {
		state := p.State
		if p.Error != "" {
			state = p.Error
		}
		lines = append(lines, "portal", fmt.Sprintf("%s, group %d: %s", p.Listen, p.Group, state))
	}
	for _, b := range st.Bricks {
		state := b.State
		if b.Error != "" {
			state += ": " + b.Error
		}
		lines = append(lines, "brick", fmt.Sprintf("%s: %s, %s used, %s available of %s, journal %s of %s, %d checksum errors",
			b.Path, state, size(b.Used), size(b.Available), size(b.Total), size(b.JournalUsed), size(b.JournalCapacity), b.ChecksumErrors))
	}
	for _, p := range st.Problems {
		lines = append(lines, "problem", p)
	}
	facts(w, lines...)
	for _, u := range st.Unhealthy {
		fmt.Fprintln(w)
		showHealth(w, u.Disk, u.Health)
	}
	if len(st.Resync) > 0 {
		fmt.Fprintln(w)
		showResync(w, st.Resync)
	}
}

func hitRate(c api.Cache) string {
	if c.Hits+c.Misses == 0 {
		return "not asked yet"
	}
	return fmt.Sprintf("%.1f %% hits", 100*float64(c.Hits)/float64(c.Hits+c.Misses))
}
