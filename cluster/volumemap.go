package cluster

import (
	"math/bits"
	"syscall"

	"petal/placement"
)

// provisionedChunksMax bounds how many chunks one call of Provisioned looks
// at, and so how long it takes. What it returns is shorter then, never wrong.
const provisionedChunksMax = 1024

// Provisioned reports whether the 4 KiB block at off is mapped to space, and
// for how many bytes from off, at most limit, that holds. Holes of any length
// are found in one step; a mapped run may be cut short after 64 MiB.
func (v *Volume) Provisioned(off, limit uint64) (mapped bool, run uint64, err error) {
	st := v.state.Load()
	if err := v.check(st, off, uint64(v.blockSize)); err != nil {
		return false, 0, err
	}
	if !v.busy.begin() {
		return false, 0, ErrVolumeClosed
	}
	defer v.busy.end()
	if limit == 0 || limit%uint64(v.blockSize) != 0 {
		return false, 0, syscall.EINVAL
	}
	limit = min(limit, st.size-off)
	chunk, last := placement.Chunk(off/placement.ChunkSize), placement.Chunk((off+(limit-1))/placement.ChunkSize)
	mask, err := v.c.brick.Provisioned(v.family, st.lineage, chunk)
	if err != nil {
		return false, 0, v.fault(err, off)
	}
	first := int(off % placement.ChunkSize / placement.BlockSize)
	mapped = mask&(1<<first) != 0
	for range provisionedChunksMax {
		if n := same(mask, first, mapped); first+n < placement.BlocksPerChunk {
			return mapped, min(limit, distance(off, chunk, first+n)), nil
		}
		if chunk == last {
			return mapped, limit, nil
		}
		next := chunk + 1
		if !mapped {
			var ok bool
			next, ok, err = v.c.brick.NextMapped(v.family, next)
			if err != nil {
				return false, 0, v.fault(err, off)
			}
			if !ok || next > last {
				return false, limit, nil
			}
		}
		chunk, first = next, 0
		if mask, err = v.c.brick.Provisioned(v.family, st.lineage, chunk); err != nil {
			return false, 0, v.fault(err, off)
		}
	}
	return mapped, min(limit, distance(off, chunk, 0)), nil
}

// same is for how many blocks of a chunk from first the mask is as mapped says.
func same(mask placement.Mask, first int, mapped bool) int {
	m := uint16(mask) >> first
	if mapped {
		m = ^m
	}
	return min(bits.TrailingZeros16(m), placement.BlocksPerChunk-first)
}

// distance is the number of bytes from off to a block of a later chunk or of
// the same one.
func distance(off uint64, c placement.Chunk, block int) uint64 {
	return uint64(c)*placement.ChunkSize + uint64(block)*placement.BlockSize - off
}
