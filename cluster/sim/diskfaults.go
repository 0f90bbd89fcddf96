package sim

import (
	"time"

	"petal/placement"
)

// refuse has a disk fail a write or sync. A node whose brick has failed serves on
// without it, and is started again some time; one whose own directory has failed
// ends.
func (n *nemesis) refuse() {
	m := n.target()
	if !m.alive() {
		return
	}
	n.s.report.Counts.Refusals++
	d := m.brick
	if n.rng.IntN(3) == 0 {
		d = m.node
	}
	d.refuse, d.only, d.syncs = true, "", false
	wait := n.long()
	if d == m.brick && n.looks.IntN(4) > 0 { // else it is mostly the journal's
		d.only, d.syncs = "data", n.looks.IntN(2) == 0
		wait /= 4 // before what should have been written is written anew
	}
	n.s.tracef("faults: the next write or sync of the %s disk of %d fails, of %q", d.name, m.id, d.only)
	n.later(wait, func() {
		if m.kill("for its disk has failed it"); m.node.hurt || m.brick.hurt {
			n.s.failf("machine %d: a disk is hurt still", m.id)
		}
		m.start()
	})
}

// diskDies ends the victim's brick for good as soon as nobody depends on it. Some
// time later an empty one takes its place, and the operator says that he knows.
func (n *nemesis) diskDies() {
	m := n.s.machine(n.victim)
	if n.over {
		return
	}
	if !m.alive() || !n.spare() {
		n.later(n.s.scaled(200*time.Millisecond), n.diskDies)
		return
	}
	n.s.report.Counts.DeadDisks++
	n.s.tracef("faults: the brick of %d dies", m.id)
	m.brick.dead = true
	m.kick()
	n.s.e.after(n.long(), nil, nil, n.newDisk)
}

// newDisk replaces the victim's brick, also when the faults are over already.
func (n *nemesis) newDisk() {
	m := n.s.machine(n.victim)
	if !n.spare() {
		n.s.e.after(n.s.scaled(200*time.Millisecond), nil, nil, n.newDisk)
		return
	}
	n.s.tracef("faults: %d gets an empty brick", m.id)
	trouble := m.brick.trouble
	m.replaceDisk()
	if n.latent = nil; !n.over {
		m.brick.trouble = trouble
		n.latent = map[sector]bool{}
	}
	m.start()
}

// spare reports whether each link of the victim has all its data elsewhere: the
// rest is in sync, runs, and misses nothing.
func (n *nemesis) spare() bool {
	s := n.s
	st, g := s.state(), s.gmap()
	if st == nil || g == nil {
		return false
	}
	for _, id := range g.Links(nil, n.victim) {
		l, others := st.LinkInfo(id), 0
		for i, srv := range g.Members(id.Position) {
			if srv == n.victim {
				continue
			}
			m := s.machine(srv)
			if !l.InSync.Has(placement.Member(i)) || l.Filling.Has(placement.Member(i)) || !m.up() || m.paused() {
				continue
			}
			for _, here := range m.proc.links() {
				if here.Link == id && here.Serving && here.Missing == 0 && here.Ver == l.Ver {
					others++
				}
			}
		}
		if others == 0 {
			return false
		}
	}
	return true
}
