// Package replica is the member side of the links that one server belongs to:
// it takes operations on chunks, from coordinators here and elsewhere, and
// carries them out on all members of the chunk's link or on none.
//
//	coordinator: Do                other members: Receive
//	        |                              |
//	   dedupe R12, age R13                 |
//	   lease R5, vver R1                   |
//	   block lock, rest of the block       |
//	        |                              |
//	        v      one mutex per link      v
//	   +---------------------------------------+      Send
//	   |  link.Machine: stamps, order, commit  | -----------> other members
//	   +---------------------------------------+
//	        |  Append, Commit, Abandon     ^ durable
//	        v                              |
//	              brick of this server
//
// What is decided is decided by link.Machine, which knows neither data nor
// disks; what is agreed comes by Apply and SetLease from package meta. This
// package has the data: it reads what a small write leaves of its blocks,
// compares, keeps the members' journals in the order of the stamps, copies what
// a member lacks (R9), and answers.
//
// It is not the coordinator: it sees one chunk at a time, and knows nothing of
// commands, initiators or reservations, but that a virtual disk has a VVer and
// that operations of an older one must not take effect any more.
//
// Everything runs by callbacks: the package has no goroutine, takes the time
// from a Clock, and gives the same answers in the same order for the same
// calls. All methods may be called from any goroutine. No callback is made
// under a lock.
package replica
