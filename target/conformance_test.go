package target

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestConformance runs libiscsi's iscsi-test-cu, each test by itself against a
// fresh server with a disk in memory. A test may skip only if it is listed with
// its reason in testdata/libiscsi-skips.txt, and what is listed must skip.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; run without -short")
	}
	tool, err := exec.LookPath("iscsi-test-cu")
	if err != nil {
		t.Skip("iscsi-test-cu is not installed (Debian: libiscsi-bin)")
	}
	skips := readSkips(t, "testdata/libiscsi-skips.txt")
	tests := listTests(t, tool)
	if len(tests) < 230 {
		t.Errorf("iscsi-test-cu lists %d tests of family ALL, want at least 230", len(tests))
	}
	for name := range skips {
		if !tests[name] {
			t.Errorf("testdata/libiscsi-skips.txt names %s, which is no test", name)
		}
	}
	for name := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conform(t, tool, name, skips[name])
		})
	}
}

// testLimit is more than twice what the slowest test needs on two busy cores.
const testLimit = time.Minute

func conform(t *testing.T, tool, name, mayskip string) {
	b := newBench(t, Config{})
	if strings.HasPrefix(name, "ReadOnly.") {
		b.disk.SetReadOnly(true)
	}
	second := b.listen(2)
	path := "/" + testTarget + "/0"
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	defer cancel()
	args := []string{"--dataloss", "--allow-sanitize", "--normal", "--test=ALL." + name, "iscsi://" + b.address + path}
	if strings.HasPrefix(name, "MultipathIO.") {
		args = append(args, "iscsi://"+second+path)
	}
	out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput()
	switch ran := summary.FindSubmatch(out); {
	case ctx.Err() != nil:
		t.Errorf("hangs: no result after %v\n%s", testLimit, out)
	case err != nil || ran == nil:
		t.Errorf("no result: %v\n%s", err, out)
	case string(ran[1]) != "1" || string(ran[2]) != "1" || string(ran[3]) != "0":
		t.Errorf("failed\n%s", out)
	case bytes.Contains(out, []byte("[SKIPPED]")) && mayskip == "":
		t.Errorf("skipped, but testdata/libiscsi-skips.txt gives no reason for it\n%s", out)
	case !bytes.Contains(out, []byte("[SKIPPED]")) && mayskip != "":
		t.Errorf("did not skip: take it off testdata/libiscsi-skips.txt")
	}
}

// summary finds how many tests ran, passed and failed:
//
//	Run Summary:    Type  Total    Ran Passed Failed Inactive
//	               tests      1      1      1      0        0
var summary = regexp.MustCompile(`(?m)^\s+tests\s+\d+\s+(\d+)\s+(\d+)\s+(\d+)\s`)

// listTests returns the tests of family ALL as Suite.Test.
func listTests(t *testing.T, tool string) map[string]bool {
	out, err := exec.Command(tool, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "ALL.")
		if ok && strings.Contains(name, ".") {
			tests[name] = true
		}
	}
	return tests
}

// readSkips reads lines of "Suite.Test reason"; # begins a comment.
func readSkips(t *testing.T, file string) map[string]string {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	skips := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		name, reason, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" {
			continue
		}
		if reason = strings.TrimSpace(reason); reason == "" {
			t.Errorf("%s: %s has no reason", file, name)
		}
		skips[name] = reason
	}
	return skips
}
