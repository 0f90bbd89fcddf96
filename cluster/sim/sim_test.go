package sim

import (
	"bytes"
	"flag"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"petal/placement"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "replay this seed, with a trace to -trace")
	traceFlag  = flag.String("trace", "", "file for the trace of -seed; - is the standard output")
	timeFlag   = flag.Duration("simtime", 0, "real time to spend on fresh seeds; 0: three runs of known ones")
	schemeFlag = flag.String("scheme", "", "scheme of the disk with -seed; default: by the seed")
	faultFlag  = flag.String("faults", "", "names of the faults, with commas; default: by the seed")
	workerFlag = flag.Int("simworkers", 2, "how many fresh seeds to run at a time")
	firstFlag  = flag.Uint64("first", 0, "first of the fresh seeds; 0: by the calendar")
)

// TestSeed replays a seed: make sim SEED=n.
func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		return // nobody asked
	}
	cfg := Config{Seed: *seedFlag, Faults: chosen(t)}
	if *schemeFlag != "" {
		scheme, err := placement.ParseScheme(*schemeFlag)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Scheme = scheme
	}
	switch *traceFlag {
	case "":
	case "-":
		cfg.Trace = os.Stdout
	default:
		f, err := os.Create(*traceFlag)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cfg.Trace = f
	}
	tellRun(t, Run(cfg))
}

func chosen(t *testing.T) (f Faults) {
	for name := range strings.SplitSeq(*faultFlag, ",") {
		i := slices.Index(faultNames[:], name)
		if i < 0 && name != "" {
			t.Fatalf("no fault is called %q: there are %v", name, faultNames)
		} else if name != "" {
			f |= 1 << i
		}
	}
	return f
}

// TestFreshSeeds runs seeds that nobody has run before, if it is given the time.
func TestFreshSeeds(t *testing.T) {
	first, least := *firstFlag, 0
	switch {
	case *timeFlag == 0:
		first, least = max(first, 1), 3
	case first == 0:
		first = uint64(time.Now().UnixMicro())
	}
	t.Logf("first seed %d", first)
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		total Report
		runs  int
		began = time.Now()
		kinds = chosen(t)
	)
	for range min(*workerFlag, runtime.GOMAXPROCS(0)) { // a run is one thread's work
		wg.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for (runs < least || time.Since(began) < *timeFlag) && !t.Failed() {
				seed := first + uint64(runs)
				runs++
				mu.Unlock()
				r := Run(Config{Seed: seed, Faults: kinds})
				mu.Lock()
				if len(r.Failures) > 0 {
					tellRun(t, r)
				}
				total.add(r)
			}
		})
	}
	wg.Wait()
	t.Logf("%d runs, %v simulated, %d events, %d commands ended, %d blocks not judged, longest command %v, %+v",
		runs, total.Virtual.Round(time.Second), total.Events, total.Commands, total.Unjudged, total.Worst, total.Counts)
}

func (r *Report) add(o *Report) {
	r.Virtual += o.Virtual
	r.Events += o.Events
	r.Commands += o.Commands
	r.Attempts += o.Attempts
	r.Unjudged += o.Unjudged
	r.Worst = max(r.Worst, o.Worst)
	r.Counts.add(&o.Counts)
}

func tellRun(t *testing.T, r *Report) {
	t.Helper()
	for _, f := range r.Failures {
		t.Errorf("seed %d: %s", r.Seed, f)
	}
	t.Logf("seed %d: %v simulated, %d events, %d commands, mark %x, longest command %v, %+v", r.Seed, r.Virtual, r.Events, r.Commands, r.Mark, r.Worst, r.Counts)
}

// TestPastFailures runs the seeds that have found something once.
func TestPastFailures(t *testing.T) {
	text, err := os.ReadFile("testdata/seeds")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		seed, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if r := Run(Config{Seed: seed}); len(r.Failures) > 0 {
			tellRun(t, r)
		}
	}
}

// TestSameSeedSameTrace: a seed gives the same run, byte for byte, and looking
// at it changes nothing.
func TestSameSeedSameTrace(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		var a, b bytes.Buffer
		ra, rb := Run(Config{Seed: seed, Trace: &a}), Run(Config{Seed: seed, Trace: &b})
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			al, bl := strings.Split(a.String(), "\n"), strings.Split(b.String(), "\n")
			for i := range al {
				if i >= len(bl) || al[i] != bl[i] {
					t.Fatalf("seed %d: line %d of the trace is\n%s\nand then\n%s", seed, i, al[i], bl[min(i, len(bl)-1)])
				}
			}
		}
		if rc := Run(Config{Seed: seed}); ra.Mark != rb.Mark || ra.Mark != rc.Mark {
			t.Fatalf("seed %d: marks %x, %x with traces, %x without", seed, ra.Mark, rb.Mark, rc.Mark)
		}
		if a.Len() < 100_000 {
			t.Fatalf("a trace of %d bytes tells nothing", a.Len())
		}
	}
}

// TestLaterFaults: the faults that half of all seeds do without happen, and harm
// nobody.
func TestLaterFaults(t *testing.T) {
	for _, x := range []struct {
		faults Faults
		happen func(*Counts) []int
	}{
		{MapError, func(c *Counts) []int { return []int{c.MapErrors, c.Checks} }},
		{Members | Churn, func(c *Counts) []int { return []int{c.Joins, c.Leaves, c.Churns} }},
		{RotJournal | Kill, func(c *Counts) []int { return []int{c.Kills, c.JournalRots} }},
	} {
		t.Run(x.faults.String(), func(t *testing.T) {
			r := Run(Config{Seed: 1, Faults: x.faults, Scale: 0.25, Faulty: 20 * time.Second})
			tellRun(t, r)
			if slices.Contains(x.happen(&r.Counts), 0) {
				t.Errorf("not all has happened: %v", x.happen(&r.Counts))
			}
		})
	}
}

// TestCheckFindsBits: bits that flip on a disk that should not rot are a failure of
// the run, though every client would get the right data from elsewhere.
func TestCheckFindsBits(t *testing.T) {
	s := newSim(Config{Seed: 2, Faults: Reset, Machines: 5, Faulty: 5 * time.Second})
	defer s.close()
	for _, phase := range []func(){s.form, s.work1, s.quiet, s.heal, s.readAll} {
		phase()
	}
	if s.failed() {
		t.Fatal(s.report.Failures)
	}
	disk := s.machine(s.gmap().Members(s.linkOf(s.work.hot[0] * placement.BlocksPerChunk).Position)[1]).brick.mem
	flipped := 0
	for _, name := range disk.Files() {
		info, err := disk.Stat(name)
		for off := int64(0); err == nil && strings.HasPrefix(name, "data/") && off < min(info.Size(), 8<<20); off += placement.BlockSize {
			err = disk.Damage(name, off, func(p []byte) {
				if !bytes.Equal(p, make([]byte, len(p))) {
					p[17] ^= 4
					flipped++
				}
			}, placement.BlockSize)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.audit()
	if !s.failed() || !strings.Contains(s.report.Failures[0], "is not as it was written: data") {
		t.Fatalf("%d bits flipped, and the audit says %q", flipped, s.report.Failures)
	}
}
