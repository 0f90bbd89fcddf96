package cache

import (
	"petal/cluster/slab"
	"petal/placement"
)

// Fill is a read of a chunk from the disk on its way into the cache. At most
// one per key is under way. Whoever got it from BeginFill calls Put for what
// was read, then End once.
//
//	BeginFill      -> look up where the blocks are, read, verify -> Put -> End
//	 |                                                                      |
//	 '-- a committed write or a Drop meanwhile marks its blocks stale ------'
type Fill struct {
	c       *Cache
	key     placement.Key
	want    placement.Mask
	stale   placement.Mask // overwritten or dropped since BeginFill; under the shard's lock
	waiters *Waiter        // newest first
}

// Waiter is embedded in a read that may have to wait for another's fill. Ready
// is called once per wait, from the goroutine that ends the fill, and must not
// block. The read then starts again from Get.
type Waiter struct {
	Ready func(*Waiter)
	next  *Waiter
}

// BeginFill announces a read of key from the disk. It must be called before
// the caller looks up what the disk holds, else a write committed in between
// could be covered by older data. want are the blocks that somebody asked for
// (zero for a prefetch): they count as accessed.
//
// It returns nil if such a read is under way already; then w, if not nil, will
// be told when that has ended.
func (c *Cache) BeginFill(key placement.Key, want placement.Mask, w *Waiter) *Fill {
	s, _ := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.fills[key]; f != nil {
		s.joined++
		if w != nil {
			w.next, f.waiters = f.waiters, w
		}
		return nil
	}
	f := c.fills.Get().(*Fill)
	*f = Fill{c: c, key: key, want: want}
	s.fills[key] = f
	return f
}

// Put caches blocks as they are on the disk, verified; they lie in buf one
// after another, in order. buf may be the pool's Zero. Blocks that have been
// Put or dropped since BeginFill, or are cached already, are left out. The
// caller keeps its reference; nobody may write to the memory any more.
func (f *Fill) Put(mask placement.Mask, buf *slab.Buf) {
	c := f.c
	s, h := c.shard(f.key)
	var out evicted
	s.mu.Lock()
	only := mask &^ f.stale
	if e := s.entries[f.key]; e != nil {
		only &^= e.have
	}
	if only != 0 {
		e := c.insert(s, f.key, h)
		e.set(mask, only, buf, &out)
		e.seen |= only & f.want
		c.settle(s, e, &out)
	}
	s.mu.Unlock()
	c.free(&out)
}

// End ends the fill, whatever came of it, and wakes those that wait for it, in
// the order in which they came. f must not be used afterwards.
func (f *Fill) End() {
	c := f.c
	s, _ := c.shard(f.key)
	s.mu.Lock()
	delete(s.fills, f.key)
	w := f.waiters
	s.mu.Unlock()
	*f = Fill{}
	c.fills.Put(f)

	var first *Waiter
	for w != nil {
		next := w.next
		w.next, first = first, w
		w = next
	}
	for first != nil {
		w := first
		first, w.next = w.next, nil
		w.Ready(w)
	}
}
