package meta

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// apply returns the state after cmd, or s itself and the reason why the
// command is refused. It is deterministic: nothing but its arguments decides.
func apply(s *State, cmd *metapb.Command) (*State, error) {
	n := s.clone()
	err := n.apply(cmd)
	if err != nil {
		return s, err
	}
	return n, nil
}

func (n *State) apply(cmd *metapb.Command) error {
	if _, first := cmd.Kind.(*metapb.Command_Init); !first && n.clusterID == (ID{}) {
		return refuse(ErrNotFound, "cluster", "it has no identity yet", "make one with `petal cluster init`, or join one with `petal node join`")
	}
	if err := n.enabled(cmd); err != nil {
		return err
	}
	n.now = cmd.UnixMs
	defer func() { n.now = 0 }()
	switch k := cmd.Kind.(type) {
	case *metapb.Command_CreateDisk:
		return n.createDisk(k.CreateDisk)
	case *metapb.Command_UpdateDisk:
		return n.updateDisk(k.UpdateDisk)
	case *metapb.Command_DeleteDisk:
		return n.deleteDisk(k.DeleteDisk)
	case *metapb.Command_FamilyFreed:
		return n.familyFreed(k.FamilyFreed)
	case *metapb.Command_CreateTarget:
		return n.createTarget(k.CreateTarget.GetName())
	case *metapb.Command_DeleteTarget:
		return n.deleteTarget(k.DeleteTarget)
	case *metapb.Command_MapLun:
		return n.mapLUN(k.MapLun)
	case *metapb.Command_UnmapLun:
		return n.unmapLUN(k.UnmapLun)
	case *metapb.Command_SetAcl:
		return n.setACL(k.SetAcl)
	case *metapb.Command_SetChap:
		return n.setCHAP(k.SetChap)
	case *metapb.Command_SwapReservation:
		return n.swapReservation(k.SwapReservation)
	case *metapb.Command_BumpVver:
		return n.bumpVVer(k.BumpVver)
	case *metapb.Command_CompleteBarrier:
		return n.completeBarrier(k.CompleteBarrier)
	}
	return n.applyCluster(cmd)
}

// applyCluster is apply for the commands that are about servers and links.
func (n *State) applyCluster(cmd *metapb.Command) error {
	switch k := cmd.Kind.(type) {
	case *metapb.Command_Init:
		return n.init(k.Init)
	case *metapb.Command_Start:
		return n.start(k.Start)
	case *metapb.Command_Join:
		return n.join(k.Join)
	case *metapb.Command_Leave:
		return n.leave(k.Leave)
	case *metapb.Command_Confirm:
		return n.confirm(k.Confirm)
	case *metapb.Command_UpdateServer:
		return n.updateServer(k.UpdateServer)
	case *metapb.Command_BrickFailed:
		return n.brickFailed(k.BrickFailed)
	case *metapb.Command_Reopen:
		return n.reopen(k.Reopen)
	case *metapb.Command_Reconfigure:
		return n.reconfigure(k.Reconfigure)
	case *metapb.Command_Fence:
		return n.fence(k.Fence)
	case *metapb.Command_FenceConfirm:
		return n.fenceConfirm(k.FenceConfirm)
	case *metapb.Command_Rejoined:
		return n.rejoined(k.Rejoined)
	case *metapb.Command_Filled:
		return n.filled(k.Filled)
	case *metapb.Command_ForceLink:
		return n.forceLink(k.ForceLink)
	case *metapb.Command_CreateToken:
		return n.createToken(k.CreateToken)
	case *metapb.Command_DeleteToken:
		return n.deleteToken(k.DeleteToken)
	case *metapb.Command_SetCa:
		return n.setCA(k.SetCa)
	case *metapb.Command_Note:
		return n.note(k.Note)
	}
	// A command of a newer release: never guess. The gate lets none through that
	// a member does not know, so this is damage or a server that was let in by force.
	return refuse(ErrInvalid, "command", "of a kind this release does not know", "upgrade this node")
}

