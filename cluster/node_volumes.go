package cluster

import (
	"context"
	"fmt"
	"time"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
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
	v := newVolume(n.coord, d, s.Family(d.Family).Lineage(d.Node))
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

// changed brings volumes and reservations up to the new state. A disk that is
// gone has its volume closed and its family's space freed.
func (n *Node) changed(s *meta.State) {
	n.mu.Lock()
	var gone []*Volume
	for id, v := range n.volumes {
		if d := s.DiskByID(id); d != nil {
			v.update(d, s.Family(d.Family).Lineage(d.Node))
			continue
		}
		gone = append(gone, v)
		delete(n.volumes, id)
	}
	var told []*Reservations
	for id, r := range n.reserves {
		if s.DiskByID(id) == nil {
			delete(n.reserves, id)
			continue
		}
		told = append(told, r)
	}
	n.mu.Unlock()
	for _, r := range told {
		r.changed(s)
	}
	n.drop(s, gone)
}

// drop frees the space of dropped families, each once its volume has ended.
func (n *Node) drop(s *meta.State, gone []*Volume) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	for _, f := range s.Families() {
		if !f.Dropped || n.freeing[uint32(f.ID)] {
			continue
		}
		n.freeing[uint32(f.ID)] = true
		n.dropping.Go(func() { n.free(f, gone) })
	}
}

// free ends the volumes, then gives a family's space back and says so in the
// agreed state. If it is cut short, the next start takes it up again.
func (n *Node) free(f *meta.Family, gone []*Volume) {
	for _, v := range gone {
		if err := v.Close(n.ctx); err != nil {
			return
		}
	}
	done := make(chan error, 1)
	n.brick.DropFamily(f.ID, func(err error) { done <- err })
	if err := <-done; err != nil {
		n.opt.Log.Error("freeing the space of a deleted disk", "family", f.ID, "error", err)
		return
	}
	_, err := n.propose(n.ctx, &metapb.Command{Kind: &metapb.Command_FamilyFreed{FamilyFreed: &metapb.FamilyFreed{Family: uint32(f.ID)}}})
	if err != nil && n.ctx.Err() == nil {
		n.opt.Log.Error("freeing the space of a deleted disk", "family", f.ID, "error", err)
	}
}

// resume takes up what a crash may have cut short: dropped families, and data
// beyond the end of disks that shrank.
func (n *Node) resume() {
	s := n.State()
	n.drop(s, nil)
	for _, d := range s.Disks() {
		v, err := n.Volume(d.ID)
		if err != nil {
			continue
		}
		v.trimBeyondEnd(func(err error) {
			if err != nil {
				n.opt.Log.Warn("trimming a disk that was shrunk", "disk", d.Name, "error", err)
			}
		})
	}
}

// Close ends the node: volumes finish what is in flight, the journal is
// flushed, and every file is closed. Without sessions nothing acknowledged is
// ever lost by not calling it; it saves the next start the recovery.
func (n *Node) Close(ctx context.Context) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	volumes := n.volumes
	n.volumes = nil
	n.mu.Unlock()
	var first error
	for _, v := range volumes {
		if err := v.Close(ctx); err != nil && first == nil {
			first = err
		}
	}
	n.cancel()
	n.dropping.Wait()
	if err := n.release(); err != nil && first == nil {
		first = err
	}
	return first
}

// Status is how a node is.
type Status struct {
	Incarnation uint64        // starts of this server so far
	Recovery    time.Duration // from Open to serving
	Bricks      []BrickStatus
	Cache       CacheStatus
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
