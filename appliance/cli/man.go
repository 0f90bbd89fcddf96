package cli

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

func (s streams) man() *cli.Command {
	return s.command(spec{name: "man", usage: "print the manual page: petal man | man -l -", run: func(c *call) error {
		sayArguments("petal", c.App.Commands)
		page, err := c.App.ToManWithSection(8)
		if err != nil {
			return err
		}
		_, err = io.WriteString(c.out, page)
		return err
	}})
}

// sayArguments gives every command its synopsis, which the page would leave out.
func sayArguments(path string, commands []*cli.Command) {
	for _, c := range commands {
		here := path + " " + c.Name
		if len(c.Subcommands) == 0 || c.ArgsUsage != "" {
			c.UsageText = strings.TrimSpace(here + " [options] " + c.ArgsUsage)
		}
		sayArguments(here, c.Subcommands)
	}
}
