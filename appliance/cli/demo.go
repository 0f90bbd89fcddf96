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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
	"petal/appliance/config"
	"petal/target/initiator"
)

// What the demo makes. Tests outside are driven through these names.
const (
	demoTarget = "iqn.2026-11.petal:demo"
	demoDisk   = "demo"
	// demoMaxNodes is as many as one ring has servers.
	demoMaxNodes = 64
)

func (s streams) demo() *cli.Command {
	demo := s.command(spec{
		name: "demo", usage: "start a cluster of nodes with a disk to play with",
		description: `Starts each node as a process of its own, node I listening on 127.0.0.I:PORT,
and exports a disk as LUN 0 of ` + demoTarget + `, mirrored if there are several
nodes. It prints a line "ready iscsi://127.0.0.1:PORT/` + demoTarget + `/0" and
serves until it is interrupted, or runs CMD and exits with its status.

Meanwhile, from another terminal, "petal demo kill 3" kills node 3 and "petal
demo start 3" starts it again; pause and resume, cut and heal do what they say.
Nodes talk to each other at 127.0.1.I:PORT, over TLS unless --plain.

CMD finds in its environment: PETAL_URL (as in the ready line), PETAL_PORTALS
(ADDRESS:PORT of each node, separated by spaces), PETAL_DIR, and PETAL_ADMIN (the
first node's admin socket, so that "petal status" works). DIR/nI holds node I:
petal.toml, pid, log, and its data. A DIR that is kept starts again with its data;
without --dir everything is removed at the end.`,
		flags: []cli.Flag{
			&cli.IntFlag{Name: "nodes", Usage: "`N` nodes, 1 to 64", DefaultText: "those that DIR has, else 4", Value: 4},
			&cli.StringFlag{Name: "dir", Usage: "keep everything in `DIR`", DefaultText: "a temporary directory"},
			&cli.IntFlag{Name: "port", Usage: "listen on `PORT`", DefaultText: "that of DIR, else 3260", Value: 3260},
			&cli.StringFlag{Name: "size", Usage: "`SIZE` of the disk, if it is new", Value: "10GiB"},
			&cli.StringFlag{Name: "exec", Usage: "run `CMD` with sh, then stop"},
			&cli.BoolFlag{Name: "plain", Usage: "no TLS between the nodes: what it costs can then be measured; never where others are on the network"},
			&cli.StringSliceFlag{Name: "set", Usage: "a further `TABLE.KEY=VALUE` in each node's petal.toml, such as time.replace=\"10s\""},
			&cli.BoolFlag{Name: "unsupervised", Usage: "do not tell the cluster when a node's process ends: as if its machine had died"},
			&cli.Float64Flag{Name: "scale", Usage: "stretch the cluster's times by `FACTOR`: for slow machines", Value: 1},
		},
		run: runDemo,
	})
	demo.Subcommands = s.demoPlay()
	return demo
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
	n, err := d.count(c.Int("nodes"))
	if err != nil {
		return err
	}
	if err := d.start(ctx, n); err != nil {
		return err
	}
	if err := d.makeDisk(ctx, bytes); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "ready "+d.url())
	if c.IsSet("exec") {
		d.watch(ctx)
		return d.runCommand(ctx, c.String("exec"))
	}
	d.sayWhatNext()
	return d.waitForEnd(ctx)
}

// demoArgs checks the flags before anything is touched.
func demoArgs(c *call) (bytes uint64, err error) {
	if n := c.Int("nodes"); n < 1 || n > demoMaxNodes {
		return 0, usageError{fmt.Sprintf("petal demo: --nodes %d", n), fmt.Sprintf("from 1 to %d", demoMaxNodes)}
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
	closing   atomic.Bool
}

func newDemo(c *call) (*demo, error) {
	d := &demo{c: c}
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
	if err == nil {
		d.port, err = d.choosePort()
	}
	return d, err
}

// choosePort is the port to listen on. The nodes of a cluster that is kept have
// told each other their addresses, and would not find each other at new ones.
func (d *demo) choosePort() (int, error) {
	asked := d.c.Int("port")
	if !isNode(d.dir, 1) {
		return asked, nil
	}
	conf, err := config.Load(filepath.Join(d.dir, "n1", "petal.toml"))
	if err != nil {
		return 0, err
	}
	_, text, _ := net.SplitHostPort(conf.Portals[0].Listen)
	kept, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("portal %q in %s", conf.Portals[0].Listen, d.dir)
	case !d.c.IsSet("port"):
		return kept, nil
	case asked != kept && isNode(d.dir, 2):
		return 0, usageError{fmt.Sprintf("petal demo: --port %d: the nodes in %s know each other at port %d", asked, d.dir, kept), "leave --port out, or choose another --dir"}
	}
	return asked, nil
}

