package cluster

// softPercent is the part of a pool's space beyond which it is nearly full.
const softPercent = 80

// Usage is what the disk occupies, copies not counted, what the pool has left and
// has in all, in bytes, and whether the pool is beyond its soft threshold. It is
// an estimate from this server's share: the buckets lie evenly on all servers of
// the disk's gmap.
func (v *Volume) Usage() (used, poolAvailable, poolTotal uint64, soft bool) {
	h := v.c.here.Load()
	if h == nil {
		return 0, 0, 0, false
	}
	poolUsed, avail, total := h.Space()
	r := v.state.Load().routes
	share := func(x uint64) uint64 { return x / uint64(len(r.links[0].servers)) * uint64(len(r.links)) }
	return share(uint64(h.Usage(v.family))), share(avail), share(total), poolUsed >= total/100*softPercent
}
