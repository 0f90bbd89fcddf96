package meta

import (
	"errors"
	"fmt"
)

// Kind classes the reasons for which a command is refused. Kinds work with
// errors.Is.
type Kind string

func (k Kind) Error() string { return string(k) }

// The kinds.
const (
	ErrExists   Kind = "exists already"
	ErrNotFound Kind = "not found"
	ErrInvalid  Kind = "invalid"
	ErrInUse    Kind = "in use"
	ErrStale    Kind = "changed meanwhile"
	ErrOld      Kind = "out of date"
	ErrNotYet   Kind = "not yet"
	ErrNoQuorum Kind = "no quorum"
)

// Error says which thing was refused, why, and what to do about it. A refused
// command changes nothing but the events: some refusals are written down there.
type Error struct {
	Kind   Kind
	Thing  string // "disk \"data\""
	Why    string // more than the kind tells; may be empty
	Advice string
}

func (e *Error) Error() string {
	s := e.Thing + ": " + string(e.Kind)
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

func (e *Error) Unwrap() error { return e.Kind }

// Hint says what the operator can do; it may be empty.
func (e *Error) Hint() string { return e.Advice }

// HintOf returns the hint of the first error in err's chain that has one.
func HintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

func refuse(k Kind, thing, why, hint string) error {
	return &Error{Kind: k, Thing: thing, Why: why, Advice: hint}
}

func diskThing(name string) string   { return fmt.Sprintf("disk %q", name) }
func targetThing(name string) string { return fmt.Sprintf("target %q", name) }