func (n *State) createDisk(c *metapb.CreateDisk) error {
	id, err := idOf(c.Id, "disk id")
	if err != nil {
		return err
	}
	if err := CheckDiskName(c.Name); err != nil {
		return err
	}
	if err := CheckSize(c.Size, int(c.BlockSize)); err != nil {
		return err
	}
	if _, taken := n.diskNames[c.Name]; taken {
		return refuse(ErrExists, diskThing(c.Name), "", "choose another name, or see `petal disk list`")
	}
	if n.disks[id] != nil {
		return refuse(ErrExists, fmt.Sprintf("disk id %x", id), "", "")
	}
	gmap, err := n.placementFor(c.Scheme)
	if err != nil {
		return err
	}
	fam := &Family{ID: n.nextFamily, GMap: gmap, NextNode: 2, Nodes: []EpochNode{{ID: 1}}}
	n.nextFamily++
	n.families[fam.ID] = fam
	n.disks[id] = &Disk{ID: id, Name: c.Name, Size: c.Size, BlockSize: int(c.BlockSize), WriteBack: c.WriteBack,
		ReadOnly: c.ReadOnly, Family: fam.ID, Node: 1, VVer: 1, Created: time.Unix(c.CreatedUnix, 0).UTC()}
	n.diskNames[c.Name] = id
	n.event("disk", 0, "disk %s of %d bytes is made", c.Name, c.Size)
	if c.Target == "" {
		return nil
	}
	if n.targets[c.Target] == nil {
		if err := n.createTarget(c.Target); err != nil {
			return err
		}
	}
	return n.mapLUN(&metapb.MapLun{Target: c.Target, Disk: c.Name, Number: c.Lun, Auto: c.AutoLun})
}

func (n *State) updateDisk(c *metapb.UpdateDisk) error {
	d, err := n.diskForChange(c.Name)
	if err != nil {
		return err
	}
	if c.IfSize != nil && *c.IfSize != d.Size {
		return refuse(ErrStale, diskThing(c.Name), fmt.Sprintf("somebody has made it %d bytes long, from %d", d.Size, *c.IfSize), "look at it again: `petal disk list`")
	}
	if c.Size != nil {
		if err := CheckSize(*c.Size, d.BlockSize); err != nil {
			return err
		}
		if *c.Size < d.Size && !c.AllowShrink {
			return refuse(ErrInvalid, diskThing(c.Name), fmt.Sprintf("size %d is less than the present %d bytes", *c.Size, d.Size),
				"shrinking throws data away: say so with --shrink")
		}
		if *c.Size != d.Size {
			n.event("disk", 0, "disk %s of %d bytes has %d now", d.Name, d.Size, *c.Size)
		}
		d.Size = *c.Size
		d.VVer++
	}
	if c.WriteBack != nil {
		if *c.WriteBack != d.WriteBack {
			how := map[bool]string{true: "before they are durable", false: "when they are durable"}
			n.event("disk", 0, "writes to disk %s are acknowledged %s now", d.Name, how[*c.WriteBack])
		}
		d.WriteBack = *c.WriteBack
	}
	if c.ReadOnly != nil {
		if *c.ReadOnly != d.ReadOnly {
			how := map[bool]string{true: "refuses", false: "takes"}
			n.event("disk", 0, "disk %s %s writes now", d.Name, how[*c.ReadOnly])
		}
		d.ReadOnly = *c.ReadOnly
		d.VVer++
	}
	n.disks[d.ID] = d
	return nil
}

// diskForChange returns a copy of the named disk.
func (n *State) diskForChange(name string) (*Disk, error) {
	old := n.Disk(name)
	if old == nil {
		return nil, refuse(ErrNotFound, diskThing(name), "", "see `petal disk list`")
	}
	d := *old
	return &d, nil
}

func (n *State) deleteDisk(c *metapb.DeleteDisk) error {
	d, err := n.diskForChange(c.Name)
	if err != nil {
		return err
	}
	for name, t := range n.targets {
		if !slices.ContainsFunc(t.LUNs, func(l LUN) bool { return l.Disk == d.ID }) {
			continue
		}
		nt := *t
		nt.LUNs = slices.DeleteFunc(slices.Clone(t.LUNs), func(l LUN) bool { return l.Disk == d.ID })
		n.targets[name] = &nt
	}
	fam := *n.families[d.Family]
	fam.Dropped = true
	n.families[d.Family] = &fam
	delete(n.disks, d.ID)
	delete(n.diskNames, d.Name)
	delete(n.reservations, d.ID)
	n.event("disk", 0, "disk %s of %d bytes is deleted", d.Name, d.Size)
	return nil
}

