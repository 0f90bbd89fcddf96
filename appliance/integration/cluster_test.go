package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"petal/appliance/api"
	"petal/target/initiator"
	"petal/target/initiator/load"
	"petal/target/iscsi"
	"petal/target/scsi"
)

// The cluster's promises, on four real processes with a verified load through
// the portals of two of them. What they allow a host to notice:
const (
	killStall     = 3 * time.Second        // a node is killed, as if its machine had died
	leaderStall   = 4 * time.Second        // and it was the one that led
	superviseTook = 500 * time.Millisecond // a supervisor has seen it die
)

// healLimit is how long four nodes on two cores may take to be healthy again.
const healLimit = 2 * time.Minute

// startCluster starts four nodes.
func startCluster(t *testing.T, dir string, args ...string) *demo {
	t.Helper()
	return startDemo(t, dir, append([]string{"--nodes", "4"}, args...)...)
}

// play runs petal demo WHAT on nodes of the demo.
func (d *demo) play(what string, nodes ...int) {
	d.t.Helper()
	args := []string{"demo", what, "--dir", d.dir}
	for _, n := range nodes {
		args = append(args, strconv.Itoa(n))
	}
	if o := run(d.t, runLimit, binary, args...); o.status != 0 {
		d.t.Fatalf("petal demo %s %v: status %d\n%s", what, nodes, o.status, o.stderr)
	}
}

// portal is the address of a node's portal.
func (d *demo) portal(node int) string { return fmt.Sprintf("127.0.0.%d:%d", node, d.port) }

func (d *demo) urlAt(node int) string {
	return "iscsi://" + d.portal(node) + "/iqn.2026-11.petal:demo/0"
}

// health is the disk's health as a node sees it.
func (d *demo) health(node int) api.Health {
	d.t.Helper()
	disk, err := d.clientOf(node).Disk(context.Background(), "demo")
	if err != nil {
		d.t.Fatal(err)
	}
	return disk.Health
}

func (d *demo) awaitHealthy() {
	d.t.Helper()
	d.awaitHealthyAt(1)
}

func (d *demo) awaitHealthyAt(node int) {
	d.t.Helper()
	d.awaitHealth(node, "healthy again", func(h api.Health) bool { return h.State == "healthy" })
}

// awaitHealth waits for what a node has to say of the disk in the end.
func (d *demo) awaitHealth(node int, what string, ok func(api.Health) bool) {
	d.t.Helper()
	var last api.Health
	for deadline := time.Now().Add(healLimit); ; time.Sleep(20 * time.Millisecond) {
		if last = d.health(node); ok(last) {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not within %v: %s: %+v", healLimit, what, last)
		}
	}
}

// background is a verified load that runs while things happen.
type background struct {
	t        *testing.T
	cmd      *exec.Cmd
	stdout   bytes.Buffer
	progress *progressWriter
	ended    chan struct{}
}

// loadOn starts a load with a session through each of two nodes.
func (d *demo) loadOn(a, b int, args ...string) *background {
	d.t.Helper()
	awaitLogin(d.t, d.urlAt(b))
	return startLoad(d.t, d.urlAt(a), append([]string{"--portals", d.portal(b), "--sessions", "2", "--size", "64MiB"}, args...)...)
}

// startLoad starts petal bench --verify and waits until commands end.
func startLoad(t *testing.T, url string, args ...string) *background {
	t.Helper()
	awaitLogin(t, url)
	all := append([]string{"bench", url, "--depth", "4", "--read", "50", "--time", "10m", "--progress", "--json", "--verify", "--reconnect", "60s"}, args...)
	l := &background{t: t, cmd: command(t, binary, all...), progress: newProgress(), ended: make(chan struct{})}
	l.cmd.Stdout, l.cmd.Stderr = &l.stdout, l.progress
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { l.cmd.Wait(); close(l.ended) }()
	t.Cleanup(func() { l.cmd.Process.Kill(); <-l.ended })
	l.await(8)
	l.flows()
	return l
}

// await waits for n renewals of the progress line, four a second.
func (l *background) await(n int) {
	l.t.Helper()
	l.progress.await(l.t, n, l.ended)
}

// flows waits until commands end again.
func (l *background) flows() {
	l.t.Helper()
	l.progress.flows(l.t, l.ended)
}

