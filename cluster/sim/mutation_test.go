package sim

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	mutationFlag = flag.String("mutations", "", "look for these deliberate bugs, names with commas, or all")
	mutationBin  = flag.String("mutationbin", "", "only build them, into this directory, one program for each")
	mutationTime = flag.Duration("mutationtime", 3*time.Minute, "how long to look for each")
)

// mutation is a deliberate bug: in a file of petal's, old is replaced by new.
// Some are rules that the link machine knows how to break for package explore.
type mutation struct {
	name string
	rule string // of DESIGN A.1, or section
	file string // below the module's root
	old  string // occurs once
	new  string
}

// brokenRule is one of the link machine's own.
func brokenRule(name, rule, fault string) mutation {
	return mutation{name, rule, "cluster/link/faults.go", "return m.o.Fault&f != 0", "return f == " + fault}
}

// What needs several rare things at once (a takeover without marks, a cut that is
// acknowledged before it is stored) is left to package explore, which finds it
// every time.
var mutations = []mutation{
	{"ack-before-members", "R2", "cluster/link/questions.go", "if b.have[k.First()].Before(s.rec.Stamp) {", "if false {"},
	brokenRule("read-in-doubt", "R4", "FaultReadInDoubt"),
	brokenRule("drop-in-doubt", "R7", "FaultDropInDoubt"),
	brokenRule("any-ver", "R1", "FaultAnyVer"),
	brokenRule("marks-dropped-early", "R9", "FaultDropMarksEarly"),
	brokenRule("head-wins", "R10", "FaultHeadWins"),
	brokenRule("no-exchange", "R10", "FaultNoExchange"),
	{"no-dedupe", "R12", "cluster/replica/history.go", "	_, ok := h.ops[id]\n	return ok\n", "	return false\n"},
	{"missing-reads-as-zeros", "R9", "cluster/brick/read.go", "	op.Missing = at.of(elsewhere) & all\n", "	_ = all\n"},
	{"no-checksum-on-read", "D.5", "cluster/brick/read.go", "if e != nil || crc32.Checksum(data, castagnoli) != p.sum {", "if e != nil || crc32.Checksum(data, castagnoli) != p.sum && e != nil {"},
	{"exclusion-before-the-lease-ends", "R6", "cluster/meta/leader.go", "g.lastHeard(id)+g.cfg.Times.Guard\n", "g.lastHeard(id)+g.cfg.Times.Guard/20\n"},
	{"barrier-without-members", "B", "cluster/barrier.go", "if s.DiskByID(b.disk) == nil || len(open) == 0 {", "if true {"},
	{"barrier-does-not-wait", "B", "cluster/replica/barrier.go", "		if b.left > 0 {\n", "		if false {\n"},
	{"revoked-but-resent", "B", "cluster/piece.go", "	if st.revoked > p.VVer {", "	if false {"},
	{"failed-journal-write-counts", "D.4", "journal/commit.go", "	clear(c.vec)\n	if err != nil {\n", "	clear(c.vec)\n	if false {\n"},
	{"failed-home-write-counts", "D.4", "cluster/brick/destage.go", "vfs.WriteMany(d.runs); err != nil {", "vfs.WriteMany(d.runs); err != nil && false {"},
	{"failed-home-sync-counts", "D.4", "cluster/brick/destage.go", "f.plain.Sync(); err != nil {", "f.plain.Sync(); err != nil && false {"},
	{"failed-map-flush-counts", "D.4", "cluster/brick/destage.go", "b.pmap.flush(b.stop); err != nil {", "b.pmap.flush(b.stop); err != nil && false {"},
	{"replaced-disk-counts", "R14", "cluster/meta/applystart.go", "	case !c.HasWitness || srv.Kind == Witness:\n", "	case true:\n"},
	{"forgotten-with-the-journal", "R12", "cluster/brick/doneops.go", "	if len(d.list) == 0 {\n		if !d.saved", "	if true {\n		if !d.saved"},
}

// TestMutationsApply: each deliberate bug is still one place of the code.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutations {
		if _, err := m.mutate(); err != nil {
			t.Errorf("%s (%s): %v", m.name, m.rule, err)
		}
	}
}

// mutate returns the file with the bug in it.
func (m *mutation) mutate() (string, error) {
	text, err := os.ReadFile(filepath.Join("../..", m.file))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", errors.New(m.file + " no longer has this text once: " + m.old)
	}
	return strings.Replace(string(text), m.old, m.new, 1), nil
}

// TestMutations is the test of the test: with -mutations=all each deliberate
// bug must be found by fresh seeds within -mutationtime.
func TestMutations(t *testing.T) {
	for _, m := range mutations {
		if *mutationFlag != "all" && !strings.Contains(","+*mutationFlag+",", ","+m.name+",") {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			dir := *mutationBin
			if dir == "" {
				dir = t.TempDir()
			}
			bin := m.build(t, dir)
			if *mutationBin != "" {
				return
			}
			began := time.Now()
			cmd := exec.Command(bin, "-test.run=TestFreshSeeds", "-test.timeout=0", "-simtime="+mutationTime.String())
			out, err := cmd.CombinedOutput()
			switch seed := strings.Index(string(out), "seed"); {
			case err == nil:
				t.Errorf("%s was not found in %v:\n%s", m.rule, *mutationTime, out)
			case seed < 0 || !strings.Contains(string(out), "--- FAIL: TestFreshSeeds"):
				t.Errorf("%s: %v\n%s", m.rule, err, out)
			default:
				used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				t.Logf("%s, found after %v, %v of CPU, %s: %.300s", m.rule, time.Since(began).Round(time.Second), used.Round(time.Second), runsOf.Find(out), out[seed:])
			}
		})
	}
}

// runsOf finds in what TestFreshSeeds says how many seeds it took.
var runsOf = regexp.MustCompile(`\d+ runs, \S+ simulated`)

// build compiles this package's tests against the mutated file.
func (m *mutation) build(t *testing.T, dir string) string {
	text, err := m.mutate()
	if err != nil {
		t.Fatal(err)
	}
	original, err := filepath.Abs(filepath.Join("../..", m.file))
	if err != nil {
		t.Fatal(err)
	}
	mutated, overlay, bin := filepath.Join(dir, m.name+".go"), filepath.Join(dir, m.name+".json"), filepath.Join(dir, m.name+".test")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{mutated: []byte(text), overlay: replace} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("it does not compile: %v\n%s", err, out)
	}
	return bin
}
