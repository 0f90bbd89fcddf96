package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"petal/target/initiator/load"
)

// recoveryLimit is how long a node may take to serve again after it was killed.
const recoveryLimit = 3 * time.Second

// TestKillUnderLoad kills the node with SIGKILL under verified load, again and
// again: whatever was acknowledged is there afterwards, nothing torn, nothing
// made up, and the node is back in time. PETAL_SOAK=1h goes on for longer.
func TestKillUnderLoad(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	rounds, until := 4, time.Time{}
	if soak := os.Getenv("PETAL_SOAK"); soak != "" {
		length, err := time.ParseDuration(soak)
		if err != nil {
			t.Fatal(err)
		}
		until = time.Now().Add(length)
	}
	var slowest time.Duration
	for round := 0; round < rounds || time.Now().Before(until); round++ {
		begin := time.Now()
		d := startDemo(t, dir, "--size", "256MiB")
		st := d.status()
		recovery := time.Duration(st.RecoveryMS * float64(time.Millisecond))
		if whole := time.Since(begin); round > 0 && (recovery > within(recoveryLimit) || whole > within(recoveryLimit+2*time.Second)) {
			t.Errorf("round %d: ready after %v (recovery %v), want %v", round, whole, recovery, within(recoveryLimit))
		}
		if round > 0 {
			slowest = max(slowest, recovery)
			d.check(state)
		}
		d.loadUntilKilled(state, round)
	}
	d := startDemo(t, dir)
	d.check(state)
	t.Logf("slowest recovery %v", slowest)
}

// check judges the whole disk against the state file.
func (d *demo) check(state string) load.Result {
	d.t.Helper()
	o := d.petal("bench", d.url, "--state", state, "--check", "--quiet", "--json")
	var r load.Result
	if err := json.Unmarshal([]byte(o.stdout), &r); o.status != 0 || err != nil || !r.Verified.FinalRead || r.Verified.SectorsJudged == 0 {
		d.t.Fatalf("after the crash: status %d, %v\n%s%s", o.status, err, o.stdout, o.stderr)
	}
	return r
}

// loadUntilKilled writes, reads and unmaps until the node is killed under it.
func (d *demo) loadUntilKilled(state string, round int) {
	d.t.Helper()
	block := "4KiB"
	if round%2 == 1 {
		block = "64KiB" // the path of full chunks
	}
	args := []string{"--state", state, "--time", "30s", "--block", block, "--read", "30", "--unmap", "5", "--depth", "16", "--sessions", "2", "--reconnect", "0s", "--json"}
	if round == 0 {
		args = append(args, "--new")
	}
	stdout, ended := d.startLoad(2+round%3, args...)
	d.kill()
	<-ended // its status says that the connection was lost; the findings are what counts
	var r load.Result
	if stdout.Len() > 0 && json.Unmarshal(stdout.Bytes(), &r) == nil && r.Verified != nil && len(r.Verified.Findings) > 0 {
		d.t.Fatalf("before the crash: %+v", r.Verified.Findings)
	}
}

// progressWriter tells of each piece written to it. (It must not embed the
// buffer: io.Copy would find its ReadFrom and never call Write.)
type progressWriter struct {
	text  bytes.Buffer
	wrote chan string
}

func newProgress() *progressWriter { return &progressWriter{wrote: make(chan string, 1)} }

func (p *progressWriter) Write(b []byte) (int, error) {
	select {
	case p.wrote <- string(b):
	default:
	}
	return p.text.Write(b)
}

// next waits for a piece from a running program.
func (p *progressWriter) next(t *testing.T, ended <-chan struct{}) string {
	t.Helper()
	select {
	case line := <-p.wrote:
		return line
	case <-ended:
		t.Fatalf("petal bench ended before its time:\n%s", p.text.Bytes())
	case <-time.After(healLimit):
		t.Fatal("the progress line does not move")
	}
	return ""
}

// await waits for n renewals of the progress line, four a second.
func (p *progressWriter) await(t *testing.T, n int, ended <-chan struct{}) {
	t.Helper()
	for range n {
		p.next(t, ended)
	}
}

