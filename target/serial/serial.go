// Package serial is 32-bit serial number arithmetic after RFC 1982, as iSCSI
// counts commands, statuses, data and R2Ts (RFC 7143, section 4.2.2.1). It is
// only numbers: it orders nothing and holds nothing back.
//
// A serial number wraps at 2^32, so it has no order of its own: a comes before
// b if b is reached from a in fewer than 2^31 steps forward.
//
//	        a
//	   .---------.
//	 .'           '.
//	|  after  |  before = the half circle that begins at a+1
//	 '.           .'
//	   '---------'
//	     a + 2^31      neither before nor after a
package serial

// Number is a serial number of one kind. Numbers of different kinds do not
// mix: a CmdSN cannot be compared with a StatSN. The operators < and > are
// meaningless on it; use Before and After.
type Number[kind any] uint32

// The kinds, told apart by types that have no values.
type (
	cmd  struct{}
	stat struct{}
	data struct{}
	r2t  struct{}
)

// The serial numbers of RFC 7143.
type (
	// CmdSN numbers the commands of a session (section 4.2.2.1).
	CmdSN = Number[cmd]
	// StatSN numbers the responses of a connection (section 4.2.2.2).
	StatSN = Number[stat]
	// DataSN numbers the Data-In PDUs of a command, or the Data-Out PDUs of
	// one sequence (section 4.2.2.3).
	DataSN = Number[data]
	// R2TSN numbers the R2Ts of a command (section 4.2.2.3).
	R2TSN = Number[r2t]
)

// half is half the circle: 2^(SERIAL_BITS-1).
const half = 1 << 31

// Before reports whether a < b in the sense of RFC 1982, section 3.2. For two
// numbers exactly 2^31 apart, which the RFC leaves undefined, both a.Before(b)
// and b.Before(a) are false.
func (a Number[kind]) Before(b Number[kind]) bool {
	distance := uint32(b - a)
	return distance != 0 && distance < half
}

// After reports whether a > b in the sense of RFC 1982, section 3.2.
func (a Number[kind]) After(b Number[kind]) bool { return b.Before(a) }

// Since is the number of steps forward from b to a, 0 <= Since < 2^32. It is
// the length of a run when the caller knows that b comes first.
func (a Number[kind]) Since(b Number[kind]) uint32 { return uint32(a - b) }

// Window is a run of serial numbers, First to Last, both within it. The
// zero-length window is Last = First-1: this is how a target closes its
// command window, with MaxCmdSN = ExpCmdSN-1 (section 4.2.2.1).
//
// Invariant: Last-First+1 < 2^31, so that all its numbers can be compared.
type Window[kind any] struct {
	First, Last Number[kind]
}

// CmdWindow is what a target accepts: ExpCmdSN to MaxCmdSN.
type CmdWindow = Window[cmd]

// Len is the count of numbers in the window.
func (w Window[kind]) Len() uint32 { return uint32(w.Last-w.First) + 1 }

// Contains reports whether n lies in the window.
func (w Window[kind]) Contains(n Number[kind]) bool {
	return uint32(n-w.First) < w.Len()
}
