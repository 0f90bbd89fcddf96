// Package sim runs a whole cluster in one thread, from one seed: real nodes
// with real raft, links, bricks and journals, and around them machines, disks,
// clocks and a network that are simulated and go wrong.
//
//	          clients: reads, writes, COMPARE AND WRITE, zeros; resend elsewhere, as multipath does
//	             |  |  |
//	machine 1    2  3  4  5        crash, restart, pause, drifting clock, join, removal
//	  node       .  .  .  .        package cluster, as it is, with Manual set
//	    |                          network: delay, loss of connections, cuts of one way or both, slow edges
//	  disks      .  .  .  .        vfs.Memory: what was not synced may vanish or tear; rot, lost and misdirected writes, EIO
//	             |
//	          history -> per-block linearizability, all copies equal, every operation ended;
//	                     bricks of disks that don't rot hold what was written (brick.Check)
//
// One loop takes the next event, by time and then by the order in which it was
// made, and runs it to its end. Nothing else runs, so a seed always gives the
// same run, to the byte of its trace. What comes from the seed comes from
// streams of its own for each purpose, so that a change in one does not change
// all others.
//
// What goes wrong, and where it is made:
//
//	messages late, lost, cut one way or both     network.go  Reset, Cut*, Isolate, SlowEdge, LossyRaft
//	a crash, kill -9, a pause, power cut of all  machine.go  PowerOff, Kill, Pause, PowerCut
//	a write torn by a crash, unsynced ones gone  vfs.Memory, powerOffSoon
//	writes lost, misdirected, flipped            rot.go      Rot (data), RotJournal (journal)
//	sectors that can't be read                   rot.go      Rot, RotJournal
//	bits that flip in what lies there            rot.go      RotJournal: journal and superblock, between runs
//	EIO on a write or sync                       diskfaults.go Refuse; mapfault.go MapError: Pebble's files
//	a disk dies and is replaced                  diskfaults.go DeadDisk
//	a slow disk                                  faults.go   SlowDisk
//	clocks                                       clock.go    each drifts by up to 1 %; ClockJump
//	machines join and are removed                membership.go Members
//
// Never more than the scheme must survive: what destroys data does so at one
// victim, whose neighbours on the ring nothing happens to. Not made: a full disk,
// errors of Pebble's manifest and compactions (they come from goroutines of
// Pebble's own, at no time that a seed could decide), rot in the log of the agreed
// state (that node would have to be removed and join anew).
//
// It is not a model of petal: no line of the protocol is here. And it is no
// proof: package explore searches one link exhaustively, this one tries whole
// clusters at random.
//
// A Config says what a run is made of, Run runs it, and the Report says what it
// found. A failing run names its seed; with that and a trace it can be replayed:
//
//	make sim SEED=4711
package sim
