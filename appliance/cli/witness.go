package cli

import (
	"github.com/urfave/cli/v2"

	"petal/appliance"
)

func (s streams) witness() *cli.Command {
	return s.command(spec{
		name: "witness", usage: "run a node that only votes",
		description: `A cluster of two needs a third vote, or the loss of either node stops both. A
witness holds no data and serves no disks; any small machine will do, at a
third place best. With --token it joins first. It is "petal serve" with
cluster.witness = true.`,
		flags: setupFlags(tokenFlag),
		run: func(c *call) error {
			if c.String("token") != "" {
				if err := runJoin(c, true); err != nil {
					return err
				}
			}
			conf, err := nodeConfig(c)
			if err != nil {
				return err
			}
			conf.MakeWitness()
			ctx, cancel := c.untilSignal()
			defer cancel()
			return appliance.Run(ctx, conf, c.err)
		},
	})
}
