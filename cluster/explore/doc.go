// Package explore searches the protocol of one link exhaustively: it runs the
// real machines of package link, one for each member, over a small model of
// the world, through every order in which things can happen, and holds every
// answer that a client gets against a register. It ships nowhere.
//
//	world    raft's log as an oracle; who is up, leased, connected      world.go
//	brick    journal, durable and not; home, marks, missing, index      brick.go
//	run      a machine's effects, done to the world                     run.go, net.go
//	moves    all that may happen next                                   moves.go
//	monitor  the registers that explain the answers so far              monitor.go
//	search   breadth first, so that a way to a violation is a shortest  search.go
//
// A case (Case) bounds what clients and adversary may do: writes, reads,
// crashes, cuts of connections and from raft, rot of a journal's last record,
// fences, joins given up, blocks fetched. Within its bounds a complete search
// has seen everything: that no register is contradicted, that no block is
// missing at all members at once, and that when nothing more can happen, all
// faults being healed, every member is open and in sync.
//
// What was made simpler: a read takes no time; servers apply one command of
// raft at a time but at any time; a lease is a flag that the leader can wait
// for; both ends of a connection learn of its loss at once, but what a crashed
// server sent may still arrive; marks, missing blocks and voided records become
// durable in order among themselves, journal records too, and between them in
// any order. A write is invoked when it is admitted, which allows the fewest
// answers. States are told apart by 64 bits of hash.
//
// Searched completely, with no violation (TestSmall; states, moves, depth):
//
//	crash           1 write, 2 reads, 1 crash                            80,286    205,914   36
//	cut             2 writes, 2 reads, 2 cuts                             7,485     26,034   22
//	buckets         2 buckets, 1 crash                                    8,198     25,591   27
//	lapse           1 write, 2 reads, 1 cut from raft                    33,144     82,789   33
//	barrier         preemption of a write's nexus, 1 crash              137,686    429,679   32
//	rot             1 crash that loses the last record                  175,006    526,120   39
//	fence           exclusion of a live member, 1 cut                    44,127    121,187   36
//	rejoin          R9, 2 blocks in a bucket, 1 crash                   164,653    458,612   48
//	rejoin-cut      R9, 1 cut, 1 join given up                           36,879    113,941   38
//	rejoin-fill     R9, 1 block fetched, 1 fence                         65,896    202,061   43
//	rejoin-buckets  R9, 2 buckets, 1 cut                                 14,237     39,741   39
//	rejoin-rot      R9, 1 crash that loses the last record              163,779    558,073   43
//	joined          a member with missing blocks, 1 crash                16,626     46,194   28
//	forsaken        its source out of sync, 1 crash                       5,072     11,926   34
//	tailed          a head comes back with a tail, 1 crash                3,078      8,002   32
//	three           r = 3, 2 reads                                          111        328   14
//	three-crash     r = 3, 1 crash                                       44,928    155,142   30
//	three-rejoin    r = 3, R9                                            48,223    187,318   41
//
// TestMutationsAreFound breaks one rule at a time, M1 to M17 of DESIGN and those
// of R6, R7 and R9, and sees that the search notices each. `make soak`
// (PETAL_SOAK) runs TestLarge.
package explore
