package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) cluster() *cli.Command {
	return group("cluster", "make a cluster, see how it is, let nodes join", s.clusterInit(), s.clusterStatus(), s.clusterToken())
}

func (s streams) clusterStatus() *cli.Command {
	return s.command(spec{
		name: "status", usage: "show the whole cluster: nodes, disks, what is wrong and what mends it",
		description: "Exit status 1 if a disk is not healthy, a node is down, or something else is\nlisted under problems.",
		flags:       nodeFlags(), run: runClusterStatus,
	})
}

// clusterReport is the result of petal cluster status.
type clusterReport struct {
	Cluster  api.Cluster  `json:"cluster"`
	Nodes    []api.Node   `json:"nodes"`
	Disks    []api.Disk   `json:"disks"`
	Resync   []api.Resync `json:"resync"`
	Problems []string     `json:"problems"`
}

func runClusterStatus(c *call) error {
	ctx, node := c.Context.Context, c.node()
	st, err := node.Status(ctx)
	if err != nil {
		return err
	}
	r := clusterReport{Cluster: st.Cluster, Resync: st.Resync, Problems: st.Problems}
	if r.Nodes, err = node.Nodes(ctx); err != nil {
		return err
	}
	if r.Disks, err = node.Disks(ctx); err != nil {
		return err
	}
	if err := c.result(r, func(w io.Writer) { showCluster(w, r) }); err != nil {
		return err
	}
	if r.well() {
		return nil
	}
	return statusError(exitFailed)
}

func (r *clusterReport) well() bool {
	for _, d := range r.Disks {
		if d.Health.State != "healthy" {
			return false
		}
	}
	for _, n := range r.Nodes {
		if n.State == "down" {
			return false
		}
	}
	return len(r.Problems) == 0
}

func showCluster(w io.Writer, r clusterReport) {
	facts(w, append([]string{"cluster", clusterName(r.Cluster)}, agreement(r.Cluster)...)...)
	fmt.Fprintln(w)
	showNodes(w, r.Nodes)
	if len(r.Disks) > 0 {
		fmt.Fprintln(w)
		rows := make([][]string, len(r.Disks))
		for i, d := range r.Disks {
			rows[i] = []string{d.Name, size(d.Size), d.Scheme, healthWord(d.Health)}
		}
		columns(w, []string{"disk", ">size", "scheme", "health"}, rows)
	}
	for _, d := range r.Disks {
		if d.Health.State != "healthy" {
			fmt.Fprintln(w)
			showHealth(w, d.Name, d.Health)
		}
	}
	if len(r.Resync) > 0 {
		fmt.Fprintln(w)
		showResync(w, r.Resync)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "\nproblem: %s\n", p)
	}
}

func clusterName(c api.Cluster) string {
	if c.Name == "" {
		return c.ID
	}
	return fmt.Sprintf("%s (%s)", c.Name, c.ID)
}

// agreement is facts about who decides.
func agreement(c api.Cluster) []string {
	if c.Alone {
		return []string{"agreement", "this node alone"}
	}
	state := "yes"
	if !c.Quorum {
		state = "NO: this node has heard from no majority of the voters; nothing can be changed here, and disks are not served without a lease"
	}
	lines := []string{
		"quorum", state,
		"voters", fmt.Sprintf("%s; leader %s", strings.Join(c.Voters, " "), orDash(c.Leader)),
		"nodes", fmt.Sprintf("%d, %d up", c.Nodes, c.Up),
	}
	if c.Plain {
		lines = append(lines, "TLS", "NONE between nodes (cluster.plain): whoever reaches them reads all data and may claim to be a node")
	}
	return lines
}
