// Package cluster is one server of petal: it opens the server's part of the
// agreed state and its brick, connects them with each other and with the other
// servers, and offers the layers above a Volume for each disk.
//
//	         Volume ......... one a disk in use here: cuts commands at chunk edges,
//	            |             sums, keeps the order of the calls
//	         coordinator .... sends each piece to the head of its link, or a read to
//	          /     \         a good copy, until somebody has done it (R12, R13)
//	replica.Server   Transport ---- other servers
//	   |                |
//	brick.Brick      meta.Group     which servers, links, disks, targets and rights
//	cache.Cache                     there are; the lease under which all this counts
//
// A Node joins the parts: what the group agrees on goes to reservations, volumes
// and the replica, in this order (changed); what peers say goes to whom it is for
// (Receive). Members of links hold every message against rules R1 to R14, so what
// a coordinator believes is never more than a hint.
//
// It knows nothing of SCSI or iSCSI. What the target side needs of it, it
// declares itself (lun.Disk, lun.Reservations); package appliance brings the
// two together. Nor does it touch the machine but through an Env, so that a
// simulator can run it: only Open, Init and Join do.
package cluster
