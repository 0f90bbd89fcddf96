package cli

import "github.com/urfave/cli/v2"

func (s streams) targetDelete() *cli.Command {
	return s.command(spec{
		name: "delete", usage: "delete a target; its disks stay", args: "IQN",
		description: "Refused while initiators are logged in to it at any node, unless --force is given.",
		flags:       nodeFlags(&cli.BoolFlag{Name: "force", Usage: "even while it is in use"}),
		run: func(c *call) error {
			name := c.Args().First()
			if err := c.node().DeleteTarget(c.Context.Context, name, c.Bool("force")); err != nil {
				return err
			}
			return c.done("deleted", name)
		},
	})
}
