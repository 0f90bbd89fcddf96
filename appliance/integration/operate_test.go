package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"petal/appliance/api"
)

// What an operator does to a cluster, and what it answers: on real processes, by
// the command line.

// at runs a command of the binary against a node.
func (d *demo) at(node int, args ...string) outcome {
	d.t.Helper()
	return run(d.t, runLimit, binary, append(args, "--admin", filepath.Join(d.dir, fmt.Sprintf("n%d", node), "admin.sock"))...)
}

// refuses runs a command that has to fail, with words that say why.
func (d *demo) refuses(node, status int, words []string, args ...string) {
	d.t.Helper()
	o := d.at(node, args...)
	if o.status != status {
		d.t.Errorf("petal %v: status %d, want %d\n%s%s", args, o.status, status, o.stdout, o.stderr)
	}
	for _, w := range append(words, "hint: ") {
		if !strings.Contains(o.stderr, w) {
			d.t.Errorf("petal %v does not say %q:\n%s", args, w, o.stderr)
		}
	}
}

// links are the links by number, as a node sees them.
func (d *demo) links(node int) map[string]api.Link {
	d.t.Helper()
	list, err := d.clientOf(node).Links(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	out := map[string]api.Link{}
	for _, l := range list {
		out[l.ID] = l
	}
	return out
}

// linkOf finds the link of two neighbours.
func (d *demo) linkOf(a, b int) api.Link {
	d.t.Helper()
	for _, l := range d.links(1) {
		if slices.Equal(l.Nodes, []string{fmt.Sprintf("n%d", a), fmt.Sprintf("n%d", b)}) {
			return l
		}
	}
	d.t.Fatalf("no link of n%d and n%d: %+v", a, b, d.links(1))
	return api.Link{}
}

// told waits for an event that has all words in it.
func (d *demo) told(node int, words ...string) {
	d.t.Helper()
	eventually(d.t, healLimit, fmt.Sprintf("an event with %q", words), func() bool {
		o := d.at(node, "events")
		return slices.ContainsFunc(strings.Split(o.stdout, "\n"), func(line string) bool {
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
		})
	})
}

// TestForce is the last resort. n4 dies; n3, alone, takes writes and dies too; n4
// comes back. What only n3 has is not served, and it is said what would serve it
// and what would be lost. Forced, the old copy is served, and n3 gets all of it
// anew when it returns.
func TestForce(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "256MiB")
	link := d.linkOf(3, 4)
	write := func(node int, text string) {
		t.Helper()
		disk := d.disk(node)
		for chunk := range uint64(16) {
			patiently(t, func() error { return disk.Write(context.Background(), chunk*128, blockOf(text)) })
		}
	}
	write(1, "seen by both")
	d.refuses(1, 5, []string{"it is whole", "nothing needs to be forced"}, "link", "force", link.ID, "--node", "n3", "--accept-loss")
	d.play("kill", 4)
	eventually(t, healLimit, "n4 is missed", func() bool { return slices.Equal(d.linkOf(3, 4).InSync, []string{"n3"}) })
	write(1, "seen by n3 alone")
	degraded := d.linkOf(3, 4)
	if degraded.State != "degraded" || degraded.Since == nil || degraded.Head != "n3" {
		t.Errorf("n4 is dead: %+v", degraded)
	}
	d.refuses(1, 5, []string{"n3 has all its data"}, "link", "force", link.ID, "--node", "n4", "--accept-loss")
	d.play("kill", 3)
	d.play("start", 4)
	eventually(t, healLimit, "nobody serves the link", func() bool { return d.linkOf(3, 4).State == "unavailable" && d.health(1).Served == 75 })
	if o := d.at(1, "link", "list"); !strings.Contains(o.stdout, "unavailable for ") {
		t.Errorf("link list:\n%s", o.stdout)
	}
	advice := fmt.Sprintf("`petal link force %s --node n4 --accept-loss` loses the writes since %s", link.ID, degraded.Since.Local().Format(time.DateTime))
	if o := d.at(1, "cluster", "status"); o.status != 1 || !strings.Contains(o.stdout, advice) || !strings.Contains(o.stdout, "is served again as soon as n3 is up") {
		t.Errorf("cluster status does not say %q:\n%s", advice, o.stdout)
	}
	d.refuses(1, 2, []string{"loses the writes"}, "link", "force", link.ID, "--node", "n4")
	d.refuses(1, 5, []string{"holds nothing"}, "link", "force", link.ID, "--node", "n1", "--accept-loss")
	eventually(t, healLimit, "n3 is surely dead", func() bool {
		return d.at(1, "link", "force", link.ID, "--node", "n4", "--accept-loss").status == 0
	})
	d.told(1, "loss", "was forced to server n4", "admin socket of n1", "only n3 had are lost", degraded.Since.UTC().Format("2006-01-02 15:04:05"))
	eventually(t, healLimit, "all is served", func() bool { return d.health(1).Served == 100 })
	if got := d.read(1); got["seen by both"] != 4 || got["seen by n3 alone"] != 12 {
		t.Errorf("with the old copy of a quarter: %v", got)
	}
	write(1, "after the loss")
	d.play("start", 3)
	d.awaitHealthy()
	for node := range 4 { // whichever copy is asked
		if got := d.read(node + 1); got["after the loss"] != 16 {
			t.Errorf("through n%d: %v", node+1, got)
		}
	}
	d.told(1, "n3 takes part in link "+link.ID+" again")
}

