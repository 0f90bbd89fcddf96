package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/urfave/cli/v2"

	"petal/appliance"
	"petal/appliance/config"
)

func (s streams) serve() *cli.Command {
	return s.command(spec{
		name: "serve", usage: "run a node",
		description: `Runs until SIGTERM or SIGINT, then ends what is in flight and stops; a second
signal stops at once (nothing acknowledged is lost either way). Logs go to
standard error. With --dir instead of --config it is one node with all it has
below DIR, listening on ` + config.DefaultPortal + ` unless --portal says otherwise.
A node of a cluster has joined it before: see petal cluster init, petal node join.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "`FILE`; see petal config example", DefaultText: config.DefaultFile},
			&cli.StringFlag{Name: "dir", Usage: "no file: keep everything in `DIR`"},
			&cli.BoolFlag{Name: "accept-loss", Usage: "start although acknowledged writes are lost: they have rotted in the journal (their blocks, which nobody can name, hold what they held before), or the brick is empty or older than it was and no other node has all"},
			nameFlag,
			&cli.StringFlag{Name: "portal", Usage: "with --dir: initiators connect to `ADDRESS:PORT`"},
			&cli.StringFlag{Name: "listen", Usage: "with --dir: other nodes connect to `ADDRESS:PORT`"},
		},
		run: runServe,
	})
}

func runServe(c *call) error {
	conf, err := nodeConfig(c)
	if err != nil {
		return err
	}
	conf.AcceptLoss = c.Bool("accept-loss")
	relaxMonitor()
	addProcessors()
	ctx, cancel := c.untilSignal()
	defer cancel()
	return appliance.Run(ctx, conf, c.err)
}

// waiters is how many goroutines of a node wait in system calls of the disk
// nearly all the time while it is written: the committer of the journal, three
// writers of extents and the destager; and as many readers as a disk is fast with.
const waiters = 5 + 8

// addProcessors gives the Go scheduler a processor more for each of them. One
// that waits for the disk keeps its processor until the runtime's monitor takes
// it away, up to 0.3 ms later (relaxMonitor); with no more processors than cores
// the sessions stand still meanwhile (a fourth of the 4 KiB writes per second on 2
// cores). GOMAXPROCS in the environment overrides it.
func addProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + waiters)
	}
}

// nodeConfig is the configuration of the node that --config or --dir name.
func nodeConfig(c *call) (*config.Config, error) {
	file, dir, command := c.String("config"), c.String("dir"), c.Command.HelpName
	switch {
	case file != "" && dir != "":
		return nil, usageError{command + ": --config contradicts --dir", "leave one of them out"}
	case c.IsSet("portal") && dir == "":
		return nil, usageError{command + ": --portal goes with --dir", "portals of a configuration are in its [[portal]] tables"}
	case c.IsSet("listen") && dir == "":
		return nil, usageError{command + ": --listen goes with --dir", "in a configuration it is cluster.listen"}
	case c.IsSet("name") && dir == "":
		return nil, usageError{command + ": --name goes with --dir", "in a configuration it is node.name"}
	case dir == "" && file == "":
		return config.Load(config.DefaultFile)
	case dir == "":
		return config.Load(file)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	conf := config.Default(abs)
	if portal := c.String("portal"); portal != "" {
		if err := config.CheckPortal(portal); err != nil {
			return nil, usageError{fmt.Sprintf("%s: --portal %s: %v", command, portal, err), `write ADDRESS:PORT, such as "0.0.0.0:3260"`}
		}
		conf.Portals[0].Listen = portal
	}
	if name := c.String("name"); name != "" {
		if err := config.CheckNodeName(name); err != nil {
			return nil, usageError{fmt.Sprintf("%s: --name %s: %v", command, name, err), `choose something like "petal-1"`}
		}
		conf.Node.Name = name
	}
	if listen := c.String("listen"); listen != "" {
		if err := config.CheckAddress(listen); err != nil {
			return nil, usageError{fmt.Sprintf("%s: --listen %s: %v", command, listen, err), `write the address that the other nodes reach, such as "192.0.2.11:3259"`}
		}
		conf.Cluster.Listen = listen
	}
	return conf, nil
}
