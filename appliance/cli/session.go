package cli

import "github.com/urfave/cli/v2"

func (s streams) session() *cli.Command {
	return group("session", "list and end initiators' sessions", s.sessionList(), s.sessionKill())
}