// TestWithoutQuorum: a node that has lost the others says so within 2 s to
// whatever would change something, answers what it can, with a warning, and takes
// nothing.
func TestWithoutQuorum(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "64MiB")
	if o := d.at(1, "target", "create", "iqn.2026-11.petal:other"); o.status != 0 {
		t.Fatalf("status %d\n%s", o.status, o.stderr)
	}
	d.play("cut", 1)
	eventually(t, healLimit, "the node misses the others", func() bool { return !d.status().Cluster.Quorum })
	for _, args := range [][]string{
		{"disk", "create", "late", "--size", "1GiB"}, {"disk", "resize", "demo", "128MiB"}, {"disk", "delete", "demo"}, {"disk", "set", "demo", "--read-only", "yes"},
		{"target", "create", "iqn.2026-11.petal:late"}, {"target", "delete", "iqn.2026-11.petal:other"}, {"target", "acl", "iqn.2026-11.petal:other", "--add", "iqn.2026-11.petal:me"},
		{"target", "map", "iqn.2026-11.petal:other", "demo"}, {"cluster", "token"}, {"node", "remove", "n4"},
	} {
		began := time.Now()
		d.refuses(1, 7, []string{"no quorum"}, args...)
		if took := time.Since(began); took > within(2500*time.Millisecond) {
			t.Errorf("petal %v: an answer after %v", args, took)
		}
	}
	for _, args := range [][]string{{"node", "list"}, {"link", "list"}, {"disk", "list"}, {"disk", "show", "demo"}, {"events"}, {"target", "list"}, {"session", "list"}} {
		if o := d.at(1, args...); o.status != 0 || !strings.Contains(o.stderr, "no quorum: what it says of the cluster may be old") || o.stdout == "" {
			t.Errorf("petal %v: status %d\n%s%s", args, o.status, o.stdout, o.stderr)
		}
		if o := d.at(1, append(args, "--json")...); o.status != 0 || !json.Valid([]byte(o.stdout)) {
			t.Errorf("petal %v --json: status %d\n%s", args, o.status, o.stdout)
		}
	}
	if o := d.at(1, "status"); o.status != 1 || !strings.Contains(o.stdout, "problem  no quorum") || !strings.Contains(o.stdout, "state    suspended") {
		t.Errorf("status: status %d\n%s", o.status, o.stdout)
	}
	eventually(t, healLimit, "a node with quorum knows that it is down", func() bool {
		o := d.at(2, "node", "list")
		return o.status == 0 && o.stderr == "" && strings.Contains(o.stdout, "down for")
	})
	d.play("heal", 1)
	d.awaitHealthy()
	o := d.at(1, "disk", "list")
	if p := d.at(1, "target", "list"); strings.Contains(o.stdout+p.stdout, "late") || !strings.Contains(p.stdout, "petal:other") {
		t.Errorf("something refused was done:\n%s%s", o.stdout, p.stdout)
	}
}

