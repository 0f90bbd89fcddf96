package explore

import (
	"testing"

	"petal/cluster/link"
)

// mutations break one rule each. Every one must be found: a test of the test.
// Where a rule stands behind another one, base says which other is broken too,
// and that breaking that one alone does not show in the case.
var mutations = []struct {
	name   string
	k      Case
	fault  link.Fault
	broken Broken
	base   Broken
}{
	{name: "M1 reads need no lease", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 4, Max: Budget{Reads: 1, Lapses: 1}}, fault: link.FaultNoLease},
	{name: "M2 excluded before the lease is over", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 4, Max: Budget{Reads: 1, Lapses: 1}}, broken: ExcludeLeased},
	{name: "M3 any ver counts", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Max: Budget{Reads: 2, Crashes: 1}}, fault: link.FaultAnyVer},
	{name: "M4 reads in doubt", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 1, Max: Budget{Reads: 2}}, fault: link.FaultReadInDoubt},
	{name: "M5 prepared data shown", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 1, Max: Budget{Reads: 2}}, fault: link.FaultReadInDoubt, broken: ReadPrepared},
	{name: "M6 own evidence instead of raft's", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 4, Max: Budget{Reads: 1, Crashes: 2}}, broken: ForgetExclusion},
	{name: "M7 who takes over drops what is in doubt", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Max: Budget{Reads: 1, Crashes: 1}}, fault: link.FaultDropInDoubt},
	{name: "M8 the head's records win", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Max: Budget{Reads: 1, Crashes: 1, Rots: 1}}, fault: link.FaultHeadWins},
	{name: "M9 opened without exchange", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Max: Budget{Reads: 2, Crashes: 1}}, fault: link.FaultNoExchange},
	{name: "M10 who rejoins commits its tail", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 4, Max: Budget{Reads: 2, Crashes: 1}}, fault: link.FaultKeepTail},
	{name: "M11 no order", k: Case{Members: 2, Blocks: oneBlock, Writes: twoWrites, MaxVer: 1, Max: Budget{Reads: 2, Cuts: 1}}, fault: link.FaultNoOrder},
	{name: "M12 no index", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Destage: true, Max: Budget{Reads: 1, Crashes: 1, Rots: 1}}, fault: link.FaultNoIndex},
	{name: "M13 lease end alone completes a barrier", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Barrier: true, Max: Budget{Reads: 1, Crashes: 1}}, broken: BarrierLease},
	{name: "M14 solo without lease", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Barrier: true, Max: Budget{Lapses: 2}}, fault: link.FaultSoloNoLease},
	{name: "M15 a grant counts before its index", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Max: Budget{Reads: 1, Crashes: 1}}, fault: link.FaultLeaseEarly},
	// The new ver of M17 would stop what M16 lets go on.
	{name: "M16 a lapse closes nothing", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Barrier: true, Max: Budget{Reads: 1, Lapses: 2}}, fault: link.FaultLapseNoRestart, base: BarrierNoBump},
	{name: "M17 a barrier over an unleased link leaves the ver", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Barrier: true, Max: Budget{Reads: 1, Crashes: 2}}, broken: BarrierNoBump},

	{name: "R6 excluded before the fence is confirmed", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Max: Budget{Reads: 1, Fences: 1}}, broken: ExcludeUnfenced},
	{name: "R7 taken over without marks", k: Case{Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 4, Max: Budget{Reads: 1, Crashes: 1}}, fault: link.FaultNoTakeoverMarks},
	{name: "R9 missing blocks served", k: rejoin(Budget{Reads: 1}), broken: ServeMissing},
	{name: "R9 writes go on while their bucket is cut", k: rejoin(Budget{Reads: 1, Crashes: 1}), fault: link.FaultNoHold},
	{name: "R9 marks dropped when the cut is sent", k: rejoin(Budget{Reads: 1, Crashes: 1}), fault: link.FaultDropMarksEarly},
	{name: "R9 cut acknowledged before it is stored", k: rejoin(Budget{Reads: 1, Crashes: 1}), fault: link.FaultAckCutEarly},
	{name: "R9 join forgotten that is proposed", k: rejoin(Budget{Reads: 1, Crashes: 1, Cuts: 1}), fault: link.FaultForgetProposed},
	{name: "R9 a stale fill", k: refill(Budget{Reads: 1, Fetches: 1, Fences: 1}), broken: FillLate},
	{name: "R9 what is below a tail hidden", k: refill(Budget{Reads: 1, Fences: 1}), broken: HideTail},
	{name: "R9 the tail of who rejoins trusted", k: rejoin(Budget{Reads: 1, Crashes: 1, Rots: 1}), broken: TrustTail},
	{name: "R9 commits forgotten by who cut", k: Case{Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 9, Start: Forsaken, Max: Budget{Reads: 1, Crashes: 1}}, broken: ForgetCommits, base: NoHistory},
	{name: "R9 sealed before the tail is given up", k: Case{Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 6, Start: Tailed, Max: Budget{Reads: 2, Crashes: 1}}, fault: link.FaultSealEarly},
	{name: "R9 marks for others not handed on", k: three(Bereft, 8, Budget{Reads: 1}), broken: NoHandover},
	{name: "R9 marks kept", k: Case{Members: 2, Blocks: oneBlock, Writes: []uint8{0, 0, 0}, MaxVer: 11, Start: Marked, Max: Budget{Reads: 1}}, broken: KeepMarks},
	{name: "R9 marks trusted of who was being let in", k: Case{Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 0, 1}, MaxVer: 8, Start: Halfway, Max: Budget{Reads: 1}}, broken: ForgetJoin},
	{name: "R9 who falls out goes by what it knew", k: three(Remembered, 10, Budget{Reads: 1}), fault: link.FaultKeepKnown},
	{name: "R9 a tail given up that was committed", k: three(Unheard, 8, Budget{Reads: 1}), broken: NoHistory},
}

var (
	oneBlock  = []uint8{0}
	oneWrite  = []uint8{0}
	twoWrites = []uint8{0, 0}
)

// rejoin is a member that missed a write of one block, and one to come of
// another in the same bucket; refill is the same with one block.
func rejoin(b Budget) Case {
	return Case{Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 6, Start: Degraded, Max: b}
}

func refill(b Budget) Case {
	return Case{Members: 2, Blocks: oneBlock, Writes: twoWrites, MaxVer: 6, Start: Degraded, Max: b}
}

func three(at Start, maxVer uint8, b Budget) Case {
	k := Case{Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: maxVer, Start: at, Max: b}
	if at != Bereft {
		k.Writes = []uint8{0, 1, 1}
	}
	return k
}

func TestMutationsAreFound(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			k := m.k
			k.Broken = m.base
			if m.base != 0 {
				if r := Search(&k, 120_000); r.Trace != nil {
					t.Fatalf("without it: %s", r)
				}
			}
			k.Fault, k.Broken = m.fault, m.broken|m.base
			r := Search(&k, 400_000)
			if r.Trace == nil {
				t.Fatalf("not found: %s", r)
			}
			t.Log(r)
		})
	}
}
