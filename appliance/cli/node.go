package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) node() *cli.Command {
	return group("node", "list the nodes of a cluster, join one, take one out, slow one down", s.nodeList(), s.nodeJoin(), s.nodeRemove(), s.nodeThrottle())
}

func (s streams) nodeList() *cli.Command {
	return s.command(spec{name: "list", usage: "list the nodes of the cluster", flags: nodeFlags(), run: func(c *call) error {
		nodes, err := c.node().Nodes(c.Context.Context)
		if err != nil {
			return err
		}
		return c.result(nodes, func(w io.Writer) { showNodes(w, nodes) })
	}})
}

func showNodes(w io.Writer, nodes []api.Node) {
	rows := make([][]string, len(nodes))
	for i, n := range nodes {
		state := n.State
		if n.Since != nil {
			state += " for " + ago(*n.Since)
		}
		vote := n.Vote
		if n.Leader {
			vote = "leader"
		}
		name := n.Name
		if n.Self {
			name += " (this one)"
		}
		rows[i] = []string{fmt.Sprint(n.ID), name, n.Kind, orDash(n.Site), state, vote, orDash(strings.Join(n.Addresses, " ")), orDash(strings.Join(n.Portals, " "))}
	}
	columns(w, []string{">id", "name", "kind", "site", "state", "vote", "address", "portals"}, rows)
}
