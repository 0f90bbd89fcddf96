package session

import "petal/target/serial"

// window is the command window (RFC 7143, section 4.2.2.1). Back-pressure is
// here and nowhere else: what cannot be served is not let in, and TASK SET FULL
// is never said.
//
// Invariant: MaxCmdSN never goes back, since initiators ignore it when it does.
type window struct {
	serial.CmdWindow              // ExpCmdSN, MaxCmdSN
	depth            int          // commands in flight at most
	told             serial.CmdSN // the MaxCmdSN that the initiator knows of
}

// open moves MaxCmdSN on to what free slots allow.
func (w *window) open(inFlight int) {
	free := max(w.depth-inFlight, 0)
	last := w.First + serial.CmdSN(free) - 1
	if last.After(w.Last) {
		w.Last = last
	}
}

// order is what a request's CmdSN says about it.
type order uint8

const (
	inOrder order = iota
	outside       // to be ignored
	gap           // inside, but others are missing before it
)

// admit judges a request that is not immediate, and counts it if it is next.
func (w *window) admit(n serial.CmdSN) order {
	switch {
	case !w.Contains(n):
		return outside
	case n != w.First:
		return gap
	}
	w.First++
	return inOrder
}

// closed reports whether the initiator believes that it may send nothing,
// although it may.
func (w *window) closed() bool {
	return w.told+1 == w.First && w.Last != w.told
}
