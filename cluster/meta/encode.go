package meta

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// encode turns the state into its snapshot form. Equal states give equal
// messages: everything is in the order of its key.
func (s *State) encode() *metapb.State {
	p := &metapb.State{ClusterId: s.clusterID[:], NextFamily: uint32(s.nextFamily), Discovery: s.discovery.encode()}
	s.encodeCluster(p)
	for _, f := range s.Families() {
		fam := &metapb.Family{Id: uint32(f.ID), Gmap: f.GMap, NextNode: uint32(f.NextNode), Dropped: f.Dropped, Freed: numbers(f.Freed)}
		for _, n := range f.Nodes {
			fam.Nodes = append(fam.Nodes, &metapb.EpochNode{Id: uint32(n.ID), Parent: uint32(n.Parent), Frozen: n.Frozen})
		}
		p.Families = append(p.Families, fam)
	}
	for _, d := range s.Disks() {
		p.Disks = append(p.Disks, &metapb.Disk{Id: d.ID[:], Name: d.Name, Size: d.Size, BlockSize: uint32(d.BlockSize), WriteBack: d.WriteBack,
			ReadOnly: d.ReadOnly, Family: uint32(d.Family), Node: uint32(d.Node), Vver: d.VVer, Revoked: d.Revoked, Resets: d.Resets, CreatedUnix: d.Created.Unix()})
	}
	for _, t := range s.Targets() {
		tgt := &metapb.Target{Name: t.Name, Acl: t.ACL, Chap: t.CHAP.encode()}
		for _, l := range t.LUNs {
			tgt.Luns = append(tgt.Luns, &metapb.Lun{Number: uint32(l.Number), Disk: l.Disk[:]})
		}
		p.Targets = append(p.Targets, tgt)
	}
	for _, id := range sortedIDs(s.reservations) {
		r := s.reservations[id]
		p.Reservations = append(p.Reservations, &metapb.Reservation{Disk: bytes.Clone(id[:]), Version: r.Version, Value: r.Value})
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.retired), compareRetired) {
		id := s.retired[k]
		p.Retired = append(p.Retired, &metapb.Retired{Target: k.target, Number: uint32(k.lun), Disk: bytes.Clone(id[:])})
	}
	return p
}

func compareRetired(a, b retiredKey) int {
	return cmp.Or(cmp.Compare(a.target, b.target), cmp.Compare(a.lun, b.lun))
}

func sortedIDs[V any](m map[ID]V) []ID {
	return slices.SortedFunc(maps.Keys(m), func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
}

// decode is the inverse of encode. It refuses what encode could not have made.
func decode(p *metapb.State) (*State, error) {
	s := (&State{}).clone()
	var err error
	if s.clusterID, err = idOf(p.ClusterId, "cluster id"); err != nil {
		return nil, err
	}
	s.nextFamily, s.discovery = placement.Family(p.NextFamily), chapOf(p.Discovery)
	if err := s.decodeCluster(p); err != nil {
		return nil, err
	}
	for _, f := range p.Families {
		fam := &Family{ID: placement.Family(f.Id), GMap: f.Gmap, NextNode: placement.Node(f.NextNode), Dropped: f.Dropped, Freed: servers(f.Freed)}
		if s.gmaps[fam.GMap] == nil {
			return nil, fmt.Errorf("meta: family %d has no placement", f.Id)
		}
		for _, n := range f.Nodes {
			fam.Nodes = append(fam.Nodes, EpochNode{ID: placement.Node(n.Id), Parent: placement.Node(n.Parent), Frozen: n.Frozen})
		}
		s.families[fam.ID] = fam
	}
	if err := s.decodeDisks(p); err != nil {
		return nil, err
	}
	return s, s.decodeTargets(p)
}

func (s *State) decodeDisks(p *metapb.State) error {
	for _, d := range p.Disks {
		id, err := idOf(d.Id, "disk id")
		if err != nil {
			return err
		}
		disk := &Disk{ID: id, Name: d.Name, Size: d.Size, BlockSize: int(d.BlockSize), WriteBack: d.WriteBack, ReadOnly: d.ReadOnly,
			Family: placement.Family(d.Family), Node: placement.Node(d.Node), VVer: d.Vver, Revoked: d.Revoked, Resets: d.Resets, Created: time.Unix(d.CreatedUnix, 0).UTC()}
		if s.families[disk.Family] == nil {
			return fmt.Errorf("meta: disk %q belongs to no family", d.Name)
		}
		s.disks[id], s.diskNames[d.Name] = disk, id
	}
	for _, r := range p.Reservations {
		id, err := idOf(r.Disk, "disk id")
		if err != nil {
			return err
		}
		s.reservations[id] = Reservation{Version: r.Version, Value: r.Value}
	}
	return nil
}

func (s *State) decodeTargets(p *metapb.State) error {
	for _, t := range p.Targets {
		tgt := &Target{Name: t.Name, ACL: t.Acl, CHAP: chapOf(t.Chap)}
		for _, l := range t.Luns {
			id, err := idOf(l.Disk, "disk id")
			if err != nil {
				return err
			}
			tgt.LUNs = append(tgt.LUNs, LUN{Number: uint16(l.Number), Disk: id})
		}
		s.targets[t.Name] = tgt
	}
	for _, r := range p.Retired {
		id, err := idOf(r.Disk, "disk id")
		if err != nil {
			return err
		}
		s.retired[retiredKey{r.Target, uint16(r.Number)}] = id
	}
	return nil
}

func (c CHAP) encode() *metapb.Chap {
	if !c.Enabled() {
		return nil
	}
	return &metapb.Chap{User: c.User, SealedSecret: c.Secret, MutualUser: c.MutualUser, SealedMutualSecret: c.MutualSecret}
}

func chapOf(p *metapb.Chap) CHAP {
	if p == nil {
		return CHAP{}
	}
	return CHAP{User: p.User, Secret: p.SealedSecret, MutualUser: p.MutualUser, MutualSecret: p.SealedMutualSecret}
}
