package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"petal/appliance/api"
	"petal/appliance/config"
)

const (
	demoStartLimit = 60 * time.Second // recovery takes 3 s at most; a slow disk may format for longer
	demoStopLimit  = 30 * time.Second // longer than node.drain_timeout
)

// demoNode is one child process `petal serve`. Its parent plays the service
// manager: readiness comes over NOTIFY_SOCKET.
//
//	start --> READY=1 --> ... --> SIGTERM --> exited
//	   \--> exited before READY: what it said last is the error
type demoNode struct {
	index, of int
	dir       string
	portal    string
	peers     string   // where other nodes connect to
	scale     float64  // of the cluster's times
	plain     bool     // no TLS between nodes
	keys      []string // further ones, each TABLE.KEY=VALUE

	incarnation uint64 // of the process that we have started

	cmd    *exec.Cmd
	notify *net.UnixConn
	ready  chan struct{} // closed at READY=1
	exited chan struct{} // closed when the process is gone
}

func newDemoNode(dir string, index, port, of int) *demoNode {
	i := strconv.Itoa(index)
	return &demoNode{index: index, of: of, dir: filepath.Join(dir, "n"+i), scale: 1,
		portal: net.JoinHostPort("127.0.0."+i, strconv.Itoa(port)), peers: net.JoinHostPort("127.0.1."+i, strconv.Itoa(port))}
}

func (n *demoNode) file() string   { return filepath.Join(n.dir, "petal.toml") }
func (n *demoNode) socket() string { return filepath.Join(n.dir, "admin.sock") }
func (n *demoNode) log() string    { return filepath.Join(n.dir, "log") }

// write writes the node's configuration.
func (n *demoNode) write() error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(n.file(), n.config(), 0o600)
}

// run1 runs a command on the node's directory while the node is not running.
func (n *demoNode) run1(ctx context.Context, args ...string) error {
	if err := n.write(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, "--config", n.file())...)
	cmd.Args[0] = os.Args[0]
	text, err := cmd.CombinedOutput()
	if err != nil {
		text, hint := lastError(text)
		return hinted{fmt.Errorf("node %d: petal %s: %s", n.index, strings.Join(args[:2], " "), or(text, err.Error())), hint}
	}
	return nil
}

// start writes the node's configuration and starts it.
func (n *demoNode) start() error {
	if err := n.write(); err != nil {
		return err
	}
	// The terminal's Ctrl-C is for the demo alone; and should the demo be killed, its nodes stop.
	return n.launch(os.O_TRUNC, &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM})
}

// launch starts the node's process. mode says what becomes of its log.
func (n *demoNode) launch(mode int, attr *syscall.SysProcAttr) error {
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_WRONLY|mode, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// An abstract address: no file to clean up, no length to exceed.
	address := fmt.Sprintf("@petal-demo-%d-%d", os.Getpid(), n.index)
	if n.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"}); err != nil {
		return err
	}
	n.ready, n.exited = make(chan struct{}), make(chan struct{})
	n.cmd = exec.Command("/proc/self/exe", "serve", "--config", n.file())
	n.cmd.Args[0] = os.Args[0]
	n.cmd.Stderr = log
	n.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	n.cmd.SysProcAttr = attr
	started := make(chan error)
	go n.run(started)
	go n.listen()
	return <-started
}

// run starts the process and waits for it, on one thread: the parent-death
// signal is bound to the thread that forked.
func (n *demoNode) run(started chan<- error) {
	runtime.LockOSThread()
	err := n.cmd.Start()
	started <- err
	if err == nil {
		n.cmd.Wait()
	}
	n.notify.Close()
	close(n.exited)
}

func (n *demoNode) listen() {
	buf := make([]byte, 4096)
	var once sync.Once
	for {
		size, err := n.notify.Read(buf)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(buf[:size])) {
			if strings.TrimSpace(line) == "READY=1" {
				once.Do(func() { close(n.ready) })
			}
		}
	}
}

func (n *demoNode) config() []byte {
	text := fmt.Sprintf(`# written by petal demo at each start
[node]
name = "n%d"
dir = %q
[[portal]]
listen = %q
[admin]
socket = %q
[[brick]]
path = %q
`, n.index, n.dir, n.portal, n.socket(), filepath.Join(n.dir, "brick"))
	if n.of > 1 { // The nodes share one machine, and one disk.
		text += fmt.Sprintf(`journal = "%s"
[cluster]
listen = %q
plain = %v
[time]
scale = %v
[cache]
size = "%s"
`, size(config.MinJournal), n.peers, n.plain, n.scale, size(uint64(max(config.MinCache, config.DefaultCache()/int64(n.of)&^(1<<20-1)))))
	}
	for _, key := range n.keys {
		table, line, _ := strings.Cut(key, ".")
		head := "[" + table + "]\n"
		if !strings.Contains(text, head) {
			text += head
		}
		text = strings.Replace(text, head, head+line+"\n", 1)
	}
	return []byte(text)
}

