// Package cli is the command line, one file per subcommand: its help, its
// options, what it does.
//
//	argv --reorder--> urfave/cli --> run(call) --> exitCode(err)
//
// Results go to stdout, talk goes to stderr, so a script can keep them apart;
// --json prints the types of package api. Every error ends with a hint. What a
// command line means is written down in testdata/*.txtar.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"petal/appliance"
	"petal/appliance/api"
	"petal/appliance/config"
)

// Main runs the process's own command line and returns its exit status.
func Main() int {
	return Run(os.Args, os.Stdin, os.Stdout, os.Stderr)
}

// Run runs the command line args, whose first word is the program's name, and
// returns the exit status. The first SIGINT or SIGTERM cancels the commands that wait.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp(stdin, stdout, stderr)
	if len(args) > 1 && args[1] == "help" { // petal help disk create = petal disk create --help
		args = append(append([]string{args[0]}, args[2:]...), "--help")
	}
	sorted, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(context.Background(), sorted)
	}
	report(stderr, err)
	return exitCode(err)
}

// Exit statuses. `petal help` prints this list.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitConfig      = 3
	exitUnreachable = 4
	exitRefused     = 5
	exitDamage      = 6
	exitUnavailable = 7
)

const exitHelp = `Exit status: 0 done; 1 failed; 2 wrong command line; 3 wrong configuration;
4 no node answers; 5 the node refused (no such thing, taken, in use, invalid);
6 damaged or wrong data found (brick check, bench --verify); 7 the node cannot do
it now (no quorum): try again, or ask another node.
petal demo --exec CMD exits with the status of CMD.`

func exitCode(err error) int {
	var (
		usage  usageError
		status statusError
		refuse *api.Error
		conf   config.Errors
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &conf):
		return exitConfig
	case errors.Is(err, errDamage):
		return exitDamage
	case errors.As(err, &refuse):
		switch refuse.Kind {
		case api.Unreachable:
			return exitUnreachable
		case api.NotFound, api.Exists, api.InUse, api.Invalid, api.NoSpace:
			return exitRefused
		case api.Unavailable:
			return exitUnavailable
		}
	}
	return exitFailed
}

// usageError is a command line that makes no sense.
type usageError struct{ text, hint string }

func (e usageError) Error() string { return e.text }
func (e usageError) Hint() string  { return e.hint }

// statusError ends with a status and says nothing: all has been said.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// errDamage is wrapped by findings of wrong data.
var errDamage = errors.New("damaged data")

// hinted adds a hint to an error.
type hinted struct {
	error
	hint string
}

func (e hinted) Hint() string  { return e.hint }
func (e hinted) Unwrap() error { return e.error }

// report prints an error and its hint.
func report(w io.Writer, err error) {
	var status statusError
	if err == nil || errors.As(err, &status) {
		return
	}
	text := err.Error()
	if !strings.HasPrefix(text, "petal ") { // else it begins with its command
		text = "petal: " + strings.TrimPrefix(text, "petal: ")
	}
	fmt.Fprintln(w, text)
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		fmt.Fprintf(w, "hint: %s\n", h.Hint())
	}
}

// call is one run of a command.
type call struct {
	*cli.Context
	in       io.Reader
	out, err io.Writer
}

// say talks to the human.
func (c *call) say(format string, args ...any) { fmt.Fprintf(c.err, format+"\n", args...) }

// untilSignal returns a context that ends at the first SIGINT or SIGTERM; a
// second one then has its default effect.
func (c *call) untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := signal.NotifyContext(c.Context.Context, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, cancel)
	return ctx, cancel
}

// within is untilSignal with a limit.
func (c *call) within(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := c.untilSignal()
	limited, stop := context.WithTimeout(ctx, limit)
	return limited, func() { stop(); cancel() }
}

// node returns a client of the node that --admin names. If that has no quorum,
// people are told that what it says of the cluster may be old.
func (c *call) node() *api.Client {
	client := c.client()
	client.OnStale = sync.OnceFunc(func() {
		c.say("petal: this node has no quorum: what it says of the cluster may be old; ask another node")
	})
	return client
}

