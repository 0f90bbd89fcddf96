package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) targetCHAP() *cli.Command {
	return s.command(spec{
		name: "chap", usage: "show or set CHAP of a target, or of discovery", args: "[IQN]",
		description: `Without flags it shows the users. Secrets are read from a file or, with "-",
from standard input (the first line for both if both are "-"), never from the
command line, where every user of the machine could see them.`,
		flags: nodeFlags(
			&cli.BoolFlag{Name: "discovery", Usage: "of discovery sessions, instead of a target"},
			&cli.StringFlag{Name: "user", Usage: "the initiator's `USER`"},
			&cli.StringFlag{Name: "secret-file", Usage: "`FILE` with the initiator's secret, 12 to 255 bytes; - for standard input"},
			&cli.StringFlag{Name: "mutual-user", Usage: "the target's `USER`, for mutual authentication"},
			&cli.StringFlag{Name: "mutual-secret-file", Usage: "`FILE` with the target's secret"},
			&cli.BoolFlag{Name: "off", Usage: "let initiators in without authentication"},
		),
		run: runTargetCHAP,
	})
}

func runTargetCHAP(c *call) error {
	name, discovery := c.Args().First(), c.Bool("discovery")
	if (name == "") != discovery {
		return usageError{"petal target chap: either a target or --discovery", "usage: petal target chap IQN, or petal target chap --discovery"}
	}
	account, change, err := chapAccount(c)
	if err != nil {
		return err
	}
	node := c.node()
	if discovery {
		if change {
			if err := node.SetDiscoveryCHAP(c.Context.Context, account); err != nil {
				return err
			}
		}
		a, err := node.DiscoveryCHAP(c.Context.Context)
		if err != nil {
			return err
		}
		return c.result(a, func(w io.Writer) { facts(w, "discovery chap", chapText(a)) })
	}
	var t api.Target
	if change {
		t, err = node.SetCHAP(c.Context.Context, name, account)
	} else {
		t, err = node.Target(c.Context.Context, name)
	}
	if err != nil {
		return err
	}
	return c.result(t, func(w io.Writer) { showTarget(w, t) })
}

// chapAccount reads the flags; change is false if there are none.
func chapAccount(c *call) (a api.CHAPAccount, change bool, err error) {
	user, mutual := c.String("user"), c.String("mutual-user")
	if c.Bool("off") {
		if user != "" || mutual != "" {
			return a, false, usageError{"petal target chap: --off contradicts --user", "leave one of them out"}
		}
		return a, true, nil
	}
	for _, pair := range [][2]string{{"user", "secret-file"}, {"mutual-user", "mutual-secret-file"}} {
		if (c.String(pair[0]) == "") != (c.String(pair[1]) == "") {
			return a, false, usageError{fmt.Sprintf("petal target chap: --%s and --%s go together", pair[0], pair[1]), "give both"}
		}
	}
	if user == "" {
		if mutual != "" {
			return a, false, usageError{"petal target chap: mutual authentication needs the one-way one too", "give --user and --secret-file"}
		}
		return a, false, nil
	}
	a.User, a.MutualUser = user, mutual
	if a.Secret, err = c.readSecret("secret-file"); err == nil && mutual != "" {
		a.MutualSecret, err = c.readSecret("mutual-secret-file")
	}
	return a, true, err
}

const maxSecretFile = 4096

// readSecret reads the file that a flag names, without the newline at its end.
func (c *call) readSecret(flag string) (string, error) {
	path := c.String(flag)
	var r io.Reader = oneLine{c.in}
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", usageError{fmt.Sprintf("petal target chap: --%s: %v", flag, err), "write the secret into a file that only you can read"}
		}
		defer f.Close()
		r = f
	}
	text, err := io.ReadAll(io.LimitReader(r, maxSecretFile))
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// oneLine reads up to a newline, byte by byte, so that the next reader finds
// the next line.
type oneLine struct{ r io.Reader }

func (l oneLine) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := l.r.Read(p[:1])
	if n == 1 && p[0] == '\n' {
		return 0, io.EOF
	}
	return n, err
}
