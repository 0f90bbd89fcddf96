package replica

import (
	"petal/cluster/brick"
	"petal/cluster/wire"
	"petal/placement"
)

// Mapped calls done with the chunks of a link, from key.Chunk to last and at
// most max, that hold data of the virtual disk at key or miss some, in ascending
// order, and whether there may be more. The status is Do's of a Read; only the
// link's head answers. It looks the chunks up before it returns, so it may wait
// for the disk.
func (s *Server) Mapped(id placement.LinkID, key placement.Key, last placement.Chunk, max int, done func(list []MappedChunk, more bool, st wire.Status)) {
	l, d := s.seat(id), s.view.Load().disk(key)
	if l == nil || d == nil || d.gmap.ID != id.GMap || max <= 0 {
		done(nil, false, wire.Redirect)
		return
	}
	l.lock()
	ver := l.ver
	st := l.mayServe(s.now(), true)
	l.unlock()
	if st != wire.OK {
		done(nil, false, st)
		return
	}
	list, more, err := s.mapped(id, d, key, last, max)
	l.lock()
	still := l.m.StillMayRead(ver, s.now())
	l.unlock()
	switch {
	case err != nil:
		done(nil, false, s.fault(err))
	case !still:
		done(nil, false, wire.NotReady)
	default:
		done(list, more, wire.OK)
	}
}

func (s *Server) mapped(id placement.LinkID, d *diskView, key placement.Key, last placement.Chunk, max int) (list []MappedChunk, more bool, err error) {
	found := make([]placement.Chunk, 0, min(max, mappedMax))
	from := key.Chunk
	for {
		found, err = s.c.Store.Mapped(key.Family, from, last, found[:0])
		if err != nil {
			return nil, false, err
		}
		for _, c := range found {
			if d.gmap.LinkOf(placement.BucketOf(key.Family, c)) != id {
				continue
			}
			if len(list) == min(max, mappedMax) {
				return list, true, nil
			}
			mask, err := s.held(key.Family, d.lineage, c)
			if err != nil {
				return nil, false, err
			}
			if mask != 0 {
				list = append(list, MappedChunk{c, mask})
			}
		}
		if len(found) < cap(found) || found[len(found)-1] >= last {
			return list, false, nil
		}
		from = found[len(found)-1] + 1
	}
}

// held returns which blocks of a chunk take space, here or, as far as they are
// missing here, perhaps elsewhere.
func (s *Server) held(f placement.Family, lineage []placement.Node, c placement.Chunk) (placement.Mask, error) {
	mask, err := s.c.Store.Provisioned(f, lineage, c)
	for _, n := range lineage {
		var sums brick.Sums
		if err == nil {
			err = s.c.Store.Sums(placement.Key{Family: f, Node: n, Chunk: c}, &sums)
			mask |= sums.Missing
		}
	}
	return mask, err
}

// Flush calls done when everything that this server has acknowledged is durable
// on its disk, or with the reason why it never will be. done is called without
// locks.
func (s *Server) Flush(done func(error)) {
	if s.lazy.n.Load() == 0 { // the usual case: all that was acknowledged is durable
		done(s.flushed(nil))
		return
	}
	s.c.Store.Flush(func(err error) {
		// It may be Commit that is calling, under a seat's mutex.
		s.c.Clock.AfterFunc(0, func() { done(s.flushed(err)) })
	})
}

// flushed is the outcome of a flush: a lazy write that was lost is not forgotten.
func (s *Server) flushed(err error) error {
	if lost := s.lazy.lost.Load(); lost != nil {
		return *lost
	}
	if err == nil {
		err = s.c.Store.Failed()
	}
	return err
}
