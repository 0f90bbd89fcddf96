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

// A command whose data can't be reached is tried again every holdRetry, until
// holdLimit has passed since it first failed; then its session is dropped, so
// that the initiator tries another path (INITIATORS: hold, then drop). The
// limit is the age at which a coordinator may no longer resend a command.
const (
	holdLimit = 4 * time.Second
	holdRetry = 100 * time.Millisecond
	// dropPause is how long a command that cannot be tried again is held: an
	// initiator without another path logs in and sends it again at once.
	dropPause = time.Second
)

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

// diskError ends a running command after an error of its disk. If the error is
// not final and the command can be repeated (again), it is held and run again;
// a write can't be, for its data went with the loan.
func (c *Command) diskError(err error, again bool) {
	if errors.Is(err, context.Canceled) || c.aborted.Load() {
		c.finish(scsi.StatusTaskAborted)
		return
	}
	if s, final := senseOf(err, c.path.unit.block); final {
		c.finishCheck(s)
		return
	}
	switch {
	case again && c.hold():
	case !again && c.began.IsZero(): // not held yet
		c.path.unit.cfg.AfterFunc(dropPause, c.drop)
	default:
		c.drop()
	}
}

// drop ends a running command without a SCSI status.
func (c *Command) drop() {
	c.Drop = true
	c.finish(scsi.StatusBusy)
}

// mayHold says whether the command still has time to be tried again.
func (c *Command) mayHold() bool {
	now := c.path.unit.cfg.Now()
	if c.began.IsZero() {
		c.began = now
	}
	return now.Sub(c.began)+holdRetry <= holdLimit
}

// hold arranges for the command to run again soon, or says that its time is up.
func (c *Command) hold() bool {
	if !c.mayHold() {
		return false
	}
	c.path.unit.cfg.AfterFunc(holdRetry, c.runAgain)
	return true
}

func (c *Command) runAgain() { c.nexus.Run(c) }
