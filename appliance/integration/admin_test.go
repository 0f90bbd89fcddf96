package integration

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"petal/appliance/api"
)

// TestAccess: who may log in, by name and by CHAP, one-way and mutual; with
// digests. What is changed counts at once.
func TestAccess(t *testing.T) {
	n := startNode(t, "")
	n.createDisk(t, "data", 64<<20)
	secrets := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secrets, []byte("open sesame 1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bench := func(args ...string) int {
		t.Helper()
		return run(t, runLimit, binary, append([]string{"bench", n.url("data"), "--time", "100ms", "--quiet"}, args...)...).status
	}
	expect := func(what string, want int, args ...string) {
		t.Helper()
		if got := bench(args...); got != want {
			t.Errorf("%s: status %d, want %d", what, got, want)
		}
	}
	expect("a new target", 0)
	expect("with digests", 0, "--digests", "--verify")

	ctx, target := context.Background(), "iqn.2026-11.petal:data"
	if _, err := n.client().SetACL(ctx, target, []string{"iqn.2026-11.petal:friend"}); err != nil {
		t.Fatal(err)
	}
	expect("a stranger", 1)
	expect("a friend", 0, "--initiator", "iqn.2026-11.petal:friend")
	if _, err := n.client().SetACL(ctx, target, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client().SetCHAP(ctx, target, api.CHAPAccount{User: "alice", Secret: "open sesame 1234"}); err != nil {
		t.Fatal(err)
	}
	expect("without CHAP", 1)
	expect("another user", 1, "--user", "bob", "--secret-file", secrets)
	expect("the right user", 0, "--user", "alice", "--secret-file", secrets)
	if err := os.WriteFile(secrets, []byte("open sesame 1235\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("another secret", 1, "--user", "alice", "--secret-file", secrets)
	if _, err := n.client().SetCHAP(ctx, target, api.CHAPAccount{}); err != nil {
		t.Fatal(err)
	}
	expect("CHAP off again", 0)
	n.stop()
	if strings.Contains(n.log.String(), "sesame") {
		t.Error("the log holds a secret")
	}
}

// TestMetrics: what Prometheus finds, on the socket and, if asked for, over TCP;
// over TCP nothing else.
func TestMetrics(t *testing.T) {
	address := "127.0.0.1:" + strconv.Itoa(freePort(t))
	n := startNode(t, "metrics = \""+address+"\"") // goes on in [admin], the last table
	n.createDisk(t, "data", 64<<20)
	must(t, runLimit, binary, "bench", n.url("data"), "--time", "300ms", "--read", "50", "--quiet")
	socket := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(n.dir, "admin.sock"))
	}}}
	for _, get := range []struct {
		c   *http.Client
		url string
	}{{&socket, "http://petal/metrics"}, {http.DefaultClient, "http://" + address + "/metrics"}} {
		text := fetch(t, get.c, get.url)
		for _, want := range []string{
			`petal_io_duration_seconds_count\{disk="data",initiator="iqn\.2026-11\.petal:initiator",op="read"\} [1-9]`,
			`petal_io_duration_seconds_count\{disk="data",initiator="iqn\.2026-11\.petal:initiator",op="write"\} [1-9]`,
			`petal_io_bytes_total\{disk="data",initiator="iqn\.2026-11\.petal:initiator",op="write"\} [1-9]`,
			`petal_brick_up\{brick=".*"\} 1`, `petal_journal_total_bytes\{brick=".*"\} [1-9]`, `petal_cache_budget_bytes [1-9]`,
			`petal_disk_size_bytes\{disk="data"\} 6\.7108864e\+07`, `petal_disk_used_bytes\{disk="data"\} [0-9]`, `petal_problems 0`,
			`petal_path_total\{what="hedge"\} 0`, `petal_path_total\{what="remote"\} 0`, `petal_lease 1`, `petal_quorum 1`,
		} {
			if !regexp.MustCompile(`(?m)^` + want).MatchString(text) {
				t.Errorf("%s has no line %s", get.url, want)
			}
		}
	}
	for _, path := range []string{"/v1/status", "/v1/disks", "/debug/pprof/cmdline", "/openapi.json"} {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s over TCP: %s", path, resp.Status)
		}
	}
}

func fetch(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(text)
}

// TestResize: an initiator that is logged in sees the new size.
func TestResize(t *testing.T) {
	need(t, "iscsi-readcapacity16", "libiscsi-bin")
	n := startNode(t, "")
	n.createDisk(t, "data", 64<<20)
	size := uint64(128 << 20)
	if _, err := n.client().ChangeDisk(context.Background(), "data", api.DiskChange{Size: &size}); err != nil {
		t.Fatal(err)
	}
	if out := must(t, runLimit, "iscsi-readcapacity16", n.url("data")); !strings.Contains(out, "134217728") {
		t.Errorf("%s", out)
	}
}

// TestBrickFails: the disk under the brick refuses writes (strace makes the
// system calls fail). The brick is failed at once and status says so; no write
// is acknowledged; the node goes on answering, and stops in order. With the disk
// back everything that was acknowledged is there.
func TestBrickFails(t *testing.T) {
	need(t, "strace", "strace")
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	d := startDemo(t, dir, "--size", "64MiB")
	if o := d.petal("bench", d.url, "--new", "--state", state, "--time", "500ms", "--quiet"); o.status != 0 {
		t.Fatalf("bench: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	args := []string{"-f", "-qq", "-o", "/dev/null", "-p", strconv.Itoa(d.pid()),
		"-e", "trace=pwrite64,pwritev,pwritev2,fdatasync", "-e", "inject=pwrite64,pwritev,pwritev2,fdatasync:error=EIO"}
	journal, _ := filepath.Glob(filepath.Join(dir, "n1", "brick", "journal", "*.seg"))
	for _, file := range journal { // the brick's: without its part of the agreed state a node serves nothing
		args = append(args, "-P", file)
	}
	tracer := exec.Command("strace", args...)
	tracer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	detach := func() { tracer.Process.Signal(syscall.SIGTERM); tracer.Wait() }
	defer detach()
	eventually(t, healLimit, "strace has attached", func() bool { return traced(d.pid()) })
	_, _, ended := d.startBench("--state", state, "--time", "2s", "--reconnect", "0s")
	eventually(t, healLimit, "status says that the brick has failed", func() bool {
		st := d.status()
		return st.State == "degraded" && st.Bricks[0].State == "failed" && st.Bricks[0].Error != ""
	})
	<-ended
	detach()
	if o := d.petal("status"); o.status != 1 || !strings.Contains(o.stdout, "has failed") {
		t.Errorf("petal status: status %d\n%s", o.status, o.stdout)
	}
	if o := d.petal("disk", "list"); o.status != 0 || !strings.Contains(o.stdout, "demo") {
		t.Errorf("petal disk list: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	d.stop()
	d = startDemo(t, dir)
	d.check(state)
}

// traced reports whether all threads of a process have a tracer.
func traced(pid int) bool {
	tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status")
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(text), "TracerPid:\t0\n") {
			return false
		}
	}
	return len(tasks) > 0
}
