package cli

import "github.com/urfave/cli/v2"

func (s streams) diskDelete() *cli.Command {
	return s.command(spec{
		name: "delete", usage: "delete a disk and all its data", args: "NAME",
		description: `Refused while initiators are logged in to it at any node, or a node that may have
some does not answer, unless --force is given: they then get I/O errors. The
target that was made for the disk goes with it, if nothing else was made of it.
Its LUN is never given to another disk. There is no way back.`,
		flags: nodeFlags(&cli.BoolFlag{Name: "force", Usage: "even while it is in use"}),
		run: func(c *call) error {
			name := c.Args().First()
			if err := c.node().DeleteDisk(c.Context.Context, name, c.Bool("force")); err != nil {
				return err
			}
			return c.done("deleted", name)
		},
	})
}
