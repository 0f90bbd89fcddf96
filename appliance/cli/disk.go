package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
	"petal/appliance/config"
)

func (s streams) disk() *cli.Command {
	return group("disk", "make, list, change and delete virtual disks", s.diskCreate(), s.diskList(), s.diskShow(), s.diskResize(), s.diskSet(), s.diskDelete())
}

func showDisk(w io.Writer, d api.Disk) {
	facts(w,
		"name", d.Name,
		"id", d.ID,
		"size", fmt.Sprintf("%s (%d bytes)", size(d.Size), d.Size),
		"used", size(d.Used),
		"block size", fmt.Sprint(d.BlockSize),
		"write-back", yesNo(d.WriteBack),
		"read-only", yesNo(d.ReadOnly),
		"scheme", d.Scheme,
		"health", healthWord(d.Health),
		"created", d.Created.Local().Format(time.RFC3339),
		"exports", exports(d.Exports),
		"sessions", fmt.Sprintf("%d at this node", d.Sessions))
}

// sizeOf parses a size given on the command line.
func sizeOf(command, flag, text string) (uint64, error) {
	n, err := config.ParseSize(text)
	if err != nil {
		return 0, usageError{fmt.Sprintf("%s: %s: %v", command, flag, err), `write a size such as "10GiB" (2^30 bytes each) or "10GB" (10^9 bytes each), less than 16EiB`}
	}
	return n, nil
}
