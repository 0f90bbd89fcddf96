package cluster

// softPercent is the part of a pool's space beyond which it is nearly full.
const softPercent = 80

// Usage is what the disk occupies, what the pool has left and has in all, in
// bytes, and whether the pool is beyond its soft threshold.
func (v *Volume) Usage() (used, poolAvailable, poolTotal uint64, soft bool) {
	h := v.c.here.Load()
	if h == nil {
		return 0, 0, 0, false
	}
	poolUsed, avail, total := h.Space()
	return uint64(h.Usage(v.family)), avail, total, poolUsed >= total/100*softPercent
}
