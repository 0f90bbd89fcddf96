package integration

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A mishap is what can happen to a node under load: a node is killed, the portals
// of two others have the load.
type mishap struct {
	name   string
	leads  bool          // it is the node that leads the cluster
	kills  bool          // it counts for -kills
	limit  time.Duration // of any command's time
	lasts  [2]int        // progress lines until it is over, from and to
	begin  func(d *demo, node int)
	end    func(d *demo, node int)
	weight int // of a draw
}

var mishaps = []mishap{
	{"machine death", false, true, killStall, [2]int{14, 20}, killed, started, 4},
	{"leader's machine death", true, true, leaderStall, [2]int{16, 22}, killed, started, 3},
	{"process crash", false, true, superviseTook, [2]int{4, 10}, crashed, started, 3},
	{"leader's process crash", true, true, superviseTook, [2]int{8, 14}, crashed, started, 2},
	{"all machines at once", false, true, noLimit, [2]int{0, 0}, func(d *demo, _ int) { d.play("kill", 1, 2, 3, 4) }, func(d *demo, _ int) { d.play("start", 1, 2, 3, 4) }, 1},
	{"clean stop", false, false, superviseTook, [2]int{4, 10}, stopped, started, 2},
	{"leader's clean stop", true, false, superviseTook, [2]int{4, 10}, stopped, started, 1},
	{"pause of 10 s", false, false, killStall, [2]int{40, 40}, paused, resumed, 1},
	{"leader's pause of 10 s", true, false, leaderStall, [2]int{40, 40}, paused, resumed, 1},
	{"cut", false, false, killStall, [2]int{16, 24}, cut, healed, 1},
	{"leader's cut", true, false, leaderStall, [2]int{16, 24}, cut, healed, 1},
}

const noLimit = time.Hour // nobody is there to serve

func killed(d *demo, node int)  { d.play("kill", node) }
func started(d *demo, node int) { d.play("start", node) }
func paused(d *demo, node int)  { d.play("pause", node) }
func resumed(d *demo, node int) { d.play("resume", node) }
func cut(d *demo, node int)     { d.play("cut", node) }
func healed(d *demo, node int)  { d.play("heal", node) }

// crashed ends a process on a machine that lives: its supervisor, which is this
// test, sees it and tells the others.
func crashed(d *demo, node int) {
	d.t.Helper()
	st, err := d.clientOf(node).Status(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	d.play("kill", node)
	ctx, cancel := context.WithTimeout(context.Background(), healLimit)
	defer cancel()
	var all sync.WaitGroup
	for _, other := range others(3, node) {
		all.Go(func() { d.clientOf(other).ReportEnd(ctx, fmt.Sprintf("n%d", node), st.Incarnation) })
	}
	all.Wait()
}

// stopped ends a node in order.
func stopped(d *demo, node int) {
	d.t.Helper()
	pid := d.pidOf(node)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, stopLimit, "the node has stopped", func() bool { return !running(pid) })
}

var (
	soakSeed  = flag.Uint64("seed", 0, "of TestKills: what happens to whom (0: with PETAL_SOAK another one each time)")
	soakKills = flag.Int("kills", 100, "TestKills with PETAL_SOAK ends after so many, if its time is over")
	soakOnly  = flag.String("only", "", "TestKills with PETAL_SOAK: only mishaps with it in their names")
)

