package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"petal/target/initiator"
	"petal/target/initiator/load"
	"petal/target/iscsi"
)

func (s streams) bench() *cli.Command {
	return s.command(spec{
		name: "bench", usage: "put load on iSCSI disks, measure them, or verify that they keep data", args: "URL...",
		description: `THE DISKS ARE OVERWRITTEN, unless the mix is all reads (--read 100).

URL is iscsi://[USER[%SECRET]@]HOST[:PORT]/TARGET/LUN, of any iSCSI target. With
several, each job runs on one after the other, --rounds times, and the median
ratio of the first to the others is printed. Jobs are all combinations of
--block, --depth and --read.

--portals names more portals of the same target: the sessions share all of them
out between them, and one that loses its portal goes on at another after
--path-delay, as a multipath initiator does.

With --verify every 512 bytes carry a stamp, all reads are judged, and the whole
region is read at the end. --state FILE keeps what was acknowledged, so that a
later run can go on and prove that nothing was lost in between; --check proves it
and writes nothing. Exit status 6 if anything is lost, torn, misplaced or made up.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "block", Usage: "`SIZES` of one command, separated by commas", Value: "4KiB"},
			&cli.StringFlag{Name: "depth", Usage: "commands in flight in each session: `NUMBERS` separated by commas", Value: "32"},
			&cli.StringFlag{Name: "read", Usage: "`PERCENTAGES` of reads, separated by commas", Value: "70"},
			&cli.IntFlag{Name: "unmap", Usage: "`PERCENT` of the rest are UNMAPs"},
			&cli.BoolFlag{Name: "sequential", Usage: "go through the disk in order instead of at random"},
			&cli.IntFlag{Name: "sessions", Usage: "`N` sessions at a time", Value: 1},
			&cli.DurationFlag{Name: "time", Usage: "measure each job for `TIME`", Value: 10 * time.Second},
			&cli.DurationFlag{Name: "warmup", Usage: "run each job for `TIME` before"},
			&cli.IntFlag{Name: "rounds", Usage: "go through all jobs and disks `N` times", Value: 1},
			&cli.StringFlag{Name: "offset", Usage: "leave the first `SIZE` alone", Value: "0"},
			&cli.StringFlag{Name: "size", Usage: "use only `SIZE` from there", DefaultText: "to the end of the disk", Value: "0"},
			&cli.BoolFlag{Name: "fill", Usage: "write the whole region once before the first job"},
			&cli.BoolFlag{Name: "verify", Usage: "stamp, and judge what is read"},
			&cli.StringFlag{Name: "state", Usage: "go on from `FILE`, and keep in it what was acknowledged (implies --verify)"},
			&cli.BoolFlag{Name: "check", Usage: "only judge the disk against --state"},
			&cli.BoolFlag{Name: "new", Usage: "the disk is new: what was not written must be zero"},
			&cli.DurationFlag{Name: "reconnect", Usage: "try for `TIME` to get a lost connection again", Value: 30 * time.Second},
			&cli.StringFlag{Name: "portals", Usage: "more portals of the same target, `ADDRESS:PORT` each, separated by commas or spaces"},
			&cli.DurationFlag{Name: "path-delay", Usage: "leave a lost portal for another one after `TIME`", Value: initiator.DefaultPathDelay},
			&cli.Uint64Flag{Name: "seed", Usage: "`SEED` of offsets, mix and content", DefaultText: "random"},
			&cli.StringFlag{Name: "initiator", Usage: "log in as `IQN`"},
			&cli.StringFlag{Name: "user", Usage: "CHAP `USER`"},
			&cli.StringFlag{Name: "secret-file", Usage: "`FILE` with the CHAP secret; - for standard input"},
			&cli.BoolFlag{Name: "digests", Usage: "ask for header and data digests"},
			&cli.StringFlag{Name: "pids", Usage: "`PIDS` of the servers, one for each URL, separated by commas: their CPU time is measured"},
			&cli.BoolFlag{Name: "progress", Usage: "print a progress line also if standard error is no terminal"},
			&cli.BoolFlag{Name: "quiet", Usage: "print no progress line"},
			jsonFlag,
		},
		run: runBench,
	})
}

func runBench(c *call) error {
	conf, err := benchConfig(c)
	if err != nil {
		return err
	}
	ctx, cancel := c.untilSignal()
	defer cancel()
	r, failed := load.Run(ctx, conf)
	if failed == nil || len(r.Disks) > 0 { // what was seen until it failed counts
		if err := c.result(r, func(w io.Writer) { r.WriteTable(w) }); err != nil {
			return err
		}
	}
	if r.Verified != nil && len(r.Verified.Findings) > 0 {
		return hinted{fmt.Errorf("%w: %d findings", errDamage, len(r.Verified.Findings)), "do not use the disk; keep its bricks and the state file, they are the evidence"}
	}
	if failed != nil {
		return benchError(ctx, conf, failed)
	}
	if !r.OK() {
		return hinted{errors.New("I/O errors were seen"), "they are listed above; the target's log says more"}
	}
	return nil
}

// benchError says what to do about a run that failed.
func benchError(ctx context.Context, conf load.Config, err error) error {
	if _, bad := errors.AsType[load.ConfigError](err); bad {
		return usageError{"petal bench: " + strings.TrimPrefix(err.Error(), "load: "), helpHint("petal bench")}
	}
	if refused, ok := errors.AsType[*initiator.LoginError](err); ok {
		return hinted{err, loginHint(refused.Status, or(conf.Options.Name, initiator.DefaultName))}
	}
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return hinted{errors.New("interrupted"), "what was measured until then is above; --time sets the end"}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return hinted{err, "is the target up, and is this its portal? `petal status` tells of petal's"}
	}
	return hinted{err, "the target's log says more"}
}

// loginHint says what to do about a refused login.
func loginHint(status iscsi.LoginStatus, name string) string {
	switch status {
	case iscsi.LoginAuthFailure:
		return "the target wants CHAP, or other names or secrets: --user and --secret-file (`petal target chap` sets petal's)"
	case iscsi.LoginForbidden:
		return "the target's access list does not name " + name + ": log in as another with --initiator, or `petal target acl TARGET --add " + name + "`"
	case iscsi.LoginNotFound:
		return "there is no target of that name at this portal (`petal target list` shows petal's)"
	}
	return "the target's log says more"
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

// benchConfig turns flags into what to do.
func benchConfig(c *call) (conf load.Config, err error) {
	conf = load.Config{
		URLs: c.Args().Slice(), Rounds: c.Int("rounds"), Time: c.Duration("time"), Warmup: c.Duration("warmup"), Seed: c.Uint64("seed"),
		Fill: c.Bool("fill"), Verify: c.Bool("verify"), VerifyState: c.String("state"), CheckOnly: c.Bool("check"), ExpectZeros: c.Bool("new"),
		Reconnect: c.Duration("reconnect"),
		Options:   initiator.Options{Name: c.String("initiator"), User: c.String("user"), HeaderDigest: c.Bool("digests"), DataDigest: c.Bool("digests")},
	}
	if err := benchNumbers(c); err != nil {
		return conf, err
	}
	conf.Options.Portals = strings.FieldsFunc(c.String("portals"), func(r rune) bool { return r == ',' || r == ' ' })
	if conf.Options.PathDelay = c.Duration("path-delay"); len(conf.Options.Portals) > 0 {
		conf.Options.PingEvery = pathPing
		if len(conf.URLs) > 1 {
			return conf, usageError{"petal bench: --portals goes with one URL", "they are portals of the same target"}
		}
	}
	for _, p := range conf.Options.Portals {
		if _, _, err := net.SplitHostPort(p); err != nil {
			return conf, usageError{fmt.Sprintf("petal bench: --portals %q", p), "write ADDRESS:PORT"}
		}
	}
	for _, u := range conf.URLs {
		if _, err := initiator.ParseURL(u); err != nil {
			return conf, usageError{"petal bench: " + err.Error(), `a disk of petal demo is iscsi://127.0.0.1:3260/` + demoTarget + `/0`}
		}
	}
	if !c.Bool("quiet") && (c.Bool("progress") || isTerminal(c.err)) {
		conf.Progress = c.err
	}
	if c.String("secret-file") != "" {
		if conf.Options.Secret, err = c.readSecret("secret-file"); err != nil {
			return conf, err
		}
	}
	if conf.PIDs, err = numbers(c, "pids"); err != nil {
		return conf, err
	}
	for _, x := range []struct {
		flag string
		to   *int64
	}{{"offset", &conf.Offset}, {"size", &conf.Size}} {
		n, err := sizeOf("petal bench", "--"+x.flag, c.String(x.flag))
		if err != nil {
			return conf, err
		}
		*x.to = int64(n)
	}
	conf.Jobs, err = benchJobs(c)
	return conf, err
}

