// Package sim runs a whole cluster in one thread, from one seed: real nodes
// with real raft, links, bricks and journals, and around them machines, disks,
// clocks and a network that are simulated and go wrong.
//
//	          clients: reads, writes, COMPARE AND WRITE, zeros; resend elsewhere, as multipath does
//	             |  |  |
//	machine 1    2  3  4  5        crash, restart, pause, drifting clock
//	  node       .  .  .  .        package cluster, as it is, with Manual set
//	    |                          network: delay, loss of connections, cuts of one way or both, slow edges
//	  disks      .  .  .  .        vfs.Memory: what was not synced may vanish or tear; rot, lost and misdirected writes, EIO
//	             |
//	          history -> per-block linearizability, all copies equal, every operation ended
//
// One loop takes the next event, by time and then by the order in which it was
// made, and runs it to its end. Nothing else runs, so a seed always gives the
// same run, to the byte of its trace. What comes from the seed comes from
// streams of its own for each purpose, so that a change in one does not change
// all others.
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
