package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"petal/target/initiator/load"
)

// slowDown makes each write to the journal of a node's brick take longer by some
// time, as a tired disk does: strace holds up the system calls. What it returns
// makes the disk well again.
func (d *demo) slowDown(node int, by time.Duration) (well func()) {
	d.t.Helper()
	need(d.t, "strace", "strace")
	const writes = "pwrite64,pwritev,pwritev2"
	args := []string{"-f", "-qq", "-o", "/dev/null", "-p", strconv.Itoa(d.pidOf(node)), "-e", "trace=" + writes,
		"-e", fmt.Sprintf("inject=%s:delay_exit=%d", writes, by.Microseconds())}
	segments, err := filepath.Glob(filepath.Join(d.dir, fmt.Sprintf("n%d", node), "brick", "journal", "*.seg"))
	if err != nil || len(segments) == 0 {
		d.t.Fatalf("no journal of n%d: %v", node, err)
	}
	for _, file := range segments {
		args = append(args, "-P", file)
	}
	tracer := exec.Command("strace", args...)
	tracer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := tracer.Start(); err != nil {
		d.t.Fatal(err)
	}
	well = func() { tracer.Process.Signal(syscall.SIGTERM); tracer.Wait() }
	d.t.Cleanup(well)
	eventually(d.t, healLimit, "strace has attached", func() bool { return traced(d.pidOf(node)) })
	return well
}

// TestSlowDisk: the disk of one of four nodes becomes so slow that every mirrored
// write with a copy there takes seconds. The node rests: the others go on
// without it, as fast as before, and it does not come back before its disk is well.
// Then it copies what it missed, and all is there.
//
// For a minute: make soak.
func TestSlowDisk(t *testing.T) {
	if os.Getenv("PETAL_SOAK") == "" {
		t.Skip("takes a minute: make soak")
	}
	// A new leader lets nobody rest for twice [time] replace; a rest is half of it,
	// and a lease's end comes off that.
	d := startCluster(t, t.TempDir(), "--size", "64MiB", "--set", `time.replace="12s"`)
	const delay = 1300 * time.Millisecond // a write then waits for up to two of them, which is more than [time] complain
	slow := others(1, d.leader())[0]
	name, seen := fmt.Sprintf("n%d", slow), others(2, slow)
	l := d.loadOn(seen[0], seen[1])
	well := d.slowDown(slow, delay)
	began := time.Now()
	d.told(seen[0], name, "far slower than the others, and rests")
	t.Logf("%s rests %v after its disk became slow", name, time.Since(began))
	if st, err := d.clientOf(slow).Status(context.Background()); err != nil || st.Cluster.Lease || st.State != "suspended" {
		t.Errorf("the node that rests: %v, %+v", err, st)
	}
	if h := d.health(seen[0]); h.State != "degraded" || h.Served != 100 || !slices.ContainsFunc(h.Why, func(why string) bool { return strings.Contains(why, name) }) {
		t.Errorf("while it rests: %+v", h)
	}
	if r := l.finish(); stall(r) > leaderStall {
		t.Errorf("longest stall %v, want %v at most", stall(r), leaderStall)
	}
	d.fastWithout(seen[0], delay, "500ms")
	// Its rest is over before its disk is well: then it may serve hosts, and takes part
	// in no link.
	eventually(t, healLimit, "the rest is over", func() bool {
		st, err := d.clientOf(slow).Status(context.Background())
		return err == nil && st.Cluster.Lease
	})
	d.fastWithout(seen[0], delay, "10s")
	well()
	d.told(seen[0], name+" takes part in link", "again")
	d.awaitHealthyAt(seen[0])
	d.wantWhole(slow)
}

// fastWithout writes for a while, and finds no write as slow as with the slow disk.
func (d *demo) fastWithout(node int, delay time.Duration, length string) {
	d.t.Helper()
	o := d.petal("bench", d.urlAt(node), "--verify", "--time", length, "--read", "0", "--size", "4MiB", "--quiet", "--json")
	var r load.Result
	if err := json.Unmarshal([]byte(o.stdout), &r); o.status != 0 || err != nil {
		d.t.Fatalf("without the slow disk: status %d, %v\n%s%s", o.status, err, o.stdout, o.stderr)
	}
	d.t.Logf("without the slow disk, for %s: longest stall %v", length, stall(r))
	if stall(r) >= delay {
		d.t.Errorf("without the slow disk a write took %v: as long as with it", stall(r))
	}
}
