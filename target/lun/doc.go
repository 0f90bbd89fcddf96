// Package lun is the SCSI device server: one command in; status, sense and
// data out. It knows what an initiator may do to a disk and what it is told
// about it. It does not know iSCSI PDUs or task ordering (package session),
// nor how a disk keeps its data (an implementation of Disk).
//
//	Device            the SCSI target device behind one iSCSI target
//	 ├─ LUN -> Unit   a logical unit: a Disk with identity, modes, reservations
//	 └─ Nexus         an I_T nexus: one session. Begin, Run, Abort, Finish, Manage
//	     └─ path      an I_T_L nexus: unit attentions, access under reservations
//
// The life of a command:
//
//	Begin   find the row in scsi.Commands and the unit; unit attention;
//	        reservation conflict; check the CDB; lend memory for data-out
//	Run     the handler of the row's Kind; ends with Done, on any goroutine
//	Finish  lent memory goes back
//
// Unit attentions are a set of bits for each I_T_L nexus, reported in the order
// of their precedence (SAM-5 5.14), so they need no queue and no bound.
// Persistent reservations are a pure state machine (reserve.go) whose encoded
// state lives in a Reservations store; each node derives its unit attentions
// and aborts from the change of state.
package lun
