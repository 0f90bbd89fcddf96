package cli

import "github.com/urfave/cli/v2"

func (s streams) nodeRemove() *cli.Command {
	return s.command(spec{
		name: "remove", usage: "take a node out of the cluster for good", args: "NAME",
		description: `Refused while the node holds copies of disks, saying what would be lost, or would
take the last vote with it. Its certificate is worth nothing afterwards; to come back it
joins anew, with an empty directory.`,
		flags: nodeFlags(),
		run: func(c *call) error {
			name := c.Args().First()
			if err := c.node().RemoveNode(c.Context.Context, name); err != nil {
				return err
			}
			return c.done("removed", name)
		},
	})
}