// supervise does what a service manager does: each time that a process of the node
// has ended, ours or one that `petal demo start` has started after it, ended is
// called, and the cluster is told: then nobody waits for its lease.
func (d *demo) supervise(ctx context.Context, n *demoNode, ended func()) {
	select {
	case <-n.exited:
	case <-ctx.Done():
		return
	}
	for incarnation := n.incarnation; ctx.Err() == nil; incarnation = n.outlive(ctx) {
		go d.report(n, incarnation)
		ended()
	}
}

// report tells all other nodes that a node's process has ended. Any that hears it
// will do.
func (d *demo) report(dead *demoNode, incarnation uint64) {
	if d.c.Bool("unsupervised") || incarnation == 0 || d.closing.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), reportLimit)
	defer cancel()
	for _, n := range d.nodes {
		if n != dead {
			go api.NewClient(n.socket()).ReportEnd(ctx, fmt.Sprintf("n%d", dead.index), incarnation)
		}
	}
	<-ctx.Done()
}

// reportLimit is far more than it takes: what is not told by then is found out by the
// end of a lease.
const reportLimit = 10 * time.Second

func (d *demo) url() string {
	return fmt.Sprintf("iscsi://%s/%s/0", d.nodes[0].portal, demoTarget)
}

// count is how many nodes there are to be: as many as the directory has, if it
// has some.
func (d *demo) count(asked int) (int, error) {
	kept := 0
	for isNode(d.dir, kept+1) {
		kept++
	}
	switch {
	case kept == 0 || kept == asked:
		return asked, nil
	case d.c.IsSet("nodes"):
		return 0, usageError{fmt.Sprintf("petal demo: --nodes %d: %s was made with %s", asked, d.dir, count(kept, "node")), "leave --nodes out, or choose another --dir"}
	}
	return kept, nil
}

// isNode reports whether a directory of an earlier demo has node i.
func isNode(dir string, i int) bool {
	_, err := os.Stat(filepath.Join(dir, "n"+strconv.Itoa(i), "petal.toml"))
	return err == nil
}

// start starts n nodes and waits until they serve. Of a new cluster the first
// one makes the tokens with which the others join.
func (d *demo) start(ctx context.Context, n int) error {
	fresh := !isNode(d.dir, 1)
	for i := 1; i <= n; i++ {
		node := newDemoNode(d.dir, i, d.port, n)
		node.scale, node.plain, node.keys = d.c.Float64("scale"), d.c.Bool("plain"), d.c.StringSlice("set")
		d.nodes = append(d.nodes, node)
	}
	if d.c.Bool("plain") && n > 1 {
		d.c.say("WARNING: --plain: the nodes talk to each other without TLS. Whoever reaches their addresses reads all data and may claim to be a node.")
	}
	if fresh && n > 1 {
		if err := d.found(ctx); err != nil {
			return err
		}
	}
	for _, node := range d.nodes {
		if node.cmd == nil {
			if err := node.start(); err != nil {
				return err
			}
		}
	}
	return d.waitServing(ctx)
}

// found makes a new cluster: the first node, started, and the others as members.
// If that fails nothing stays.
func (d *demo) found(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			for _, n := range d.nodes {
				n.stop()
				os.RemoveAll(n.dir)
			}
		}
	}()
	first := d.nodes[0]
	if err := first.run1(ctx, "cluster", "init", "demo"); err != nil {
		return err
	}
	if err := first.start(); err != nil {
		return err
	}
	if err := first.waitReady(ctx); err != nil {
		return err
	}
	client := api.NewClient(first.socket())
	if err := first.waitLease(ctx, client); err != nil {
		return err
	}
	token, err := client.CreateToken(ctx, api.NewToken{Uses: len(d.nodes) - 1})
	if err != nil {
		return err
	}
	for _, node := range d.nodes[1:] {
		if err := node.run1(ctx, "node", "join", "--token", token.Token); err != nil {
			return err
		}
	}
	return nil
}

