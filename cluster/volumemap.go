package cluster

import (
	"math/bits"
	"slices"
	"sync"
	"syscall"
	"time"

	"petal/cluster/replica"
	"petal/cluster/wire"
	"petal/placement"
)

// Provisioned reports whether the 4 KiB block at off is mapped to space, and
// for how many bytes from off, at most limit, that holds. Holes of any length
// are found in one step; a mapped run may be cut short, where a server's answer
// ends. It waits for other servers, if chunks of the range are only there.
func (v *Volume) Provisioned(off, limit uint64) (mapped bool, run uint64, err error) {
	end := make(chan struct{})
	v.ProvisionedAsync(off, limit, func(m bool, n uint64, e error) {
		mapped, run, err = m, n, e
		close(end)
	})
	<-end
	return mapped, run, err
}

// ProvisionedAsync is Provisioned for who must not wait.
func (v *Volume) ProvisionedAsync(off, limit uint64, done func(mapped bool, run uint64, err error)) {
	st := v.state.Load()
	err := v.check(st, off, uint64(v.blockSize))
	if err == nil && (limit == 0 || limit%uint64(v.blockSize) != 0) {
		err = syscall.EINVAL
	}
	if err == nil && !v.busy.begin() {
		err = ErrVolumeClosed
	}
	if err != nil {
		done(false, 0, err)
		return
	}
	limit = min(limit, st.size-off)
	l := &look{v: v, st: st, off: off, limit: limit, since: v.c.clock.Now(), done: func(m bool, n uint64, err error) {
		v.busy.end()
		done(m, n, err)
	}}
	l.begin()
}

// look is a look at what is mapped from off on: the head of each link is asked
// for what it has there, and as far as all have answered, that is the answer.
type look struct {
	v          *Volume
	st         *volumeState
	off, limit uint64
	since      time.Duration
	done       func(mapped bool, run uint64, err error)

	mu     sync.Mutex
	routes *routes
	left   int             // answers to come, and one while they are being asked for
	end    placement.Chunk // all before is answered for
	status wire.Status     // of the first that failed
	found  []replica.MappedChunk
}

func (l *look) first() placement.Chunk { return placement.Chunk(l.off / placement.ChunkSize) }

func (l *look) last() placement.Chunk {
	return placement.Chunk((l.off + (l.limit - 1)) / placement.ChunkSize)
}

// begin asks.
func (l *look) begin() {
	l.routes = l.v.state.Load().routes
	l.left, l.end, l.found, l.status = len(l.routes.links)+1, l.last()+1, l.found[:0], wire.OK
	key := placement.Key{Family: l.v.family, Node: l.st.node, Chunk: l.first()}
	for i := range l.routes.links {
		l.v.c.mapped(&l.routes.links[i], key, l.last(), func(found []replica.MappedChunk, more bool, status wire.Status) {
			l.mu.Lock()
			l.add(found, more, status)
			l.mu.Unlock()
			l.answered()
		})
	}
	l.answered()
}

// add takes an answer. The lock is held.
func (l *look) add(found []replica.MappedChunk, more bool, status wire.Status) {
	if status != wire.OK {
		if l.status == wire.OK {
			l.status = status
		}
		return
	}
	if n := len(found); more && n > 0 {
		l.end = min(l.end, found[n-1].Chunk+1)
	}
	for _, c := range found {
		if c.Chunk >= l.first() && c.Chunk <= l.last() && c.Mask != 0 {
			l.found = append(l.found, c)
		}
	}
}

// answered counts; the last one decides.
func (l *look) answered() {
	l.mu.Lock()
	l.left--
	left, now := l.left, l.v.state.Load().routes
	l.mu.Unlock()
	c := l.v.c
	switch {
	case left > 0:
	case l.status == wire.OK && now.same(l.routes):
		slices.SortFunc(l.found, func(a, b replica.MappedChunk) int { return int(min(max(int64(a.Chunk-b.Chunk), -1), 1)) })
		mapped, run := l.run()
		l.done(mapped, run, nil)
	case l.status == wire.Failed && l.routes.only(c.self) || c.lapsed.Load() || c.clock.Now()-l.since >= c.times.Command*ageMax/ageTicks:
		l.done(false, 0, &unreachableError{statusError(l.status)})
	default: // a head has moved or cannot say now
		c.clock.AfterFunc(retryMax, l.begin)
	}
}

// run looks at the found chunks, which are in order.
func (l *look) run() (mapped bool, run uint64) {
	first := int(l.off % placement.ChunkSize / placement.BlockSize)
	at, found := l.first(), l.found
	for {
		mask := placement.Mask(0)
		if len(found) > 0 && found[0].Chunk == at {
			mask, found = found[0].Mask, found[1:]
		}
		if at == l.first() {
			mapped = mask&(1<<first) != 0
		}
		if n := same(mask, first, mapped); first+n < placement.BlocksPerChunk {
			return mapped, min(l.limit, distance(l.off, at, first+n))
		}
		first = 0
		switch at++; {
		case mapped:
		case len(found) > 0:
			at = found[0].Chunk
		default:
			at = l.end
		}
		if at >= l.end {
			if l.end > l.last() {
				return mapped, l.limit
			}
			return mapped, min(l.limit, distance(l.off, l.end, 0))
		}
	}
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
