// Package session is the full-feature phase of one iSCSI session (RFC 7143)
// over its one connection (ErrorRecoveryLevel 0): the command window, data in
// both directions, SCSI task ordering and task management (SAM-5), text, NOP,
// logout. It neither listens nor logs in, and knows nothing of SCSI commands
// beyond where their data flows: that is package lun's.
//
// Three kinds of goroutine meet in a session, and only one at a time runs its
// machine, the holder of the baton:
//
//	reader   one per session. Takes as many PDUs as one recv brought, runs each
//	         command at once, and sends all answers with one writev when the
//	         input holds no further whole PDU.
//	Done     any goroutine (journal, disks) that ends a command. It leaves the
//	         task on a lock-free stack. If it was the only command in flight it
//	         answers there and then, with one attempt that cannot block; else
//	         it wakes the pump, which then collects the whole bunch.
//	pump     one per session. Answers what Done left, and runs what others ask
//	         for (resets, pings). It never waits for the connection: what a
//	         socket does not take at once is sent by a goroutine of its own.
//
// The life of a task:
//
//	SCSI Command
//	    |                 no budget
//	    |------------------------------> held
//	    v Begin                           | budget, in CmdSN order
//	collecting <--------------------------'
//	    |  immediate, unsolicited, solicited data
//	    v
//	  ready      waits while the task set's order says so (order.go)
//	    v Run
//	 running     the device server has it
//	    v Done
//	answered     Data-In, status; Finish when the memory lent is on the wire
//
// A command that Begin has decided goes from collecting to answered, once the
// data that the initiator sends unasked has come and been thrown away. An
// aborted task leaves from any state without an answer, but from running only
// by Done: a task management function is answered when none of its tasks can
// have an effect any more.
//
// An error ends as little as it may: a RejectError one PDU, everything else the
// connection.
package session
