package cluster

import (
	"errors"
	"fmt"
	"math/bits"
	"syscall"

	"petal/cluster/brick"
	"petal/placement"
)

// ErrVolumeClosed is the error of every command after Close.
var ErrVolumeClosed = errors.New("cluster: the volume is closed")

// MediumError says that stored data failed its checksum and that there is no
// other copy of it. Other blocks are not affected.
type MediumError struct {
	Off, N uint64 // bytes of the disk
	cause  error
}

func (e *MediumError) Error() string {
	return fmt.Sprintf("cluster: %d bytes at offset %d cannot be read: %v", e.N, e.Off, e.cause)
}

// Unwrap returns the brick's account of it.
func (e *MediumError) Unwrap() error { return e.cause }

// BadRange is the first unreadable range, in bytes of the disk.
func (e *MediumError) BadRange() (off, n uint64) { return e.Off, e.N }

// unreachableError is an error of the store that says nothing about the
// command's range: the data can't be reached now. It hides its cause from
// errors.Is on purpose. A full file system under a failed journal is not
// ENOSPC to the initiator, which would take it for an answer.
type unreachableError struct{ cause error }

func (e *unreachableError) Error() string {
	return "cluster: data cannot be reached: " + e.cause.Error()
}

// fault turns an error of the brick into one of those that a Disk may give.
// from is where the command's range begins: a medium error reports nothing
// before it.
func (v *Volume) fault(err error, from uint64) error {
	switch err {
	case nil, syscall.ENOSPC, ErrVolumeClosed:
		return err
	}
	var bad *brick.MediumError
	if !errors.As(err, &bad) || bad.Blocks == 0 {
		return &unreachableError{err}
	}
	first := bits.TrailingZeros16(uint16(bad.Blocks))
	count := bits.TrailingZeros16(^(uint16(bad.Blocks) >> first))
	e := &MediumError{
		Off:   uint64(bad.Key.Chunk)*placement.ChunkSize + uint64(first)*placement.BlockSize,
		N:     uint64(count) * placement.BlockSize,
		cause: err,
	}
	if e.Off < from && from-e.Off < e.N { // the command begins inside a block
		e.N -= from - e.Off
		e.Off = from
	}
	return e
}
