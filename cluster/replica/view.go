package replica

import (
	"petal/placement"
)

// view is what this server has to know of the agreed state. It is immutable;
// Apply makes the next one.
type view struct {
	index uint64 // of raft
	disks map[diskKey]*diskView
	// families tells by which gmap the chunks of a family are spread.
	families map[placement.Family]uint32
	gmaps    map[uint32]*placement.GMap
	links    []linkView // those that this server is a member of, by LinkID
}

// diskKey names a virtual disk by where its writes go.
type diskKey struct {
	family placement.Family
	node   placement.Node
}

// diskView is a virtual disk in use.
type diskView struct {
	vver    uint64
	lineage []placement.Node // node and its ancestors, newest first
	gmap    *placement.GMap
	seats   []*seat // by position of the ring; nil: not a member
}

// linkView is a link as agreed.
type linkView struct {
	id             placement.LinkID
	servers        []placement.Server // its members
	self           placement.Member
	config         placement.Config
	filling, blank placement.Members
	fenced         bool // this server is to stop serving (DESIGN A.2)
}

// disk returns the virtual disk at a family's node, or nil.
func (v *view) disk(k placement.Key) *diskView { return v.disks[diskKey{k.Family, k.Node}] }

// seat returns the seat for a bucket of the disk's gmap, nil if this server is
// not a member of its link.
func (d *diskView) seat(b placement.Bucket) *seat { return d.seats[d.gmap.Table[b]] }
