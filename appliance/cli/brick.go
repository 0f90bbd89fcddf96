package cli

import "github.com/urfave/cli/v2"

func (s streams) brick() *cli.Command {
	return group("brick", "look at a brick's directory", s.brickCheck())
}
