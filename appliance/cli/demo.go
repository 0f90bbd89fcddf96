package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

// What the demo makes. Tests outside are driven through these names.
const (
	demoTarget = "iqn.2026-11.petal:demo"
	demoDisk   = "demo"
)

func (s streams) demo() *cli.Command {
	return s.command(spec{
		name: "demo", usage: "start nodes with a disk to play with",
		description: `Starts each node as a process of its own, node I listening on 127.0.0.I:PORT,
and exports a disk as LUN 0 of ` + demoTarget + `. It prints a line
"ready iscsi://127.0.0.1:PORT/` + demoTarget + `/0" and serves until it is
interrupted, or runs CMD and exits with its status.

CMD finds in its environment: PETAL_URL (as in the ready line), PETAL_PORTALS
(ADDRESS:PORT of each node, separated by spaces), PETAL_DIR, and PETAL_ADMIN (the
first node's admin socket, so that "petal status" works). DIR/nI holds node I:
petal.toml, pid, log, and its data. A DIR that is kept starts again with its data;
without --dir everything is removed at the end.`,
		flags: []cli.Flag{
			&cli.IntFlag{Name: "nodes", Usage: "`N` nodes", Value: 1},
			&cli.StringFlag{Name: "dir", Usage: "keep everything in `DIR`", DefaultText: "a temporary directory"},
			&cli.IntFlag{Name: "port", Usage: "listen on `PORT`", Value: 3260},
			&cli.StringFlag{Name: "size", Usage: "`SIZE` of the disk, if it is new", Value: "10GiB"},
			&cli.StringFlag{Name: "exec", Usage: "run `CMD` with sh, then stop"},
		},
		run: runDemo,
	})
}

func runDemo(c *call) (err error) {
	bytes, err := demoArgs(c)
	if err != nil {
		return err
	}
	ctx, cancel := c.untilSignal()
	defer cancel()
	d, err := newDemo(c)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.start(ctx, c.Int("nodes")); err != nil {
		return err
	}
	if err := d.makeDisk(ctx, bytes); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "ready "+d.url())
	if c.IsSet("exec") {
		return d.runCommand(ctx, c.String("exec"))
	}
	d.sayWhatNext()
	return d.waitForEnd(ctx)
}

// demoArgs checks the flags before anything is touched.
func demoArgs(c *call) (bytes uint64, err error) {
	if n := c.Int("nodes"); n != 1 {
		if n < 1 {
			return 0, usageError{fmt.Sprintf("petal demo: --nodes %d", n), "a demo needs at least one node"}
		}
		return 0, usageError{fmt.Sprintf("petal demo: --nodes %d: this release has no cluster yet: nodes do not replicate to each other", n), "leave --nodes out for a single node"}
	}
	if port := c.Int("port"); port < 1 || port > 65535 {
		return 0, usageError{fmt.Sprintf("petal demo: --port %d", port), "a port is a number from 1 to 65535"}
	}
	return sizeOf("petal demo", "--size", c.String("size"))
}

// demo is one run of the command: its directory and its nodes.
type demo struct {
	c         *call
	dir       string // absolute
	temporary bool
	lock      *os.File
	port      int
	nodes     []*demoNode
}

func newDemo(c *call) (*demo, error) {
	d := &demo{c: c, port: c.Int("port")}
	var err error
	if dir := c.String("dir"); dir != "" {
		if d.dir, err = filepath.Abs(dir); err == nil {
			err = os.MkdirAll(d.dir, 0o700)
		}
	} else {
		d.temporary = true
		d.dir, err = os.MkdirTemp("", "petal-demo-")
	}
	if err != nil {
		return nil, err
	}
	d.lock, err = os.OpenFile(filepath.Join(d.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil && syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		d.lock.Close()
		return nil, hinted{fmt.Errorf("directory %s: another petal demo uses it", d.dir), "stop that one, or choose another --dir"}
	}
	return d, err
}

func (d *demo) url() string {
	return fmt.Sprintf("iscsi://%s/%s/0", d.nodes[0].portal, demoTarget)
}

// start starts n nodes and waits until they serve.
func (d *demo) start(ctx context.Context, n int) error {
	for i := 1; i <= n; i++ {
		node := &demoNode{index: i, dir: filepath.Join(d.dir, "n"+strconv.Itoa(i)), portal: net.JoinHostPort("127.0.0."+strconv.Itoa(i), strconv.Itoa(d.port))}
		if err := node.start(); err != nil {
			return err
		}
		d.nodes = append(d.nodes, node)
	}
	for _, node := range d.nodes {
		if err := node.waitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// makeDisk makes the disk, unless the directory has it from an earlier run.
func (d *demo) makeDisk(ctx context.Context, bytes uint64) error {
	client := api.NewClient(d.nodes[0].socket())
	disk, err := client.Disk(ctx, demoDisk)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Kind == api.NotFound {
		lun := uint16(0)
		_, err = client.CreateDisk(ctx, api.NewDisk{Name: demoDisk, Size: bytes, Target: demoTarget, LUN: &lun})
		return err
	}
	if err == nil && d.c.IsSet("size") && disk.Size != bytes {
		d.c.say("the disk in %s is kept, and with it its size of %s; change it with: petal disk resize %s %s", d.dir, size(disk.Size), demoDisk, d.c.String("size"))
	}
	return err
}

func (d *demo) environment() []string {
	portals := make([]string, len(d.nodes))
	for i, n := range d.nodes {
		portals[i] = n.portal
	}
	return []string{"PETAL_URL=" + d.url(), "PETAL_PORTALS=" + strings.Join(portals, " "), "PETAL_DIR=" + d.dir, "PETAL_ADMIN=" + d.nodes[0].socket()}
}

// runCommand runs the --exec command, hands it the signal that ends us, and
// returns its status. It stays in our process group, so that it may use the terminal.
func (d *demo) runCommand(ctx context.Context, command string) error {
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.c.in, d.c.out, d.c.err
	cmd.Env = append(os.Environ(), d.environment()...)
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return statusError(128 + int(ws.Signal()))
		}
		return statusError(exit.ExitCode())
	}
	return err
}

func (d *demo) sayWhatNext() {
	keep := ""
	if d.temporary {
		keep = " All data is then gone; keep it with --dir DIR."
	}
	d.c.say(`
The disk is thin and durable. In another terminal:
  export PETAL_ADMIN=%s
  %[6]s status; %[6]s disk list; %[6]s session list
  qemu-img info %[2]s
  %[6]s bench --time 10s %[2]s      (overwrites the disk)
  iscsiadm -m discovery -t st -p %[3]s && iscsiadm -m node -T %[4]s -l   (as root)
Stop with Ctrl-C.%[5]s`, d.nodes[0].socket(), d.url(), d.nodes[0].portal, demoTarget, keep, d.self())
}

// self is how to call this program.
func (d *demo) self() string {
	if exe, err := os.Executable(); err == nil {
		return exe
	}
	return "petal"
}

// waitForEnd serves until a signal, or until the last node has died.
func (d *demo) waitForEnd(ctx context.Context) error {
	for _, n := range d.nodes {
		select {
		case <-ctx.Done():
			return nil
		case <-n.exited:
			d.c.say("%v", n.died())
		}
	}
	return hinted{errors.New("no node is left"), "see " + filepath.Join(d.dir, "n1", "log")}
}

// close stops all nodes and removes what was temporary.
func (d *demo) close() {
	for _, n := range d.nodes {
		n.stop()
	}
	if d.temporary {
		os.RemoveAll(d.dir)
	}
	d.lock.Close()
}
