package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) link() *cli.Command {
	return group("link", "show which nodes hold the same data, or decide which copy counts", s.linkList(), s.linkForce())
}

func (s streams) linkList() *cli.Command {
	return s.command(spec{
		name: "list", usage: "list the links: groups of nodes that hold the same part of some disks",
		flags: nodeFlags(),
		run: func(c *call) error {
			links, err := c.node().Links(c.Context.Context)
			if err != nil {
				return err
			}
			return c.result(links, func(w io.Writer) { showLinks(w, links) })
		},
	})
}

func showLinks(w io.Writer, links []api.Link) {
	rows := make([][]string, len(links))
	for i, l := range links {
		state := l.State
		if l.Since != nil {
			state += " for " + ago(*l.Since)
		}
		inSync := strings.Join(l.InSync, " ")
		if len(l.Filling) > 0 {
			inSync += " (copying: " + strings.Join(l.Filling, " ") + ")"
		}
		rows[i] = []string{l.ID, strings.Join(l.Nodes, " "), inSync, l.Head, fmt.Sprint(l.Version), state, fmt.Sprintf("%d %% of %s", l.Percent, orDash(strings.Join(l.Disks, " ")))}
	}
	columns(w, []string{"link", "nodes", "in sync", "head", ">version", "state", "holds"}, rows)
}

func (s streams) linkForce() *cli.Command {
	return s.command(spec{
		name: "force", usage: "take one node's copy for the truth: the way out when the copies in sync are gone for good", args: "LINK",
		description: `LINK is as petal link list shows it. What only the nodes in sync had is lost:
writes since the time that the link is degraded, and, if the node was still copying
then, what it had not copied (petal events tells). Of a node that is in sync itself,
but still copies from one that is gone, the blocks are lost that it has not copied:
reading them is an error until they are written. The others get all of the data anew
if they ever return. It is written into the events, with who did it.`,
		flags: nodeFlags(
			&cli.StringFlag{Name: "node", Usage: "the copy of node `NAME`"},
			&cli.BoolFlag{Name: "accept-loss", Usage: "yes, lose what this copy lacks"},
		),
		run: runLinkForce,
	})
}

func runLinkForce(c *call) error {
	id := c.Args().First()
	if c.String("node") == "" {
		return usageError{"petal link force: --node is missing", "`petal link list` shows which nodes have a copy"}
	}
	if !c.Bool("accept-loss") {
		return usageError{fmt.Sprintf("petal link force: taking the copy of %s loses the writes that it has not seen", c.String("node")),
			"start the nodes that are in sync, if that is possible at all; else say --accept-loss"}
	}
	if err := c.node().ForceLink(c.Context.Context, id, api.ForceLink{Node: c.String("node"), AcceptLoss: true}); err != nil {
		return err
	}
	return c.done("forced", id)
}
