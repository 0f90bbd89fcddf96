// Package initiator is a small iSCSI initiator (RFC 7143, ErrorRecoveryLevel
// 0, one connection a session) for measuring and testing targets. It is not a
// block device, and it retries nothing on its own but what a lost connection
// left unfinished, and that only if it is asked to.
//
// Two levels, the upper made of the lower:
//
//	Session   tasks at depth, R2T, digests, reconnection      Dial, Submit, Flush
//	Conn      one PDU out, one PDU in; may be told to misbehave   Connect, Send, Recv
//
// A Session has one goroutine that reads and calls back, and no other in the
// normal case: what callbacks submit goes out in one writev when the goroutine
// has used up what it had read. A load generator that lives in callbacks
// switches goroutines never and makes two system calls a batch, whatever the
// depth: initiator and target mostly share a machine.
package initiator
