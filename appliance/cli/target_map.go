package cli

import (
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) targetMap() *cli.Command {
	return s.command(spec{
		name: "map", usage: "make a disk a LUN of a target", args: "IQN DISK",
		description: "A number that another disk has had is never given again: initiators remember it.",
		flags:       nodeFlags(&cli.IntFlag{Name: "lun", Usage: "as LUN `N`, 0 to 255", DefaultText: "the lowest that was never used", Value: -1}),
		run:         runTargetMap,
	})
}

func runTargetMap(c *call) error {
	lun, err := lunFlag(c)
	if err != nil {
		return err
	}
	t, err := c.node().MapLUN(c.Context.Context, c.Args().Get(0), lun, c.Args().Get(1))
	if err != nil {
		return err
	}
	return c.result(t, func(w io.Writer) { showTarget(w, t) })
}
