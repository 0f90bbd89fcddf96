package lun

import (
	"sync/atomic"

	"petal/target/scsi"
)

// commandState is the device server's part of a Command. It is reset by Begin.
type commandState struct {
	nexus *Nexus
	path  *path
	row   *scsi.Command
	lba   uint64
	off   uint64 // bytes
	n     int    // bytes that Run moves to or from the disk
	loan  any    // memory lent by the disk, or nil
	fua   bool
	seen  *reservationState // what Begin judged by

	aborted atomic.Bool

	param []byte // parameter data-out of a command that has some
	one   [1][]byte
	sense [scsi.SenseMax]byte

	// Made once for each Command, so that passing them allocates nothing.
	onRead  func(vec [][]byte, loan any, err error)
	onWrite func(err error)
}

// handler is what the device server does for a scsi.Kind.
type handler struct {
	// begin checks the CDB and asks for data-out by lend or takeParam. It may
	// end the command. nil: there is nothing to check.
	begin func(*Command)
	// run carries the command out; it ends it by one of good, fail, finish...
	// nil: begin ends it always.
	run func(*Command)
}

// state of a command between Begin and Done, told by Status.
const undecided = scsi.Status(0xFF)

// Begin takes a command in: it finds the unit, reports a unit attention or a
// reservation conflict, checks the CDB and lends memory for data-out. It never
// blocks. See Command and Verdict.
func (n *Nexus) Begin(c *Command) Verdict {
	c.reset(n)
	row, code := scsi.Lookup(c.CDB)
	c.row = row
	c.path = n.path(c.LUN)
	if c.path == nil {
		c.beginAbsent()
		return Decided
	}
	if !c.admit(code) {
		return Decided
	}
	h := &handlers[row.Kind]
	if h.begin != nil {
		h.begin(c)
	}
	if c.decided() {
		return Decided
	}
	return Wait
}

// reset makes the command ready for Begin.
func (c *Command) reset(n *Nexus) {
	if c.onRead == nil {
		c.onRead, c.onWrite = c.readDone, c.writeDone
	}
	c.Status = uint8(undecided)
	c.Out, c.In, c.Sense = nil, nil, nil
	c.OutLen, c.InLen, c.OutGot = 0, 0, 0
	c.Drop = false
	c.nexus, c.path, c.row = n, nil, nil
	c.lba, c.off, c.n = 0, 0, 0
	c.loan, c.fua, c.seen, c.param = nil, false, nil, nil
	c.aborted.Store(false)
}

func (c *Command) decided() bool { return c.Status != uint8(undecided) }

// admit makes the checks that come before the command's own: unit attention
// (SAM-5 5.14), that the command exists, NACA, and reservations. code says why
// there is no row.
func (c *Command) admit(code scsi.Code) bool {
	if c.path.attention.pending() && !c.reportsAttention() {
		if s, ok := c.path.attention.take(); ok {
			c.check(s)
			return false
		}
	}
	switch {
	case c.row == nil && code == scsi.CodeInvalidOpcode:
		c.check(scsi.Sense{Key: scsi.KeyIllegalRequest, Code: code})
	case c.row == nil:
		c.badField(1, 4) // the service action
	case scsi.CDB(c.CDB).Control(int(c.row.Len))&scsi.NACA != 0:
		c.badField(int(c.row.Len)-1, 2) // NORMACA is 0
	case !c.reservationAllows():
		c.status(scsi.StatusReservationConflict)
	}
	return !c.decided()
}

// reportsAttention tells the commands that do not end because of a unit
// attention (SAM-5 5.14.1): INQUIRY, REPORT LUNS, REQUEST SENSE.
func (c *Command) reportsAttention() bool {
	if c.row == nil {
		return false
	}
	switch c.row.Kind {
	case scsi.KindInquiry, scsi.KindReportLUNs, scsi.KindRequestSense:
		return true
	}
	return false
}

// beginAbsent answers a command to a LUN that has no unit (SPC-4 6.4.1,
// 6.33, 6.39).
func (c *Command) beginAbsent() {
	gone := scsi.Sense{Key: scsi.KeyIllegalRequest, Code: scsi.CodeLUNotSupported}
	if c.row != nil {
		switch c.row.Kind {
		case scsi.KindInquiry:
			beginInquiryAbsent(c)
			return
		case scsi.KindReportLUNs:
			beginReportLUNs(c)
			return
		case scsi.KindRequestSense:
			c.answer(gone.Append(nil, c.CDB[1]&1 != 0), uint32(c.CDB[4]))
			return
		}
	}
	c.check(gone)
}

