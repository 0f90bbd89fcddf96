package cli

import (
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"petal/appliance"
)

// joinLimit is how long a join may take: a few round trips and an agreement.
const joinLimit = 30 * time.Second

func (s streams) nodeJoin() *cli.Command {
	return s.command(spec{
		name: "join", usage: "make this node a member of a cluster",
		description: `Shows the token to the node that made it and writes into this node's directory
what that answers: a number, a certificate, the addresses of the others. Start it
then with "petal serve". The directory must be new; the node must not be running.`,
		flags: setupFlags(tokenFlag),
		run:   func(c *call) error { return runJoin(c, false) },
	})
}

var tokenFlag = &cli.StringFlag{Name: "token", Usage: "`TOKEN` of petal cluster token; - reads it from standard input", EnvVars: []string{"PETAL_TOKEN"}}

func runJoin(c *call, witness bool) error {
	conf, err := nodeConfig(c)
	if err != nil {
		return err
	}
	if witness {
		conf.MakeWitness()
	}
	token, err := c.token()
	if err != nil {
		return err
	}
	ctx, cancel := c.within(joinLimit)
	defer cancel()
	if err := appliance.JoinCluster(ctx, conf, token, c.err); err != nil {
		return err
	}
	c.say("joined; start it with `petal serve`")
	return c.result(map[string]string{"joined": conf.Node.Name}, func(w io.Writer) {})
}

// token is the value of --token.
func (c *call) token() (string, error) {
	token := c.String("token")
	if token == "-" {
		text, err := io.ReadAll(io.LimitReader(c.in, 1<<16))
		if err != nil {
			return "", err
		}
		token = string(text)
	}
	if token = strings.TrimSpace(token); token == "" {
		return "", usageError{c.Command.HelpName + ": --token is missing", "`petal cluster token` on a node of the cluster makes one"}
	}
	return token, nil
}
