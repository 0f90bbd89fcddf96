package sim

import (
	"fmt"
	"strings"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/replica"
	"petal/placement"
)

// Views of processes, which are bare or whole nodes.
func (m *machine) group() *meta.Group {
	if b, ok := m.proc.(*bare); ok {
		return b.group
	}
	return nil
}

func (m *machine) replica() *replica.Server {
	if b, ok := m.proc.(*bare); ok {
		return b.replica
	}
	return nil
}

func (m *machine) store() *brick.Brick {
	if b, ok := m.proc.(*bare); ok {
		return b.brick
	}
	return nil
}

func (s *Sim) allStarted() bool {
	for _, m := range s.machines {
		if m.proc == nil || m.replica() == nil {
			return false
		}
	}
	return len(s.machines[0].group().State().Servers()) == len(s.machines)
}

// gmap is the disk's, as the newest state of a living machine has it.
func (s *Sim) gmap() *placement.GMap {
	st := s.state()
	if st == nil || st.Disk(diskName) == nil {
		return nil
	}
	return st.GMap(st.Family(st.Disk(diskName).Family).GMap)
}

func (s *Sim) state() (st *meta.State) {
	for _, m := range s.machines {
		if m.proc != nil {
			if o := m.group().State(); st == nil || o.Index() > st.Index() {
				st = o
			}
		}
	}
	return st
}

func (s *Sim) linkOf(block uint64) placement.LinkID {
	st := s.state()
	if st == nil || st.Disk(diskName) == nil {
		return placement.LinkID{}
	}
	return s.gmap().LinkOf(placement.BucketOf(st.Disk(diskName).Family, placement.Chunk(block/placement.BlocksPerChunk)))
}

// allServe reports whether every link is open at every member.
func (s *Sim) allServe() bool {
	g := s.gmap()
	if g == nil {
		return false
	}
	for _, m := range s.machines {
		if m.replica() == nil {
			return false
		}
		links := m.replica().Status()
		if len(links) != g.Copies {
			return false
		}
		for _, l := range links {
			if !l.Serving || l.Ver != s.state().Link(l.Link).Ver {
				return false
			}
		}
	}
	return true
}

// whole reports whether every member of every link is in sync, serves, and misses
// nothing, and the head is where the ring wants it.
func (s *Sim) whole() bool {
	if !s.allServe() {
		return false
	}
	for _, m := range s.machines {
		for _, l := range m.replica().Status() {
			if l.InSync.Len() != len(l.Members) || l.Filling != 0 || l.Missing != 0 || l.Marks != 0 || l.InFlight != 0 || l.Head != 0 {
				return false
			}
		}
	}
	return true
}

// status tells how all links are, for people.
func (s *Sim) status() string {
	var b strings.Builder
	for _, m := range s.machines {
		if m.replica() == nil {
			fmt.Fprintf(&b, "machine %d: alive %v, started false\n", m.id, m.alive())
			continue
		}
		for _, l := range m.replica().Status() {
			fmt.Fprintf(&b, "machine %d: link %v of %v self %d ver %d in sync %b head %d filling %b serving %v %s in flight %d marks %d missing %d joining %d\n",
				m.id, l.Link, l.Members, l.Self, l.Ver, l.InSync, l.Head, l.Filling, l.Serving, l.State, l.InFlight, l.Marks, l.Missing, l.Joining)
		}
	}
	if st := s.state(); st != nil {
		for _, id := range st.Links() {
			l := st.LinkInfo(id)
			fmt.Fprintf(&b, "agreed: link %v ver %d in sync %b head %d filling %b fenced %b\n", id, l.Ver, l.InSync, l.Head, l.Filling, l.Fenced)
		}
	}
	return b.String()
}

// audit compares the copies of every chunk, checksum by checksum, at all members.
func (s *Sim) audit() {
	st, g := s.state(), s.gmap()
	disk := st.Disk(diskName)
	for p := range uint32(len(g.Ring)) {
		members := g.Members(p)
		for c := range placement.Chunk(diskChunks) {
			if g.Position(placement.BucketOf(disk.Family, c)) != p {
				continue
			}
			k := placement.Key{Family: disk.Family, Node: disk.Node, Chunk: c}
			var first brick.Sums
			for i, id := range members {
				var sums brick.Sums
				if err := s.machine(id).store().Sums(k, &sums); err != nil {
					s.failf("chunk %d at machine %d: %v", c, id, err)
					return
				}
				plain(&sums)
				if i == 0 {
					first = sums
				} else if sums != first {
					s.failf("chunk %d of link %d.%d is %+v at machine %d and %+v at machine %d", c, g.ID, p, first, members[0], sums, id)
				}
			}
		}
	}
}

// plain forgets what makes no difference to readers: a zero block and one that
// was never written.
func plain(s *brick.Sums) {
	s.Zero = 0
	for i := range s.Sum {
		if s.Valid>>i&1 == 0 {
			s.Sum[i] = 0
		}
	}
}