func (c *call) client() *api.Client {
	if path := c.String("admin"); path != "" {
		return api.NewClient(path)
	}
	if conf, err := config.Load(config.DefaultFile); err == nil {
		return api.NewClient(conf.Admin.Socket)
	}
	return api.NewClient(config.DefaultSocket)
}

// spec is a leaf command: what help says and what runs.
type spec struct {
	name, usage string
	args        string // "NAME", "[FILE]", "URL..."; brackets mean optional, dots any number
	description string
	flags       []cli.Flag
	run         func(*call) error
}

var (
	adminFlag = &cli.StringFlag{Name: "admin", Usage: "admin `SOCKET` of the node", EnvVars: []string{"PETAL_ADMIN"}, DefaultText: "admin.socket of " + config.DefaultFile + ", else " + config.DefaultSocket}
	jsonFlag  = &cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}
)

// nodeFlags are those of every command that asks a running node.
func nodeFlags(more ...cli.Flag) []cli.Flag { return append(more, adminFlag, jsonFlag) }

// command builds a leaf command; the number of arguments is checked against spec.args.
func (s streams) command(sp spec) *cli.Command {
	return &cli.Command{
		Name: sp.name, Usage: sp.usage, ArgsUsage: sp.args, Description: sp.description, Flags: sp.flags,
		HideHelpCommand: true, OnUsageError: onUsageError,
		Action: func(ctx *cli.Context) error {
			if err := checkArgs(ctx, sp.args); err != nil {
				return err
			}
			return sp.run(&call{ctx, s.in, s.out, s.err})
		},
	}
}

// group builds a command that only has subcommands.
func group(name, usage string, subs ...*cli.Command) *cli.Command {
	names := make([]string, len(subs))
	for i := range subs {
		names[i] = subs[i].Name
	}
	return &cli.Command{Name: name, Usage: usage, Subcommands: subs, HideHelpCommand: true, OnUsageError: onUsageError,
		Action: func(*cli.Context) error {
			return usageError{fmt.Sprintf("petal %s: what about it?", name), "one of: " + strings.Join(names, ", ")}
		}}
}

func onUsageError(ctx *cli.Context, err error, _ bool) error {
	hint := helpHint(ctx.Command.HelpName)
	for _, f := range ctx.Command.Flags {
		if _, ok := f.(*cli.DurationFlag); ok && strings.HasSuffix(err.Error(), fmt.Sprintf("for flag -%s: parse error", f.Names()[0])) {
			hint = "a time has a unit: 500ms, 30s, 5m, 1h30m"
		}
	}
	return usageError{err.Error(), hint}
}

func helpHint(command string) string { return fmt.Sprintf("see `%s --help`", command) }

func checkArgs(ctx *cli.Context, args string) error {
	words := strings.Fields(args)
	least, most := 0, len(words)
	for _, w := range words {
		if !strings.HasPrefix(w, "[") {
			least++
		}
		if strings.Contains(w, "...") {
			most = int(^uint(0) >> 1)
		}
	}
	n := ctx.NArg()
	usage := strings.TrimSpace(ctx.Command.HelpName + " " + args)
	if n < least {
		return usageError{fmt.Sprintf("%s: %s is missing", ctx.Command.HelpName, words[n]), "usage: " + usage}
	}
	if n > most {
		return usageError{fmt.Sprintf("%s: one argument too many: %q", ctx.Command.HelpName, ctx.Args().Get(most)), "usage: " + usage}
	}
	return nil
}

// streams are where commands read and write.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	s := streams{stdin, stdout, stderr}
	return &cli.App{
		Name: "petal", HelpName: "petal", Usage: "virtual disks over iSCSI that keep what they were given", Version: appliance.Version,
		Description: exitHelp, Reader: stdin, Writer: stdout, ErrWriter: stderr,
		EnableBashCompletion: true, HideHelpCommand: true, OnUsageError: onUsageError,
		ExitErrHandler: func(*cli.Context, error) {}, // Run reports, once
		Commands: []*cli.Command{
			s.serve(), s.demo(), s.status(), s.disk(), s.target(), s.session(), s.cluster(), s.node(), s.link(), s.events(), s.witness(),
			s.config(), s.brick(), s.bench(), s.version(), s.completion(), s.man(),
		},
	}
}
