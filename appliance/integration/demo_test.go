package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemoExec: the environment of CMD, its status, and that nothing is left.
func TestDemoExec(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	script := `echo "url $PETAL_URL"; echo "portals $PETAL_PORTALS"; echo "dir $PETAL_DIR"; echo "admin $PETAL_ADMIN"
		echo "pid $(cat $PETAL_DIR/n1/pid)"; ` + binary + ` disk list --json >disks.json && ` + binary + ` status >/dev/null && exit 7`
	o := runIn(t, dir, binary, "demo", "--nodes", "1", "--dir", "kept", "--port", strconv.Itoa(port), "--size", "1GB", "--set", patient, "--exec", script)
	if o.status != 7 {
		t.Fatalf("status %d, want CMD's 7\n%s%s", o.status, o.stdout, o.stderr)
	}
	said := map[string]string{}
	for line := range strings.Lines(o.stdout) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		said[key] = value
	}
	url := fmt.Sprintf("iscsi://127.0.0.1:%d/iqn.2026-11.petal:demo/0", port)
	kept := filepath.Join(dir, "kept")
	for key, want := range map[string]string{"ready": url, "url": url, "portals": fmt.Sprintf("127.0.0.1:%d", port), "dir": kept, "admin": filepath.Join(kept, "n1", "admin.sock")} {
		if said[key] != want {
			t.Errorf("%s is %q, want %q", key, said[key], want)
		}
	}
	pid, err := strconv.Atoi(said["pid"])
	if err != nil || running(pid) {
		t.Errorf("node %q still runs (%v)", said["pid"], err)
	}
	disks, err := os.ReadFile(filepath.Join(dir, "disks.json"))
	if err != nil || !strings.Contains(string(disks), `"size": 1000000000`) {
		t.Errorf("petal disk list under PETAL_ADMIN: %v\n%s", err, disks)
	}
}

func runIn(t *testing.T, dir, name string, args ...string) outcome {
	t.Helper()
	return run(t, runLimit, "/bin/sh", append([]string{"-c", `cd "$1"; shift; exec "$@"`, "sh", dir, name}, args...)...)
}

// TestDemoStatus: CMD killed by a signal counts as 128 + signal, as in a shell.
func TestDemoStatus(t *testing.T) {
	for script, want := range map[string]int{"true": 0, "exit 3": 3, "kill -TERM $$": 128 + 15} {
		o := run(t, runLimit, binary, "demo", "--nodes", "1", "--port", strconv.Itoa(freePort(t)), "--exec", script)
		if o.status != want {
			t.Errorf("%q: status %d, want %d\n%s", script, o.status, want, o.stderr)
		}
	}
}

// TestDemoTemporary: without --dir nothing stays.
func TestDemoTemporary(t *testing.T) {
	o := run(t, runLimit, binary, "demo", "--nodes", "1", "--port", strconv.Itoa(freePort(t)), "--exec", "echo dir $PETAL_DIR; test -d $PETAL_DIR/n1")
	_, rest, _ := strings.Cut(o.stdout, "dir ")
	dir := strings.TrimSpace(rest)
	if o.status != 0 || dir == "" {
		t.Fatalf("status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", dir, err)
	}
}

