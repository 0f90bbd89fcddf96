package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

const longestToken = 30 * 24 * time.Hour

func (s streams) clusterToken() *cli.Command {
	return s.command(spec{
		name: "token", usage: "make a token with which a node joins",
		description: `Prints a token for "petal node join --token". It is a secret: whoever has it can
join until it is used up or has expired.`,
		flags: nodeFlags(
			&cli.DurationFlag{Name: "expires", Usage: "good for `TIME`", Value: time.Hour},
			&cli.IntFlag{Name: "uses", Usage: "for `N` nodes", Value: 1},
		),
		run: runClusterToken,
	})
}

func runClusterToken(c *call) error {
	life, uses := c.Duration("expires"), c.Int("uses")
	if life < time.Second || life > longestToken {
		return usageError{fmt.Sprintf("petal cluster token: --expires %v", life), fmt.Sprintf("from 1s to %v", longestToken)}
	}
	if uses < 1 || uses > 1000 {
		return usageError{fmt.Sprintf("petal cluster token: --uses %d", uses), "from 1 to 1000"}
	}
	t, err := c.node().CreateToken(c.Context.Context, api.NewToken{Seconds: int64(life / time.Second), Uses: uses})
	if err != nil {
		return err
	}
	c.say("expires %s; on the new node: petal node join --token TOKEN", t.Expires.Local().Format(time.DateTime))
	return c.result(t, func(w io.Writer) { fmt.Fprintln(w, t.Token) })
}