// finish ends the load in order and returns what it found.
func (l *background) finish() load.Result {
	l.t.Helper()
	l.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-l.ended:
	case <-time.After(2 * time.Minute):
		l.t.Fatal("petal bench does not end")
	}
	var r load.Result
	if err := json.Unmarshal(l.stdout.Bytes(), &r); err != nil || len(r.Disks) != 1 || r.Verified == nil {
		l.t.Fatalf("petal bench: %v\n%s\n%s", err, l.stdout.Bytes(), ends(l.progress.text.String()))
	}
	if len(r.Verified.Findings) > 0 || r.Disks[0].ErrorCount > 0 || r.Verified.SectorsJudged == 0 {
		l.t.Errorf("findings %+v, I/O errors %+v, %d sectors judged", r.Verified.Findings, r.Disks[0].Errors, r.Verified.SectorsJudged)
	}
	return r
}

func stall(r load.Result) time.Duration {
	return time.Duration(r.Disks[0].LongestStall * float64(time.Millisecond))
}

// leader is the number of the node that leads.
func (d *demo) leader() (leader int) {
	d.t.Helper()
	eventually(d.t, healLimit, "a node leads", func() bool {
		for _, n := range d.nodes(1) {
			if n.Leader {
				leader = int(n.ID)
			}
		}
		return leader != 0
	})
	return leader
}

// others are n nodes of four that are none of those named.
func others(n int, not ...int) (out []int) {
	for i := 1; i <= 4 && len(out) < n; i++ {
		if !slices.Contains(not, i) {
			out = append(out, i)
		}
	}
	return out
}

// TestNodeDeath: a node dies under load as if its machine had; the hosts of the
// others see a pause and nothing else. It comes back, copies what it missed, and
// nothing that was acknowledged is lost. Once it is the leader that dies.
func TestNodeDeath(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "256MiB", "--unsupervised")
	for _, c := range []struct {
		name  string
		whom  func() int
		limit time.Duration
	}{
		{"a node", func() int { return others(1, d.leader())[0] }, killStall},
		{"the leader", d.leader, leaderStall},
	} {
		dead := c.whom()
		seen := others(2, dead)
		l := d.loadOn(seen[0], seen[1])
		d.play("kill", dead)
		d.awaitHealth(seen[0], c.name+" is missed", func(h api.Health) bool { return h.State == "degraded" && h.Served == 100 })
		d.awaitServed(seen[0], 64) // while it is dead, and nobody waits for it any more
		l.flows()
		l.await(8)
		d.play("start", dead)
		l.await(4)
		r := l.finish()
		t.Logf("%s dead: longest stall %v", c.name, stall(r))
		if stall(r) > within(c.limit) {
			t.Errorf("%s dead: longest stall %v, want %v at most", c.name, stall(r), within(c.limit))
		}
		d.awaitHealthy()
	}
	d.wantWhole(1)
}

// TestSupervisedDeath: with a supervisor that sees the process end nobody waits
// for a lease; neither when it is one that was started again. Leases are so long here
// that who waits for one is told from who was held up by the machine.
func TestSupervisedDeath(t *testing.T) {
	const lease, limit = 8 * time.Second, 6 * time.Second
	d := startCluster(t, t.TempDir(), "--size", "256MiB", "--scale", fmt.Sprint(lease.Seconds()/2))
	dead := 0
	for range 2 {
		if dead != 0 {
			d.play("start", dead)
			d.awaitHealthy()
		}
		dead = others(1, d.leader())[0]
		seen := others(2, dead)
		l := d.loadOn(seen[0], seen[1])
		d.play("kill", dead)
		l.await(4)
		l.flows()
		r := l.finish()
		t.Logf("n%d dead: longest stall %v", dead, stall(r))
		if stall(r) > limit {
			t.Errorf("n%d dead: longest stall %v, want %v at most: a lease lasts %v", dead, stall(r), limit, lease)
		}
	}
}

// TestPausedNode: a node is stopped for three leases and goes on. Its own hosts
// find another path, the others a pause; whoever reads from it afterwards reads
// what is true (the load judges all reads, on both sides).
func TestPausedNode(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "256MiB", "--unsupervised")
	l := d.loadOn(1, 2) // a reader on each side
	d.play("pause", 2)
	l.await(24)
	d.play("resume", 2)
	l.await(8)
	l.flows()
	r := l.finish()
	t.Logf("longest stall %v, %d reconnects", stall(r), r.Disks[0].Reconnects)
	d.awaitHealthy()
	d.wantWhole(2)
}

