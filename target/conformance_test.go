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

	"petal/target/lun"
	"petal/target/session"
)

// TestConformance runs libiscsi's iscsi-test-cu, each test by itself against a
// fresh server with a disk in memory. A test may skip only if it is listed with
// its reason in testdata/libiscsi-skips.txt, and what is listed must skip. The
// same holds for what fails because the tool is wrong.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; run without -short")
	}
	tool, err := exec.LookPath("iscsi-test-cu")
	if err != nil {
		t.Skip("iscsi-test-cu is not installed (Debian: libiscsi-bin)")
	}
	exceptions := readExceptions(t, "testdata/libiscsi-skips.txt")
	tests := listTests(t, tool)
	if len(tests) < 230 {
		t.Errorf("iscsi-test-cu lists %d tests of family ALL, want at least 230", len(tests))
	}
	for name := range exceptions {
		if !tests[name] {
			t.Errorf("testdata/libiscsi-skips.txt names %s, which is no test", name)
		}
	}
	for name := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := "passes"
			if e, ok := exceptions[name]; ok {
				want = e
			}
			conform(t, tool, name, want)
		})
	}
}

// testLimit shows what hangs; the slowest test needs seconds.
const testLimit = 5 * time.Minute

// hurried are suites in which the tool itself gives the target so many seconds
// for an answer, by the wall clock: what they find while this process stood still
// for longer says nothing.
var hurried = map[string]time.Duration{"iSCSIcmdsn": 3 * time.Second, "iSCSITMF": 5 * time.Second}

func conform(t *testing.T, tool, name, want string) {
	suite, _, _ := strings.Cut(name, ".")
	limit := hurried[suite]
	for {
		watch := watchStalls()
		got, out := runTool(t, tool, name)
		stall := watch.stop()
		if got == want {
			return
		}
		if limit == 0 || stall < limit/2 {
			t.Errorf("%s, but after testdata/libiscsi-skips.txt it %s\n%s", got, want, out)
			return
		}
		t.Logf("%s, and the test stood still for %v: that does not count", got, stall)
	}
}

// stalls measures for how long a goroutine that wanted to run did not.
type stalls struct {
	quit    chan struct{}
	longest chan time.Duration
}

func watchStalls() *stalls {
	s := &stalls{make(chan struct{}), make(chan time.Duration)}
	go s.watch()
	return s
}

func (s *stalls) watch() {
	const every = 20 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var longest time.Duration
	for last := time.Now(); ; {
		over := false
		select {
		case <-ticker.C:
		case <-s.quit:
			over = true
		}
		now := time.Now()
		longest = max(longest, now.Sub(last)-every)
		if last = now; over {
			s.longest <- longest
			return
		}
	}
}

// stop ends the watch and tells of the longest stall.
func (s *stalls) stop() time.Duration {
	close(s.quit)
	return <-s.longest
}

// runTool runs one test against a server of its own, and returns whether it
// passes, skips or fails.
func runTool(t *testing.T, tool, name string) (got string, out []byte) {
	b := newBench(t, Config{NopInterval: session.DefaultPing})
	if on4Kn[name] {
		b.useDisk(lun.NewMemoryDisk(64<<20, 4096))
	}
	if strings.HasPrefix(name, "ReadOnly.") {
		b.disk.SetReadOnly(true)
	}
	second := b.listen(2)
	path := "/" + testTarget + "/0"
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	defer cancel()
	tests, pattern := "1", name
	if name == "iSCSITMF.LUNResetSimpleAsync" {
		// It relies on a variable that the test before it in the suite sets.
		tests, pattern = "2", "iSCSITMF"
	}
	args := []string{"--dataloss", "--allow-sanitize", "--normal", "--test=ALL." + pattern, "iscsi://" + b.address + path}
	if strings.HasPrefix(name, "MultipathIO.") {
		args = append(args, "iscsi://"+second+path)
	}
	out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("hangs: no result after %v\n%s", testLimit, out)
	}
	ran := summary.FindSubmatch(out)
	if ran == nil || string(ran[1]) != tests {
		t.Fatalf("no result: %v\n%s", err, out)
	}
	switch {
	case string(ran[3]) != "0":
		return "fails", out
	case bytes.Contains(out, []byte("[SKIPPED]")):
		return "skips", out
	}
	return "passes", out
}

// on4Kn are tests that need logical blocks as large as the physical ones: they
// check for a granularity that this target refines by reading whole blocks.
var on4Kn = map[string]bool{"GetLBAStatus.UnmapSingle": true}

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

// readExceptions reads lines of "Suite.Test skips|fails reason"; # begins a
// comment.
func readExceptions(t *testing.T, file string) map[string]string {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	exceptions := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) < 4 || words[1] != "skips" && words[1] != "fails" {
			t.Errorf("%s: %q is not of the form: Suite.Test skips|fails reason", file, line)
			continue
		}
		exceptions[words[0]] = words[1]
	}
	return exceptions
}
