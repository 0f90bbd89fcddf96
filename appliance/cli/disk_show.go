package cli

import (
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) diskShow() *cli.Command {
	return s.command(spec{name: "show", usage: "show all about one disk", args: "NAME", flags: nodeFlags(), run: runDiskShow})
}

func runDiskShow(c *call) error {
	d, err := c.node().Disk(c.Context.Context, c.Args().First())
	if err != nil {
		return err
	}
	return c.result(d, func(w io.Writer) {
		showDisk(w, d)
		if d.Health.State != "healthy" {
			showHealth(w, d.Name, d.Health)
		}
	})
}
