package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petal/target/initiator/load"
)

func TestParse(t *testing.T) {
	o, err := parse([]string{"-petal", "bin/petal", "-time", "3s"})
	if err != nil || o.petal != "bin/petal" || o.time != 3*time.Second || o.rounds < 3 {
		t.Errorf("as make bench calls it: %+v, %v", o, err)
	}
	for _, args := range []string{"-size 1000", "-rounds 0", "-time -1s", "-size 0", "10s", "-no-such-flag"} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

func TestPairs(t *testing.T) {
	o, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	list := pairs(o)
	if len(list) != 3 || list[0].WriteBack || !list[1].WriteBack || list[0].Peer != "tgtd" || list[2].Peer != "gotgt" {
		t.Errorf("pairs: %+v", list)
	}
	o.only = "write-through"
	if list = pairs(o); len(list) != 1 || list[0].WriteBack {
		t.Errorf("only write-through: %+v", list)
	}
	if o, err = parse([]string{"-nodes", "4"}); err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, p := range pairs(o) {
		if !strings.HasPrefix(p.Subject, "cluster") || !strings.Contains(p.Name, p.Subject) || !strings.Contains(p.Name, p.Peer) {
			t.Errorf("pair of a cluster: %+v", p)
		}
		if p.Held {
			held++
		}
	}
	if held != 1 {
		t.Errorf("%d pairs with CPU budgets, want the one with a dead node", held)
	}
	for _, n := range []string{"0", "2", "17"} { // with three nodes, one dead and the other two would be neighbours of it
		if _, err := parse([]string{"-nodes", n}); err == nil {
			t.Errorf("--nodes %s is taken", n)
		}
	}
}

// A CPU budget is made of files of one of two kinds, or is refused with a reason;
// for a process that is not there no group is left behind.
func TestHold(t *testing.T) {
	mounts := map[string]string{
		"v1":         "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n",
		"hybrid":     "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n",
		"v2":         "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
		"no control": "cgroup2 /elsewhere cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n",
		"none":       "proc /proc proc rw 0 0\nshort\n",
	}
	for name, want := range map[string]cpuGroups{"v1": {root: "/sys/fs/cgroup/cpu,cpuacct"}, "hybrid": {root: "/sys/fs/cgroup/cpu"}, "v2": {root: "/sys/fs/cgroup", v2: true}} {
		got, err := findGroups(mounts[name], controllersOf)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"no control", "none"} {
		if _, err := findGroups(mounts[name], controllersOf); err == nil || !strings.Contains(err.Error(), "--only") {
			t.Errorf("%s: %v", name, err)
		}
	}
	root := t.TempDir()
	if _, err := (cpuGroups{root: root}).hold(root+"/no pid", "nobody", 1); err == nil {
		t.Error("no error without a process")
	}
	if left, _ := os.ReadDir(root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// A plain directory takes the files as a control group would.
	pid := filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(pid, []byte("4711\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, g := range []cpuGroups{{root: root}, {root: root, v2: true}} {
		if _, err := g.hold(pid, "some", 0.125); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"some/cpu.cfs_quota_us": "3125", "some/cpu.cfs_period_us": "25000", "some/cpu.max": "3125 25000", "some/cgroup.procs": "4711", "cgroup.subtree_control": "+cpu"} {
		if got, _ := os.ReadFile(filepath.Join(root, name)); string(got) != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func controllersOf(root string) string {
	if root == "/sys/fs/cgroup" {
		return "cpuset cpu io\n"
	}
	return "cpuset io\n"
}

// Verdicts are drawn from the right jobs, and a figure that is too high is said to
// be.
func TestVerdicts(t *testing.T) {
	job := func(j load.Job, ours, other load.JobOnDisk, ratio float64) load.JobResult {
		j.Name = j.Describe()
		return load.JobResult{Job: j, Disks: []load.JobOnDisk{ours, other}, Ratios: []load.RatioToDisk{{IOPS: ratio}}}
	}
	write := func(p50, cpu float64) load.JobOnDisk {
		return load.JobOnDisk{Write: load.Latency{P50: p50}, CPUPerIO: cpu}
	}
	standard := &load.Result{Jobs: []load.JobResult{
		job(load.Job{BlockSize: 4096, Depth: 1}, write(700, 0), write(500, 0), 1),
		job(load.Job{BlockSize: 4096, Depth: 32}, write(0, 160), write(0, 30), 1),
		job(load.Job{BlockSize: 4096, Depth: 32, ReadPercent: 100}, write(0, 999), write(0, 30), 1),
		job(load.Job{BlockSize: 65536, Depth: 32}, write(0, 999), write(0, 30), 1),
	}}
	held := &load.Result{Jobs: []load.JobResult{
		job(load.Job{BlockSize: 4096, Depth: 4, Sessions: 12, ReadPercent: 100}, write(0, 0), write(0, 0), 0.70),
		job(load.Job{BlockSize: 65536, Depth: 1, Sessions: 12, ReadPercent: 100}, write(0, 0), write(0, 0), 0.60),
		job(load.Job{BlockSize: 4096, Depth: 4, Sessions: 12}, write(0, 0), write(0, 0), 1),
	}}
	for _, c := range []struct {
		p    pair
		want []string // beginnings, ends
	}{
		{pair{Subject: "petal", Peer: "tgtd", Result: standard}, nil},
		{pair{Subject: "cluster", Peer: "petal"}, nil},
		{pair{Subject: "cluster", Peer: "petal", Result: standard}, []string{"latency that the cluster adds", "200 us (wanted 150 us at most): MISSED", "CPU of a 4 KiB write", "with TLS: 160 us (wanted 180 us at most; petal: 30 us): met"}},
		{pair{Subject: "cluster-plain", Peer: "tgtd", Result: standard}, []string{"CPU of a 4 KiB write", "160 us (wanted 150 us at most; tgtd: 30 us): MISSED"}},
		{pair{Subject: "cluster-dead", Peer: "cluster", Held: true, Result: held}, []string{
			"4k random read", "93 % of the ideal 75 % (wanted 85 %): met", "64k random read", "80 % of the ideal 75 % (wanted 85 %): MISSED", "4k random write", "(each write has one copy less to make)"}},
	} {
		got := c.p.verdicts(4)
		if 2*len(got) != len(c.want) {
			t.Errorf("%s / %s: %q", c.p.Subject, c.p.Peer, got)
			continue
		}
		for i, line := range got {
			if !strings.HasPrefix(line, c.want[2*i]) || !strings.HasSuffix(line, c.want[2*i+1]) {
				t.Errorf("%s / %s: %q", c.p.Subject, c.p.Peer, line)
			}
		}
	}
}

func TestTables(t *testing.T) {
	result := &load.Result{Jobs: []load.JobResult{
		{
			Job:    load.Job{Name: "4k random read, depth 1"},
			Disks:  []load.JobOnDisk{{IOPS: 30000, CPUPerIO: 10, Read: load.Latency{P50: 20, P99: 40, Max: 90}}, {IOPS: 15000, CPUPerIO: 40, Read: load.Latency{P50: 50, P99: 400, Max: 900}}},
			Ratios: []load.RatioToDisk{{Disk: 1, IOPS: 2.01, CPU: 0.25}},
		},
		{
			Job:    load.Job{Name: "mix"},
			Disks:  []load.JobOnDisk{{Read: load.Latency{P50: 1, Max: 1}, Write: load.Latency{P50: 2, Max: 2}}, {}},
			Ratios: []load.RatioToDisk{{Disk: 1}},
		},
	}}
	list := []*pair{
		{Name: "write-through: petal / tgtd", Subject: "petal", Peer: "tgtd", Notes: []string{"seen"}, Result: result},
		{Name: "write-back: petal / gotgt", Peer: "gotgt", Left: "it is not there"},
	}
	var b strings.Builder
	if err := writeTables(&b, &options{subject: "petal", time: time.Second, rounds: 3, size: 1 << 30}, []string{"a machine"}, list); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a machine.",
		"### write-through: petal / tgtd\n\nseen.\n\n| job | petal IOPS | tgtd IOPS | ratio |",
		"| 4k random read, depth 1 | 30000 | 15000 | **2.01** | 20 / 40 us | 50 / 400 us | 10.0 us | 40.0 us | 0.25 |",
		"r 1 / 0 us, w 2 / 0 us",
		"Not measured: it is not there",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// A server that does not come up is an error with what it said, not a hang.
func TestServerThatDoesNotStart(t *testing.T) {
	o, err := parse([]string{"-gotgt", "/bin/false", "-petal", "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"petal", "gotgt", "no such server"} {
		s := &setting{options: o, dir: t.TempDir(), port: 1, writeBack: true}
		if v, err := start(context.Background(), name, s); err == nil {
			v.stop()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestGotgtIsNotTakenForWriteThrough(t *testing.T) {
	o, err := parse([]string{"-gotgt", "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := start(context.Background(), "gotgt", &setting{options: o, dir: t.TempDir(), port: 1}); err == nil || !strings.Contains(err.Error(), "write cache") {
		t.Errorf("error is %v", err)
	}
}
