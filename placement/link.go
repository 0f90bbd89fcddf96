package placement

import (
	"fmt"
	"math/bits"
)

// Server names a server of the cluster. Zero is none.
type Server uint32

// LinkID names a link: all buckets of a GMap that begin at one position of its
// ring. It is the unit of configuration.
type LinkID struct{ GMap, Position uint32 }

func (l LinkID) String() string { return fmt.Sprintf("%d.%d", l.GMap, l.Position) }

// Member is a server's place in a link: 0 is the head candidate, the others
// follow it on the ring.
type Member uint8

// MaxCopies is the greatest number of members of a link.
const MaxCopies = 3

// Members is a set of members of one link: bit i is member i.
type Members uint8

// MembersOf returns the set of the first n members.
func MembersOf(n int) Members { return 1<<n - 1 }

// Has reports whether m is in the set.
func (s Members) Has(m Member) bool { return s>>m&1 != 0 }

// With and Without return the set with or without m.
func (s Members) With(m Member) Members    { return s | 1<<m }
func (s Members) Without(m Member) Members { return s &^ (1 << m) }

// Len is the number of members in the set.
func (s Members) Len() int { return bits.OnesCount8(uint8(s)) }

// First returns the first member of a set that is not empty.
func (s Members) First() Member { return Member(bits.TrailingZeros8(uint8(s))) }

// Config is what is agreed upon about a link (DESIGN A1). A higher Ver replaces
// a lower one. InSync is never empty and contains Head.
type Config struct {
	Ver    uint64
	InSync Members // hold every acknowledged write, but for what they know to be missing
	Head   Member  // orders the writes
}

// Stamp orders the records of a bucket: by the version of the link under which
// the head admitted them, then by the head's number, which counts from 1 in
// each version without gaps (R3). The zero Stamp is before all records.
type Stamp struct{ Ver, Seq uint64 }

// Before reports whether s is ordered before t.
func (s Stamp) Before(t Stamp) bool { return s.Ver < t.Ver || s.Ver == t.Ver && s.Seq < t.Seq }

func (s Stamp) String() string { return fmt.Sprintf("%d/%d", s.Ver, s.Seq) }

// OpID names a command of an initiator, wherever it is resent (R12).
type OpID struct {
	Coordinator uint32 // server whose session got the command
	Incarnation uint32 // of that server
	Number      uint64
}
