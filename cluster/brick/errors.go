package brick

import (
	"errors"
	"fmt"
	"math/bits"

	"petal/placement"
)

// Errors of a brick. Test with errors.Is; the concrete error names the thing,
// and most have a Hint.
var (
	ErrFailed  = errors.New("brick: failed earlier; it takes no more work")
	ErrClosed  = errors.New("brick: closed")
	ErrNewer   = errors.New("written by a newer version")
	ErrRotten  = errors.New("damaged")
	ErrForeign = errors.New("belongs to someone else")
	ErrMissing = errors.New("no brick here")

	// ErrElsewhere: a read met blocks that this copy lacks; ReadOp.Missing names them.
	ErrElsewhere = errors.New("brick: blocks are missing here; another copy has them")
)

// FormatError says what is wrong with a stored thing: Is of one of ErrNewer,
// ErrRotten, ErrForeign, ErrMissing.
type FormatError struct {
	Kind  error  // one of the four
	Thing string // what was read, such as "super"
	Why   string
	hint  string
}

func (e *FormatError) Error() string { return fmt.Sprintf("brick: %s: %v: %s", e.Thing, e.Kind, e.Why) }
func (e *FormatError) Unwrap() error { return e.Kind }

// Hint says what an operator can do about it.
func (e *FormatError) Hint() string { return e.hint }

func rotten(thing, format string, a ...any) error {
	return &FormatError{ErrRotten, thing, thing + " " + fmt.Sprintf(format, a...),
		"restore the disk from its mirror, or run `petal disk check` to see how far the damage goes"}
}

func newer(thing string, found, known int) error {
	return &FormatError{ErrNewer, thing, fmt.Sprintf("%s has format %d, this petal knows up to %d", thing, found, known),
		"upgrade petal on this node; the data is untouched"}
}

// MediumError says that blocks of a chunk cannot be read: their checksums do
// not match what was written, or the disk refuses to read them. Other blocks
// of the chunk are not affected.
type MediumError struct {
	Key    placement.Key // chunk, and the node that was asked for
	Blocks placement.Mask
	Cause  error // the read error, or nil for a checksum mismatch
}

func (e *MediumError) Error() string {
	why := "checksum mismatch"
	if e.Cause != nil {
		why = e.Cause.Error()
	}
	return fmt.Sprintf("brick: medium error in family %d node %d chunk %d, %d blocks (mask %#04x): %s",
		e.Key.Family, e.Key.Node, e.Key.Chunk, bits.OnesCount16(uint16(e.Blocks)), uint16(e.Blocks), why)
}

func (e *MediumError) Unwrap() error { return e.Cause }
