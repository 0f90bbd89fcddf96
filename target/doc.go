// Package target is an iSCSI target server: it listens on portals, logs
// initiators in, keeps the sessions, and knows which initiator may see which
// target. The protocol is in the packages below: iscsi (PDUs), login, session
// (full-feature phase) and lun (SCSI). It knows nothing of where data lies; a
// target's logical units come to it as a *lun.Device.
//
//	accept --> half-open --login--> session --logout, error, Drain--> gone
//	              |  |                 |
//	   time limit-'  '-evicted         '-reinstated by a new login of the nexus
//
// A connection costs a few KiB until it has logged in, and there is a limit on
// those: beyond it the oldest of the address that has the most is closed.
package target
