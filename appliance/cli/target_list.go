package cli

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) targetList() *cli.Command {
	return s.command(spec{name: "list", usage: "list all targets", flags: nodeFlags(), run: runTargetList})
}

func runTargetList(c *call) error {
	targets, err := c.node().Targets(c.Context.Context)
	if err != nil {
		return err
	}
	return c.result(targets, func(w io.Writer) {
		rows := make([][]string, len(targets))
		for i, t := range targets {
			who := "all"
			if n := len(t.Initiators); n > 0 {
				who = fmt.Sprint(n)
			}
			rows[i] = []string{t.Name, luns(t), who, chapText(t.CHAP), fmt.Sprint(t.Sessions)}
		}
		columns(w, []string{"name", "luns", ">initiators", "chap", ">sessions here"}, rows)
	})
}
