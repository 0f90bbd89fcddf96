package link

import "petal/placement"

// Fault is a set of rules to break on purpose. They exist for the tests of
// package explore, which must find each of them; the names in parentheses are
// those of DESIGN A.1. Nothing else sets one.
type Fault uint32

const (
	FaultNoLease         Fault = 1 << iota // reads need no lease (M1)
	FaultAnyVer                            // records and acknowledgements of any ver count (M3)
	FaultReadInDoubt                       // who is not head reads blocks in doubt (M4, M5)
	FaultDropInDoubt                       // who is alone drops what is in doubt (M7)
	FaultHeadWins                          // R10 takes the head's records only (M8)
	FaultNoExchange                        // R10 takes each member's own records (M9)
	FaultKeepTail                          // who rejoins commits its tail (M10)
	FaultNoOrder                           // records are sent again at any time and taken in any order (M11)
	FaultSoloNoLease                       // who is alone needs no lease (M14)
	FaultLeaseEarly                        // a grant counts before its index is applied (M15)
	FaultLapseNoRestart                    // a lapsed lease closes nothing (M16)
	FaultNoTakeoverMarks                   // records in doubt are committed without marks
	FaultNoHold                            // a bucket's writes go on while it is cut
	FaultDropMarksEarly                    // marks go when the cut is sent, not when the member is in sync
	FaultAckCutEarly                       // a cut is acknowledged before it is stored
	FaultForgetProposed                    // a join is forgotten although it is proposed
	FaultSealEarly                         // a cut is sealed before the tail is given up
	FaultNoIndex                           // R10 does not know of records that have left the journal (M12)
	FaultKeepKnown                         // who falls out goes on by what it knew of the others
)

func (m *Machine) broken(f Fault) bool { return m.o.Fault&f != 0 }

// acceptUnordered is Accept without R3.
func (m *Machine) acceptUnordered(b *bucket, s placement.Stamp) Verdict {
	if !b.committed.Before(s) || m.find(b.first, s) != nil {
		return Duplicate
	}
	return Take
}

// insertAt is push without R3: the record goes to the end, out of order.
func (m *Machine) insertAt(b *bucket, r Record) {
	last := b.last
	m.push(b, r)
	b.last = last
}
