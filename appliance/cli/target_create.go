package cli

import (
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) targetCreate() *cli.Command {
	return s.command(spec{name: "create", usage: "make a target without LUNs", args: "IQN", flags: nodeFlags(), run: runTargetCreate})
}

func runTargetCreate(c *call) error {
	t, err := c.node().CreateTarget(c.Context.Context, c.Args().First())
	if err != nil {
		return err
	}
	return c.result(t, func(w io.Writer) { showTarget(w, t) })
}
