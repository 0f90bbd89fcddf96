// Package meta holds the facts a petal cluster agrees on: servers, families
// of disks, disks, targets, access, reservations. It is a deterministic state
// machine and the log that decides the order of its commands.
//
//	Propose(cmd) --> log (journal, durable) --> Apply(state, cmd) --> new State --> watchers
//	                   |
//	                   +-- snapshot (all of the State) now and then; the log before it is dropped
//
// A State is immutable: readers take the present one with Store.State and keep
// it as long as they like. Apply copies what it changes.
//
// It is not the place for anything that changes with I/O: positions of data
// are the bricks' own business.
package meta
