package cli

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"petal/appliance"
)

// What no flag or command can say: the parts of the page before and after the
// commands.
var (
	//go:embed manual/head.8
	manualHead string
	//go:embed manual/tail.8
	manualTail string
)

// commandsHeading begins what urfave/cli makes of the commands.
const commandsHeading = ".SH COMMANDS\n"

func (s streams) man() *cli.Command {
	return s.command(spec{name: "man", usage: "print the manual page: petal man | man -l -", run: func(c *call) error {
		sayArguments("petal", c.App.Commands)
		page, err := c.App.ToManWithSection(8)
		if err != nil {
			return err
		}
		_, commands, _ := strings.Cut(page, commandsHeading)
		_, err = fmt.Fprintf(c.out, ".TH petal 8 \"\" \"petal %s\"\n%s\n%s%s\n%s", appliance.Version, manualHead, commandsHeading, fullHeadings(commands), manualTail)
		return err
	}})
}

// fullHeadings makes subsections of the commands' sections, each with the whole
// command for its heading.
func fullHeadings(commands string) string {
	var above string
	lines := strings.Split(commands, "\n")
	for i, line := range lines {
		if name, ok := strings.CutPrefix(line, ".SH "); ok {
			above = name
			lines[i] = ".SS petal " + name
		} else if name, ok := strings.CutPrefix(line, ".SS "); ok {
			lines[i] = ".SS petal " + above + " " + name
		}
	}
	return strings.Join(lines, "\n")
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
