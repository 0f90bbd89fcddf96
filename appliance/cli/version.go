package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/urfave/cli/v2"

	"petal/appliance"
)

func (s streams) version() *cli.Command {
	return s.command(spec{name: "version", usage: "print the version", flags: []cli.Flag{jsonFlag}, run: runVersion})
}

func runVersion(c *call) error {
	v := struct {
		Version string `json:"version"`
		Go      string `json:"go"`
	}{appliance.Version, runtime.Version()}
	return c.result(v, func(w io.Writer) { fmt.Fprintf(w, "petal %s (%s)\n", v.Version, v.Go) })
}
