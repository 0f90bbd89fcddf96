package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) events() *cli.Command {
	return s.command(spec{
		name: "events", usage: "tell what happened to the cluster: nodes, links, disks, targets, votes",
		description: `The last thousand are kept, oldest first, each with its kind: member (joins, starts,
goes down, leaves), voter, link (who holds what in sync), disk and target (made, changed, deleted),
lease, brick, clock, loss (that somebody has accepted, and who), refused (who was not let in or may
not start, and what was not done).`,
		flags: nodeFlags(
			&cli.Uint64Flag{Name: "after", Usage: "only those after event `NUMBER`"},
			&cli.IntFlag{Name: "last", Usage: "only the last `N`"},
		),
		run: runEvents,
	})
}

func runEvents(c *call) error {
	events, err := c.node().Events(c.Context.Context, c.Uint64("after"))
	if err != nil {
		return err
	}
	if n := c.Int("last"); n > 0 && n < len(events) {
		events = events[len(events)-n:]
	}
	return c.result(events, func(w io.Writer) {
		for _, e := range events {
			fmt.Fprintln(w, eventLine(e))
		}
	})
}

func eventLine(e api.Event) string {
	return fmt.Sprintf("%4d  %s  %-8s %s", e.Number, e.Time.Local().Format(time.DateTime), e.Kind, e.Text)
}