// waitServing waits until every node may serve, or one has failed: without it the
// others may wait in vain.
func (d *demo) waitServing(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(d.nodes))
	for _, node := range d.nodes {
		go func() {
			err := node.waitReady(ctx)
			if err == nil {
				err = node.waitLease(ctx, api.NewClient(node.socket()))
			}
			results <- err
		}()
	}
	for range d.nodes {
		if err := <-results; err != nil {
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
		if _, err = client.CreateDisk(ctx, api.NewDisk{Name: demoDisk, Size: bytes, Target: demoTarget, LUN: &lun}); err != nil {
			return err
		}
		return d.waitTarget(ctx)
	}
	if err == nil && d.c.IsSet("size") && disk.Size != bytes {
		d.c.say("the disk in %s is kept, and with it its size of %s; change it with: petal disk resize %s %s", d.dir, size(disk.Size), demoDisk, d.c.String("size"))
	}
	return err
}

// waitTarget waits until every portal lets initiators in. The node that has made
// the target answers when it serves it itself; the others hear of it a little later,
// and until then refuse a login for good.
func (d *demo) waitTarget(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoStartLimit)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for _, n := range d.nodes {
		for {
			s, err := initiator.Dial(ctx, initiator.URL{Host: n.portal, Target: demoTarget}, initiator.Options{})
			if err == nil {
				s.Logout(ctx)
				break
			}
			select {
			case <-poll.C:
			case <-ctx.Done():
				return hinted{fmt.Errorf("node %d does not serve %s: %w", n.index, demoTarget, err), "see " + n.log()}
			}
		}
	}
	return nil
}

func (d *demo) environment() []string {
	portals := make([]string, len(d.nodes))
	for i, n := range d.nodes {
		portals[i] = n.portal
	}
	return []string{"PETAL_URL=" + d.url(), "PETAL_PORTALS=" + strings.Join(portals, " "), "PETAL_DIR=" + d.dir, "PETAL_ADMIN=" + d.nodes[0].socket()}
}

// watch supervises the nodes while CMD runs.
func (d *demo) watch(ctx context.Context) {
	for _, n := range d.nodes {
		go d.supervise(ctx, n, func() {})
	}
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
  iscsiadm -m discovery -t st -p %[3]s && iscsiadm -m node -T %[4]s -l   (as root)%[7]s
Stop with Ctrl-C.%[5]s`, d.nodes[0].socket(), d.url(), d.nodes[0].portal, demoTarget, keep, d.self(), d.sayCluster())
}

// sayCluster is what there is to play with beyond one node.
func (d *demo) sayCluster() string {
	if len(d.nodes) == 1 {
		return ""
	}
	portals := make([]string, 0, len(d.nodes)-1)
	for _, n := range d.nodes[1:] {
		portals = append(portals, n.portal)
	}
	return fmt.Sprintf(`
  %[1]s cluster status; %[1]s node list; %[1]s events
  %[1]s bench --verify --time 60s --sessions 2 --portals %[2]s %[3]s
  %[1]s demo kill %[4]d; %[1]s demo start %[4]d    (also pause, resume, cut, heal)`, d.self(), strings.Join(portals, ","), d.url(), min(3, len(d.nodes)))
}

// self is how to call this program.
func (d *demo) self() string {
	if exe, err := os.Executable(); err == nil {
		return exe
	}
	return "petal"
}

// waitForEnd serves until a signal. A single node that has died is the end;
// of several nodes all may die, to be started again.
func (d *demo) waitForEnd(ctx context.Context) error {
	if len(d.nodes) > 1 {
		for _, n := range d.nodes {
			go d.supervise(ctx, n, func() {
				d.c.say("node %d has ended; start it again with: %s demo start %d --dir %s", n.index, d.self(), n.index, d.dir)
			})
		}
		<-ctx.Done()
		return nil
	}
	n := d.nodes[0]
	select {
	case <-ctx.Done():
		return nil
	case <-n.exited:
		d.c.say("node %d has ended: %v", n.index, n.cmd.ProcessState)
	}
	return hinted{errors.New("no node is left"), "see " + n.log()}
}

// close stops all nodes, all at once, and removes what was temporary.
func (d *demo) close() {
	d.closing.Store(true)
	var all sync.WaitGroup
	for _, n := range d.nodes {
		all.Go(n.stop)
	}
	all.Wait()
	if d.temporary {
		if len(d.nodes) > 0 {
			d.c.say("All nodes have stopped. Removing %s, which may take a while.", d.dir)
		}
		os.RemoveAll(d.dir)
	}
	d.lock.Close()
}
