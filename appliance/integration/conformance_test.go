package integration

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"petal/appliance/api"
)

// TestConformance runs libiscsi's iscsi-test-cu, all tests of family ALL, against
// a node with two portals. (Package target runs it against a disk in memory;
// here the disk is durable.) Each worker uses one disk again and again. What does
// not pass is listed with its reason in target/testdata/libiscsi-skips.txt.
func TestConformance(t *testing.T) {
	need(t, "iscsi-test-cu", "libiscsi-bin")
	conformance(t, startNode(t, ""))
}

// TestConformanceOfFour runs it against two nodes of four, on mirrored disks.
func TestConformanceOfFour(t *testing.T) {
	need(t, "iscsi-test-cu", "libiscsi-bin")
	d := startCluster(t, t.TempDir(), "--size", "64MiB", "--scale", "3") // libiscsi would not survive a lapse
	conformance(t, &node{dir: filepath.Join(d.dir, "n2"), portals: [2]string{d.portal(2), d.portal(3)}})
}

func conformance(t *testing.T, n *node) {
	before, err := n.client().Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	tests, exceptions := listTests(t), readExceptions(t)
	if len(tests) < 230 {
		t.Errorf("iscsi-test-cu lists %d tests, want at least 230", len(tests))
	}
	if _, err := n.client().CreateDisk(context.Background(), api.NewDisk{Name: disk4Kn, Size: 1 << 30, BlockSize: 4096}); err != nil {
		t.Fatal(err)
	}
	queue := make(chan string)
	var workers sync.WaitGroup
	for w := range 4 {
		disk := fmt.Sprintf("disk%d", w)
		n.createDisk(t, disk, 1<<30)
		workers.Go(func() {
			for name := range queue {
				t.Run(name, func(t *testing.T) { n.conform(t, disk, name, exceptions[name]) })
			}
		})
	}
	for _, name := range tests {
		queue <- name
	}
	close(queue)
	workers.Wait()
	eventually(t, healLimit, "the node is well", func() bool { return n.status(t).State == "ok" })
	if st := n.status(t); st.Incarnation != before.Incarnation {
		t.Errorf("the node has started anew: %+v", st)
	}
}

// disk4Kn is for the test that needs logical blocks as large as physical ones.
const disk4Kn = "disk4kn"

const conformLimit = 2 * time.Minute

// conform runs one test; want is "skips", "fails" or empty for one that passes.
func (n *node) conform(t *testing.T, disk, name, want string) {
	pattern, count := name, "1"
	switch {
	case name == "GetLBAStatus.UnmapSingle":
		disk = disk4Kn
	case strings.HasPrefix(name, "MultipathIO.CompareAndWrite"):
		// It clears 256 blocks and compares 257.
		disk = strings.ToLower(strings.ReplaceAll(name, ".", "-"))
		n.createDisk(t, disk, 1<<30)
	case name == "iSCSITMF.LUNResetSimpleAsync":
		pattern, count = "iSCSITMF", "2" // it needs a variable that the test before it sets
	}
	readOnly := strings.HasPrefix(name, "ReadOnly.")
	if _, err := n.client().ChangeDisk(context.Background(), disk, api.DiskChange{ReadOnly: &readOnly}); err != nil {
		t.Fatal(err)
	}
	path := "/iqn.2026-11.petal:" + disk + "/0"
	args := []string{"--dataloss", "--allow-sanitize", "--normal", "--test=ALL." + pattern, "iscsi://" + n.portals[0] + path}
	switch {
	case name == "MultipathIO.Reset":
		// It wants the other path to know of the reset at once. Another node does a
		// little later: see TestPaths.
		args = append(args, args[len(args)-1])
	case strings.HasPrefix(name, "MultipathIO."):
		args = append(args, "iscsi://"+n.portals[1]+path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), conformLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "iscsi-test-cu", args...).CombinedOutput()
	ran := summary.FindSubmatch(out)
	if ctx.Err() != nil || ran == nil || string(ran[1]) != count {
		t.Fatalf("no result within %v: %v\n%s", conformLimit, err, out)
	}
	got := ""
	switch {
	case string(ran[2]) != count:
		got = "fails"
	case bytes.Contains(out, []byte("[SKIPPED]")):
		got = "skips"
	}
	if got != want {
		t.Errorf("it %s, which is not what target/testdata/libiscsi-skips.txt says (%q)\n%s", cmp.Or(got, "passes"), want, out)
	}
}

// summary is the line of the run's tests: total, ran, passed.
var summary = regexp.MustCompile(`(?m)^\s+tests\s+\d+\s+(\d+)\s+(\d+)\s`)

func listTests(t *testing.T) (tests []string) {
	t.Helper()
	for line := range strings.Lines(must(t, runLimit, "iscsi-test-cu", "--list")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ALL."); ok && strings.Contains(name, ".") && !slices.Contains(tests, name) {
			tests = append(tests, name)
		}
	}
	return tests
}

// readExceptions reads lines of "Suite.Test skips|fails reason".
func readExceptions(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("../../target/testdata/libiscsi-skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	exceptions := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if words := strings.Fields(line); len(words) > 2 {
			exceptions[words[0]] = words[1]
		}
	}
	return exceptions
}