// TestRemove: what may be taken out of a cluster and what not, with what would be
// lost and the way out; what is left of a node that was taken out; tokens that do
// not count.
func TestRemove(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "64MiB", "--set", `time.replace="10s"`)
	d.refuses(1, 5, []string{"n4", "copies of disks demo", "stop it", "new disks are made without it"}, "node", "remove", "n4")
	token, err := d.client().CreateToken(context.Background(), api.NewToken{Seconds: 1})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, healLimit, "the token expires", func() bool { return time.Now().After(token.Expires) })
	d.refusesJoin(token.Token, "expired")
	d.refusesJoin("petal-join-nonsense", "token")
	learner, voter := d.votes()
	dead := int(voter[1] - '0')
	d.play("kill", dead)
	neighbour := fmt.Sprintf("n%d", dead%4+1)
	eventually(t, healLimit, neighbour+" has the only copy", func() bool {
		return strings.Contains(d.at(1, "node", "remove", neighbour).stderr, "last copy of ")
	})
	d.refuses(1, 5, []string{"last copy of ", "data of disks demo would be lost"}, "node", "remove", neighbour)
	// Down for [time] replace, it loses its vote to the learner, so that one more may fail.
	d.told(1, "voter", "server "+learner+" votes")
	eventually(t, healLimit, voter+" votes no more", func() bool {
		return slices.ContainsFunc(d.nodes(1), func(n api.Node) bool { return n.Name == voter && n.Vote != "voter" })
	})
	if o := d.at(1, "disk", "delete", "demo", "--force"); o.status != 0 {
		t.Fatalf("disk delete: status %d\n%s", o.status, o.stderr)
	}
	if o := d.at(1, "node", "remove", voter); o.status != 0 {
		t.Fatalf("node remove: status %d\n%s", o.status, o.stderr)
	}
	eventually(t, healLimit, voter+" is forgotten", func() bool { return len(d.nodes(1)) == 3 })
	d.told(1, "server "+voter+" is no longer a member")
	o := run(t, runLimit, binary, "demo", "start", "--dir", d.dir, strconv.Itoa(dead))
	if o.status == 0 || !strings.Contains(o.stderr, "no member of the cluster any more") || !strings.Contains(o.stderr, "hint: ") {
		t.Errorf("a node that was taken out: status %d\n%s\n%s", o.status, o.stderr, ends(d.logOf(dead)))
	}
}

// votes waits until three of four vote, and names the one that does not, and one
// that does, is not the first and does not lead.
func (d *demo) votes() (learner, voter string) {
	d.t.Helper()
	eventually(d.t, healLimit, "three of four vote", func() bool {
		learner, voter = "", ""
		for _, n := range d.nodes(1) {
			switch {
			case n.Vote == "learner":
				learner = n.Name
			case n.Vote == "voter" && !n.Leader && !n.Self:
				voter = n.Name
			}
		}
		return learner != "" && voter != ""
	})
	return learner, voter
}

