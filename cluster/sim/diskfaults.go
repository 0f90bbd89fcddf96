package sim

import (
	"strings"
	"syscall"
	"time"

	"petal/journal/vfs"
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
	n.s.tracef("faults: the next write or sync of the %s disk of %d fails", d.name, m.id)
	d.refuse = true
	n.later(n.long(), func() {
		if m.kill("for its disk has failed it"); m.node.hurt || m.brick.hurt {
			n.s.failf("machine %d: a disk is hurt still", m.id)
		}
		m.start()
	})
}

// rot gives the victim's brick an unreliable disk: only where data are, since
// names and the map are the file system's and Pebble's to protect. A block that
// can't be read is so until it is written again.
func (n *nemesis) rot() {
	chance := []float64{0.003, 0.02, 0.1}[n.rng.IntN(3)]
	n.latent = map[int64]bool{}
	n.s.machine(n.victim).brick.trouble = func(op vfs.Op) (v verdict) {
		if n.over || op.Kind != vfs.OpWrite && op.Kind != vfs.OpRead || !strings.HasPrefix(op.Name, "data") {
			return v
		}
		if n.sector(op) {
			v.err = syscall.EIO
			return v
		}
		if n.rng.Float64() >= chance {
			return v
		}
		n.s.report.Counts.Rots++
		n.s.tracef("faults: rot in %v of %s at %d, %d bytes", op.Kind, op.Name, op.Off, op.Len)
		if op.Kind == vfs.OpRead {
			v.err = syscall.EIO
			return v
		}
		switch n.rng.IntN(4) {
		case 0:
			v.lose = true
		case 1:
			v.flip, v.flipBit = true, n.rng.Int64N(op.Len*8)
		case 2:
			v.shift = vfs.BlockSize * int64(1+n.rng.IntN(8))
		case 3:
			n.latent[op.Off/vfs.BlockSize] = true
		}
		return v
	}
}

// sector reports whether an operation reads a block that can't be read; one that
// writes makes what it writes whole.
func (n *nemesis) sector(op vfs.Op) (bad bool) {
	for b := op.Off / vfs.BlockSize; b*vfs.BlockSize < op.Off+op.Len; b++ {
		if op.Kind == vfs.OpWrite {
			delete(n.latent, b)
		}
		bad = bad || n.latent[b]
	}
	return bad
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
		n.latent = map[int64]bool{}
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
