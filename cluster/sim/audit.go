package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/replica"
	"petal/cluster/slab"
	"petal/placement"
)

func (s *Sim) allStarted() bool {
	for _, m := range s.machines {
		if !m.up() || len(m.proc.state().Servers()) != len(s.machines) {
			return false
		}
	}
	return true
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
			if o := m.proc.state(); st == nil || o.Index() > st.Index() {
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
	for _, m := range s.members() {
		if !m.up() {
			return false
		}
		ours, want := 0, g.Copies
		if !slices.Contains(g.Ring, m.id) {
			want = 0
		}
		for _, l := range s.linksAt(m) {
			if !l.Serving || l.Ver != s.state().Link(l.Link).Ver {
				return false
			}
			if l.Link.GMap == g.ID {
				ours++
			}
		}
		if ours != want {
			return false
		}
	}
	return true
}

// linksAt returns the links that a machine is a member of, without those of gmaps
// that went with the last of their disks.
func (s *Sim) linksAt(m *machine) []replica.LinkStatus {
	st := s.state()
	return slices.DeleteFunc(m.proc.links(), func(l replica.LinkStatus) bool { return st.GMap(l.Link.GMap) == nil })
}

// whole reports whether every member of every link is in sync, serves, and misses
// nothing, and the head is where the ring wants it.
func (s *Sim) whole() bool {
	if !s.guests.settled() || !s.allServe() {
		return false
	}
	for _, m := range s.members() {
		if m.brick.dead { // which nobody may have noticed yet
			return false
		}
		for _, l := range s.linksAt(m) {
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
		if !m.up() {
			fmt.Fprintf(&b, "machine %d: alive %v, started false\n", m.id, m.alive())
			continue
		}
		for _, l := range m.proc.links() {
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

// audit ends all processes, opens the bricks as they lie on the disks, and
// compares the copies of every chunk, checksum by checksum.
func (s *Sim) audit() {
	st, g := s.state(), s.gmap()
	disk := st.Disk(diskName)
	bricks := make([]*brick.Brick, len(s.machines))
	pool, life := slab.New(poolBytes), &life{}
	defer pool.Discard()
	for i, m := range s.machines {
		m.kill("for the audit")
		if m.gone {
			continue
		}
		if s.checkBrick(m); s.failed() {
			return
		}
		o := s.brickOptions(m, life, pool)
		b, _, err := brick.Open(o)
		if err != nil {
			s.failf("the brick of machine %d can't be opened: %v", m.id, err)
			return
		}
		bricks[i] = b
		defer b.Kill()
	}
	for c := range placement.Chunk(diskChunks) {
		p := g.Position(placement.BucketOf(disk.Family, c))
		k := placement.Key{Family: disk.Family, Node: disk.Node, Chunk: c}
		var first brick.Sums
		for i, id := range g.Members(p) {
			sums, err := copyOf(bricks[id-1], k)
			switch {
			case err != nil:
				s.failf("chunk %d at machine %d: %v", c, id, err)
			case i == 0:
				first = sums
			case sums != first:
				s.failf("chunk %d of link %d.%d is %+v at machine %d and %+v at machine %d", c, g.ID, p, first, g.Members(p)[0], sums, id)
			}
			if s.failed() {
				return
			}
		}
	}
}

// checkBlank looks whether an empty disk in the place of an old one is known for
// what it is, when its server begins to serve (R14). That is more than what clients
// can see: each bucket's last stamp, which an empty disk lacks, has all of it copied
// all the same.
func (s *Sim) checkBlank(m *machine, st *meta.State) {
	for _, id := range st.LinksOf(m.id) {
		l := st.LinkInfo(id)
		self, _ := st.MemberOf(id, m.id)
		if id.GMap != s.gmap().ID { // of a disk that may be younger than this
			continue
		}
		if l.InSync.Has(self) && l.InSync.Len() > 1 || !l.InSync.Has(self) && !l.Blank.Has(self) {
			s.failf("machine %d has an empty disk, and link %v does not know it: in sync %b, blank %b", m.id, id, l.InSync, l.Blank)
		}
	}
}

// checkBrick does what `petal disk check` does: unless its disk rots, a machine that
// is off has all as it was written, whatever became of it meanwhile. With copies
// elsewhere nobody else would notice.
func (s *Sim) checkBrick(m *machine) {
	if s.faults.rots(m) {
		return
	}
	pool := slab.New(poolBytes)
	defer pool.Discard()
	s.report.Counts.Checks++
	_, err := brick.Check(s.brickOptions(m, &life{}, pool), func(p brick.Problem) {
		if p.Thing != "super" { // it has four copies since a write of it may tear
			s.failf("the brick of machine %d is not as it was written: %v", m.id, p)
		}
	})
	if err != nil && !errors.Is(err, brick.ErrMissing) {
		s.failf("the brick of machine %d can't be checked: %v", m.id, err)
	}
}

// copyOf returns the checksums of a chunk's copy. Whether the data match them is
// not looked at: where a disk rots they need not, and the next reader repairs it.
func copyOf(b *brick.Brick, k placement.Key) (sums brick.Sums, err error) {
	err = b.Sums(k, &sums)
	plain(&sums)
	return sums, err
}

func (s *Sim) brickOptions(m *machine, l *life, pool *slab.Pool) brick.Options {
	return brick.Options{
		FS: m.brick.attach(l), MapFS: m.maps, Path: "brick", Pool: pool, JournalBytes: s.cfg.JournalBytes, SegmentBytes: s.cfg.JournalBytes / 8,
		CapacityBytes: s.cfg.BrickBytes / 2, Manual: true, Log: s.logger(m),
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
