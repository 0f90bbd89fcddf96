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
//	crash           1 write, 2 reads, 1 crash                           81,858    208,423   36
//	cut             2 writes, 2 reads, 2 cuts                            7,485     26,034   22
//	buckets         2 buckets, 1 crash                                   6,642     21,704   27
//	lapse           1 write, 2 reads, 1 cut from raft                   33,144     82,789   33
//	barrier         preemption of a write's nexus, 1 crash             133,987    414,442   32
//	rot             1 crash that loses the last record                 181,816    544,967   38
//	fence           exclusion of a live member, 1 cut                   34,209     94,167   35
//	rejoin          R9, 2 blocks in a bucket, 1 crash                  189,024    537,749   48
//	rejoin-cut      R9, 1 cut, 1 join given up                          24,440     76,184   36
//	rejoin-fill     R9, 1 block fetched, 1 fence                        65,715    201,610   43
//	rejoin-buckets  R9, 2 buckets, 1 cut                                 7,206     19,986   37
//	rejoin-rot      R9, 1 crash that loses the last record             174,960    608,836   43
//	joined          a member with missing blocks, 1 crash               15,888     43,586   28
//	forsaken        its source out of sync, 1 crash                      5,882     13,911   34
//	tailed          a head comes back with a tail, 1 crash               3,756      9,585   32
//	three           r = 3, 2 reads                                         111        328   14
//	three-crash     r = 3, 1 crash                                      34,708    119,592   30
//	three-rejoin    r = 3, R9                                           48,222    187,309   41
//
// TestMutationsAreFound breaks one rule at a time, M1 to M17 of DESIGN and those
// of R6, R7 and R9, and sees that the search notices each. `make soak`
// (PETAL_SOAK) runs TestLarge.
package explore
