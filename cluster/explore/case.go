package explore

import (
	"petal/cluster/link"
	"petal/placement"
)

// Case is one search: a small cluster, what its clients do, and what its
// adversary may do at most. Any order of all of that is tried.
type Case struct {
	Name    string
	Members int
	Blocks  []uint8 // bucket of each block
	Writes  []uint8 // block of each write
	MaxVer  uint8   // configurations at most
	Max     Budget
	Destage bool  // what is committed may go home, which matters to rot and crashes
	Barrier bool  // the nexus of write 0 is preempted at some time
	Start   Start // where the search begins
	Fault   link.Fault
	Broken  Broken
}

// Budget counts what the adversary, and for reads the client, may do.
type Budget struct {
	Reads   uint8
	Crashes uint8
	Cuts    uint8 // of a pair's connection
	Lapses  uint8 // cuts of a server from raft, by which leases end
	Rots    uint8 // of the last record of a journal, at a crash
	Fences  uint8 // first step of excluding a member that lives
	Aborts  uint8 // joins given up for slowness
	Fetches uint8 // of missing blocks
}

// Start is where a search begins.
type Start uint8

const (
	Healthy    Start = iota // all in sync, open and leased
	Degraded                // the last member was excluded and has come back; head 0 has made all writes but the last
	Joined                  // the same, and it was let in, and misses those writes
	Forsaken                // the same, and then the head was excluded, and is down; the other has made the last write
	Tailed                  // the head was excluded with write 0 in its tail and has come back; the other has made write 1
	Lonely                  // of three, 1 and 2 were excluded and have come back; head 0 has made all writes but the last
	Bereft                  // 1 and 2 were excluded, head 0 has made all writes but the last; 1 was let in, and misses them; 0 was excluded, and is down; 2 is back
	Unheard                 // the same, but 2 had write 0, and has not heard that it was committed
	Outlived                // the head was excluded with write 0 in its tail and has come back; of the others, which made write 1, 2 was out between, and is alone
	Marked                  // the last member was excluded while head 0 made write 0, was let in, copied that, and made write 1 while 0 was out; 0 was let in, and misses that; the other was excluded and has come back
	Halfway                 // all have made write 0, the last member was excluded, was being let in and got the last write, which it lost when both crashed; both have come back
	Remembered              // as Unheard, but 1 fell out later than 2, which it remembers to have nothing, and earlier than 2 made write 0
)

// Broken is a set of rules that live outside the machine, to break on purpose.
type Broken uint32

const (
	ExcludeLeased   Broken = 1 << iota // raft excludes before the lease is over (M2)
	ReadPrepared                       // a brick shows what is prepared (M5)
	ForgetExclusion                    // who comes back first serves by its own evidence (M6)
	BarrierLease                       // lease end alone completes a barrier (M13)
	BarrierNoBump                      // a barrier over an unleased link bumps no ver (M17)
	ServeMissing                       // missing blocks are served
	HideTail                           // what lies under a discarded record goes missing
	ExcludeUnfenced                    // exclusion does not wait for the fence to be confirmed
	FillLate                           // a fetched block is stored under a later ver
	TrustTail                          // a cut trusts the member to have all that is not marked
	ForgetCommits                      // a head that cuts a bucket does not note what it has committed
	NoHandover                         // marks for others are not handed on with a cut
	KeepMarks                          // marks are not dropped when their member is in sync, nor by who falls out
	ForgetJoin                         // who lets another in does not note that records do not name it any more
	NoHistory                          // who does not know what a member has tells it to give up its tail
)

func (k *Case) members() placement.Members { return placement.MembersOf(k.Members) }
