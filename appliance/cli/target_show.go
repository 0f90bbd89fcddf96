package cli

import (
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) targetShow() *cli.Command {
	return s.command(spec{name: "show", usage: "show all about one target", args: "IQN", flags: nodeFlags(), run: runTargetShow})
}

func runTargetShow(c *call) error {
	t, err := c.node().Target(c.Context.Context, c.Args().First())
	if err != nil {
		return err
	}
	return c.result(t, func(w io.Writer) { showTarget(w, t) })
}
