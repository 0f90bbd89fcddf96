package cli

import "github.com/urfave/cli/v2"

func (s streams) sessionKill() *cli.Command {
	return s.command(spec{
		name: "kill", usage: "end a session", args: "ID",
		description: "Its initiator will log in again unless `petal target acl` forbids it.",
		flags:       []cli.Flag{adminFlag},
		run:         func(c *call) error { return c.node().KillSession(c.Context.Context, c.Args().First()) },
	})
}
