// Command petal is all of petal: the daemon (`petal serve`) and the tools to
// talk to it.
package main

import (
	"os"

	"petal/appliance/cli"
)

func main() { os.Exit(cli.Main()) }
