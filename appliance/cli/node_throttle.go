package cli

import (
	"github.com/urfave/cli/v2"

	"petal/appliance/config"
)

func (s streams) nodeThrottle() *cli.Command {
	return s.command(spec{
		name: "throttle", usage: "bound how fast a node copies what it has missed", args: "RATE",
		description: `RATE is bytes a second, such as 20MiB. It counts for the node that is asked, until
its next start; resync_rate in petal.toml counts from then on. While hosts wait
for the node's disk, less is copied anyway.`,
		flags: nodeFlags(), run: runNodeThrottle,
	})
}

// leastResyncRate is as in petal.toml.
const leastResyncRate = 1 << 20

func runNodeThrottle(c *call) error {
	text := c.Args().First()
	rate, err := sizeOf("petal node throttle", "RATE", text)
	if err != nil {
		return err
	}
	if rate < leastResyncRate || rate > 1<<40 {
		return usageError{"petal node throttle " + text + ": out of range", "from " + config.FormatSize(leastResyncRate) + " to 1TiB a second"}
	}
	if err := c.node().Throttle(c.Context.Context, int64(rate)); err != nil {
		return err
	}
	return c.done("throttled", text)
}
