package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"petal/appliance"
)

func (s streams) brickCheck() *cli.Command {
	return s.command(spec{
		name: "check", usage: "verify a brick's superblock, journal, map and every checksum", args: "DIR",
		description: "The node must be stopped. Nothing is changed. Exit status 6 if something is wrong.\n" +
			"Blocks are named by disk and LBA where the node's directory is at hand.",
		flags: []cli.Flag{jsonFlag,
			&cli.StringFlag{Name: "node-dir", Usage: "`DIR` of the brick's node (node.dir), which knows the disks' names", DefaultText: "the directory that the brick lies in"}},
		run: runBrickCheck,
	})
}

func runBrickCheck(c *call) error {
	dir, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	r, err := appliance.CheckBrick(dir, or(c.String("node-dir"), filepath.Dir(dir)))
	if err != nil {
		var h interface{ Hint() string }
		if !errors.As(err, &h) {
			err = hinted{err, "stop the node first; is this the directory of a brick?"}
		}
		return err
	}
	err = c.result(r, func(w io.Writer) {
		for _, p := range r.Problems {
			fmt.Fprintln(w, p)
		}
		if more := r.Found - int64(len(r.Problems)); more > 0 {
			fmt.Fprintf(w, "... and %d more\n", more)
		}
		fmt.Fprintf(w, "%s: %d map entries, %d extents, %d blocks compared, %d journal records, %d problems, %.1f s\n",
			r.Path, r.Entries, r.Extents, r.Blocks, r.Records, r.Found, r.Seconds)
	})
	if err == nil && r.Found > 0 {
		err = hinted{fmt.Errorf("%w: %d problems in %s", errDamage, r.Found, r.Path), "the blocks named here are read from another copy where the disk is mirrored, and with MEDIUM ERROR elsewhere, until they are written anew; all others are sound"}
	}
	return err
}