// TestCutNode: a node is cut off from the others and not from its hosts: it
// drops them, they go on elsewhere.
func TestCutNode(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "256MiB")
	l := d.loadOn(1, 3)
	d.play("cut", 3)
	eventually(t, healLimit, "the node that is cut off drops its hosts", func() bool {
		st, err := d.clientOf(3).Status(context.Background())
		return err == nil && st.State == "suspended" && !st.Cluster.Lease && st.Portals[0].State == "closed"
	})
	d.awaitServed(1, 64)
	l.flows()
	l.await(8)
	d.play("heal", 3)
	l.await(8)
	l.flows()
	r := l.finish()
	t.Logf("longest stall %v, %d reconnects", stall(r), r.Disks[0].Reconnects)
	d.awaitHealthy()
	d.wantWhole(3)
}

// TestPowerLoss: all nodes are killed at once, under load, again and again.
func TestPowerLoss(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "256MiB")
	state := filepath.Join(t.TempDir(), "state")
	for round := range 3 {
		args := []string{"--state", state, "--block", []string{"4KiB", "64KiB", "4KiB"}[round]}
		if round == 0 {
			args = append(args, "--new")
		}
		l := d.loadOn(1, 3, args...)
		d.play("kill", 1, 2, 3, 4)
		l.finish()
		d.play("start", 1, 2, 3, 4)
		d.awaitHealthy()
		if o := d.petal("bench", d.urlAt(round+2), "--state", state, "--check", "--quiet"); o.status != 0 {
			t.Fatalf("round %d: status %d\n%s%s", round, o.status, o.stdout, o.stderr)
		}
	}
}

