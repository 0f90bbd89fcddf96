package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) diskCreate() *cli.Command {
	return s.command(spec{
		name: "create", usage: "make a disk and export it", args: "NAME",
		description: `Makes an empty disk; it takes space only as it is written. It is exported as a
LUN of the target IQN_BASE:NAME, which every initiator may log in to until
` + "`petal target acl` or `petal target chap`" + ` says otherwise.`,
		flags: nodeFlags(
			&cli.StringFlag{Name: "size", Usage: "`SIZE` such as 10GiB (2^30) or 10GB (10^9)"},
			&cli.IntFlag{Name: "block-size", Usage: "logical block length, 512 or 4096", Value: 512},
			&cli.BoolFlag{Name: "write-back", Usage: "acknowledge writes before they are durable: faster, but a crash loses what was not flushed"},
			&cli.StringFlag{Name: "scheme", Usage: "`SCHEME` stripe (one copy), mirror (two, on different nodes) or mirror3 (three)", DefaultText: "mirror where there are two nodes"},
			&cli.BoolFlag{Name: "read-only", Usage: "refuse writes"},
			&cli.StringFlag{Name: "target", Usage: "export it in `IQN`, made if missing"},
			&cli.IntFlag{Name: "lun", Usage: "as LUN `N`, 0 to 255", DefaultText: "the lowest that was never used", Value: -1},
			&cli.BoolFlag{Name: "no-export", Usage: "do not export it yet"},
		),
		run: runDiskCreate,
	})
}

// schemes are the values of --scheme.
var schemes = []string{"stripe", "mirror", "mirror3"}

func runDiskCreate(c *call) error {
	if !c.IsSet("size") {
		return usageError{"petal disk create: --size is missing", `a disk is thin, so give it room: "--size 10GiB"`}
	}
	bytes, err := sizeOf("petal disk create", "--size", c.String("size"))
	if err != nil {
		return err
	}
	lun, err := lunFlag(c)
	if err != nil {
		return err
	}
	if scheme := c.String("scheme"); scheme != "" && !slices.Contains(schemes, scheme) {
		return usageError{fmt.Sprintf("petal disk create: --scheme %q", scheme), "one of: " + strings.Join(schemes, ", ")}
	}
	if c.Bool("no-export") && (c.IsSet("target") || lun != nil) {
		return usageError{"petal disk create: --no-export contradicts --target and --lun", "leave one of them out"}
	}
	d, err := c.node().CreateDisk(c.Context.Context, api.NewDisk{
		Name: c.Args().First(), Size: bytes, BlockSize: c.Int("block-size"), WriteBack: c.Bool("write-back"), ReadOnly: c.Bool("read-only"), Scheme: c.String("scheme"),
		Target: c.String("target"), LUN: lun, NoExport: c.Bool("no-export"),
	})
	if err != nil {
		return err
	}
	return c.result(d, func(w io.Writer) { fmt.Fprintf(w, "%s %s %s\n", d.Name, size(d.Size), exports(d.Exports)) })
}

// lunFlag returns the value of --lun, nil if it was not given.
func lunFlag(c *call) (*uint16, error) {
	if !c.IsSet("lun") {
		return nil, nil
	}
	n := c.Int("lun")
	if n < 0 || n > 255 {
		return nil, usageError{fmt.Sprintf("%s: --lun %d", c.Command.HelpName, n), "a LUN is a number from 0 to 255"}
	}
	lun := uint16(n)
	return &lun, nil
}
