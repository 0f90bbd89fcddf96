// Package appliance puts a node together and runs it: configuration, bricks and
// agreed state (package cluster), iSCSI (package target), the administrator's
// socket (package api). It is the one place where the target side and the
// cluster side meet; it decides nothing that either could.
//
//	       agreed state (cluster.Node.State) ----changes----> exports
//	                ^                                            | SetTarget, SetUnit
//	api.Service ----' create, map, ACL, CHAP                     v
//	(service*.go)                              target.Server --> lun.Device --> lun.Unit --> cluster.Volume
//	                                           sessions          one a target   one a disk
//
// The life of a node:
//
//	bind portals, admin socket    nothing is written if one is taken
//	open bricks and state         recovery; a lock keeps other processes out
//	export, serve, READY=1
//	SIGTERM, STOPPING=1           no new logins; commands in flight end; flush; close
//
// A second signal kills the process at once: what was acknowledged is durable
// at any moment, draining is a courtesy to initiators.
package appliance
