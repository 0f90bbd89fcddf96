package meta

import (
	"fmt"
	"slices"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// revoke makes ops in flight of a disk look again, and those that lost a right
// fail to be resent.
func (n *State) revoke(d *Disk) {
	nd := *d
	nd.VVer++
	nd.Revoked = nd.VVer
	n.disks[nd.ID] = &nd
}

func (n *State) bumpVVer(c *metapb.BumpVVer) error {
	id, err := idOf(c.Disk, "disk id")
	if err != nil {
		return err
	}
	d := n.disks[id]
	if d == nil {
		return refuse(ErrNotFound, fmt.Sprintf("disk id %x", id), "", "")
	}
	nd := *d
	nd.Resets++
	n.revoke(&nd)
	return nil
}

// Answer is a member's word that it has applied a vver, and that all ops which
// it admitted under an older one are committed; under the link's version Ver.
type Answer struct {
	Link   placement.LinkID
	Ver    uint64
	Member placement.Member
}

// Outstanding returns the links of a disk for which a barrier is not complete
// with these answers: for each link each member in sync has to have answered
// under the present version (DESIGN B). What is left is for answers that are
// still to come, for the exclusion of a member without lease (M13), or, where
// nobody of a link has a lease, for CompleteBarrier (M17). s must be at least
// as new as the state that brought the vver.
func (s *State) Outstanding(disk ID, answers []Answer) []placement.LinkID {
	var out []placement.LinkID
	for _, id := range s.linksOfDisk(disk) {
		c := s.Link(id)
		if missing := c.InSync &^ answered(id, c.Ver, answers); missing != 0 {
			out = append(out, id)
		}
	}
	return out
}

func answered(id placement.LinkID, ver uint64, answers []Answer) placement.Members {
	var have placement.Members
	for _, a := range answers {
		if a.Link == id && a.Ver == ver && a.Member < placement.MaxCopies {
			have = have.With(a.Member)
		}
	}
	return have
}

func (s *State) linksOfDisk(disk ID) []placement.LinkID {
	d := s.disks[disk]
	if d == nil {
		return nil
	}
	g := s.gmaps[s.families[d.Family].GMap]
	if g == nil {
		return nil
	}
	out := make([]placement.LinkID, len(g.Ring))
	for p := range out {
		out[p] = placement.LinkID{GMap: g.ID, Position: uint32(p)}
	}
	return out
}

// completeBarrier ends a barrier. A link none of whose members has a lease gets
// a new version: nothing of the old one is accepted later, and R10 precedes
// any service (M17). Any other link needs the answers of all in sync: an
// unleased one must be excluded first, since a record that is durable only
// there would be committed by a later union (M13). The leader gives no lease to
// those in c.Over until this is decided.
func (n *State) completeBarrier(c *metapb.CompleteBarrier) error {
	id, err := idOf(c.Disk, "disk id")
	if err != nil {
		return err
	}
	d := n.disks[id]
	if d == nil {
		return refuse(ErrNotFound, fmt.Sprintf("disk id %x", id), "", "")
	}
	if d.VVer < c.Vver {
		return refuse(ErrInvalid, diskThing(d.Name), fmt.Sprintf("it has vver %d, not %d yet", d.VVer, c.Vver), "")
	}
	var answers []Answer
	for _, a := range c.Answers {
		if a.Member < placement.MaxCopies {
			answers = append(answers, Answer{Link: linkID(a.Gmap, a.Position), Ver: a.Ver, Member: placement.Member(a.Member)})
		}
	}
	for _, open := range n.Outstanding(id, answers) {
		l := n.LinkInfo(open)
		for m, srv := range n.LinkServers(open) {
			if l.InSync.Has(placement.Member(m)) && !slices.Contains(c.Over, uint32(srv)) {
				return refuse(ErrNotYet, "barrier of "+diskThing(d.Name), fmt.Sprintf("%s: no answer under version %d from all in sync, and server %s may hold a lease", linkThing(open), l.Ver, n.NameOf(srv)), "")
			}
		}
		n.renew(&l)
	}
	return nil
}
