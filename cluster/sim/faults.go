package sim

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"petal/placement"
)

// Faults is a set of kinds of faults.
type Faults uint32

// The kinds.
const (
	PowerOff   Faults = 1 << iota // a machine loses power, between or in the middle of writes
	Kill                          // kill -9 of a process
	PowerCut                      // all machines lose power at once
	Pause                         // SIGSTOP, SIGCONT; the longest outlast a lease
	Reset                         // a connection is lost with all that is under way
	Cut                           // two machines can't reach each other
	CutOneWay                     // one can't reach another, but the other can
	CutData                       // the same, but the raft class passes
	Isolate                       // a machine can't reach anybody
	SlowEdge                      // messages take tens of milliseconds and more
	SlowDisk                      // so do disks
	LossyRaft                     // part of the raft class vanishes, or all of a machine's
	ClockJump                     // CLOCK_REALTIME jumps
	Refuse                        // a write or sync fails with EIO, of the brick or of the node's own directory
	Revoke                        // not a fault: PREEMPT and LOGICAL UNIT RESET, while commands are in flight
	Resize                        // nor this: the disk grows and shrinks, but for what is in use
	Churn                         // nor this: other disks come and go
	Rot                           // bits of the victim's brick flip, writes to it are lost or go elsewhere, sectors can't be read
	DeadDisk                      // the victim's brick dies, and an empty one takes its place
	MapError                      // Pebble can't write or read the files of a brick's map
	Members                       // not a fault: machines join and are removed
	RotJournal                    // as Rot, of the victim's journal; and bits flip there and in the superblock while it is off

	// Benign faults harm no durable byte: any number of them, anywhere, at any
	// time must not lose anything.
	Benign = PowerOff | Kill | PowerCut | Pause | Reset | Cut | CutOneWay | CutData | Isolate | SlowEdge | SlowDisk | LossyRaft | ClockJump | Refuse | Revoke | Resize | Churn | MapError | Members
)

var faultNames = [...]string{
	"power-off", "kill", "power-cut", "pause", "reset", "cut", "cut-one-way", "cut-data", "isolate", "slow-edge", "slow-disk", "lossy-raft", "clock-jump", "refuse", "revoke", "resize", "churn", "rot", "dead-disk", "map-error", "members", "rot-journal",
}

