package brick

import (
	"math/bits"

	"petal/placement"
)

// fragTable knows the frag extents: 64 KiB extents that are cut into sixteen
// slots of 4 KiB, for chunks of which a node of the epoch tree has only a few
// blocks of its own. Without them a random 4 KiB write after a snapshot would
// take sixteen times its size. Like the rest of the allocator it is rebuilt from
// the map at open, and like extents slots rest before they are reused. All of it
// is guarded by the allocator's lock.
type fragTable struct {
	used    map[uint64]placement.Mask // extent -> slots that are used or rest
	open    []uint64                  // extents with a free slot; may name some that are not, any more
	resting []slot
}

// claimSlot marks a slot as used, at open. It reports false if it was already, or
// if its extent is used otherwise.
func (a *allocator) claimSlot(s slot) (bool, error) {
	a.mu.Lock()
	m, known := a.frags.used[s.extent()]
	a.mu.Unlock()
	if !known {
		if fresh, err := a.claim(s.extent()); err != nil || !fresh {
			return false, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if m>>(s&15)&1 != 0 {
		return false, nil
	}
	a.frags.set(s.extent(), m|1<<(s&15))
	if !known {
		a.frags.open = append(a.frags.open, s.extent())
	}
	return true, nil
}

func (t *fragTable) set(extent uint64, m placement.Mask) {
	if t.used == nil {
		t.used = map[uint64]placement.Mask{}
	}
	t.used[extent] = m
}

// takeSlot takes a slot of an open frag extent; ok is false if there is none.
func (a *allocator) takeSlot() (s slot, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := &a.frags
	for n := len(t.open); n > 0; n = len(t.open) {
		x := t.open[n-1]
		if m, known := t.used[x]; known && m != placement.Full {
			i := bits.TrailingZeros16(^uint16(m))
			t.used[x] = m | 1<<i
			return slot(x<<4 | uint64(i)), true
		}
		t.open = t.open[:n-1]
	}
	return 0, false
}

// openFrags turns an extent that was taken into a frag extent.
func (a *allocator) openFrags(extent uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frags.set(extent, 0)
	a.frags.open = append(a.frags.open, extent)
}

// restSlot puts a used slot away until release.
func (a *allocator) restSlot(s slot) {
	a.mu.Lock()
	a.frags.resting = append(a.frags.resting, s)
	a.mu.Unlock()
}

// releaseSlots sets the first n resting slots free, and with the last slot of an
// extent the extent. The lock is held.
func (a *allocator) releaseSlots(n int) {
	t := &a.frags
	for _, s := range t.resting[:n] {
		x := s.extent()
		was := t.used[x]
		m := was &^ (1 << (s & 15))
		switch {
		case m == was:
			panic("brick: a slot freed twice")
		case m == 0:
			delete(t.used, x)
			a.vacate(x, true)
		default:
			t.used[x] = m
			if was == placement.Full {
				t.open = append(t.open, x)
			}
		}
	}
	t.resting = append(t.resting[:0], t.resting[n:]...)
}
