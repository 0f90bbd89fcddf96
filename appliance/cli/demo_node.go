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
	index  int
	dir    string
	portal string

	cmd    *exec.Cmd
	notify *net.UnixConn
	ready  chan struct{} // closed at READY=1
	exited chan struct{} // closed when the process is gone
}

func (n *demoNode) socket() string { return filepath.Join(n.dir, "admin.sock") }
func (n *demoNode) log() string    { return filepath.Join(n.dir, "log") }

// start writes the node's configuration and starts it.
func (n *demoNode) start() error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(n.dir, "petal.toml")
	if err := os.WriteFile(file, n.config(), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
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
	n.cmd = exec.Command("/proc/self/exe", "serve", "--config", file)
	n.cmd.Args[0] = os.Args[0]
	n.cmd.Stderr = log
	n.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	// The terminal's Ctrl-C is for the demo alone; and should the demo be killed, its nodes stop.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
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
	return fmt.Appendf(nil, `# written by petal demo at each start
[node]
name = "n%d"
dir = %q
[[portal]]
listen = %q
[[brick]]
path = %q
[admin]
socket = %q
`, n.index, n.dir, n.portal, filepath.Join(n.dir, "brick"), n.socket())
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
	text, hint := "it ended: "+n.cmd.ProcessState.String(), "see "+n.log()
	log, _ := os.ReadFile(n.log())
	for line := range bytes.Lines(log) {
		if s, ok := bytes.CutPrefix(line, []byte("petal: ")); ok {
			text = string(bytes.TrimSpace(s))
		}
		if s, ok := bytes.CutPrefix(line, []byte("hint: ")); ok {
			hint = string(bytes.TrimSpace(s))
		}
	}
	return hinted{fmt.Errorf("node %d did not start: %s", n.index, text), hint}
}

func (n *demoNode) died() error {
	return fmt.Errorf("node %d has ended: %v", n.index, n.cmd.ProcessState)
}

// stop ends the node, also one that CMD has started anew after killing ours.
func (n *demoNode) stop() {
	if n.cmd == nil || n.cmd.Process == nil {
		return
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
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
	if err != nil || pid <= 1 || pid == n.cmd.Process.Pid {
		return 0
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte("\x00"+filepath.Join(n.dir, "petal.toml")+"\x00")) {
		return 0
	}
	return pid
}

// endProcess stops a process that is no child of ours: asks, waits, insists.
func endProcess(pid int) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	p.Signal(syscall.SIGTERM)
	for deadline := time.Now().Add(demoStopLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if p.Signal(syscall.Signal(0)) != nil {
			return
		}
	}
	p.Signal(syscall.SIGKILL)
}
