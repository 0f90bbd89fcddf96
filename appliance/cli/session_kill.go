package cli

import (
	"github.com/urfave/cli/v2"
)

func (s streams) sessionKill() *cli.Command {
	return s.command(spec{
		name: "kill", usage: "end a session", args: "ID",
		description: "Its initiator will log in again unless `petal target acl` forbids it.",
		flags:       nodeFlags(),
		run: func(c *call) error {
			id := c.Args().First()
			if err := c.node().KillSession(c.Context.Context, id); err != nil {
				return err
			}
			return c.done("killed", id)
		},
	})
}
