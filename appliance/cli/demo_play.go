package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

// demoPlay is what can be done to the nodes of a demo that runs in another
// terminal.
func (s streams) demoPlay() []*cli.Command {
	dir := &cli.StringFlag{Name: "dir", Usage: "`DIR` of the demo", EnvVars: []string{"PETAL_DIR"}, DefaultText: "that of PETAL_ADMIN, or of the one demo which runs"}
	all := func(name, usage, description string, do func(*call, []*demoNode) error) *cli.Command {
		return s.command(spec{name: name, usage: usage, args: "NODE...", description: description, flags: []cli.Flag{dir, jsonFlag}, run: func(c *call) error {
			nodes, err := playNodes(c)
			if err != nil {
				return err
			}
			if err := do(c, nodes); err != nil {
				return err
			}
			words := strings.Join(c.Args().Slice(), " ")
			return c.result(map[string]string{name: words, "dir": filepath.Dir(nodes[0].dir)}, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s: done, in %s\n", name, words, filepath.Dir(nodes[0].dir))
			})
		}})
	}
	act := func(name, usage, description string, do func(*call, *demoNode) error) *cli.Command {
		return all(name, usage, description, func(c *call, nodes []*demoNode) error {
			for _, n := range nodes {
				if err := do(c, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	signal := func(sig syscall.Signal) func(*call, *demoNode) error {
		return func(_ *call, n *demoNode) error { return n.signal(sig) }
	}
	cut := func(on bool) func(*call, *demoNode) error {
		return func(c *call, n *demoNode) error {
			ctx, cancel := context.WithTimeout(c.Context.Context, playLimit)
			defer cancel()
			return api.NewClient(n.socket()).Cut(ctx, on)
		}
	}
	return []*cli.Command{
		act("kill", "kill the processes of nodes (SIGKILL)", "NODE is a number from 1.", func(_ *call, n *demoNode) error { return n.kill() }),
		all("start", "start nodes again that were killed", "Waits until they serve. They end with the demo.", restart),
		act("pause", "stop nodes where they stand (SIGSTOP)", "They say nothing and hear nothing, as a virtual machine does that is moved.", signal(syscall.SIGSTOP)),
		act("resume", "let paused nodes go on (SIGCONT)", "", signal(syscall.SIGCONT)),
		act("cut", "cut nodes off from the other nodes", `The connections to other nodes carry nothing any more, and are not closed. It is
done inside the node: on one machine there is no cable to pull. Initiators still
reach it. Only over TLS, as the demo has it.`, cut(true)),
		act("heal", "end a cut", "", cut(false)),
	}
}

const playLimit = 10 * time.Second

// playNodes are the nodes that the arguments name.
func playNodes(c *call) ([]*demoNode, error) {
	dir, err := playDir(c.String("dir"))
	if err != nil {
		return nil, err
	}
	var out []*demoNode
	for _, word := range c.Args().Slice() {
		i, err := strconv.Atoi(strings.TrimPrefix(word, "n"))
		if err != nil || i < 1 || !isNode(dir, i) {
			return nil, usageError{fmt.Sprintf("%s: there is no node %q in %s", c.Command.HelpName, word, dir), "nodes are numbered from 1"}
		}
		out = append(out, &demoNode{index: i, dir: filepath.Join(dir, "n"+strconv.Itoa(i))})
	}
	return out, nil
}

// playDir is the directory of the demo that is meant: the one named, that of the
// node which PETAL_ADMIN names, or the only one in a temporary directory that runs.
func playDir(named string) (string, error) {
	if named != "" {
		dir, err := filepath.Abs(named)
		if err == nil && !isNode(dir, 1) {
			err = hinted{fmt.Errorf("directory %s: there is no demo", dir), "name the --dir of petal demo"}
		}
		return dir, err
	}
	if dir := filepath.Dir(filepath.Dir(os.Getenv("PETAL_ADMIN"))); isNode(dir, 1) && filepath.IsAbs(dir) {
		return dir, nil
	}
	all, err := filepath.Glob(filepath.Join(os.TempDir(), "petal-demo-*", "lock"))
	if err != nil {
		return "", err
	}
	var running []string
	for _, lock := range all {
		if locked(lock) {
			running = append(running, filepath.Dir(lock))
		}
	}
	if len(running) != 1 {
		return "", usageError{fmt.Sprintf("%s in a temporary directory", count(len(running), "running demo")), "name the one that is meant with --dir or PETAL_DIR"}
	}
	return running[0], nil
}

// locked reports whether a process holds the lock of a demo's directory.
func locked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// open takes hold of the node's process.
func (n *demoNode) open() (process, error) {
	p, err := process{}, os.ErrProcessDone
	if pid := n.successor(); pid != 0 {
		p, err = openProcess(pid)
	}
	if errors.Is(err, os.ErrProcessDone) {
		err = hinted{fmt.Errorf("node %d is not running", n.index), fmt.Sprintf("start it: petal demo start %d", n.index)}
	}
	return p, err
}

// signal sends sig to the node's process.
func (n *demoNode) signal(sig syscall.Signal) error {
	p, err := n.open()
	if err != nil {
		return err
	}
	defer p.close()
	return p.signal(sig)
}

// kill kills the node's process and waits until it is gone, and its addresses free.
func (n *demoNode) kill() error {
	p, err := n.open()
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !p.wait(playLimit) {
		return hinted{fmt.Errorf("node %d is killed and has not ended within %v", n.index, playLimit), "its disk may stand still: see dmesg"}
	}
	return nil
}

// restart starts nodes with the configurations that the demo has written, and
// waits when all are started: one alone may have no majority. The processes
// outlive this one, and are ended by the demo.
func restart(c *call, nodes []*demoNode) error {
	ctx, cancel := c.untilSignal()
	defer cancel()
	for _, n := range nodes {
		if pid := n.successor(); pid != 0 {
			return hinted{fmt.Errorf("node %d is running, with pid %d", n.index, pid), "kill it first; if it is paused, resume it"}
		}
		if err := n.launch(os.O_APPEND, &syscall.SysProcAttr{Setsid: true}); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := n.waitReady(ctx); err != nil {
			return err
		}
		if err := n.waitLease(ctx, api.NewClient(n.socket())); err != nil {
			return err
		}
	}
	return nil
}
