package sim

import (
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/times"
	"petal/placement"
)

const diskName = "disk"

// Phases of a run, in virtual time.
const (
	formWithin = 60 * time.Second  // for the cluster to form and all links to open
	endWithin  = 60 * time.Second  // for all commands to end once faults have stopped
	healWithin = 120 * time.Second // for all copies to be equal again, at least a minute
	judgeLimit = 10 * time.Second  // of real time, for each block
)

// Run makes a run.
func Run(cfg Config) (r *Report) {
	s := newSim(cfg)
	defer func() {
		if p := recover(); p != nil { // nothing that happens may make a node panic
			s.failf("panic: %v\n%s", p, debug.Stack())
			r = &s.report // its locks are as they are: nobody may ask it anything
			r.Seed = cfg.Seed
			return
		}
		s.close()
	}()
	s.tracef("seed %d: %d machines, %v, times %v, faults %v", cfg.Seed, len(s.machines), s.scheme, s.cfg.Scale, s.cfg.Faults)
	for _, phase := range []func(){s.form, s.work1, s.quiet, s.heal, s.readAll, s.audit, s.judge} {
		if phase(); s.failed() {
			break
		}
	}
	s.report.Seed, s.report.Virtual, s.report.Events, s.report.Mark = cfg.Seed, s.e.now, s.e.count, s.e.mark
	s.report.Attempts = s.history.ops
	s.report.Counts.Sent, s.report.Counts.Delivered, s.report.Counts.Lost = s.net.stats.sent, s.net.stats.delivered, s.net.stats.lost
	for _, c := range s.clients {
		s.report.Commands += c.ended
	}
	return &s.report
}

func newSim(cfg Config) *Sim {
	s := &Sim{cfg: cfg, e: newEngine(cfg.Seed, cfg.Trace), history: newHistory()}
	rng := s.e.rng("config")
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&s.cfg.Machines, []int{5, 5, 5, 6, 7, 9}[rng.IntN(6)])
	def(&s.cfg.Clients, 4+rng.IntN(12))
	if s.cfg.Scale == 0 {
		s.cfg.Scale = []float64{0.25, 0.25, 0.5, 1}[rng.IntN(4)]
	}
	s.times = times.Default().Scale(s.cfg.Scale)
	if s.cfg.Faulty == 0 {
		s.cfg.Faulty = s.scaled(between(rng, 10*time.Second, 60*time.Second))
	}
	s.scheme = []placement.Scheme{placement.Mirror, placement.Mirror, placement.Mirror3}[rng.IntN(3)]
	if s.cfg.Scheme != 0 {
		s.scheme = s.cfg.Scheme
	}
	some := Faults(0)
	for i := range firstKinds {
		if rng.IntN(2) == 0 {
			some |= Faults(1) << i
		}
	}
	if s.cfg.Faults == 0 {
		s.cfg.Faults = some & Benign
		switch rng.IntN(6) {
		case 0: // one kind alone
			s.cfg.Faults = Faults(1) << rng.IntN(firstBenign)
		case 1: // a storm
			s.cfg.Faults = Reset | some&(SlowEdge|SlowDisk|LossyRaft)
		}
		switch rng.IntN(6) {
		case 0, 1:
			s.cfg.Faults |= Rot
		case 2:
			s.cfg.Faults |= DeadDisk
		case 3:
			s.cfg.Faults |= Rot | DeadDisk
		}
		s.moreFaults(cfg.Machines == 0)
		if s.cfg.Bare {
			s.cfg.Faults &^= Refuse | Revoke | DeadDisk | MapError | Members | RotJournal
		}
	}
	if s.cfg.BrickBytes == 0 {
		s.cfg.BrickBytes = 512 << 20
	}
	if s.cfg.JournalBytes == 0 {
		s.cfg.JournalBytes = 8 << 20
	}
	for i := range s.clusterID {
		s.clusterID[i] = byte(rng.Uint32())
	}
	s.net = newNetwork(s.e, s.cfg.Scale)
	for i := range s.cfg.Machines {
		s.machines = append(s.machines, newMachine(s, placement.Server(i+1)))
	}
	s.work = newWorkload(s)
	s.faults = newNemesis(s, s.cfg.Faults)
	s.guests = &membership{s: s}
	return s
}

// The kinds of faults that there were first. Those that came later are drawn from
// a stream of their own, so that half of all seeds give the runs they always gave.
const (
	firstBenign = 17
	firstKinds  = 19
)

func (s *Sim) moreFaults(machinesToo bool) {
	rng := s.e.rng("more faults")
	if rng.IntN(2) == 0 {
		return
	}
	for _, k := range []Faults{MapError, Members, RotJournal} {
		if rng.IntN(2) == 0 {
			s.cfg.Faults |= k
		}
	}
	if s.cfg.Faults&Members != 0 && machinesToo && rng.IntN(2) == 0 {
		s.cfg.Machines = 4 // then guests become voters
	}
}

func newWorkload(s *Sim) *workload {
	rng := s.e.rng("workload")
	return &workload{
		s: s, rng: rng, known: map[uint64][]byte{},
		unit:  []int{sectorBytes, placement.BlockSize}[rng.IntN(2)],
		pause: []time.Duration{2 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond}[rng.IntN(4)],
		write: 20 + rng.IntN(50), caw: rng.IntN(15), zero: rng.IntN(10), whole: rng.IntN(8),
	}
}

