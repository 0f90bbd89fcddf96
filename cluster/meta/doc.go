// Package meta holds the facts a petal cluster agrees on: its servers,
// placements and links, disks, targets, access, reservations. It is a
// deterministic state machine, the raft group that decides the order of its
// commands, and the leases that raft's leader gives.
//
//	Propose --> leader --> wal of each voter --> apply --> new State --> watchers
//	            admit      (journal, snapshot)   (applyX.go)
//
//	  group.go        a server's part in it all, and how its pieces are called
//	  groupraft.go    raft's Ready, elections, what is applied
//	  wal.go          what is durable, and how it comes back; snapsend.go: for those far behind
//	  propose.go      from any server to the leader, each to take effect once; reads
//	  lease.go        the server's side of a lease (R5), leader.go the leader's (R6)
//	  controller.go   who is excluded, who leads a link; voters.go: who votes
//
// A State is immutable: readers take the present one with Group.State and keep
// it as long as they like. Apply copies what it changes, and nothing but its
// arguments decides: all servers come to the same states. What a command needs of
// the time, or of who holds a lease, is in the command.
//
// Rules of DESIGN that live here: R5's renewal and reopening, R6 (controller.go,
// leader.go), R14 (applylinks.go, witness), the completion of barriers (barrier.go).
//
// It is not the place for anything that changes with I/O: positions of data
// are the bricks' own business. Nor does it know connections: Transport carries
// its messages.
package meta