func (f Faults) String() string {
	var names []string
	for i, name := range faultNames {
		if f>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// harmful ones destroy data, at the victim only.
const harmful = Rot | DeadDisk | RotJournal

// nemesis brings faults about. It keeps a budget: what destroys data happens at
// one victim only, and while that is possible nothing takes away the other
// copies of what the victim holds. So a block never suffers more than its
// scheme must survive.
type nemesis struct {
	s      *Sim
	rng    *rand.Rand
	kinds  []Faults
	pace   time.Duration // mean time between faults
	victim placement.Server
	spared map[placement.Server]bool // holds other copies of what the victim holds
	focus  []placement.Server        // faults prefer these
	latent map[sector]bool           // blocks of the victim's brick that can't be read
	decay  *rand.Rand                // of RotJournal
	looks  *rand.Rand                // which bricks are checked before a start
	over   bool
}

func newNemesis(s *Sim, faults Faults) *nemesis {
	n := &nemesis{s: s, rng: s.e.rng("faults"), decay: s.e.rng("decay"), looks: s.e.rng("looks"), spared: map[placement.Server]bool{}}
	for i := range faultNames {
		if k := Faults(1) << i; faults&k != 0 {
			n.kinds = append(n.kinds, k)
		}
	}
	n.pace = s.scaled([]time.Duration{400 * time.Millisecond, 1500 * time.Millisecond, 5 * time.Second}[n.rng.IntN(3)])
	if faults&^(Reset|SlowEdge|SlowDisk|LossyRaft|ClockJump|Revoke|Resize|Rot) == 0 {
		n.pace /= 10 // nothing that it takes long to come back from
	}
	return n
}

// choose names the victim, once it is known who holds what, and prefers the
// members of the link that all clients work on, if there is one.
func (n *nemesis) choose(g *placement.GMap, l *placement.LinkID) {
	if l != nil {
		n.focus = g.Members(l.Position)
	}
	for _, k := range n.kinds {
		if k&harmful == 0 {
			continue
		}
		if n.victim == 0 {
			n.victim = g.Ring[n.rng.IntN(len(g.Ring))]
			n.s.tracef("faults: the victim is %d", n.victim)
		}
		n.protect(g)
		switch k {
		case Rot, RotJournal:
			n.rot()
		case DeadDisk:
			n.later(between(n.rng, 0, n.s.cfg.Faulty), n.diskDies)
		}
	}
}

// protect names whom no fault may harm, so that each link of the victim has a member
// that is always there. Of three copies that is one; the third may be out, too.
func (n *nemesis) protect(g *placement.GMap) {
	ring, v := g.Ring, slices.Index(g.Ring, n.victim)
	n.spared[ring[(v+1)%len(ring)]] = true
	n.spared[ring[(v+len(ring)-1)%len(ring)]] = true
}

// run plans faults until the time has come.
func (n *nemesis) run(until time.Duration) {
	if n.s.e.now >= until || n.over || n.s.failed() {
		return
	}
	n.one()
	n.s.e.after(between(n.rng, n.pace/4, n.pace*2), nil, nil, func() { n.run(until) })
}

func (n *nemesis) has(k Faults) bool { return slices.Contains(n.kinds, k) }

// target draws a machine that may be harmed.
func (n *nemesis) target() *machine {
	for {
		m := n.s.machines[n.rng.IntN(len(n.s.machines))]
		if len(n.focus) > 0 && n.rng.IntN(4) > 0 {
			m = n.s.machine(n.focus[n.rng.IntN(len(n.focus))])
		}
		if !n.spared[m.id] && !m.gone {
			return m
		}
	}
}

// long draws how long something lasts: mostly less than a lease, sometimes much
// more.
func (n *nemesis) long() time.Duration {
	return n.s.scaled(between(n.rng, 0, []time.Duration{200 * time.Millisecond, 2 * time.Second, 4 * time.Second, 15 * time.Second}[n.rng.IntN(4)]))
}

func (n *nemesis) one() {
	if len(n.kinds) == 0 {
		return
	}
	k := n.kinds[n.rng.IntN(len(n.kinds))]
	if k&(harmful|Revoke) != 0 {
		return // of their own accord
	}
	c := &n.s.report.Counts
	switch k {
	case PowerOff, Kill:
		m := n.target()
		switch {
		case k == Kill:
			c.Kills++
			m.kill("by chance")
		case n.rng.IntN(2) == 0:
			c.Crashes++
			m.powerOffSoon()
		default:
			c.Crashes++
			m.powerOff("")
		}
		n.later(n.long(), m.start)
	case PowerCut:
		if len(n.spared) > 0 || n.rng.IntN(4) != 0 {
			return
		}
		c.PowerCuts++
		for _, m := range n.s.machines {
			m.powerOff("with all others")
			n.later(n.long()/4, m.start)
		}
	case Pause:
		c.Pauses++
		n.target().pause(n.long())
	case ClockJump:
		m := n.target()
		m.clock.wall = m.clock.wall.Add(between(n.rng, -time.Hour, time.Hour))
	case SlowDisk:
		n.slowDisk()
	case Refuse:
		n.refuse()
	case Resize:
		n.s.resize(n.rng)
	case Churn:
		n.s.churn(n.rng)
	case MapError:
		n.mapFails()
	case Members:
		n.s.guests.one(n.over)
	default:
		n.network(k)
	}
}

func (n *nemesis) slowDisk() {
	m := n.target()
	d := between(n.rng, time.Millisecond, 100*time.Millisecond)
	n.s.tracef("faults: disk of %d needs %v for %v", m.id, d, d)
	m.speed = [2]time.Duration{d / 2, d}
	n.later(n.long(), func() { m.speed = [2]time.Duration{diskFast, diskSlow} })
}

// network harms a way between two machines, or all of one.
func (n *nemesis) network(k Faults) {
	a := n.target()
	b := n.target()
	if a == b {
		return
	}
	net := n.s.net
	heal := func() { net.heal(a.id, b.id); net.heal(b.id, a.id) }
	n.s.tracef("faults: %v of %d and %d", k, a.id, b.id)
	n.s.report.Counts.Cuts++
	switch k {
	case Reset:
		n.s.report.Counts.Resets++
		net.reset(a.id, b.id)
		return
	case Cut, CutData:
		net.cut(a.id, b.id, k == Cut)
		net.cut(b.id, a.id, k == Cut)
	case CutOneWay:
		net.cut(a.id, b.id, n.rng.IntN(2) == 0)
	case Isolate:
		for _, o := range n.s.machines {
			if o != a {
				net.cut(a.id, o.id, true)
				net.cut(o.id, a.id, true)
			}
		}
		heal = func() {
			for _, o := range n.s.machines {
				net.heal(a.id, o.id)
				net.heal(o.id, a.id)
			}
		}
	case SlowEdge:
		net.edge(a.id, b.id).slow = n.s.scaled(between(n.rng, time.Millisecond, 1500*time.Millisecond))
	case LossyRaft:
		net.edge(a.id, b.id).lossy = n.rng.Float64()
		if n.looks.IntN(2) == 0 { // all of one machine's: it serves on until its lease ends, and learns nothing
			heal = n.each(a, func(way *edge) { way.lossy = 1 })
		}
	}
	n.later(n.long(), heal)
}

// each does something to all ways from and to a machine, and returns what heals them.
func (n *nemesis) each(a *machine, do func(*edge)) (heal func()) {
	all := func(f func(from, to placement.Server)) {
		for _, o := range n.s.machines {
			if o != a {
				f(a.id, o.id)
				f(o.id, a.id)
			}
		}
	}
	all(func(from, to placement.Server) { do(n.s.net.edge(from, to)) })
	return func() { all(n.s.net.heal) }
}

// later plans the end of a fault.
func (n *nemesis) later(d time.Duration, heal func()) {
	n.s.e.after(d, nil, nil, func() {
		if !n.over {
			heal()
		}
	})
}

// heal ends all faults for good: everything runs and reaches everything.
func (n *nemesis) heal() {
	n.over = true
	s := n.s
	s.tracef("faults: all healed")
	for _, m := range s.machines {
		m.speed = [2]time.Duration{diskFast, diskSlow}
		m.node.crashIn, m.brick.crashIn = 0, 0
		m.node.refuse, m.brick.refuse = false, false
		m.brick.trouble = nil
		switch {
		case m.node.hurt || m.brick.hurt || m.mapFault.hurt():
			m.kill("for its disk has failed it")
		case m.id == n.victim && n.has(RotJournal): // what has rotted shows
			m.kill("to come back from its journal")
		}
		m.pausedUntil = min(m.pausedUntil, s.e.now)
		for _, o := range s.machines {
			if o != m {
				s.net.heal(m.id, o.id)
			}
		}
		m.start()
	}
}
