package lun

import (
	"context"
	"errors"
	"syscall"
	"time"

	"petal/target/scsi"
)

// ErrStale is the error of Reservations.Store when the version has moved.
var ErrStale = errors.New("reservations: stale version")

// dropPause is how long a command is held that has failed with an error which
// its initiator must not hear of. The disk has tried as long as it may by then
// (a command is not to take effect when the initiator may have sent it again on
// another path), so it is not tried again: the session is dropped. An initiator
// without another path logs in and sends the command again at once.
const dropPause = time.Second

// Busy is an error of a Disk that says of itself, by returning true, that the
// node is well but the data can't be reached at the moment, and that nothing
// more of the command will be done: the initiator is told to try again (status
// BUSY), on this path. As after every write that fails, the blocks of one that
// a Disk has cut may be old or new until it does (SBC-3).
type Busy interface {
	error
	Busy() bool
}

// senseOf turns an error of a Disk into sense data. final is false for the
// errors that an initiator must never hear of.
func senseOf(err error, block uint64) (s scsi.Sense, final bool) {
	var medium MediumError
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return scsi.Sense{Key: scsi.KeyDataProtect, Code: scsi.CodeSpaceAllocFailed}, true
	case errors.Is(err, syscall.EROFS):
		return scsi.Sense{Key: scsi.KeyDataProtect, Code: scsi.CodeWriteProtected}, true
	case errors.Is(err, syscall.EINVAL):
		// Begin has checked the range, so the disk has shrunk since.
		return scsi.Sense{Key: scsi.KeyIllegalRequest, Code: scsi.CodeLBAOutOfRange}, true
	case errors.As(err, &medium):
		off, _ := medium.BadRange()
		return scsi.Sense{Key: scsi.KeyMediumError, Code: scsi.CodeUnrecoveredRead,
			HasInfo: true, Info: off / block}, true
	}
	return s, false
}

// diskError ends a running command after an error of its disk.
func (c *Command) diskError(err error) {
	if errors.Is(err, context.Canceled) || c.aborted.Load() {
		c.finish(scsi.StatusTaskAborted)
		return
	}
	if s, final := senseOf(err, c.path.unit.block); final {
		c.finishCheck(s)
		return
	}
	var busy Busy
	switch {
	case !errors.As(err, &busy) || !busy.Busy():
		c.path.unit.cfg.AfterFunc(dropPause, c.drop)
	case !c.stillAllowed():
		// What kept it from the data may have been a preemption.
		c.finish(scsi.StatusReservationConflict)
	default:
		c.finish(scsi.StatusBusy)
	}
}

// drop ends a running command without a SCSI status.
func (c *Command) drop() {
	c.Drop = true
	c.finish(scsi.StatusBusy)
}
