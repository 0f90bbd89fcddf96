package cli

import "github.com/urfave/cli/v2"

func (s streams) targetDelete() *cli.Command {
	return s.command(spec{
		name: "delete", usage: "delete a target; its disks stay", args: "IQN",
		description: "Refused while initiators are logged in to it, unless --force is given.",
		flags:       []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "even while it is in use"}, adminFlag},
		run: func(c *call) error {
			return c.node().DeleteTarget(c.Context.Context, c.Args().First(), c.Bool("force"))
		},
	})
}