// familyFreed notes that a server has freed its part of a dropped family.
func (n *State) familyFreed(c *metapb.FamilyFreed) error {
	old := n.families[placement.Family(c.Family)]
	if old == nil || !old.Dropped {
		return refuse(ErrNotFound, fmt.Sprintf("dropped family %d", c.Family), "", "")
	}
	g := n.gmaps[old.GMap]
	who := placement.Server(c.Server)
	if who == 0 && len(g.Ring) == 1 {
		who = g.Ring[0]
	}
	if !slices.Contains(g.Ring, who) {
		return refuse(ErrInvalid, serverThing(who), fmt.Sprintf("it has no part of family %d", c.Family), "")
	}
	f := *old
	if at, had := slices.BinarySearch(f.Freed, who); !had {
		f.Freed = slices.Insert(slices.Clone(f.Freed), at, who)
	}
	n.families[f.ID] = &f
	n.dropFreed(&f)
	return nil
}

// dropFreed forgets a dropped family that no member has anything of, and its
// placement with it if it was the last.
func (n *State) dropFreed(f *Family) {
	for _, id := range n.gmaps[f.GMap].Ring {
		if n.servers[id] != nil && !slices.Contains(f.Freed, id) {
			return
		}
	}
	delete(n.families, f.ID)
	n.dropGMap(f.GMap)
}

func (n *State) createTarget(name string) error {
	if err := CheckISCSIName(name); err != nil {
		return err
	}
	if n.targets[name] != nil {
		return refuse(ErrExists, targetThing(name), "", "see `petal target list`")
	}
	n.targets[name] = &Target{Name: name}
	n.event("target", 0, "target %s is made", name)
	return nil
}

func (n *State) deleteTarget(c *metapb.DeleteTarget) error {
	t, err := n.targetForChange(c.Name)
	if err != nil {
		return err
	}
	if len(t.LUNs) > 0 {
		return refuse(ErrInUse, targetThing(c.Name), fmt.Sprintf("it exports %d LUNs", len(t.LUNs)), "unmap them first: `petal target unmap`")
	}
	delete(n.targets, c.Name)
	n.event("target", 0, "target %s is deleted", c.Name)
	return nil
}

// targetForChange returns a copy of the named target, its LUNs cloned.
func (n *State) targetForChange(name string) (*Target, error) {
	old := n.targets[name]
	if old == nil {
		return nil, refuse(ErrNotFound, targetThing(name), "", "see `petal target list`")
	}
	t := *old
	t.LUNs = slices.Clone(old.LUNs)
	return &t, nil
}

func (n *State) mapLUN(c *metapb.MapLun) error {
	t, err := n.targetForChange(c.Target)
	if err != nil {
		return err
	}
	d, err := n.diskForChange(c.Disk)
	if err != nil {
		return err
	}
	lun, err := n.chooseLUN(t, d.ID, c)
	if err != nil {
		return err
	}
	at, taken := slices.BinarySearchFunc(t.LUNs, lun, func(l LUN, want uint16) int { return int(l.Number) - int(want) })
	if taken {
		if t.LUNs[at].Disk == d.ID {
			return nil
		}
		return refuse(ErrInUse, fmt.Sprintf("LUN %d of %s", lun, targetThing(t.Name)), "another disk is mapped there", "leave --lun out to take the next free one")
	}
	t.LUNs = slices.Insert(t.LUNs, at, LUN{Number: lun, Disk: d.ID})
	n.targets[t.Name] = t
	n.retired[retiredKey{t.Name, lun}] = d.ID
	n.event("target", 0, "disk %s is LUN %d of %s", d.Name, lun, t.Name)
	return nil
}

