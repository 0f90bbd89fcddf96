package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"petal/cluster/times"
	"petal/placement"
)

// Config is what a run is made of. The seed decides what it does not say.
type Config struct {
	Seed     uint64
	Machines int           // 3 to 9; 0: by the seed
	Clients  int           // 0: by the seed
	Faulty   time.Duration // virtual time under faults; 0: 60 s
	Faults   Faults        // 0: by the seed
	Trace    io.Writer     // every event as a line; nil: none

	Scheme placement.Scheme // 0: by the seed
	Bare   bool             // nodes without package cluster: see bare
	Scale  float64          // of all intervals against the default ones; 0: by the seed

	BrickBytes, JournalBytes int64 // of a brick's disk and journal; 0: small ones
}

// Report is what a run found.
type Report struct {
	Seed     uint64
	Failures []string      // what must not be; empty: a clean run
	Unjudged int           // blocks whose history could not be judged in time
	Virtual  time.Duration // simulated
	Events   uint64
	Commands int // ended
	Attempts int
	Mark     uint64 // of all events: equal runs have equal marks
	Worst    time.Duration
	Counts   Counts
}

// Counts is how often what happened.
type Counts struct {
	Crashes, Kills, Pauses, Cuts, Resets, PowerCuts, Rots, DeadDisks int
	Refusals, MapErrors, Barriers, Resizes, Churns                   int
	Joins, Leaves, JournalRots, Replaced, Checks                     int
	Sent, Delivered, Lost                                            uint64
}

// Err returns an error that names the seed and the first failure, nil after a
// clean run.
func (r *Report) Err() error {
	if len(r.Failures) == 0 {
		return nil
	}
	return fmt.Errorf("sim: seed %d: %s", r.Seed, r.Failures[0])
}

// Sim is a run.
type Sim struct {
	cfg      Config
	e        *engine
	net      *network
	machines []*machine
	clients  []*client
	work     *workload
	history  *history
	faults   *nemesis
	guests   *membership
	report   Report

	scheme    placement.Scheme
	times     times.Times
	clusterID [16]byte
}

// scaled is a duration that is meant beside the default intervals.
func (s *Sim) scaled(d time.Duration) time.Duration { return time.Duration(float64(d) * s.cfg.Scale) }

// failf notes a failure.
func (s *Sim) failf(format string, args ...any) {
	text := fmt.Sprintf("at %v: ", s.e.now) + fmt.Sprintf(format, args...)
	s.report.Failures = append(s.report.Failures, text)
	s.tracef("FAILURE %s", text)
}

func (s *Sim) failed() bool { return len(s.report.Failures) > 0 }

func (s *Sim) tracef(format string, args ...any) {
	if s.e.tracing() {
		s.e.tracef(format, args...)
	}
}

func (s *Sim) machine(id placement.Server) *machine { return s.machines[id-1] }

// reach returns the machine if an initiator could have a session with it.
func (s *Sim) reach(id placement.Server) *machine {
	if id == 0 {
		return nil
	}
	if m := s.machine(id); m.alive() && !m.paused() && m.up() && m.proc.volume() != nil {
		return m
	}
	return nil
}

func (s *Sim) reachAny(r *rand.Rand) *machine {
	first := r.IntN(len(s.machines))
	for i := range s.machines {
		if m := s.reach(s.machines[(first+i)%len(s.machines)].id); m != nil {
			return m
		}
	}
	return nil
}

// otherNode draws a node that is not id.
func (s *Sim) otherNode(id placement.Server, r *rand.Rand) placement.Server {
	for {
		if o := placement.Server(1 + r.IntN(len(s.machines))); o != id {
			return o
		}
	}
}

func (s *Sim) clientsOf(m *machine) {
	for _, c := range s.clients {
		c.lost(m.id)
	}
}

// contentOf reads the sectors of part of a block, at byte off of the disk. What
// describes itself wrongly is a failure by itself.
func (s *Sim) contentOf(p []byte, off uint64) (c content) {
	for i := 0; i+sectorBytes <= len(p); i += sectorBytes {
		sector := (off + uint64(i)) / sectorBytes
		v, ok := tell(p[i:], sector)
		if !ok {
			s.failf("sector %d holds what nobody wrote there: %x...", sector, p[i:i+24])
		}
		c[sector%sectorsPerBlock] = v
	}
	return c
}

func (s *Sim) latency(d time.Duration) { s.report.Worst = max(s.report.Worst, d) }

// boot starts a process on a machine.
func (s *Sim) boot(m *machine) (process, error) {
	if s.cfg.Bare {
		return s.bootBare(m)
	}
	return s.bootWhole(m)
}

func (c *Counts) add(o *Counts) {
	c.Crashes += o.Crashes
	c.Kills += o.Kills
	c.Pauses += o.Pauses
	c.Cuts += o.Cuts
	c.Resets += o.Resets
	c.PowerCuts += o.PowerCuts
	c.Rots += o.Rots
	c.DeadDisks += o.DeadDisks
	c.Refusals += o.Refusals
	c.Barriers += o.Barriers
	c.Resizes += o.Resizes
	c.Churns += o.Churns
	c.MapErrors += o.MapErrors
	c.Joins += o.Joins
	c.Leaves += o.Leaves
	c.JournalRots += o.JournalRots
	c.Replaced += o.Replaced
	c.Checks += o.Checks
	c.Sent += o.Sent
	c.Delivered += o.Delivered
	c.Lost += o.Lost
}