// waitLease waits until the node may serve.
func (n *demoNode) waitLease(ctx context.Context, client *api.Client) error {
	timeout := time.NewTimer(demoStartLimit)
	defer timeout.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if st, err := client.Status(ctx); err == nil && st.Cluster.Lease {
			n.incarnation = st.Incarnation
			return nil
		}
		select {
		case <-poll.C:
		case <-n.exited:
			return n.failure()
		case <-ctx.Done():
			return hinted{fmt.Errorf("interrupted while node %d was starting", n.index), "nothing was lost"}
		case <-timeout.C:
			return hinted{fmt.Errorf("node %d may not serve after %v: the cluster gives it no lease", n.index, demoStartLimit), "see " + n.log()}
		}
	}
}

// waitReady waits until the node serves.
func (n *demoNode) waitReady(ctx context.Context) error {
	timeout := time.NewTimer(demoStartLimit)
	defer timeout.Stop()
	select {
	case <-n.ready:
		return nil
	case <-n.exited:
		return n.failure()
	case <-ctx.Done():
		return hinted{fmt.Errorf("interrupted while node %d was starting", n.index), "nothing was lost"}
	case <-timeout.C:
		return hinted{fmt.Errorf("node %d is not ready after %v", n.index, demoStartLimit), "see " + n.log()}
	}
}

// failure is why the node ended before it was ready: the error that it printed.
func (n *demoNode) failure() error {
	log, _ := os.ReadFile(n.log())
	text, hint := lastError(log)
	return hinted{fmt.Errorf("node %d did not start: %s", n.index, or(text, "it ended: "+n.cmd.ProcessState.String())), or(hint, "see "+n.log())}
}

// lastError finds the error that a petal printed last, and its hint.
func lastError(log []byte) (text, hint string) {
	for line := range bytes.Lines(log) {
		if s, ok := bytes.CutPrefix(line, []byte("petal: ")); ok {
			text = string(bytes.TrimSpace(s))
		}
		if s, ok := bytes.CutPrefix(line, []byte("hint: ")); ok {
			hint = string(bytes.TrimSpace(s))
		}
	}
	return text, hint
}

// stop ends the node, also one that CMD has started anew after killing ours.
func (n *demoNode) stop() {
	if n.cmd == nil || n.cmd.Process == nil {
		return
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
	n.cmd.Process.Signal(syscall.SIGCONT) // it may have been paused
	select {
	case <-n.exited:
	case <-time.After(demoStopLimit):
		n.cmd.Process.Kill()
		<-n.exited
	}
	if pid := n.successor(); pid != 0 {
		endProcess(pid)
	}
}

// successor returns the process that DIR/nI/pid names if it is a petal that
// serves this directory, else 0.
func (n *demoNode) successor() int {
	text, err := os.ReadFile(filepath.Join(n.dir, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 || n.cmd != nil && n.cmd.Process != nil && pid == n.cmd.Process.Pid {
		return 0
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte("\x00"+n.file()+"\x00")) {
		return 0
	}
	return pid
}

// outlive waits for a successor, and until that has ended. It returns which start
// of the node that was, 0 if it was over before it said so.
func (n *demoNode) outlive(ctx context.Context) (incarnation uint64) {
	poll := time.NewTicker(successorPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return 0
		}
		p, err := n.open()
		if err != nil {
			continue
		}
		defer p.close()
		for client := api.NewClient(n.socket()); ctx.Err() == nil && !p.wait(successorPoll); {
			if incarnation == 0 {
				st, _ := client.Status(ctx)
				incarnation = st.Incarnation
			}
		}
		return incarnation
	}
}

// successorPoll is how often a demo looks whether a dead node was started again, and
// whether it must end itself while it waits for that one's end.
const successorPoll = 100 * time.Millisecond

// endProcess stops a process that is no child of ours: asks, waits, insists.
func endProcess(pid int) {
	p, err := openProcess(pid)
	if err != nil {
		return
	}
	defer p.close()
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	if !p.wait(demoStopLimit) {
		p.signal(syscall.SIGKILL)
		p.wait(playLimit)
	}
}
