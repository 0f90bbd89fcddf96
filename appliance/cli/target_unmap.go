package cli

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"
)

func (s streams) targetUnmap() *cli.Command {
	return s.command(spec{
		name: "unmap", usage: "take a LUN out of a target; the disk stays", args: "IQN LUN",
		description: "Refused while initiators are logged in to the target at any node, unless --force is given.",
		flags:       nodeFlags(&cli.BoolFlag{Name: "force", Usage: "even while it is in use"}),
		run:         runTargetUnmap,
	})
}

func runTargetUnmap(c *call) error {
	lun, err := strconv.ParseUint(c.Args().Get(1), 10, 8)
	if err != nil {
		return usageError{fmt.Sprintf("petal target unmap: LUN %q", c.Args().Get(1)), "a LUN is a number from 0 to 255"}
	}
	if err := c.node().UnmapLUN(c.Context.Context, c.Args().Get(0), uint16(lun), c.Bool("force")); err != nil {
		return err
	}
	return c.done("unmapped", fmt.Sprintf("%s/%d", c.Args().Get(0), lun))
}
