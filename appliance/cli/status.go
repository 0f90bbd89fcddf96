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
		name: "status", usage: "show how a node is",
		description: "Exit status 1 if the node is not well: something is listed under problems.",
		flags:       nodeFlags(), run: runStatus,
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
	if st.State == "degraded" {
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
		"cluster", st.ClusterID,
		"serving", fmt.Sprintf("%s, %s, %s", count(st.Disks, "disk"), count(st.Targets, "target"), count(st.Sessions, "session")),
		"cache", fmt.Sprintf("%s of %s, %s", size(st.Cache.Used), size(st.Cache.Budget), hitRate(st.Cache)),
	}
	for _, p := range st.Portals {
		state := "listening"
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
}

func hitRate(c api.Cache) string {
	if c.Hits+c.Misses == 0 {
		return "not asked yet"
	}
	return fmt.Sprintf("%.1f %% hits", 100*float64(c.Hits)/float64(c.Hits+c.Misses))
}