// TestDemoKeeps: a kept directory starts again with its data, and says so when
// another size is asked for.
func TestDemoKeeps(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	d := startDemo(t, dir, "--size", "256MiB")
	if o := d.petal("bench", d.url, "--new", "--state", state, "--time", "1s", "--block", "4KiB,64KiB", "--read", "30", "--quiet"); o.status != 0 {
		t.Fatalf("bench: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	d.stop()
	d = startDemo(t, dir, "--size", "1GiB")
	if o := d.petal("bench", d.url, "--state", state, "--check", "--quiet"); o.status != 0 {
		t.Fatalf("after a restart: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	if !strings.Contains(d.stderr.String(), "keeps its size") && !strings.Contains(d.stderr.String(), "its size of 256MiB") {
		t.Errorf("not a word about the size that was asked for:\n%s", d.stderr)
	}
	if st := d.status(); st.Incarnation != 2 {
		t.Errorf("start number %d, want 2", st.Incarnation)
	}
}

// TestDemoRefuses: a port in use, a directory in use.
func TestDemoRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	o := run(t, runLimit, binary, "demo", "--nodes", "1", "--dir", dir, "--port", port, "--exec", "true")
	if o.status == 0 || !strings.Contains(o.stderr, "cannot listen on 127.0.0.1:"+port+": address already in use") || !strings.Contains(o.stderr, "hint: another process listens there") {
		t.Errorf("port in use: status %d\n%s", o.status, o.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "n1", "brick")); !os.IsNotExist(err) {
		t.Errorf("a brick was made although the port is in use (%v)", err)
	}
	d := startDemo(t, dir)
	o = run(t, runLimit, binary, "demo", "--nodes", "1", "--dir", dir, "--port", strconv.Itoa(freePort(t)), "--exec", "true")
	if o.status == 0 || !strings.Contains(o.stderr, "another petal demo uses it") {
		t.Errorf("directory in use: status %d\n%s", o.status, o.stderr)
	}
	d.status() // the first one is well
}

// TestDemoStops: SIGTERM ends nodes and demo; a killed demo takes its nodes along.
func TestDemoStops(t *testing.T) {
	d := startDemo(t, t.TempDir())
	pid := d.pid()
	d.stop()
	if running(pid) || d.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("node runs: %v, demo: %s", running(pid), d.cmd.ProcessState)
	}
	d = startDemo(t, t.TempDir())
	pid = d.pid()
	d.cmd.Process.Signal(syscall.SIGKILL)
	eventually(t, stopLimit, "the node ends after its demo was killed", func() bool { return !running(pid) })
}

// TestDemoSuccessor: CMD may kill a node and start it again with DIR/nI/petal.toml;
// the end of the demo ends that one too.
func TestDemoSuccessor(t *testing.T) {
	dir := t.TempDir()
	script := `kill -9 $(cat $PETAL_DIR/n1/pid) && while kill -0 $(cat $PETAL_DIR/n1/pid) 2>/dev/null; do sleep 0.05; done
		` + binary + ` serve --config $PETAL_DIR/n1/petal.toml 2>>log & 
		i=0; until ` + binary + ` status >status 2>/dev/null; do i=$((i+1)); test $i -lt 1000 || exit 9; sleep 0.05; done; cat $PETAL_DIR/n1/pid`
	o := runIn(t, dir, binary, "demo", "--nodes", "1", "--dir", "kept", "--port", strconv.Itoa(freePort(t)), "--exec", script)
	lines := strings.Fields(o.stdout)
	if o.status != 0 || len(lines) == 0 {
		t.Fatalf("status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	pid, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil || running(pid) {
		t.Errorf("the successor %v still runs (%v)", lines, err)
	}
}

// TestDemoPlain: --plain does without TLS, says so wherever somebody looks, and
// a directory made so starts with TLS again without it.
func TestDemoPlain(t *testing.T) {
	dir := t.TempDir()
	d := startCluster(t, dir, "--plain", "--size", "64MiB")
	if o := d.petal("bench", d.url, "--verify", "--time", "300ms", "--quiet"); o.status != 0 {
		t.Errorf("bench: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	if o := d.petal("cluster", "status"); o.status != 0 || !strings.Contains(o.stdout, "NONE between nodes") {
		t.Errorf("cluster status: status %d\n%s", o.status, o.stdout)
	}
	if o := d.petal("demo", "cut", "--dir", dir, "2"); o.status == 0 || !strings.Contains(o.stderr, "TLS") {
		t.Errorf("demo cut: status %d\n%s", o.status, o.stderr)
	}
	if d.hangsUp(2, time.Second) {
		t.Error("node 2 takes no plain greeting")
	}
	d.stop()
	if said := d.stderr.String(); !strings.Contains(said, "WARNING: --plain") || !strings.Contains(d.log(), "level=WARN msg=\"cluster.plain") {
		t.Errorf("nobody was warned:\n%s\n%s", said, ends(d.log()))
	}
	if o := d.petal("demo", "--dir", dir, "--port", strconv.Itoa(d.port%65535+1)); o.status != 2 || !strings.Contains(o.stderr, "know each other") {
		t.Errorf("on another port: status %d\n%s", o.status, o.stderr)
	}
	d = startCluster(t, dir)
	d.awaitHealthy()
	if o := d.petal("cluster", "status"); strings.Contains(o.stdout, "TLS") || !d.hangsUp(2, healLimit) {
		t.Errorf("without --plain:\n%s", o.stdout)
	}
}

// hangsUp reports whether a node hangs up, within limit, when somebody begins to
// talk to it without TLS. With TLS it does at the first byte, else it waits for more.
func (d *demo) hangsUp(node int, limit time.Duration) bool {
	d.t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.1.%d:%d", node, d.port))
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("P"))
	c.SetReadDeadline(time.Now().Add(limit))
	_, err = c.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
