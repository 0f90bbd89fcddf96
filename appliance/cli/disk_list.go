package cli

import (
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) diskList() *cli.Command {
	return s.command(spec{name: "list", usage: "list all disks", flags: nodeFlags(), run: runDiskList})
}

func runDiskList(c *call) error {
	disks, err := c.node().Disks(c.Context.Context)
	if err != nil {
		return err
	}
	return c.result(disks, func(w io.Writer) {
		rows := make([][]string, len(disks))
		for i, d := range disks {
			cache := "through"
			if d.WriteBack {
				cache = "back"
			}
			rows[i] = []string{d.Name, size(d.Size), size(d.Used), d.Scheme, cache, healthWord(d.Health), exports(d.Exports)}
		}
		columns(w, []string{"name", ">size", ">used", "scheme", "write", "health", "exports"}, rows)
	})
}