// TestNeighboursDown: with two nodes that are next to each other in the ring a
// quarter of the data is gone, and said so; the rest is served. They come back
// and all is there.
func TestNeighboursDown(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "256MiB", "--unsupervised")
	state := filepath.Join(t.TempDir(), "state")
	if o := d.petal("bench", d.url, "--new", "--state", state, "--time", "2s", "--quiet", "--size", "64MiB"); o.status != 0 {
		t.Fatalf("status %d\n%s", o.status, o.stderr)
	}
	// Of four nodes three vote; with the fourth and one of its neighbours dead
	// there is a majority.
	learner, _ := d.votes()
	first := int(learner[1] - '0')
	second := others(1, 1, first, (first+1)%4+1)[0] // the one opposite is no neighbour
	d.play("kill", first)
	d.awaitHealth(1, "one of four is down", func(h api.Health) bool {
		return h.State == "degraded" && h.Served == 100 && len(h.Risks) == 2 && h.Risks[0].Lost && h.Risks[1].Lost && len(h.Fix) > 0
	})
	d.play("kill", second)
	d.awaitHealth(1, "two neighbours are down", func(h api.Health) bool { return h.State == "unavailable" && h.Served == 75 })
	d.awaitServed(1, 48)
	d.play("start", first, second)
	d.awaitHealthy()
	d.awaitServed(2, 64)
	if o := d.petal("bench", d.urlAt(second), "--state", state, "--check", "--quiet"); o.status != 0 {
		t.Fatalf("status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}

// awaitServed waits until a node gives so many of the first 64 chunks.
func (d *demo) awaitServed(node, want int) {
	d.t.Helper()
	eventually(d.t, healLimit, fmt.Sprintf("n%d serves %d chunks of 64", node, want), func() bool { return d.served(node) == want })
}

// served is how many of the first 64 chunks a node gives.
func (d *demo) served(node int) int {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.URL{Host: d.portal(node), Target: "iqn.2026-11.petal:demo"}, initiator.Options{})
	if err != nil {
		return 0
	}
	defer s.Close()
	disk, err := initiator.OpenDisk(ctx, s)
	if err != nil {
		return 0
	}
	var good atomic.Int32
	var all sync.WaitGroup
	for chunk := range 64 {
		all.Go(func() {
			if disk.Read(ctx, uint64(chunk)*128, make([]byte, 64<<10)) == nil {
				good.Add(1)
			}
		})
	}
	all.Wait()
	return int(good.Load())
}

// wantWhole reads the whole disk through a node, with a short load before.
func (d *demo) wantWhole(node int) {
	d.t.Helper()
	if o := d.petal("bench", d.urlAt(node), "--verify", "--time", "500ms", "--quiet", "--size", "64MiB"); o.status != 0 {
		d.t.Errorf("through node %d: status %d\n%s%s", node, o.status, o.stdout, o.stderr)
	}
}

// TestPaths: discovery through any node names all of them, every node gives the
// same pages but for the ports, libiscsi's multipath tests pass over two, and who is
// logged in at one hears of a reset through another.
func TestPaths(t *testing.T) {
	need(t, "iscsi-test-cu", "libiscsi-bin")
	d := startCluster(t, t.TempDir(), "--size", "256MiB", "--scale", "3") // libiscsi would not survive a lapse
	for node := 1; node <= 4; node++ {
		out := must(t, runLimit, "iscsi-ls", "iscsi://"+d.portal(node))
		for other := 1; other <= 4; other++ {
			if want := fmt.Sprintf("%s,%d", d.portal(other), other); !strings.Contains(out, want) {
				t.Errorf("node %d does not tell of %s:\n%s", node, want, out)
			}
		}
	}
	for _, page := range []string{"0", "128", "176", "177", "178"} {
		first := must(t, runLimit, "iscsi-inq", "-e", "1", "-c", page, d.urlAt(1))
		if other := must(t, runLimit, "iscsi-inq", "-e", "1", "-c", page, d.urlAt(3)); other != first {
			t.Errorf("page %s differs:\n%s\n%s", page, first, other)
		}
	}
	for _, suite := range []string{"MultipathIO.Simple", "MultipathIO.CompareAndWrite", "MultipathIO.CompareAndWriteAsync", "CompareAndWrite", "ProutPreempt"} {
		out := must(t, runLimit, "iscsi-test-cu", "--dataloss", "--normal", "--test=ALL."+suite, d.urlAt(2), d.urlAt(3))
		if m := summary.FindStringSubmatch(out); m == nil || m[1] != m[2] || m[1] == "0" {
			t.Errorf("%s:\n%s", suite, out)
		}
	}
	a, b, ctx := d.disk(2), d.disk(3), context.Background()
	if code, err := a.Session.Manage(ctx, iscsi.LogicalUnitReset, a.LUN); err != nil || code != iscsi.TaskFunctionComplete {
		t.Errorf("reset: %v, %v", code, err)
	}
	eventually(t, healLimit, "who is logged in at n3 hears of the reset at n2", func() bool {
		probe := initiator.Task{LUN: b.LUN, CDB: initiator.TestUnitReady()}
		b.Session.Do(ctx, &probe)
		sense, ok := scsi.ParseSense(probe.Sense)
		return ok && sense.Key == scsi.KeyUnitAttention && sense.Code == scsi.CodeBusDeviceReset
	})
}

// TestMembership: tokens that are wrong or used up, a node that is removed, and
// what a node says that has lost the others.
func TestMembership(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "256MiB")
	ctx := context.Background()
	token, err := d.client().CreateToken(ctx, api.NewToken{})
	if err != nil {
		t.Fatal(err)
	}
	join := func(token string, node int) outcome {
		return run(t, runLimit, binary, "node", "join", "--dir", filepath.Join(t.TempDir(), "n"), "--name", fmt.Sprintf("n%d", node),
			"--listen", fmt.Sprintf("127.0.1.%d:%d", node, d.port), "--token", token)
	}
	if o := join("nonsense", 5); o.status == 0 || !strings.Contains(o.stderr, "hint: ") {
		t.Errorf("a token that is none: status %d\n%s", o.status, o.stderr)
	}
	if o := join(token.Token, 5); o.status != 0 {
		t.Fatalf("join: status %d\n%s", o.status, o.stderr)
	}
	if o := join(token.Token, 6); o.status == 0 || !strings.Contains(o.stderr, "used") {
		t.Errorf("a token for one, used twice: status %d\n%s", o.status, o.stderr)
	}
	if o := d.petal("node", "remove", "n9"); o.status != 5 {
		t.Errorf("removing what is not there: status %d\n%s", o.status, o.stderr)
	}
	// Without the others there is no quorum: said within 2 s, and nothing is done.
	d.play("kill", 2, 3, 4)
	eventually(t, healLimit, "the node misses the others", func() bool { return !d.status().Cluster.Quorum })
	began := time.Now()
	o := d.petal("disk", "create", "late", "--size", "1GiB")
	if took := time.Since(began); o.status != 7 || took > within(2*time.Second) || !strings.Contains(o.stderr, "no quorum") {
		t.Errorf("without quorum: status %d after %v\n%s", o.status, took, o.stderr)
	}
	d.play("start", 2, 3, 4)
	d.awaitHealthy()
	if o := d.petal("disk", "list"); strings.Contains(o.stdout, "late") {
		t.Errorf("the disk that was refused is there:\n%s", o.stdout)
	}
	if o := d.petal("events"); o.status != 0 || len(strings.Split(o.stdout, "\n")) < 8 {
		t.Errorf("events: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}
