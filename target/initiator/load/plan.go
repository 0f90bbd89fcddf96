package load

import "sync/atomic"

// mixed is a job's plan: it never ends.
type mixed struct {
	job  Job
	size uint64 // of the region, bytes
}

func (p *mixed) next(l *lane, sl *slot) bool {
	block := uint64(p.job.BlockSize)
	blocks := p.size / block
	sl.length = p.job.BlockSize
	if p.job.Sequential {
		share := blocks / uint64(l.of)
		if share == 0 {
			return false
		}
		sl.offset = (uint64(l.index)*share + l.position%share) * block
		l.position++
	} else {
		sl.offset = l.rng.Uint64N(blocks) * block
	}
	sl.op = opWrite
	switch {
	case int(l.rng.Uint32N(100)) < p.job.ReadPercent:
		sl.op = opRead
	case p.job.UnmapPercent > 0 && int(l.rng.Uint32N(100)) < p.job.UnmapPercent:
		sl.op = opUnmap
	}
	return true
}

// pass goes over the region once.
type pass struct {
	op       operation
	size     uint64 // of the region, bytes
	step     uint64 // bytes an operation
	position atomic.Uint64
}

func (p *pass) next(_ *lane, sl *slot) bool {
	at := p.position.Add(p.step) - p.step
	if at >= p.size {
		return false
	}
	sl.op, sl.offset, sl.length = p.op, at, int(min(p.step, p.size-at))
	return true
}

// once does one operation on the whole disk.
type once struct {
	op   operation
	done atomic.Bool
}

func (p *once) next(_ *lane, sl *slot) bool {
	sl.op, sl.offset, sl.length = p.op, 0, 0
	return p.done.CompareAndSwap(false, true)
}
