package journal

import (
	"fmt"
	"math"
	"slices"
)

// verdict is what follows from the scans.
type verdict struct {
	Recovery
	groups     []group // with records that are kept and not trimmed, in order
	tail       *scan   // where the log goes on, at seg.end; nil: in a new segment
	opening    uint64  // highest seen
	generation uint64  // highest seen
	known      LSN     // highest LSN known durable
}

// judge applies the table in the package comment to what was found. It also sets
// end and last of the segments.
func judge(scans []*scan) (*verdict, error) {
	v := &verdict{}
	v.survey(scans, bury(scans))
	cut, err := v.walk(scans)
	if err != nil {
		return nil, err
	}
	return v, v.settle(scans, cut)
}

// bury finds the records that a later opening has cut: those at or above its
// base. It returns, for each opening, the first LSN that it lost so.
func bury(scans []*scan) map[uint64]LSN {
	bases := map[uint64]LSN{}
	for _, sc := range scans {
		if sc.header != nil {
			bases[sc.header.Opening] = LSN(sc.header.Base)
		}
		for i := range sc.groups {
			bases[sc.groups[i].opening] = sc.groups[i].base
		}
	}
	openings := make([]uint64, 0, len(bases))
	for o := range bases {
		openings = append(openings, o)
	}
	slices.Sort(openings)
	limits := make(map[uint64]LSN, len(bases))
	limit := LSN(math.MaxUint64)
	for _, o := range slices.Backward(openings) {
		limits[o] = limit
		limit = min(limit, bases[o])
	}
	for _, sc := range scans {
		for i := range sc.groups {
			g := &sc.groups[i]
			g.from, g.to = g.first, min(g.end, limits[g.opening])
			g.dead = g.to < g.from || g.to == g.from && !g.mark
		}
	}
	return limits
}

// survey collects what headers say about everything. What an opening knew to be
// durable counts only as far as no later one has cut it.
func (v *verdict) survey(scans []*scan, limits map[uint64]LSN) {
	v.First = 1
	for _, sc := range scans {
		v.generation = max(v.generation, sc.generation)
		v.Unreadable += len(sc.unreadable)
		if h := sc.header; h != nil {
			v.note(h.Opening, LSN(h.Trim), min(LSN(h.Base), limits[h.Opening])-1)
		}
		for i := range sc.groups {
			g := &sc.groups[i]
			v.note(g.opening, g.trim, min(g.durable, limits[g.opening]-1))
		}
	}
	v.known = max(v.known, v.First-1)
}

func (v *verdict) note(opening uint64, trim, durable LSN) {
	v.opening = max(v.opening, opening)
	v.First = max(v.First, trim)
	v.known = max(v.known, durable)
}

// walk goes through the records in order and decides about each one that is not
// there. It returns the cut: the first LSN that is not kept.
func (v *verdict) walk(scans []*scan) (cut LSN, err error) {
	next := v.First
	for _, sc := range scans {
		for i := range sc.groups {
			g := &sc.groups[i]
			if g.dead || g.to <= next {
				continue
			}
			if g.from > next && !v.missing(next, g.from-1) {
				return v.cutAt(next), nil
			}
			g.from = max(g.from, next)
			for _, x := range g.badIn(g.from, g.to) {
				if x.first <= v.known { // one with x, so x was durable too
					v.known = max(v.known, x.last)
				}
				if v.missing(x.lsn, x.lsn) {
					continue
				}
				if sc.unreadableIn(g.block, g.block+g.header+g.data) {
					return 0, sc.fail(fmt.Errorf("%w: the last group, at block %d", ErrUnreadable, g.block))
				}
				return v.cutAt(x.first), nil
			}
			next = g.to
		}
	}
	if v.known >= next {
		v.missing(next, v.known)
		next = v.known + 1
	}
	return next, nil
}

// missing decides about records that are not there. It reports those that were
// durable as rotten, and returns whether that was all of them.
func (v *verdict) missing(from, to LSN) (rotten bool) {
	rotten = to <= v.known
	to = min(to, v.known)
	if from > to {
		return rotten
	}
	if n := len(v.Rotten); n > 0 && v.Rotten[n-1].To+1 == from {
		v.Rotten[n-1].To = to
	} else {
		v.Rotten = append(v.Rotten, Range{from, to})
	}
	return rotten
}

// cutAt is the cut when record x was found torn, or is one with the torn one. If it begins a gap, part of that
// may have been durable and is rotten.
func (v *verdict) cutAt(x LSN) LSN {
	v.Cut = true
	return max(x, v.known+1)
}

// badIn returns the records of [from, end) with damaged data.
func (g *group) badIn(from, end LSN) []badRecord {
	byLSN := func(b badRecord, x LSN) int { return compare(uint64(b.lsn), uint64(x)) }
	lo, _ := slices.BinarySearchFunc(g.bad, from, byLSN)
	hi, _ := slices.BinarySearchFunc(g.bad, end, byLSN)
	return g.bad[lo:max(lo, hi)]
}

// unreadableIn reports whether a block of [from, end) could not be read.
func (sc *scan) unreadableIn(from, end uint32) bool {
	return slices.ContainsFunc(sc.unreadable, func(b uint32) bool { return b >= from && b < end })
}

// settle keeps the groups below the cut and finds where the log goes on: after
// the last group that counts. If what lies there once was durable, it is left
// alone and the log goes on in a new segment.
func (v *verdict) settle(scans []*scan, cut LSN) error {
	v.Last = cut - 1
	var last *scan
	for _, sc := range scans {
		for i := range sc.groups {
			g := &sc.groups[i]
			g.to = min(g.to, cut)
			if g.dead || g.to < g.from || g.to == g.from && !g.mark {
				continue
			}
			last = sc
			sc.seg.end = int64(g.block)*BlockSize + g.size()
			if !g.mark && g.to > v.First {
				sc.seg.last = g.to - 1
				v.groups = append(v.groups, *g)
				v.Bytes += g.size()
			}
		}
	}
	v.Groups = len(v.groups)
	if err := legible(scans, last); err != nil || last == nil {
		return err
	}
	end := uint32(last.seg.end / BlockSize)
	v.CutAt = Position{Segment: last.seg.slot, Block: end}
	v.Cut = v.Cut || slices.Contains(last.remains, end)
	n := len(v.Rotten)
	rottenTail := n > 0 && v.Rotten[n-1].To == v.Last
	if !rottenTail && last.header != nil && last.size == last.seg.size {
		v.tail = last
	}
	return nil
}

// legible fails if the place where one more group may be cannot be read: at the
// end of the last segment that has any, and at the beginning of those after it.
func legible(scans []*scan, last *scan) error {
	for _, sc := range scans {
		after := last == nil || sc.generation > last.generation
		if block := uint32(sc.seg.end / BlockSize); (after || sc == last) && sc.unreadableIn(block, block+1) {
			return sc.fail(fmt.Errorf("%w: block %d, where the log ends", ErrUnreadable, block))
		}
	}
	return nil
}
