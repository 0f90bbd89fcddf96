package cli

import (
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) man() *cli.Command {
	return s.command(spec{name: "man", usage: "print the manual page: petal man | man -l -", run: func(c *call) error {
		page, err := c.App.ToManWithSection(8)
		if err != nil {
			return err
		}
		_, err = io.WriteString(c.out, page)
		return err
	}})
}
