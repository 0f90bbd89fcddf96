package sim

import (
	"math/rand/v2"
	"strings"
	"syscall"

	"petal/journal/vfs"
)

// sector is a block of a file of the victim's brick.
type sector struct {
	name  string
	block int64
}

// rots reports whether what is on a machine's brick may not be what was written.
func (n *nemesis) rots(m *machine) bool {
	return m.id == n.victim && (n.has(Rot) || n.has(RotJournal))
}

// rot gives the victim's brick an unreliable disk: where data are, and where the
// journal is. Names and the map are the file system's and Pebble's to protect. A
// block that can't be read is so until it is written again.
func (n *nemesis) rot() {
	chance, rare := []float64{0.003, 0.02, 0.1}[n.rng.IntN(3)], []float64{0, 0.001, 0.01}[n.decay.IntN(3)]
	n.latent = map[sector]bool{}
	m := n.s.machine(n.victim)
	m.brick.trouble = func(op vfs.Op) (v verdict) {
		if n.over || op.Kind != vfs.OpWrite && op.Kind != vfs.OpRead {
			return v
		}
		data, journal := n.has(Rot) && strings.HasPrefix(op.Name, "data"), n.has(RotJournal) && isSegment(op.Name)
		switch {
		case !data && !journal:
			return v
		case n.unreadable(op):
			v.err = syscall.EIO
			return v
		case data && n.rng.Float64() < chance:
			return n.spoil(op, n.rng, m.brick)
		case journal && op.Kind == vfs.OpWrite && n.decay.Float64() < rare:
			m.rotten = true
			return n.spoil(op, n.decay, m.brick)
		}
		return v
	}
}

// spoil draws what becomes of a read or write.
func (n *nemesis) spoil(op vfs.Op, rng *rand.Rand, d *disk) (v verdict) {
	n.s.report.Counts.Rots++
	n.s.tracef("faults: rot in %v of %s at %d, %d bytes", op.Kind, op.Name, op.Off, op.Len)
	if op.Kind == vfs.OpRead {
		v.err = syscall.EIO
		return v
	}
	switch rng.IntN(4) {
	case 0:
		v.lose = true
	case 1:
		v.flip, v.flipBit = true, rng.Int64N(op.Len*8)
	case 2:
		v.shift = vfs.BlockSize * int64(1+rng.IntN(8))
		if i, err := d.mem.Stat(op.Name); isSegment(op.Name) && (err != nil || op.Off+op.Len+v.shift > i.Size()) {
			v.shift, v.lose = 0, true // there is nothing behind a segment
		}
	case 3:
		n.latent[sector{op.Name, op.Off / vfs.BlockSize}] = true
	}
	return v
}

func isSegment(name string) bool {
	return strings.HasPrefix(name, "journal/") && strings.HasSuffix(name, ".seg")
}

// unreadable reports whether an operation reads a block that can't be read; one
// that writes makes what it writes whole.
func (n *nemesis) unreadable(op vfs.Op) (bad bool) {
	for b := op.Off / vfs.BlockSize; b*vfs.BlockSize < op.Off+op.Len; b++ {
		at := sector{op.Name, b}
		if op.Kind == vfs.OpWrite {
			delete(n.latent, at)
		}
		bad = bad || n.latent[at]
	}
	return bad
}

// beforeStart is what happens to a machine that was off: the victim's journal and
// superblock may rot, if all that it has is elsewhere, too; others' bricks are
// looked at.
func (n *nemesis) beforeStart(m *machine) {
	if !n.rots(m) {
		if m.doubted || n.looks.IntN(8) == 0 {
			n.s.checkBrick(m)
		}
		m.doubted = false
		return
	}
	if n.over || !n.has(RotJournal) || m.blank || n.decay.IntN(2) == 0 || !n.spare() {
		return
	}
	var segments []string
	for _, name := range m.brick.mem.Files() {
		if isSegment(name) {
			segments = append(segments, name)
		}
	}
	if len(segments) == 0 {
		return
	}
	m.rotten = true
	n.s.report.Counts.JournalRots++
	if n.decay.IntN(4) == 0 {
		n.damage(m, "super") // one copy of four, at most
	}
	for range 1 + n.decay.IntN(3) {
		n.damage(m, segments[n.decay.IntN(len(segments))])
	}
}

// damage changes some of one block of a file, of one that is in use if one can be
// found.
func (n *nemesis) damage(m *machine, name string) {
	i, err := m.brick.mem.Stat(name)
	if err != nil || i.Size() < vfs.BlockSize {
		return
	}
	var at int64
	for range 20 {
		used := false
		at = n.decay.Int64N(i.Size()/vfs.BlockSize) * vfs.BlockSize
		_ = m.brick.mem.Damage(name, at, func(p []byte) {
			for _, x := range p {
				used = used || x != 0
			}
		}, vfs.BlockSize)
		if used {
			break
		}
	}
	how := n.decay.IntN(3)
	n.s.tracef("faults: %s of %d rots at %d, in way %d", name, m.id, at, how)
	err = m.brick.mem.Damage(name, at, func(p []byte) {
		switch how {
		case 0:
			bit := n.decay.IntN(8 * len(p))
			p[bit/8] ^= 1 << (bit % 8)
		case 1:
			first := n.decay.IntN(len(p)/vfs.SectorSize) * vfs.SectorSize
			clear(p[first : first+vfs.SectorSize])
		case 2:
			for i := range p {
				p[i] = byte(n.decay.Uint32())
			}
		}
	}, vfs.BlockSize)
	if err != nil {
		n.s.failf("machine %d: %s can't rot: %v", m.id, name, err)
	}
}

// giveUp is what the operator does with a brick whose journal has rotted so that
// its node refuses to start: as it advises, an empty one takes its place.
func (n *nemesis) giveUp(m *machine, why error) {
	n.s.report.Counts.Replaced++
	m.kill(why.Error())
	m.waits = true
	n.s.e.after(n.long(), nil, nil, n.newDisk)
}
