package cli

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) sessionList() *cli.Command {
	return s.command(spec{name: "list", usage: "list who is logged in at the node", flags: nodeFlags(), run: runSessionList})
}

func runSessionList(c *call) error {
	sessions, err := c.node().Sessions(c.Context.Context)
	if err != nil {
		return err
	}
	return c.result(sessions, func(w io.Writer) {
		rows := make([][]string, len(sessions))
		for i, s := range sessions {
			rows[i] = []string{s.ID, s.Initiator, s.Target, s.Remote, s.Portal, ago(s.Since), fmt.Sprint(s.Outstanding)}
		}
		columns(w, []string{"id", "initiator", "target", "from", "portal", ">age", ">in flight"}, rows)
	})
}
