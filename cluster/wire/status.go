package wire

import "fmt"

// Status is the outcome that an answer carries. Zero is success.
type Status uint8

// The outcomes.
const (
	OK          Status = 0
	Miscompare  Status = 1  // CompareAndWrite: From is the first byte of the chunk that differs
	NoSpace     Status = 2  // the write would allocate and a member has no room
	Invalid     Status = 3  // makes no sense to the receiver, now or ever
	Medium      Status = 4  // blocks of Bad can't be had from any copy
	Redirect    Status = 5  // ask Head, whose link is at Ver
	OldVVer     Status = 6  // the sender's VVer is old; VVer is the receiver's: look at the state again, resend
	NotReady    Status = 7  // the link is opening or a member is away: try again
	NoLease     Status = 8  // the receiver may not serve (R5): try another, or again
	TooOld      Status = 9  // was under way for too long (R13): try again if time is left
	Canceled    Status = 10 // never took effect and never will (R12)
	Damaged     Status = 11 // the data did not match their sums: resend
	Failed      Status = 12 // the receiver's disk has failed
	MissingHere Status = 13 // the receiver knows that it lacks blocks of Bad (R9): ask Head

	statuses = 14
)

var statusNames = [statuses]string{
	OK: "ok", Miscompare: "miscompare", NoSpace: "no space", Invalid: "invalid", Medium: "medium error", Redirect: "redirect",
	OldVVer: "old vver", NotReady: "not ready", NoLease: "no lease", TooOld: "too old", Canceled: "canceled",
	Damaged: "damaged", Failed: "failed", MissingHere: "missing here",
}

func (s Status) String() string {
	if s < statuses {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Flags modify a message.
type Flags uint16

// The flags. A receiver refuses any other.
const (
	FlagLazy     Flags = 1 << 0 // write-back: may be acknowledged before it is durable (DESIGN C.3)
	FlagZero     Flags = 1 << 1 // Replicate: the blocks read as zeros; there are no data
	FlagRecovery Flags = 1 << 2 // Replicate: sent again while the link opens, under its first Stamp (R10)
	FlagMore     Flags = 1 << 3 // the list goes on in the next message
	FlagLocal    Flags = 1 << 4 // Read: only if it can be served here; else Redirect

	flagsKnown = FlagLazy | FlagZero | FlagRecovery | FlagMore | FlagLocal
)
