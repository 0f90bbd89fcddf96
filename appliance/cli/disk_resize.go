package cli

import (
	"io"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) diskResize() *cli.Command {
	return s.command(spec{
		name: "resize", usage: "grow a disk, or shrink it", args: "NAME SIZE",
		description: "Initiators are told at once (CAPACITY DATA HAS CHANGED); most need a rescan to use it.",
		flags: nodeFlags(
			&cli.BoolFlag{Name: "shrink", Usage: "SIZE may be smaller: the data beyond it is lost"},
			&cli.BoolFlag{Name: "force", Usage: "shrink it even if initiators use it"},
		),
		run: runDiskResize,
	})
}

func runDiskResize(c *call) error {
	bytes, err := sizeOf("petal disk resize", "SIZE", c.Args().Get(1))
	if err != nil {
		return err
	}
	d, err := c.node().ChangeDisk(c.Context.Context, c.Args().First(), api.DiskChange{Size: &bytes, Shrink: c.Bool("shrink"), Force: c.Bool("force")})
	if err != nil {
		return err
	}
	return c.result(d, func(w io.Writer) { showDisk(w, d) })
}