const diskChunks = 1024

// until lets events happen until the condition holds; false if it does not
// within the time.
func (s *Sim) until(within time.Duration, holds func() bool) bool {
	end := s.e.now + within
	step := 100 * time.Microsecond
	for s.e.now < end && !s.failed() {
		if holds() {
			return true
		}
		s.e.run(s.e.now + step)
		step = min(2*step, 50*time.Millisecond)
	}
	return holds()
}

// form switches all machines on, and makes one cluster and a disk of them.
func (s *Sim) form() {
	first := s.machines[0]
	first.start()
	if !s.until(formWithin, first.up) {
		s.failf("machine 1 has not started")
		return
	}
	for _, m := range s.machines[1:] {
		if s.join(first, m); s.failed() {
			return
		}
		s.e.after(between(m.rng, 0, 300*time.Millisecond), nil, nil, m.start)
	}
	if !s.until(formWithin, s.allStarted) {
		s.failf("the cluster does not form within %v", formWithin)
		return
	}
	id := [16]byte{1}
	s.propose(first, &metapb.Command{Kind: &metapb.Command_CreateDisk{CreateDisk: &metapb.CreateDisk{
		Id: id[:], Name: diskName, Size: diskChunks * placement.ChunkSize, BlockSize: uint32(s.work.unit), Scheme: s.scheme.String(),
	}}})
	if !s.until(formWithin, s.allServe) {
		s.failf("the links do not open within %v:\n%s", formWithin, s.status())
	}
}

func (s *Sim) propose(m *machine, cmd *metapb.Command) {
	ended := false
	m.proc.propose(cmd, func(_ *meta.State, err error) {
		if ended = true; err != nil {
			s.failf("%T: %v", cmd.Kind, err)
		}
	})
	m.kick()
	if !s.until(10*time.Second, func() bool { return ended }) {
		s.failf("%T has no answer", cmd.Kind)
	}
}

// work1 lets clients work while faults happen.
func (s *Sim) work1() {
	s.work.choose(s.gmap())
	s.faults.choose(s.gmap(), s.work.link)
	for i := range s.cfg.Clients {
		c := &client{s: s, id: i, rng: s.e.rng(fmt.Sprint("client ", i)), node: s.machines[i%len(s.machines)].id}
		s.clients = append(s.clients, c)
		c.later(between(c.rng, 0, 100*time.Millisecond), c.next)
	}
	end := s.e.now + s.cfg.Faulty
	s.faults.run(end)
	s.guests.watch()
	if s.cfg.Faults&Revoke != 0 {
		s.revokeAlways(s.e.rng("revoke"), end)
	}
	s.until(s.cfg.Faulty, func() bool { return false })
}

// quiet ends the faults; soon every command must have ended.
func (s *Sim) quiet() {
	s.faults.heal()
	s.e.run(s.e.now + s.scaled(5*time.Second)) // some more work on the healed cluster
	for _, c := range s.clients {
		c.stop = true
	}
	if s.until(endWithin, s.idle) || s.failed() {
		return
	}
	for _, c := range s.clients {
		if op := c.op; op != nil {
			s.failf("client %d: a %v at %d has not ended %v after the faults, try %d through %d\n%s", c.id, op.kind, op.off, endWithin, op.count, c.node, s.status())
			return
		}
	}
}

func (s *Sim) idle() bool {
	return !slices.ContainsFunc(s.clients, func(c *client) bool { return c.op != nil })
}

// heal waits until all members of all links are in sync and miss nothing.
func (s *Sim) heal() {
	if !s.until(max(time.Minute, s.scaled(healWithin)), s.whole) && !s.failed() {
		s.failf("the copies are not whole long after the faults:\n%s", s.status())
	}
	s.e.run(s.e.now + 3*time.Second) // commit notices, destage
}

// readAll reads every block that was ever touched, through each machine in turn.
func (s *Sim) readAll() {
	blocks := slices.Sorted(maps.Keys(s.history.blocks))
	for i, m := range s.members() {
		c := &client{s: s, id: len(s.clients), rng: s.e.rng(fmt.Sprint("reader ", i)), node: m.id, stop: true}
		s.clients = append(s.clients, c)
		for _, b := range blocks {
			c.node = m.id
			c.op = &command{kind: opRead, off: b * placement.BlockSize, n: placement.BlockSize, first: s.e.now}
			c.try()
			if !s.until(endWithin, func() bool { return c.op == nil }) {
				s.failf("a read of block %d through machine %d does not end\n%s", b, m.id, s.status())
			}
			if s.failed() {
				return
			}
		}
	}
}

// judge puts the history into order.
func (s *Sim) judge() {
	bad, gaveUp := s.history.check(judgeLimit)
	s.report.Unjudged = gaveUp
	for _, b := range bad {
		s.failf("block %d (chunk %d, link %v) is not linearizable:\n%s", b.block, b.block/placement.BlocksPerChunk, s.linkOf(b.block), b.text)
	}
}

func (s *Sim) close() {
	for _, m := range s.machines {
		m.end("the run is over", 0, 1)
	}
	s.e.run(s.e.now + time.Millisecond)
}
