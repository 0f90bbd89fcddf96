package lun

import (
	"errors"

	"petal/target/scsi"
)

// checkRange checks the LBA and number of blocks of a medium access command
// against the capacity (SBC-3 4.4.2 and 5: LOGICAL BLOCK ADDRESS OUT OF
// RANGE), and sets lba and off. A command of zero blocks may name the LBA
// behind the last one.
func (c *Command) checkRange(lba uint64, blocks uint64) bool {
	capacity := c.path.unit.blocks()
	if lba > capacity || blocks > capacity-lba {
		c.check(scsi.Sense{Key: scsi.KeyIllegalRequest, Code: scsi.CodeLBAOutOfRange, HasInfo: true, Info: lba})
		return false
	}
	c.lba, c.off = lba, lba*c.path.unit.block
	return true
}

// checkTransfer checks the fields common to READ, WRITE and their kin. length
// is what the CDB asks for in bytes.
func (c *Command) checkTransfer() (length int, ok bool) {
	cdb := scsi.CDB(c.CDB)
	if c.row.Len > 6 {
		// No protection information: SBC-3 table 44 wants RDPROTECT,
		// WRPROTECT and VRPROTECT refused unless zero.
		if cdb.Protect() != 0 {
			c.badField(1, 7)
			return 0, false
		}
		c.fua = cdb.FUA()
	}
	blocks := uint64(cdb.Blocks())
	if !c.checkRange(cdb.LBA(), blocks) {
		return 0, false
	}
	if blocks > MaxTransfer/c.path.unit.block {
		c.badField(lengthField(c.row.Len), -1)
		return 0, false
	}
	return int(blocks * c.path.unit.block), true
}

// lengthField is the offset of the transfer length field in a CDB.
func lengthField(cdbLen uint8) int {
	switch cdbLen {
	case 6:
		return 4
	case 10:
		return 7
	case 12:
		return 6
	default:
		return 10
	}
}

// checkWritable refuses writes to a read-only disk, or under SWP.
func (c *Command) checkWritable() bool {
	if c.path.unit.writeProtected() {
		c.check(scsi.Sense{Key: scsi.KeyDataProtect, Code: scsi.CodeWriteProtected})
		return false
	}
	return true
}

// writeProtected is the WP bit of MODE SENSE.
func (u *Unit) writeProtected() bool { return u.modes.softwareProtect() || u.disk.ReadOnly() }

func beginRead(c *Command) {
	if length, ok := c.checkTransfer(); ok {
		c.n = length
	}
}

func runRead(c *Command) {
	n := c.wanted()
	if n == 0 {
		c.status(scsi.StatusGood)
		c.InLen = c.n
		c.Done(c)
		return
	}
	c.path.unit.disk.Read(c.off, n, c.onRead)
}

// wanted is how much a READ borrows: whole blocks, but no more than the
// initiator has room for, since that is what the session has counted on.
func (c *Command) wanted() int {
	block := int(c.path.unit.block)
	return min(c.n, (c.ExpectedIn+block-1)/block*block)
}

// readDone is the disk's answer to runRead. The vectors go to the session as
// they are.
func (c *Command) readDone(vec [][]byte, loan any, err error) {
	if err != nil {
		c.diskError(err)
		return
	}
	c.loan = loan
	c.In, c.InLen = vec, c.n
	c.Status = uint8(scsi.StatusGood)
	c.Done(c)
}

func beginWrite(c *Command) {
	length, ok := c.checkTransfer()
	if !ok || !c.checkWritable() {
		return
	}
	c.lend(length)
}

// lend borrows the disk's memory for length bytes of data-out. If the
// initiator means to send fewer (ExpectedDataTransferLength below the CDB's
// length), only so many are written, and the session reports the overflow;
// but a part of a block can't be written (RFC 7143 11.4.5.2).
func (c *Command) lend(length int) {
	c.n = min(length, c.Expected)
	if c.n%int(c.path.unit.block) != 0 {
		c.illegal(scsi.CodeInvalidFieldInIU)
		c.OutLen = length
		return
	}
	if c.n > 0 {
		vec, loan, err := c.path.unit.disk.Reserve(c.off, c.n)
		if err != nil {
			c.reserveError(err)
			return
		}
		c.Out, c.loan = vec, loan
	}
	c.OutLen = length
}

// reserveError turns an error of Reserve into the end of Begin.
func (c *Command) reserveError(err error) {
	if s, final := senseOf(err, c.path.unit.block); final {
		c.check(s)
		return
	}
	var busy Busy
	c.Drop = !errors.As(err, &busy) || !busy.Busy()
	c.status(scsi.StatusBusy)
}

func runWrite(c *Command) {
	if !c.gotAll() {
		return
	}
	if c.n == 0 {
		c.finish(scsi.StatusGood)
		return
	}
	loan := c.loan
	c.loan, c.Out = nil, nil // the disk takes it over
	c.path.unit.disk.Write(loan, c.fua, c.onWrite)
}

// gotAll ends the command unless all data-out that it asked for has come.
func (c *Command) gotAll() bool {
	want := 0
	for _, v := range c.Out {
		want += len(v)
	}
	if c.OutGot >= want {
		return true
	}
	c.finishCheck(scsi.Sense{Key: scsi.KeyAbortedCommand, Code: scsi.CodeInvalidFieldInIU})
	return false
}

func (c *Command) writeDone(err error) {
	if err != nil {
		c.diskError(err)
		return
	}
	c.finish(scsi.StatusGood)
}
