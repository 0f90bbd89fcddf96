package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/placement"
)

// Volume returns the coordinator of a disk, which lives as long as the disk
// does.
func (n *Node) Volume(id meta.ID) (*Volume, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, ErrVolumeClosed
	}
	if v := n.volumes[id]; v != nil {
		return v, nil
	}
	s := n.State()
	d := s.DiskByID(id)
	if d == nil {
		return nil, &meta.Error{Kind: meta.ErrNotFound, Thing: fmt.Sprintf("disk %x", id[:])}
	}
	v := newVolume(n.coord, d, n.routes[s.Family(d.Family).GMap])
	n.volumes[id] = v
	return v, nil
}

// Reservations returns where the disk's reservations are kept.
func (n *Node) Reservations(id meta.ID) *Reservations {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.reserves[id]
	if r == nil {
		r = &Reservations{node: n, disk: id}
		r.version.Store(n.State().Reservation(id).Version)
		n.reserves[id] = r
	}
	return r
}

// drop frees this server's part of dropped families, each once its volume here
// has ended.
func (n *Node) drop(s *meta.State, gone []*Volume) {
	st := n.store.Load()
	for _, v := range gone {
		v.shut()
	}
	if st == nil {
		return
	}
	for _, f := range s.Families() {
		if !f.Dropped || slices.Contains(f.Freed, n.self) || !slices.Contains(s.GMap(f.GMap).Ring, n.self) {
			continue
		}
		n.mu.Lock()
		begin := !n.closed && !n.freeing[f.ID]
		n.freeing[f.ID] = true
		n.mu.Unlock()
		if begin {
			n.free(st, f.ID)
		}
	}
}

// free gives this server's part of a family back and says so in the agreed
// state. If it is cut short, the next start takes it up again.
func (n *Node) free(st *storage, f placement.Family) {
	st.brick.DropFamily(f, func(err error) {
		if err != nil {
			n.opt.Log.Error("freeing the space of a deleted disk", "family", f, "error", err)
			return
		}
		n.freed(f)
	})
}

func (n *Node) freed(f placement.Family) {
	n.ProposeAsync(command(&metapb.FamilyFreed{Family: uint32(f), Server: uint32(n.self)}), func(_ *meta.State, err error) {
		switch {
		case errors.Is(err, meta.ErrNoQuorum):
			n.later(err, func() { n.freed(f) })
		case err != nil && n.ctx.Err() == nil:
			n.opt.Log.Error("freeing the space of a deleted disk", "family", f, "error", err)
		}
	})
}

// resume takes up what a crash may have cut short: dropped families, and data
// beyond the end of disks that shrank.
func (n *Node) resume() {
	s := n.State()
	n.drop(s, nil)
	n.sweep(s)
	for _, d := range s.Disks() {
		if g := s.GMap(s.Family(d.Family).GMap); g.Ring[0] != n.self {
			continue // somebody else's to do
		}
		v, err := n.Volume(d.ID)
		if err != nil {
			continue
		}
		v.trimBeyondEnd(func(err error) {
			if err != nil {
				n.opt.Log.Info("trimming a disk that was shrunk", "disk", d.Name, "error", err)
			}
		})
	}
}

// sweep gives back the space of families that are no more: a head that had not
// heard of it yet may have sent records after this server had freed them.
func (n *Node) sweep(s *meta.State) {
	st := n.store.Load()
	if st == nil {
		return
	}
	latest := placement.Family(0) // numbers are not used twice, and a later one may be new to s
	for _, f := range s.Families() {
		latest = max(latest, f.ID)
	}
	found, err := st.brick.Families(nil)
	if err != nil {
		n.opt.Log.Error("looking for the space of deleted disks", "error", err)
		return
	}
	for _, f := range found {
		if f > 1 && f < latest && s.Family(f) == nil {
			st.brick.DropFamily(f, func(error) {}) // the next start tries again
		}
	}
}

// Close ends the node: volumes finish what is in flight, the lease and the lead
// are given back so that nobody needs to wait for their end, the journal is
// flushed, and every file is closed. Without sessions nothing acknowledged is
// ever lost by not calling it; it saves others and the next start the recovery.
func (n *Node) Close(ctx context.Context) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	volumes := n.volumes
	n.volumes = map[meta.ID]*Volume{}
	n.mu.Unlock()
	var first error
	for _, id := range slices.SortedFunc(maps.Keys(volumes), compareIDs) {
		if err := volumes[id].Close(ctx); err != nil && first == nil {
			first = err
		}
	}
	n.cancel()
	n.busy.Wait()
	n.handOver(ctx)
	if err := n.release(); err != nil && first == nil {
		first = err
	}
	return first
}

// handOver gives the lease and the lead back, and waits a little until the
// others have taken over what they can.
func (n *Node) handOver(ctx context.Context) {
	told := make(chan struct{}, 1)
	n.Watch(func(*meta.State) {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	n.group.GiveUp()
	if n.net == nil || n.env.Manual {
		return
	}
	limit := time.NewTimer(n.opt.Times.Admission)
	defer limit.Stop()
	for n.needed() {
		select {
		case <-told:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// needed reports whether a link counts on this server that has another member
// in sync.
func (n *Node) needed() bool {
	s := n.State()
	for _, id := range s.LinksOf(n.self) {
		m, _ := s.MemberOf(id, n.self)
		if in := s.Link(id).InSync; in.Has(m) && in.Len() > 1 {
			return true
		}
	}
	return false
}

// Abandon lets a Manual node go as it is, without a word to its disks or to
// anybody: its process is dead. For simulation.
func (n *Node) Abandon() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.cancel()
	if s := n.store.Load(); s != nil {
		s.replica.Close()
		s.brick.Kill()
	}
	n.pool.Discard()
}

// release closes what open has opened.
func (n *Node) release() error {
	var err error
	st := n.store.Load()
	if n.net != nil {
		err = n.net.Close()
	}
	if st != nil {
		st.replica.Close()
	}
	if n.coord != nil {
		n.coord.shut()
	}
	if n.group != nil {
		err = errors.Join(err, n.group.Close())
	}
	if st != nil {
		err = errors.Join(err, st.brick.Close())
	}
	if n.cache != nil {
		n.cache.Clear() // of disks that are no more there may be something, too
	}
	if n.pool != nil {
		err = errors.Join(err, n.pool.Close())
	}
	return err
}

// Status is how a node is.
type Status struct {
	Incarnation uint64        // starts of this server so far
	Recovery    time.Duration // from Open to serving
	Bricks      []BrickStatus
	Cache       CacheStatus
	Path        PathStatus
}

// BrickStatus is how a brick is. Sizes are bytes.
type BrickStatus struct {
	Path                         string
	Failed                       error // why it has failed; nil while it serves
	Direct                       bool  // reads and writes bypass the page cache
	Used, Available, Total       uint64
	JournalUsed, JournalCapacity uint64
	ChecksumErrors               uint64 // blocks read that failed their checksum, since the start
}

// CacheStatus is the state of the read cache.
type CacheStatus struct {
	Used, Budget uint64 // bytes
	Hits, Misses uint64 // blocks
}