// chooseLUN picks or checks the number: a pair of target and LUN that another
// disk has ever had is not used again, since initiators would take the new
// disk for the old one.
func (n *State) chooseLUN(t *Target, disk ID, c *metapb.MapLun) (uint16, error) {
	if !c.Auto {
		if c.Number > MaxLUN {
			return 0, refuse(ErrInvalid, fmt.Sprintf("LUN %d", c.Number), "", fmt.Sprintf("use 0 to %d", MaxLUN))
		}
		lun := uint16(c.Number)
		if had, ok := n.retired[retiredKey{t.Name, lun}]; ok && had != disk {
			return 0, refuse(ErrInUse, fmt.Sprintf("LUN %d of %s", lun, targetThing(t.Name)), "another disk had it, and initiators remember that",
				"leave --lun out to take the next one never used, or use another target")
		}
		return lun, nil
	}
	for lun := uint16(0); lun <= MaxLUN; lun++ {
		if had, ok := n.retired[retiredKey{t.Name, lun}]; !ok || had == disk {
			return lun, nil
		}
	}
	return 0, refuse(ErrInUse, targetThing(t.Name), "all LUNs have been used", "use another target")
}

func (n *State) unmapLUN(c *metapb.UnmapLun) error {
	t, err := n.targetForChange(c.Target)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(t.LUNs, func(l LUN) bool { return uint32(l.Number) == c.Number })
	if at < 0 {
		return refuse(ErrNotFound, fmt.Sprintf("LUN %d of %s", c.Number, targetThing(c.Target)), "", "see `petal target list`")
	}
	if d := n.disks[t.LUNs[at].Disk]; d != nil {
		n.event("target", 0, "disk %s is no longer LUN %d of %s", d.Name, c.Number, t.Name)
	}
	t.LUNs = slices.Delete(t.LUNs, at, at+1)
	n.targets[t.Name] = t
	return nil
}

func (n *State) setACL(c *metapb.SetAcl) error {
	t, err := n.targetForChange(c.Target)
	if err != nil {
		return err
	}
	if err := checkACL(c.Acl); err != nil {
		return err
	}
	t.ACL = slices.Clone(c.Acl)
	if len(t.ACL) == 0 {
		n.event("target", 0, "every initiator may log in to %s", t.Name)
	} else {
		n.event("target", 0, "who may log in to %s is changed: %d are named", t.Name, len(t.ACL))
	}
	n.targets[t.Name] = t
	return nil
}

func (n *State) setCHAP(c *metapb.SetChap) error {
	account := chapOf(c.Chap)
	if err := checkCHAP(account); err != nil {
		return err
	}
	if c.Target == "" {
		n.discovery = account
		n.event("target", 0, "%s", chapText("discovery", account))
		return nil
	}
	t, err := n.targetForChange(c.Target)
	if err != nil {
		return err
	}
	t.CHAP = account
	n.event("target", 0, "%s", chapText(t.Name, account))
	n.targets[t.Name] = t
	return nil
}

// chapText says for the diary what a change of CHAP means.
func chapText(where string, c CHAP) string {
	if !c.Enabled() {
		return where + " asks for no CHAP any more"
	}
	return "the CHAP names and secrets of " + where + " are changed"
}

func (n *State) swapReservation(c *metapb.SwapReservation) error {
	id, err := idOf(c.Disk, "disk id")
	if err != nil {
		return err
	}
	d := n.disks[id]
	if d == nil {
		return refuse(ErrNotFound, fmt.Sprintf("disk id %x", id), "", "")
	}
	if len(c.Value) > MaxReservation {
		return refuse(ErrInvalid, diskThing(d.Name), fmt.Sprintf("reservation value of %d bytes", len(c.Value)), "")
	}
	old := n.reservations[id]
	if old.Version != c.Version {
		return refuse(ErrStale, diskThing(d.Name), "its reservations", "")
	}
	n.reservations[id] = Reservation{Version: old.Version + 1, Value: bytes.Clone(c.Value)}
	if c.Revokes {
		n.revoke(d)
	}
	return nil
}

func idOf(b []byte, what string) (ID, error) {
	var id ID
	if len(b) != len(id) {
		return id, refuse(ErrInvalid, what, fmt.Sprintf("%d bytes", len(b)), "")
	}
	copy(id[:], b)
	return id, nil
}