// flows waits until the progress line tells of commands that have ended since the
// one before.
func (p *progressWriter) flows(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-p.wrote: // it may be old
	default:
	}
	for deadline := time.Now().Add(healLimit); !flowing.MatchString(p.next(t, ended)); {
		if time.Now().After(deadline) {
			t.Fatalf("no command ends:\n%s", ends(p.text.String()))
		}
	}
}

var flowing = regexp.MustCompile(`: [1-9]\d* IOPS`)

// startLoad starts petal bench and waits until its progress line has moved n
// times. The channel is closed when it has ended.
func (d *demo) startLoad(n int, args ...string) (stdout *bytes.Buffer, ended <-chan struct{}) {
	d.t.Helper()
	stdout, progress, ended := d.startBench(args...)
	progress.await(d.t, n, ended)
	progress.flows(d.t, ended)
	return stdout, ended
}

func (d *demo) startBench(args ...string) (stdout *bytes.Buffer, progress *progressWriter, ended <-chan struct{}) {
	d.t.Helper()
	awaitLogin(d.t, d.url)
	cmd := command(d.t, binary, append([]string{"bench", d.url, "--progress"}, args...)...)
	done := make(chan struct{})
	progress = newProgress()
	stdout = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, progress
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() { cmd.Wait(); close(done) }()
	return stdout, progress, done
}

// TestDrain: SIGTERM under load ends every command with an answer; the next
// start has every write, without a recovery worth the name.
func TestDrain(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	d := startDemo(t, dir, "--size", "256MiB")
	_, ended := d.startLoad(3, "--state", state, "--new", "--time", "30s", "--read", "30", "--depth", "32", "--reconnect", "0s")
	d.stop()
	<-ended
	if log := d.log(); !strings.Contains(log, "msg=stopped") || strings.Contains(log, "not all commands ended in time") || strings.Contains(log, "level=ERROR") {
		t.Errorf("not stopped in order:\n%s", log)
	}
	d = startDemo(t, dir)
	d.check(state)
}

// TestSecondServe: one process a directory, whatever socket and port it uses.
func TestSecondServe(t *testing.T) {
	d := startDemo(t, t.TempDir())
	other := filepath.Join(t.TempDir(), "petal.toml")
	text := fmt.Sprintf("[node]\ndir = %q\n[[portal]]\nlisten = \"127.0.0.1:%d\"\n[[brick]]\npath = %q\n[admin]\nsocket = %q\n",
		filepath.Join(d.dir, "n1"), freePort(t), filepath.Join(d.dir, "n1", "brick"), filepath.Join(t.TempDir(), "admin.sock"))
	if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := run(t, runLimit, binary, "serve", "--config", other)
	if o.status == 0 || !strings.Contains(o.stderr, "hint: ") || !strings.Contains(o.stderr, filepath.Join(d.dir, "n1")) {
		t.Errorf("second serve: status %d\n%s", o.status, o.stderr)
	}
	// A brick of a running node, offered to a node of its own.
	text = strings.Replace(text, fmt.Sprintf("dir = %q", filepath.Join(d.dir, "n1")), fmt.Sprintf("dir = %q", t.TempDir()), 1)
	if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o = run(t, runLimit, binary, "serve", "--config", other)
	if o.status == 0 || !strings.Contains(o.stderr, "hint: ") || !strings.Contains(o.stderr, filepath.Join(d.dir, "n1", "brick")) {
		t.Errorf("a brick in use: status %d\n%s", o.status, o.stderr)
	}
	if d.pid(); d.status().State != "ok" {
		t.Error("the first node suffered")
	}
}

// TestSecondSignal: the first SIGTERM drains, the second one kills.
func TestSecondSignal(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	d := startDemo(t, dir, "--size", "256MiB")
	if o := d.petal("bench", d.url, "--new", "--state", state, "--time", "1s", "--quiet"); o.status != 0 {
		t.Fatalf("bench: status %d\n%s", o.status, o.stderr)
	}
	pid := d.pid()
	syscall.Kill(pid, syscall.SIGTERM)
	syscall.Kill(pid, syscall.SIGTERM)
	<-d.ended
	d = startDemo(t, dir)
	d.check(state)
}
