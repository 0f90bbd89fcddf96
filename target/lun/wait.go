package lun

import (
	"context"
	"errors"

	"petal/target/scsi"
)

// Commands that are made of several disk operations run on a goroutine of
// their own and wait for each. These are their helpers.

// pieceMax is the most that such a command holds of the medium at a time,
// bytes.
const pieceMax = 1 << 20

// wait carries out one disk operation. Between operations it obeys Abort.
func (c *Command) wait(op func(done func(error))) error {
	if c.aborted.Load() {
		return context.Canceled
	}
	return c.once(op)
}

// errConflict ends a command whose nexus has lost its rights on the way.
var errConflict = errors.New("reservation conflict")

// once hands one operation to the disk, if reservations still allow it, and
// waits for its end.
func (c *Command) once(op func(done func(error))) error {
	ended := make(chan error, 1)
	unit := c.path.unit
	phase := unit.gate.enter()
	if c.stillAllowed() {
		op(func(err error) { ended <- err })
	} else {
		ended <- errConflict
	}
	unit.gate.leave(phase)
	return <-ended
}

// read reads n bytes at off and hands the vectors to use.
func (c *Command) read(off uint64, n int, use func(vec [][]byte)) error {
	disk := c.path.unit.disk
	return c.wait(func(done func(error)) {
		disk.Read(off, n, func(vec [][]byte, loan any, err error) {
			if err == nil {
				use(vec)
				disk.Release(loan)
			}
			done(err)
		})
	})
}

// write writes n bytes at off, which fill puts into the vectors.
func (c *Command) write(off uint64, n int, fua bool, fill func(vec [][]byte)) error {
	disk := c.path.unit.disk
	return c.wait(func(done func(error)) {
		vec, loan, err := disk.Reserve(off, n)
		if err != nil {
			done(err)
			return
		}
		fill(vec)
		disk.Write(loan, fua, done)
	})
}

// end ends a command that ran on its own goroutine.
func (c *Command) end(err error) {
	if errors.Is(err, errConflict) {
		c.finish(scsi.StatusReservationConflict)
		return
	}
	if err != nil {
		c.diskError(err)
		return
	}
	c.finish(scsi.StatusGood)
}

// pieces calls f for the parts of n bytes at off, each at most size and inside
// one aligned stretch of size bytes. at counts from the start of the range.
func pieces(off, n, size uint64, f func(off uint64, n int, at uint64) error) error {
	for at := uint64(0); at < n; {
		k := min(n-at, size-(off+at)%size)
		if err := f(off+at, int(k), at); err != nil {
			return err
		}
		at += k
	}
	return nil
}