// Run carries out a command whose Begin returned Wait, once its data-out is
// there. It may return before the command has ended, which Done tells. It
// does not block.
func (n *Nexus) Run(c *Command) {
	// Once the command has ended it is the session's, path and all.
	unit := c.path.unit
	phase := unit.gate.enter()
	defer unit.gate.leave(phase)
	switch {
	case c.aborted.Load():
		c.finish(scsi.StatusTaskAborted)
	case !c.stillAllowed():
		// Reservations have changed while data-out was on its way.
		c.finish(scsi.StatusReservationConflict)
	default:
		handlers[c.row.Kind].run(c)
	}
}

// stillAllowed judges the command again if reservations may have changed since
// it was judged last. The caller is inside the unit's gate.
func (c *Command) stillAllowed() bool {
	u := c.path.unit
	if c.seen == u.reservations.state.Load() && u.legacy.Load() == nil {
		return true
	}
	return c.reservationAllows()
}

// Abort asks a command between Run and Done to end soon: one that is
// made of several steps goes no further. Done is called all the same, and
// until then what is under way may still take effect. Safe to call at any time
// from Begin to Finish, from any goroutine.
func (n *Nexus) Abort(c *Command) { c.aborted.Store(true) }

// Finish gives back what was lent to a command: after its response has been
// sent, or after it was aborted (after Done, or instead of Run).
func (n *Nexus) Finish(c *Command) {
	if c.loan != nil {
		c.path.unit.disk.Release(c.loan)
		c.loan = nil
	}
	c.Out, c.In, c.Sense, c.param = nil, nil, nil, nil
	c.one[0] = nil
	c.path, c.row, c.seen = nil, nil, nil
}

// The ways a command ends. status, check, badField, badParam and answer set
// the result and are for begin; finish calls Done as well and is for run.

// status sets a status without data.
func (c *Command) status(s scsi.Status) {
	c.Status = uint8(s)
	c.Out = nil
	c.In, c.InLen = nil, 0
	if s == scsi.StatusCheckCondition {
		return
	}
	c.Sense = nil
}

// check sets CHECK CONDITION with sense data.
func (c *Command) check(s scsi.Sense) {
	descriptor := c.path != nil && c.path.unit.modes.descriptorSense()
	c.Sense = s.Append(c.sense[:0], descriptor)
	c.status(scsi.StatusCheckCondition)
}

// illegal sets ILLEGAL REQUEST with a code.
func (c *Command) illegal(code scsi.Code) {
	c.check(scsi.Sense{Key: scsi.KeyIllegalRequest, Code: code})
}

// badField sets INVALID FIELD IN CDB; the field begins at that byte and bit.
func (c *Command) badField(at int, bit int8) {
	c.check(scsi.Sense{Key: scsi.KeyIllegalRequest, Code: scsi.CodeInvalidFieldInCDB, HasField: true,
		Field: scsi.FieldPointer{InCDB: true, Byte: uint16(at), Bit: bit}})
}

// badParam sets INVALID FIELD IN PARAMETER LIST.
func (c *Command) badParam(at int, bit int8) {
	c.check(scsi.Sense{Key: scsi.KeyIllegalRequest, Code: scsi.CodeInvalidFieldInParams, HasField: true,
		Field: scsi.FieldPointer{Byte: uint16(at), Bit: bit}})
}

// answer sets GOOD with data, cut to the allocation length.
func (c *Command) answer(data []byte, allocation uint32) {
	c.Status = uint8(scsi.StatusGood)
	if uint64(len(data)) > uint64(allocation) {
		data = data[:allocation]
	}
	c.InLen = len(data)
	if len(data) > 0 {
		c.one[0] = data
		c.In = c.one[:1]
	}
}

// finish ends a running command with a status and no data.
func (c *Command) finish(s scsi.Status) {
	c.status(s)
	c.Done(c)
}

// finishCheck ends a running command with sense data.
func (c *Command) finishCheck(s scsi.Sense) {
	c.check(s)
	c.Done(c)
}

// takeParam asks for a parameter list of length bytes, at most limit.
func (c *Command) takeParam(length uint32, limit int) {
	if length > uint32(limit) || int(length) > c.Expected {
		c.illegal(scsi.CodeParameterListLength)
		return
	}
	c.OutLen = int(length)
	if length > 0 {
		c.param = make([]byte, length)
		c.one[0] = c.param
		c.Out = c.one[:1]
	}
}
