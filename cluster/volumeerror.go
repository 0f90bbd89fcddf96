package cluster

import (
	"errors"
	"fmt"

	"petal/cluster/wire"
)

// ErrVolumeClosed is the error of every command after Close.
var ErrVolumeClosed = errors.New("cluster: the volume is closed")

// ErrBusy is the error of a command that has not been carried out and never
// will be, but in some chunks if it touches several, or blocks in part, though
// this node is well: the servers that hold the data could not
// take it for as long as a command may live, or rights were taken away from
// somebody while it was under way. errors.As finds its Busy method.
var ErrBusy error = busyError{}

type busyError struct{}

func (busyError) Error() string { return "cluster: the data cannot be reached at the moment" }

// Busy says that the command may be sent again at once.
func (busyError) Busy() bool { return true }

// MediumError says that stored data failed its checksum and that there is no
// good copy of it. Other blocks are not affected.
type MediumError struct {
	Off, N uint64 // bytes of the disk
}

func (e *MediumError) Error() string {
	return fmt.Sprintf("cluster: %d bytes at offset %d cannot be read: they do not match their checksum", e.N, e.Off)
}

// BadRange is the first unreadable range, in bytes of the disk.
func (e *MediumError) BadRange() (off, n uint64) { return e.Off, e.N }

// clip cuts off what lies before from: the command begins inside a block, and
// reports nothing before it.
func clip(err error, from uint64) error {
	e, ok := err.(*MediumError)
	if ok && e.Off < from && from-e.Off < e.N {
		return &MediumError{Off: from, N: e.N - (from - e.Off)}
	}
	return err
}

// unreachableError says nothing about the command's range: the data can't be
// reached now, and whether a write has happened is open. It hides its cause
// from errors.Is on purpose. A full file system under a failed journal is not
// ENOSPC to the initiator, which would take it for an answer.
type unreachableError struct{ cause error }

func (e *unreachableError) Error() string {
	return "cluster: data cannot be reached: " + e.cause.Error()
}

// errCutOff ends what only servers can do that are in service, and yet have been
// out of this node's reach for long: the session ends, and the initiator finds a
// portal of a node that reaches them.
var errCutOff error = &unreachableError{errors.New("the servers that hold them are in service, but this node does not reach them")}

// statusError is a server's answer as an error.
type statusError wire.Status

func (e statusError) Error() string { return wire.Status(e).String() }
