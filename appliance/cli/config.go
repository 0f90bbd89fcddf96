package cli

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"petal/appliance"
	"petal/appliance/config"
)

func (s streams) config() *cli.Command {
	return group("config", "check petal.toml, or print an example", s.configCheck(), s.configExample())
}

func (s streams) configCheck() *cli.Command {
	return s.command(spec{
		name: "check", usage: "say what is wrong with a petal.toml", args: "[FILE]",
		description: "FILE is " + config.DefaultFile + " unless given. Nothing but the file is looked at.\nWith --json every key is printed with the value that holds.",
		flags:       []cli.Flag{&cli.StringFlag{Name: "config", Usage: "the same as the argument `FILE`, as with petal serve"}, jsonFlag},
		run: func(c *call) error {
			file := or(c.Args().First(), or(c.String("config"), config.DefaultFile))
			if c.String("config") != "" && c.Args().Present() {
				return usageError{"petal config check: FILE and --config are the same", "give one of them"}
			}
			conf, err := config.Load(file)
			if err != nil {
				return err
			}
			if err := appliance.CheckConfig(conf, file); err != nil {
				return err
			}
			if note := appliance.PatienceNote(conf.Time); note != "" {
				c.say("petal: %s: %s", file, note)
			}
			return c.result(conf, func(w io.Writer) { fmt.Fprintf(w, "%s: ok\n", file) })
		},
	})
}

func (s streams) configExample() *cli.Command {
	return s.command(spec{
		name: "example", usage: "print a petal.toml with every key explained",
		flags: []cli.Flag{jsonFlag},
		run: func(c *call) error {
			return c.result(map[string]string{"toml": config.Example}, func(w io.Writer) { io.WriteString(w, config.Example) })
		},
	})
}