// pathPing is how a lost path is noticed that says nothing: after as much
// silence, and as much again.
const pathPing = 5 * time.Second

// benchNumbers refuses what would do nothing.
func benchNumbers(c *call) error {
	for _, flag := range []string{"sessions", "rounds"} {
		if n := c.Int(flag); n < 1 {
			return usageError{fmt.Sprintf("petal bench: --%s %d", flag, n), "at least 1"}
		}
	}
	if d := c.Duration("time"); d <= 0 {
		return usageError{fmt.Sprintf("petal bench: --time %v", d), "write a time such as 10s or 5m"}
	}
	for _, flag := range []string{"warmup", "reconnect", "path-delay"} {
		if d := c.Duration(flag); d < 0 {
			return usageError{fmt.Sprintf("petal bench: --%s %v", flag, d), "a time cannot be negative"}
		}
	}
	return nil
}

// benchJobs makes a job of each combination.
func benchJobs(c *call) (jobs []load.Job, err error) {
	depths, err := numbers(c, "depth")
	if err != nil {
		return nil, err
	}
	for _, d := range depths {
		if d < 1 || d > load.MaxDepth {
			return nil, usageError{fmt.Sprintf("petal bench: --depth %d", d), fmt.Sprintf("from 1 to %d", load.MaxDepth)}
		}
	}
	reads, err := numbers(c, "read")
	if err != nil {
		return nil, err
	}
	for _, text := range strings.Split(c.String("block"), ",") {
		block, err := sizeOf("petal bench", "--block", text)
		if err != nil {
			return nil, err
		}
		for _, depth := range depths {
			for _, read := range reads {
				jobs = append(jobs, load.Job{BlockSize: int(block), Depth: depth, Sessions: c.Int("sessions"), ReadPercent: read,
					UnmapPercent: c.Int("unmap"), Sequential: c.Bool("sequential")})
			}
		}
	}
	return jobs, nil
}

// numbers reads a flag with numbers separated by commas.
func numbers(c *call, flag string) (list []int, err error) {
	if c.String(flag) == "" {
		return nil, nil
	}
	for _, text := range strings.Split(c.String(flag), ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return nil, usageError{fmt.Sprintf("%s: --%s %q", c.Command.HelpName, flag, c.String(flag)), "write numbers separated by commas"}
		}
		list = append(list, n)
	}
	return list, nil
}

// isTerminal reports whether a human watches w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