func (d *demo) nodes(node int) []api.Node {
	d.t.Helper()
	list, err := d.clientOf(node).Nodes(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

func (d *demo) refusesJoin(token string, word string) {
	d.t.Helper()
	dir := filepath.Join(d.t.TempDir(), "n")
	o := run(d.t, runLimit, binary, "node", "join", "--dir", dir, "--name", "n9", "--listen", fmt.Sprintf("127.0.1.9:%d", d.port), "--token", token)
	if o.status == 0 || !strings.Contains(o.stderr, word) || !strings.Contains(o.stderr, "hint: ") {
		d.t.Errorf("join with a token that should be refused (%s): status %d\n%s", word, o.status, o.stderr)
	}
}

// TestOldState is R14: what was put back from a backup is found out. An agreed
// state that is older than the bricks is refused; a brick that is older than the
// state counts as empty and is filled from its neighbours, and that is said.
func TestOldState(t *testing.T) {
	dir := t.TempDir()
	d := startCluster(t, dir, "--size", "64MiB")
	state := filepath.Join(t.TempDir(), "state")
	load := func(args ...string) {
		t.Helper()
		if o := d.petal(append([]string{"bench", d.url, "--state", state, "--quiet"}, args...)...); o.status != 0 {
			t.Fatalf("bench %v: status %d\n%s%s", args, o.status, o.stdout, o.stderr)
		}
	}
	copyTree := func(from, to string) {
		t.Helper()
		os.RemoveAll(to)
		must(t, runLimit, "cp", "-a", "--sparse=always", from, to)
	}
	path := func(node int, what string) string { return filepath.Join(dir, fmt.Sprintf("n%d", node), what) }
	load("--new", "--time", "300ms")
	d.play("kill", 3)
	copyTree(path(3, "brick"), path(3, "brick.old"))
	d.play("start", 3)
	d.awaitHealthy()
	load("--time", "300ms")
	d.play("kill", 3)
	copyTree(path(3, "brick.old"), path(3, "brick"))
	d.play("start", 3)
	d.told(1, "n3", "older")
	d.awaitHealthy()
	load("--check")
	if o := d.petal("bench", d.urlAt(3), "--state", state, "--check", "--quiet"); o.status != 0 {
		t.Errorf("through the node whose brick was old: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	// Its disk is replaced by an empty one: not unless it is said that it is meant.
	d.play("kill", 3)
	if err := os.RemoveAll(path(3, "brick")); err != nil {
		t.Fatal(err)
	}
	if o := run(t, runLimit, binary, "demo", "start", "--dir", dir, "3"); o.status == 0 || !strings.Contains(o.stderr, "has kept its data there before") || !strings.Contains(o.stderr, "--accept-loss") {
		t.Errorf("without its brick: status %d\n%s", o.status, o.stderr)
	}
	serve := command(t, binary, "serve", "--config", path(3, "petal.toml"), "--accept-loss")
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { serve.Wait(); close(ended) }()
	eventually(t, healLimit, "n3 serves with an empty brick", func() bool {
		st, err := d.clientOf(3).Status(context.Background())
		return err == nil && st.Cluster.Lease
	})
	d.awaitHealthy()
	if o := d.petal("bench", d.urlAt(3), "--state", state, "--check", "--quiet"); o.status != 0 {
		t.Errorf("through the node whose brick was empty: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	// What it was given is enough to do without its neighbours: each in turn is dead.
	for _, neighbour := range []int{2, 4} {
		d.play("kill", neighbour)
		eventually(t, healLimit, "the neighbour is missed", func() bool { return d.health(1).State == "degraded" })
		load("--check")
		d.play("start", neighbour)
		d.awaitHealthy()
	}
	serve.Process.Signal(syscall.SIGTERM)
	<-ended
	d.play("start", 3)
	d.awaitHealthy()
	d.stop()
	// All agreed states from before one more start.
	for node := 1; node <= 4; node++ {
		copyTree(path(node, "meta"), path(node, "meta.old"))
	}
	d = startCluster(t, dir)
	d.awaitHealthy()
	d.stop()
	for node := 1; node <= 4; node++ {
		copyTree(path(node, "meta"), path(node, "meta.new"))
		copyTree(path(node, "meta.old"), path(node, "meta"))
	}
	o := run(t, runLimit, binary, "demo", "--dir", dir, "--exec", "true")
	if o.status == 0 || !strings.Contains(o.stderr, "older") || !strings.Contains(o.stderr, "hint: ") {
		t.Errorf("an agreed state that is older than the bricks: status %d\n%s", o.status, o.stderr)
	}
	for node := 1; node <= 4; node++ {
		copyTree(path(node, "meta.new"), path(node, "meta"))
	}
	d = startCluster(t, dir)
	d.awaitHealthy()
	load("--check")
}

// TestStrangers: a node with the certificate of another cluster, and two with one
// identity. Nobody is disturbed, and it is said.
func TestStrangers(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "64MiB")
	other := startCluster(t, t.TempDir(), "--size", "64MiB")
	tls := func(d *demo, node int) string { return filepath.Join(d.dir, fmt.Sprintf("n%d", node), "tls") }
	other.stop()
	d.play("kill", 3)
	must(t, runLimit, "cp", "-a", tls(d, 3), tls(d, 3)+".own")
	must(t, runLimit, "sh", "-c", `rm -r "$2" && cp -a "$1" "$2"`, "sh", tls(other, 3), tls(d, 3))
	if o := run(t, runLimit, binary, "demo", "start", "--dir", d.dir, "3"); o.status == 0 || !strings.Contains(o.stderr, "certificate") || !strings.Contains(o.stderr, "hint: ") {
		t.Errorf("a node with another cluster's certificate: status %d\n%s\n%s", o.status, o.stderr, ends(d.logOf(3)))
	}
	must(t, runLimit, "sh", "-c", `rm -r "$1" && mv "$1.own" "$1"`, "sh", tls(d, 3))
	d.play("start", 3)
	d.awaitHealthy()
	// A copy of n3 on another machine: the newer process is the server, and the
	// older one says that it no longer is.
	twin := filepath.Join(t.TempDir(), "n3")
	must(t, runLimit, "cp", "-a", "--sparse=always", filepath.Join(d.dir, "n3"), twin)
	file := filepath.Join(twin, "petal.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.NewReplacer(filepath.Join(d.dir, "n3"), twin, "127.0.0.3:", "127.0.0.7:", "127.0.1.3:", "127.0.1.7:").Replace(string(text)))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(twin, "pid"))
	cmd := command(t, binary, "serve", "--config", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, healLimit, "the older one says why it serves nothing", func() bool {
		o := d.at(3, "status")
		return o.status == 1 && strings.Contains(o.stdout, "another process runs with this node's identity") && strings.Contains(o.stdout, "state    suspended")
	})
	eventually(t, healLimit, "the newer one serves", func() bool {
		st, err := api.NewClient(filepath.Join(twin, "admin.sock")).Status(context.Background())
		return err == nil && st.Cluster.Lease
	})
	l := d.loadOn(1, 2)
	l.await(8)
	l.finish()
	cmd.Process.Signal(syscall.SIGKILL)
}

// TestCertificates: with certificates that last a few seconds a cluster outlives
// them, and so does a node that was off when its own ended.
func TestCertificates(t *testing.T) {
	const life = 15 * time.Second
	d := startCluster(t, t.TempDir(), "--size", "64MiB", "--set", `cluster.certificate_life="15s"`)
	d.play("kill", 2)
	off := time.Now()
	eventually(t, healLimit, "n3's certificate is renewed", func() bool { return strings.Contains(d.logOf(3), "certificate renewed") })
	eventually(t, healLimit, "n2's certificate is over", func() bool { return time.Since(off) > life })
	d.play("kill", 4) // connections are made anew, with the certificates of now
	d.play("start", 2, 4)
	d.awaitHealthy()
	for _, node := range []int{2, 4} {
		eventually(t, healLimit, fmt.Sprintf("n%d renews its certificate", node), func() bool { return strings.Contains(d.logOf(node), "certificate renewed") })
	}
	d.wantWhole(2)
}

// TestTooFewServers: a scheme that the servers do not suffice for.
func TestTooFewServers(t *testing.T) {
	d := startDemo(t, t.TempDir(), "--size", "64MiB")
	d.refuses(1, 5, []string{`scheme mirror`, "2 servers", "there are 1", "join"}, "disk", "create", "x", "--size", "1GiB", "--scheme", "mirror")
	d.refuses(1, 2, []string{`"raid5"`, "stripe, mirror"}, "disk", "create", "x", "--size", "1GiB", "--scheme", "raid5")
	d.refuses(1, 5, []string{"last one", "disks would be lost"}, "node", "remove", "n1")
}

// TestThreeCopies: a disk of three copies is served whole with any two nodes dead,
// and says what a third would do; they come back and have all of it.
func TestThreeCopies(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "64MiB")
	state := filepath.Join(t.TempDir(), "state")
	if o := d.at(1, "disk", "create", "three", "--size", "64MiB", "--scheme", "mirror3"); o.status != 0 {
		t.Fatalf("status %d\n%s", o.status, o.stderr)
	}
	bench := func(node int, args ...string) {
		t.Helper()
		url := "iscsi://" + d.portal(node) + "/iqn.2026-11.petal:three/0"
		if o := d.petal(append([]string{"bench", url, "--state", state, "--quiet"}, args...)...); o.status != 0 {
			t.Fatalf("bench %v: status %d\n%s%s", args, o.status, o.stdout, o.stderr)
		}
	}
	health := func() api.Health {
		disk, err := d.client().Disk(context.Background(), "three")
		if err != nil {
			t.Fatal(err)
		}
		return disk.Health
	}
	bench(2, "--new", "--time", "500ms")
	learner, voter := d.votes()
	a, b := int(learner[1]-'0'), int(voter[1]-'0')
	d.play("kill", a)
	eventually(t, healLimit, "the first is missed", func() bool { return health().State == "degraded" })
	bench(1, "--time", "500ms")
	d.play("kill", b)
	eventually(t, healLimit, "both are missed, and all is served", func() bool {
		h := health()
		return len(h.Why) == 2 && h.State == "degraded" && h.Served == 100 && len(h.Risks) > 0
	})
	bench(1, "--time", "500ms")
	d.play("start", a, b)
	eventually(t, healLimit, "all copies are whole", func() bool { return health().State == "healthy" })
	for node := 1; node <= 4; node++ {
		bench(node, "--check")
	}
}
