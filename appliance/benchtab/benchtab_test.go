package main

import (
	"context"
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

// A CPU budget for a process that is not there leaves no control group behind.
func TestHoldNobody(t *testing.T) {
	if _, err := hold(t.TempDir()+"/pid", "petal-bench-nobody", 1); err == nil {
		t.Error("no error")
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
