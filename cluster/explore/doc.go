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
//	start    where a search begins                                      start.go
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
//	crash            1 write, 2 reads, 1 crash                    40,266     95,347   36
//	cut              2 writes, 2 reads, 2 cuts                     7,485     26,034   22
//	buckets          2 buckets, 1 crash                            6,642     21,704   27
//	lapse            1 write, 2 reads, 1 cut from raft            20,496     47,187   34
//	barrier          preemption of a write's nexus, 1 crash       92,714    267,063   32
//	rot              1 crash that loses the last record           98,302    273,846   38
//	fence            exclusion of a live member, 1 cut            35,241     96,603   35
//	rejoin           R9, 2 blocks in a bucket, 1 crash           145,310    363,608   44
//	rejoin-cut       R9, 1 cut, 1 join given up                   27,986     87,100   36
//	rejoin-fill      R9, 1 block fetched, 1 fence                 68,232    213,591   44
//	rejoin-buckets   R9, 2 buckets, 1 cut                          7,910     21,744   38
//	rejoin-rot       R9, 1 crash that loses the last record      162,260    537,120   44
//	joined           a member with missing blocks, 1 crash        12,290     31,661   28
//	forsaken         its source out of sync, 1 crash               1,078      1,962   25
//	tailed           a head comes back with a tail, 1 crash        3,140      7,709   32
//	marked           who misses what it once had marked, alone     1,463      3,286   30
//	halfway          what was got while let in is lost, 1 crash    7,224     18,804   36
//	three            r = 3, 2 reads                                  111        328   14
//	three-crash      r = 3, 1 crash                               33,874    117,130   30
//	three-rejoin     r = 3, R9                                    58,872    230,977   43
//	three-lonely     r = 3, two are out and come back            215,566    645,022   55
//	three-bereft     r = 3, let in by one that misses it all     133,364    476,161   38
//	three-remembered r = 3, the same with a tail                 199,018    692,235   39
//
// TestWalks goes through larger cases with three copies at random, each time to the end.
// TestMutationsAreFound breaks one rule at a time, M1 to M17 of DESIGN and those
// of R6, R7 and R9, and sees that the search notices each. `make soak`
// (PETAL_SOAK) runs TestLarge.
package explore
