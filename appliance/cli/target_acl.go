package cli

import (
	"io"
	"slices"

	"github.com/urfave/cli/v2"
)

func (s streams) targetACL() *cli.Command {
	return s.command(spec{
		name: "acl", usage: "show or change which initiators may log in", args: "IQN",
		description: `Without flags it shows the list. An empty list lets every initiator in.
Sessions of initiators that are no longer allowed are ended.`,
		flags: nodeFlags(
			&cli.StringSliceFlag{Name: "add", Usage: "let `INITIATOR` in (may be repeated)"},
			&cli.StringSliceFlag{Name: "remove", Usage: "take `INITIATOR` out (may be repeated)"},
			&cli.BoolFlag{Name: "clear", Usage: "empty the list first"},
		),
		run: runTargetACL,
	})
}

func runTargetACL(c *call) error {
	node, name := c.node(), c.Args().First()
	t, err := node.Target(c.Context.Context, name)
	if err != nil {
		return err
	}
	if c.IsSet("add") || c.IsSet("remove") || c.Bool("clear") {
		list := slices.Clone(t.Initiators)
		if c.Bool("clear") {
			list = nil
		}
		for _, gone := range c.StringSlice("remove") {
			i := slices.Index(list, gone)
			if i < 0 {
				return usageError{"petal target acl: " + gone + " is not in the list", "`petal target acl " + name + "` shows it"}
			}
			list = slices.Delete(list, i, i+1)
		}
		for _, more := range c.StringSlice("add") {
			if !slices.Contains(list, more) {
				list = append(list, more)
			}
		}
		if len(list) == 0 && !c.Bool("clear") {
			return usageError{"petal target acl: removing the last initiator would let everybody in", "if that is meant, use --clear"}
		}
		if t, err = node.SetACL(c.Context.Context, name, list); err != nil {
			return err
		}
	}
	return c.result(t, func(w io.Writer) { showTarget(w, t) })
}
