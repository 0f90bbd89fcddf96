package cluster

import (
	"context"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
)

// DiskSpec describes a disk to be made.
type DiskSpec struct {
	Name      string
	Size      uint64 // bytes
	BlockSize int    // 512 or 4096
	WriteBack bool
	ReadOnly  bool
	Target    string  // exports it; made if missing; empty: not exported
	LUN       *uint16 // nil: the lowest that the target has never used
	Scheme    string  // stripe, mirror or mirror3; empty: mirror if there are servers for it
}

// CreateDisk makes a disk. It exists durably, and is exported, on return.
func (n *Node) CreateDisk(ctx context.Context, spec DiskSpec) (*meta.Disk, error) {
	type result struct {
		d   *meta.Disk
		err error
	}
	c := make(chan result, 1)
	n.CreateDiskAsync(spec, func(d *meta.Disk, err error) { c <- result{d, err} })
	select {
	case r := <-c:
		return r.d, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// CreateDiskAsync is CreateDisk for who must not wait.
func (n *Node) CreateDiskAsync(spec DiskSpec, done func(*meta.Disk, error)) {
	id := n.newID()
	cmd := &metapb.CreateDisk{Id: id[:], Name: spec.Name, Size: spec.Size, BlockSize: uint32(spec.BlockSize), WriteBack: spec.WriteBack,
		ReadOnly: spec.ReadOnly, CreatedUnix: n.env.Wall().Unix(), Target: spec.Target, AutoLun: spec.LUN == nil, Scheme: spec.Scheme}
	if spec.LUN != nil {
		cmd.Lun = uint32(*spec.LUN)
	}
	n.ProposeAsync(command(cmd), func(s *meta.State, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(s.DiskByID(id), nil)
	})
}

// DiskChange says what to change of a disk; nil fields stay.
type DiskChange struct {
	Size      *uint64
	Shrink    bool // a smaller size is meant: what lies beyond it is lost
	WriteBack *bool
	ReadOnly  *bool
}

// UpdateDisk changes a disk. What lay beyond the new end of a disk that shrank
// is gone before UpdateDisk returns, and so it is before a disk grows, so that
// nothing old ever shows there, whatever was cut short by a crash. If another size
// is agreed on meanwhile, through another node, the error is meta.ErrStale.
func (n *Node) UpdateDisk(ctx context.Context, name string, c DiskChange) (*meta.Disk, error) {
	n.resizing.Lock()
	defer n.resizing.Unlock()
	before := n.State().Disk(name)
	if before != nil && c.Size != nil && *c.Size > before.Size {
		if err := n.trim(ctx, before); err != nil {
			return nil, err
		}
	}
	cmd := &metapb.UpdateDisk{Name: name, Size: c.Size, WriteBack: c.WriteBack, ReadOnly: c.ReadOnly, AllowShrink: c.Shrink}
	if before != nil && c.Size != nil {
		cmd.IfSize = &before.Size // else it may have shrunk since, and grow over what is not trimmed yet
	}
	s, err := n.Propose(ctx, command(cmd))
	if err != nil {
		return nil, err
	}
	d := s.Disk(name)
	if before == nil || d.Size >= before.Size {
		return d, nil
	}
	return d, n.trim(ctx, d)
}

// trim frees what lies beyond a disk's end.
func (n *Node) trim(ctx context.Context, d *meta.Disk) error {
	v, err := n.Volume(d.ID)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	v.trimBeyondEnd(func(err error) { done <- err })
	return wait(ctx, done)
}

// DeleteDisk takes a disk out of every target and frees its space in the
// background, also across restarts. What was acknowledged on it is lost.
func (n *Node) DeleteDisk(ctx context.Context, name string) error {
	_, err := n.Propose(ctx, command(&metapb.DeleteDisk{Name: name}))
	return err
}

// CreateTarget makes a target without LUNs.
func (n *Node) CreateTarget(ctx context.Context, name string) error {
	_, err := n.Propose(ctx, command(&metapb.CreateTarget{Name: name}))
	return err
}

// DeleteTarget removes a target that has no LUNs.
func (n *Node) DeleteTarget(ctx context.Context, name string) error {
	_, err := n.Propose(ctx, command(&metapb.DeleteTarget{Name: name}))
	return err
}

// MapLUN exports a disk through a target. With lun nil the target's lowest
// number never used is taken; it is returned.
func (n *Node) MapLUN(ctx context.Context, target, disk string, lun *uint16) (uint16, error) {
	cmd := &metapb.MapLun{Target: target, Disk: disk, Auto: lun == nil}
	if lun != nil {
		cmd.Number = uint32(*lun)
	}
	s, err := n.Propose(ctx, command(cmd))
	if err != nil {
		return 0, err
	}
	if lun != nil {
		return *lun, nil
	}
	id := s.Disk(disk).ID
	for _, l := range s.Target(target).LUNs {
		if l.Disk == id {
			return l.Number, nil
		}
	}
	panic("cluster: a LUN was mapped and is not there")
}

// UnmapLUN takes a LUN out of a target; the disk stays.
func (n *Node) UnmapLUN(ctx context.Context, target string, lun uint16) error {
	_, err := n.Propose(ctx, command(&metapb.UnmapLun{Target: target, Number: uint32(lun)}))
	return err
}

// SetACL sets the initiators that may log in to a target; none: all may.
func (n *Node) SetACL(ctx context.Context, target string, initiators []string) error {
	_, err := n.Propose(ctx, command(&metapb.SetAcl{Target: target, Acl: initiators}))
	return err
}

// Account is a CHAP account in the clear.
type Account struct {
	User, Secret             string
	MutualUser, MutualSecret string
}

// SetCHAP sets the account of a target, or of discovery if target is empty.
// The zero Account removes it. Secrets are stored sealed; their lengths are
// the caller's to check.
func (n *Node) SetCHAP(ctx context.Context, target string, a Account) error {
	cmd := &metapb.SetChap{Target: target}
	if a != (Account{}) {
		cmd.Chap = &metapb.Chap{User: a.User, SealedSecret: n.seal.Seal(owner(target, "in"), []byte(a.Secret))}
		if a.MutualUser != "" {
			cmd.Chap.MutualUser, cmd.Chap.SealedMutualSecret = a.MutualUser, n.seal.Seal(owner(target, "out"), []byte(a.MutualSecret))
		}
	}
	_, err := n.Propose(ctx, command(cmd))
	return err
}

// OpenCHAP returns the account of a target (empty: discovery) in the clear.
func (n *Node) OpenCHAP(target string, c meta.CHAP) (Account, error) {
	if !c.Enabled() {
		return Account{}, nil
	}
	a := Account{User: c.User, MutualUser: c.MutualUser}
	secret, err := n.seal.Open(owner(target, "in"), c.Secret)
	if err != nil {
		return Account{}, err
	}
	a.Secret = string(secret)
	if c.MutualUser != "" {
		if secret, err = n.seal.Open(owner(target, "out"), c.MutualSecret); err != nil {
			return Account{}, err
		}
		a.MutualSecret = string(secret)
	}
	return a, nil
}

func owner(target, direction string) string { return "chap/" + direction + "/" + target }
