package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/replica"
	"petal/placement"
)

// machine is a computer: clock, disks, and at most one process of petal. It
// outlives the process.
//
//	off --boot--> starting --> running --crash (machine), kill (process)--> off
//	                             |  ^
//	                             v  |  pause: like SIGSTOP
//	                            paused
type machine struct {
	s     *Sim
	id    placement.Server
	rng   *rand.Rand
	clock machineClock

	node     *disk            // the node's own directory
	brick    *disk            // its brick
	maps     *pebblefs.MemFS  // the brick's map
	speed    [2]time.Duration // least and most time of a step of the disks
	life     *life            // of the process; nil: none
	proc     process          // nil: none
	ends     *endpoint        // its transport
	boots    int
	mapFault *mapFault // of the process's map
	blank    bool      // an empty disk has taken its brick's place: the next process is to begin with it

	member        bool // of those that join late: it has been seen to be one
	gone, leaving bool // it is none any more, or is being taken out
	doubted       bool // a write or sync has failed: what it left is looked at before the next start
	rotten        bool // its journal has rotted: it may have to get another disk
	waits         bool // for that disk

	pausedUntil time.Duration
	stepping    bool // a step of the disks is planned
}

// process is petal on a machine. step does one piece of the work that waits for
// disks and reports whether there was any.
type process interface {
	step() bool
	// started reports whether it serves, as far as it knows; then volume is not
	// nil if there is a disk and initiators could have sessions with it.
	started() bool
	volume() volume
	state() *meta.State
	links() []replica.LinkStatus
	propose(cmd *metapb.Command, done func(*meta.State, error))
	// abandon gives back memory after the process's life is over. It must not
	// reach any disk.
	abandon()
}

const (
	diskFast = 30 * time.Microsecond
	diskSlow = 400 * time.Microsecond
	drift    = 0.01
)

func newMachine(s *Sim, id placement.Server) *machine {
	m := &machine{s: s, id: id, rng: s.e.rng(fmt.Sprint("machine ", id)), speed: [2]time.Duration{diskFast, diskSlow}}
	m.node = newDisk("node", 1<<30, s.e.rng(fmt.Sprint("node disk ", id)))
	m.brick = newDisk("brick", s.cfg.BrickBytes, s.e.rng(fmt.Sprint("brick disk ", id)))
	m.maps, m.mapFault = pebblefs.NewCrashableMem(), &mapFault{}
	for _, d := range []*disk{m.node, m.brick} {
		d.onCrash = func() { m.powerOff("in the middle of a write") }
	}
	m.clock = machineClock{e: s.e, m: m, rate: 1 + drift*(2*m.rng.Float64()-1), wall: epoch}
	m.switchOn()
	return m
}

// epoch is when all simulations begin.
var epoch = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

// switchOn starts the machine's clock at some small value, as boot time is.
func (m *machine) switchOn() {
	c := &m.clock
	c.wall = c.realtime()
	c.on, c.show = m.s.e.now, between(m.rng, time.Second, time.Minute)
}

func (m *machine) paused() bool { return m.pausedUntil > m.s.e.now }
func (m *machine) alive() bool  { return m.life != nil }
func (m *machine) up() bool     { return m.proc != nil && m.proc.started() }

// kick plans a step of the disks if none is.
func (m *machine) kick() {
	if m.stepping || m.proc == nil {
		return
	}
	m.stepping = true
	life := m.life
	m.s.e.after(between(m.rng, m.speed[0], m.speed[1]), m, life, func() {
		m.stepping = false
		if m.proc.step() && m.life == life {
			m.kick()
		}
	})
}

// start runs a process.
func (m *machine) start() {
	if m.alive() || m.gone || m.brick.dead || m.waits { // for another disk
		return
	}
	if m.boots > 0 {
		m.s.faults.beforeStart(m)
	}
	m.boots++
	m.life = &life{}
	m.stepping = false
	m.s.tracef("machine %d: start %d", m.id, m.boots)
	proc, err := m.s.boot(m)
	switch {
	case m.life == nil: // it lost its power meanwhile
	case err != nil:
		m.s.failf("machine %d does not start: %v", m.id, err)
	default:
		m.proc = proc
		m.kick()
	}
}

// kill ends the process as kill -9 does: what it wrote is with the system, durable
// or not, and the others see their connections closed soon.
func (m *machine) kill(why string) {
	m.doubted = m.doubted || m.ailing()
	for _, d := range []*disk{m.node, m.brick} {
		if d.hurt {
			d.crash()
		}
		d.refuse = false
	}
	if m.alive() {
		// The old process may still be at its map: the new one gets its own. How much
		// the clone draws depends on what Pebble does in the background.
		m.maps = m.maps.CrashClone(pebblefs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	}
	m.end("kill -9, "+why, 0, 5*time.Millisecond)
}

func (m *machine) end(why string, least, most time.Duration) {
	if !m.alive() {
		return
	}
	m.s.tracef("machine %d: %s", m.id, why)
	m.life.over, m.life = true, nil
	m.mapFault = &mapFault{}
	m.pausedUntil = 0
	if m.ends != nil {
		m.s.net.detach(m.ends, least, most)
		m.ends = nil
	}
	if m.proc != nil {
		proc := m.proc
		m.proc = nil
		// Not at once: we may be deep inside it.
		m.s.e.after(0, nil, nil, proc.abandon)
	}
	m.s.clientsOf(m)
}

// powerOff takes the machine's power: its disks keep what was durable and some
// of the rest, and the others only notice that it is silent.
func (m *machine) powerOff(why string) {
	if !m.alive() {
		return
	}
	m.doubted = m.doubted || m.ailing()
	m.node.crash()
	m.brick.crash()
	m.maps = m.maps.CrashClone(pebblefs.CrashCloneCfg{})
	m.end("power off "+why, m.s.scaled(noticeLeast), m.s.scaled(noticeMost))
	m.switchOn()
}

// powerOffSoon takes the power in the middle of one of the next operations of a
// disk.
func (m *machine) powerOffSoon() {
	d := m.brick
	if m.rng.IntN(4) == 0 {
		d = m.node
	}
	d.crashIn = 1 + m.rng.IntN(6)
}

// replaceDisk puts an empty disk into the place of the brick's.
func (m *machine) replaceDisk() {
	m.kill("its disk is replaced")
	m.brick = newDisk("brick", m.s.cfg.BrickBytes, m.brick.rng)
	m.brick.onCrash = func() { m.powerOff("in the middle of a write") }
	m.maps = pebblefs.NewCrashableMem()
	m.rotten, m.waits = false, false
	m.blank = true
}

// ailing reports whether a disk has failed the process.
func (m *machine) ailing() bool {
	return m.brick.dead || m.brick.hurt || m.node.hurt || m.mapFault.hurt()
}

// pause stops the process for d, as SIGSTOP does; its clock goes on.
func (m *machine) pause(d time.Duration) {
	if !m.alive() {
		return
	}
	m.s.tracef("machine %d: paused for %v", m.id, d)
	m.pausedUntil = m.s.e.now + d
	m.s.net.silent(m, m.pausedUntil)
}
