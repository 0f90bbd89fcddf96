package cli

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) diskSet() *cli.Command {
	return s.command(spec{
		name: "set", usage: "change how a disk behaves", args: "NAME",
		flags: nodeFlags(
			&cli.StringFlag{Name: "write", Usage: "`through` (durable before it is acknowledged) or back (durable when flushed)"},
			&cli.StringFlag{Name: "read-only", Usage: "`yes` or no"},
		),
		run: runDiskSet,
	})
}

func runDiskSet(c *call) error {
	var change api.DiskChange
	var err error
	if change.WriteBack, err = choice(c, "write", "through", "back"); err != nil {
		return err
	}
	if change.ReadOnly, err = choice(c, "read-only", "no", "yes"); err != nil {
		return err
	}
	if change == (api.DiskChange{}) {
		return usageError{"petal disk set: nothing to set", "give --write or --read-only"}
	}
	d, err := c.node().ChangeDisk(c.Context.Context, c.Args().First(), change)
	if err != nil {
		return err
	}
	return c.result(d, func(w io.Writer) { showDisk(w, d) })
}

// choice reads a flag that has one of two values; nil if it was not given.
func choice(c *call, flag, no, yes string) (*bool, error) {
	if !c.IsSet(flag) {
		return nil, nil
	}
	value := c.String(flag) == yes
	if !value && c.String(flag) != no {
		return nil, usageError{fmt.Sprintf("%s: --%s %q", c.Command.HelpName, flag, c.String(flag)), fmt.Sprintf("write %s or %s", no, yes)}
	}
	return &value, nil
}
