package cli

import (
	"github.com/urfave/cli/v2"

	"petal/appliance"
	"petal/appliance/config"
)

// setupFlags name the node that a command prepares while it is not running.
func setupFlags(more ...cli.Flag) []cli.Flag {
	return append(more,
		&cli.StringFlag{Name: "config", Usage: "petal.toml `FILE` of the node", DefaultText: config.DefaultFile},
		&cli.StringFlag{Name: "dir", Usage: "no file: keep everything in `DIR`"},
		nameFlag,
		&cli.StringFlag{Name: "listen", Usage: "with --dir: other nodes connect to `ADDRESS:PORT`"},
		&cli.StringFlag{Name: "portal", Usage: "with --dir: initiators connect to `ADDRESS:PORT`"},
		jsonFlag)
}

var nameFlag = &cli.StringFlag{Name: "name", Usage: "with --dir: the node's `NAME` in the cluster", DefaultText: "the host's name"}

func (s streams) clusterInit() *cli.Command {
	return s.command(spec{
		name: "init", usage: "make this node the first of a cluster", args: "[NAME]",
		description: `Writes into the node's directory what a cluster begins with: its identity, its
authority for certificates, and this node as the only member. Start it then
with "petal serve", and let others join: "petal cluster token" here, "petal node
join --token TOKEN" there. The node must not be running. One that has run alone
keeps its disks.`,
		flags: setupFlags(),
		run: func(c *call) error {
			conf, err := nodeConfig(c)
			if err != nil {
				return err
			}
			if err := appliance.InitCluster(c.Context.Context, conf, c.Args().First(), c.err); err != nil {
				return err
			}
			c.say("next: start it with `petal serve`, then make a token for the next node with `petal cluster token`")
			return c.done("first", conf.Node.Name)
		},
	})
}
