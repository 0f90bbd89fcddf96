package cli

import "github.com/urfave/cli/v2"

func (s streams) diskDelete() *cli.Command {
	return s.command(spec{
		name: "delete", usage: "delete a disk and all its data", args: "NAME",
		description: "Refused while initiators are logged in to it, unless --force is given. There is no way back.",
		flags:       []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "even while it is in use"}, adminFlag},
		run: func(c *call) error {
			return c.node().DeleteDisk(c.Context.Context, c.Args().First(), c.Bool("force"))
		},
	})
}
