// Package integration drives bin/petal as real processes, with real initiators
// (libiscsi's tools, QEMU, petal bench): the demo's contract, power loss by kill
// -9, damage, stopping. It reaches into nothing of petal's but the command line,
// the admin socket and files; it is not the place for what a unit test can show.
//
// A test that lacks a program says which Debian package has it;
// packaging/deps.sh installs them all.
package integration

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"petal/appliance/api"
	"petal/target/initiator"
)

var binary string // bin/petal

func TestMain(m *testing.M) {
	code, err := withBinary(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withBinary runs f with the binary that PETAL_BIN names, or one built for the
// occasion.
func withBinary(f func() int) (int, error) {
	if binary = os.Getenv("PETAL_BIN"); binary != "" {
		return f(), nil
	}
	dir, err := os.MkdirTemp("", "petal-integration-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "petal")
	build := exec.Command("go", "build", "-o", binary, "petal/appliance/cmd/petal")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return f(), nil
}

// need skips the test, loudly, if a program is missing.
func need(t *testing.T, program, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("SKIPPED: no %s (apt install %s)", program, debianPackage)
	}
}

// Limits. runLimit, for one program's run, keeps a test from hanging. A promise
// that petal makes in seconds is tested with slack: on a machine with neighbours a
// process, or the disk, may stand still for seconds. How exactly a promise is kept is
// for make soak to say, which has the machine for itself.
const (
	runLimit = 3 * time.Minute
	slack    = 10 * time.Second
)

// within is a promise as it is tested.
func within(promise time.Duration) time.Duration {
	if os.Getenv("PETAL_SOAK") != "" {
		return promise
	}
	return promise + slack
}

// freePort returns a port that nobody listens on, at any address that a node may
// have. It lies below those that the kernel gives to outgoing connections: such a
// one could hold it when the node wants it, at its start or after it was down.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		if port := 10000 + rand.IntN(20000); !portsGiven[port] && portFree(port) {
			portsGiven[port] = true
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

var portsGiven = map[int]bool{}

func portFree(port int) bool {
	for net1 := range 2 {
		for host := 1; host <= 9; host++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.%d.%d:%d", net1, host, port))
			if err != nil {
				return false
			}
			l.Close()
		}
	}
	return true
}

// command is exec.Command whose whole life is bounded by the test's.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// outcome is how a program ended.
type outcome struct {
	stdout, stderr string
	status         int
}

// run runs a program to its end, within limit.
func run(t *testing.T, limit time.Duration, name string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %v: still running after %v\n%s%s", name, args, limit, &stdout, &stderr)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must is run for programs that have to succeed.
func must(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	o := run(t, limit, name, args...)
	if o.status != 0 {
		t.Fatalf("%s %v: status %d\n%s%s", filepath.Base(name), args, o.status, o.stdout, o.stderr)
	}
	return o.stdout
}

// patient is a setting for tests that are not about leases: a node that stands
// still for less than 10 s keeps its own, and with it its sessions.
const patient = "time.scale=5"

// demo is a running `petal demo` without --exec.
type demo struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	port   int
	url    string
	stderr *bytes.Buffer
	ended  chan struct{}
	once   sync.Once
}

// startDemo starts a demo of one node, unless args say otherwise, on dir and
// waits for its ready line.
func startDemo(t *testing.T, dir string, args ...string) *demo {
	t.Helper()
	if !slices.Contains(args, "--nodes") {
		args = append([]string{"--nodes", "1", "--set", patient}, args...)
	}
	d := &demo{t: t, dir: dir, stderr: &bytes.Buffer{}, ended: make(chan struct{})}
	if _, err := os.Stat(filepath.Join(dir, "n2")); err != nil { // nodes of a cluster keep their addresses
		args = append(args, "--port", strconv.Itoa(freePort(t)))
	}
	d.cmd = command(t, binary, append([]string{"demo", "--dir", dir}, args...)...)
	d.cmd.Stderr = d.stderr
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	lines := bufio.NewScanner(stdout)
	ok := lines.Scan()
	go func() {
		io.Copy(io.Discard, stdout)
		d.cmd.Wait()
		close(d.ended)
	}()
	url, ready := strings.CutPrefix(lines.Text(), "ready ")
	if !ok || !ready {
		<-d.ended
		t.Fatalf("petal demo: %q, %s\n%s\n%s", lines.Text(), d.cmd.ProcessState, d.stderr, d.log())
	}
	d.url = url
	at, err := initiator.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(at.Host)
	if d.port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *demo) log() string { return d.logOf(1) }

func (d *demo) logOf(node int) string {
	text, _ := os.ReadFile(filepath.Join(d.dir, fmt.Sprintf("n%d", node), "log"))
	return string(text)
}

// stop ends the demo as Ctrl-C does.
func (d *demo) stop() {
	d.once.Do(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.ended:
		case <-time.After(stopLimit):
			d.t.Errorf("the demo did not stop within %v", stopLimit)
			syscall.Kill(d.pid(), syscall.SIGQUIT) // every goroutine says where it is
			<-d.ended
		}
		if d.t.Failed() {
			for i := 1; d.logOf(i) != ""; i++ {
				d.t.Logf("node %d's log:\n%s", i, ends(d.logOf(i)))
			}
		}
	})
}

// ends shortens a text to its ends.
func ends(s string) string {
	const most = 6000
	if len(s) <= most {
		return s
	}
	return s[:most/2] + "\n[...]\n" + s[len(s)-most/2:]
}

// pid is the first node's process id, from DIR/n1/pid.
func (d *demo) pid() int {
	d.t.Helper()
	return d.pidOf(1)
}

func (d *demo) pidOf(node int) int {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, fmt.Sprintf("n%d", node), "pid"))
	if err != nil {
		d.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		d.t.Fatal(err)
	}
	return pid
}

// kill kills the node with SIGKILL and waits until the demo has noticed.
func (d *demo) kill() {
	d.t.Helper()
	if err := syscall.Kill(d.pid(), syscall.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
	<-d.ended
	d.once.Do(func() {})
}

func (d *demo) client() *api.Client { return d.clientOf(1) }

func (d *demo) clientOf(node int) *api.Client {
	return api.NewClient(filepath.Join(d.dir, fmt.Sprintf("n%d", node), "admin.sock"))
}

func (d *demo) status() api.Status {
	d.t.Helper()
	st, err := d.client().Status(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	return st
}

// petal runs a command of the binary against the demo; of bench the URL comes first.
func (d *demo) petal(args ...string) outcome {
	d.t.Helper()
	switch args[0] {
	case "bench":
		awaitLogin(d.t, args[1])
	case "demo":
	default:
		args = append(args, "--admin", filepath.Join(d.dir, "n1", "admin.sock"))
	}
	return run(d.t, runLimit, binary, args...)
}

// awaitLogin waits until a portal lets initiators in. A node closes its portal for a
// moment when it has stood still for longer than its lease, and hears of a new target
// a little after the node that made it; petal bench does not try a first login again.
func awaitLogin(t *testing.T, url string) {
	t.Helper()
	at, err := initiator.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, healLimit, url+" lets initiators in", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), healLimit)
		defer cancel()
		s, err := initiator.Dial(ctx, at, initiator.Options{})
		if err == nil {
			s.Logout(ctx)
		}
		return err == nil
	})
}

// eventually polls a condition that another process brings about.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// running reports whether a process exists and is no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}