// TestKills lets nodes suffer at random, under verified load that goes through two
// others: three times, or with PETAL_SOAK=1h for so long and at least -kills
// times. No command may fail or last longer than the mishap allows, beyond what the
// machine's own disk takes for a write meanwhile, and in the end the disk has
// everything that was acknowledged in all the time.
func TestKills(t *testing.T) {
	d := startCluster(t, t.TempDir(), "--size", "256MiB", "--unsupervised")
	seed, long := *soakSeed, os.Getenv("PETAL_SOAK")
	if seed == 0 && long != "" {
		seed = uint64(time.Now().UnixNano())
	}
	rng := rand.New(rand.NewPCG(seed, seed))
	draw, kills, until := drawOf(rng, func(m mishap) bool { return m.kills }), 3, time.Time{}
	if long != "" {
		length, err := time.ParseDuration(long)
		if err != nil {
			t.Fatal(err)
		}
		draw = drawOf(rng, func(m mishap) bool { return strings.Contains(m.name, *soakOnly) })
		kills, until = *soakKills, time.Now().Add(length)
	}
	t.Logf("seed %d", seed)
	s := soak{d: d, rng: rng, state: filepath.Join(t.TempDir(), "state"), stalls: map[string][]time.Duration{}, probe: startProbe(t)}
	for i := 0; (kills > 0 || time.Now().Before(until)) && !s.lost; i++ {
		m := draw()
		if m.kills || *soakOnly != "" {
			kills--
		}
		s.suffer(i, m)
	}
	s.report()
	if o := d.petal("bench", d.url, "--state", s.state, "--check", "--quiet"); o.status != 0 {
		t.Errorf("at the end: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}

// drawOf draws mishaps of some kind, by weight.
func drawOf(rng *rand.Rand, wanted func(mishap) bool) func() mishap {
	var pot []mishap
	for _, m := range mishaps {
		for range m.weight {
			if wanted(m) {
				pot = append(pot, m)
			}
		}
	}
	return func() mishap { return pot[rng.IntN(len(pot))] }
}

// soak is one run of TestKills.
type soak struct {
	d      *demo
	rng    *rand.Rand
	state  string // file of what was acknowledged
	stalls map[string][]time.Duration
	lost   bool // data, or an I/O error
	probe  *probe
}

// suffer lets one mishap happen.
func (s *soak) suffer(i int, m mishap) {
	d, t := s.d, s.d.t
	t.Helper()
	node := d.leader()
	if !m.leads {
		node = others(3, node)[s.rng.IntN(3)]
	}
	seen := others(3, node)
	s.rng.Shuffle(len(seen), func(i, j int) { seen[i], seen[j] = seen[j], seen[i] })
	block := []string{"4KiB", "64KiB"}[s.rng.IntN(2)]
	args := []string{"--state", s.state, "--block", block}
	if i == 0 {
		args = append(args, "--new")
	}
	l := d.loadOn(seen[0], seen[1], args...)
	s.probe.longest.Store(0)
	began := time.Now()
	m.begin(d, node)
	l.await(m.lasts[0] + s.rng.IntN(m.lasts[1]-m.lasts[0]+1))
	m.end(d, node)
	l.await(2 + s.rng.IntN(6))
	failed := t.Failed()
	r := l.finish()
	s.lost = t.Failed() && !failed
	s.stalls[m.name] = append(s.stalls[m.name], stall(r))
	slowest := r.Disks[0].Stall
	t.Logf("%3d %s %-22s n%d, %5s through n%d n%d: longest stall %5d ms from %+.2f s, %s, chunk %d, %d reconnects, a write of the machine %v at most, waiting for a processor %s", i, began.Format("15:04:05.000"), m.name, node,
		block, seen[0], seen[1], stall(r).Milliseconds(), slowest.Began.Sub(began).Seconds(), slowest.Command, slowest.LBA/128, r.Disks[0].Reconnects,
		time.Duration(s.probe.longest.Load()).Round(time.Millisecond), pressure())
	if machine := time.Duration(s.probe.longest.Load()); stall(r) > within(m.limit)+machine {
		t.Errorf("%s of n%d: longest stall %v, want %v at most, and %v for the machine", m.name, node, stall(r), within(m.limit), machine)
		s.explain(seen[0], began)
	}
	d.awaitHealthyAt(seen[0])
}

// explain tells what the cluster says of the time since then.
func (s *soak) explain(node int, since time.Time) {
	events, err := s.d.clientOf(node).Events(context.Background(), 0)
	if err != nil {
		s.d.t.Log(err)
	}
	for _, e := range events {
		if after := e.Time.Sub(since); after > -time.Second {
			s.d.t.Logf("  %+6.2f s %s", after.Seconds(), e.Text)
		}
	}
	for n := 1; n <= 4; n++ {
		for line := range strings.Lines(s.d.logOf(n)) {
			at, _ := time.Parse(time.RFC3339Nano, strings.TrimPrefix(strings.SplitN(line, " ", 2)[0], "time="))
			if after := at.Sub(since); after > -time.Second && after < time.Minute {
				s.d.t.Logf("  %+6.2f s n%d %s", after.Seconds(), n, strings.TrimSpace(line[strings.Index(line, " ")+1:]))
			}
		}
	}
}

// report sums the stalls up.
func (s *soak) report() {
	for _, m := range mishaps {
		if list := s.stalls[m.name]; len(list) > 0 {
			slices.Sort(list)
			s.d.t.Logf("%-22s %3d times: longest stall: median %v, most %v", m.name, len(list), list[len(list)/2].Round(time.Millisecond), list[len(list)-1].Round(time.Millisecond))
		}
	}
}

// A probe writes to the machine's disk what a node does, one block every 20 ms
// durably: when that takes long, so does everything.
type probe struct{ longest atomic.Int64 }

func startProbe(t *testing.T) *probe {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "probe"), os.O_CREATE|os.O_WRONLY|syscall.O_DSYNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p, tick, ended := &probe{}, time.NewTicker(20*time.Millisecond), make(chan struct{})
	done := make(chan struct{})
	t.Cleanup(func() { close(done); <-ended; f.Close() })
	go func() {
		defer close(ended)
		for block := make([]byte, 4096); ; {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			began := time.Now()
			if _, err := f.WriteAt(block, 0); err != nil {
				t.Error(err)
				return
			}
			p.longest.Store(max(p.longest.Load(), int64(time.Since(began))))
		}
	}()
	return p
}

// pressure is the share of the last 10 s in which something waited for a processor:
// on a busy machine stalls say little.
func pressure() string {
	text, err := os.ReadFile("/proc/pressure/cpu")
	_, rest, ok := strings.Cut(string(text), "avg10=")
	if share, _, ok2 := strings.Cut(rest, " "); err == nil && ok && ok2 {
		return share + " %"
	}
	return "unknown"
}
