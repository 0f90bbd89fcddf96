// Package cluster is one node of petal: it opens the node's part of the agreed
// state and its bricks, connects them, and offers the layers above a Volume for
// each disk.
//
//	Node ── meta.Store    which disks, targets and rights there are
//	  ├── brick.Brick     what is stored here
//	  ├── cache.Cache     verified blocks, shared by all disks
//	  └── Volume          one a disk: splits, sums, sequences, locks, joins
//
// It knows nothing of SCSI or iSCSI. What the target side needs of it, it
// declares itself (lun.Disk, lun.Reservations); package appliance brings the
// two together.
package cluster
