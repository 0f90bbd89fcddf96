package session

import (
	"petal/target/iscsi"
	"petal/target/lun"
	"petal/target/scsi"
)

// command takes a SCSI Command PDU (RFC 7143, section 11.3).
func (s *Session) command(c iscsi.SCSICommand) error {
	if s.leave >= quiescing {
		return s.receive(nil) // the session ends before it could be answered
	}
	if s.tasks.get(c.ITT()) != nil || c.ITT() == iscsi.ReservedTag {
		return rejectf(iscsi.RejectTaskInProgress, "initiator task tag %#x is in use", c.ITT())
	}
	if c.Immediate() && (s.immediate >= maxImmediate || !s.fits(charge(int(c.ExpectedLength())))) {
		return rejectf(iscsi.RejectTooManyImmediate, "%d in flight, %d bytes lent", s.immediate, s.lent)
	}
	if err := s.checkData(c); err != nil {
		return err
	}
	t := s.newTask()
	if err := s.describe(t, c); err != nil {
		s.freeTask(t)
		return err
	}
	s.tasks.put(t)
	s.inFlight.Add(1)
	s.commands.Add(1)
	if t.immediate {
		s.immediate++
	}
	s.start(t, refusal(c))
	return s.take(t, s.in.DataLength())
}

// checkData checks what a command announces and brings of data (sections
// 11.3.1.1 and 13.10 to 13.14).
func (s *Session) checkData(c iscsi.SCSICommand) error {
	n, expected := s.in.DataLength(), int(c.ExpectedLength())
	switch {
	case n > 0 && !c.Write():
		return protocolError("immediate data with a command that does not write (section 11.3)")
	case n > 0 && !s.par.ImmediateData:
		return protocolError("immediate data, but ImmediateData=No (section 13.11)")
	case n > expected || n > s.par.FirstBurst:
		return protocolError("%d bytes of immediate data; FirstBurstLength is %d, expected are %d (section 13.14)", n, s.par.FirstBurst, expected)
	case !c.Final() && !c.Write():
		return protocolError("command without F bit that does not write (section 11.3.1.1)")
	case !c.Final() && s.par.InitialR2T:
		return protocolError("unsolicited data announced, but InitialR2T=Yes (section 13.10)")
	}
	return nil
}

// describe fills in what the PDU says of the task.
func (s *Session) describe(t *task, c iscsi.SCSICommand) error {
	t.itt, t.LUN, t.immediate, t.began = c.ITT(), c.LUN(), c.Immediate(), s.now
	t.attr = attributeOf(c.Attribute())
	t.cdb = [16]byte(c.CDB())
	t.CDB = t.cdb[:]
	if len(s.in.AHS()) > 0 {
		a, err := iscsi.ParseAHS(s.in.AHS())
		if err != nil {
			return err
		}
		if a.ExtraCDB != nil {
			t.CDB = append(t.cdb[:16:16], a.ExtraCDB...)
		}
	}
	t.expected = int(c.ExpectedLength())
	t.Expected, t.ExpectedIn, t.OutGot = 0, 0, 0
	t.Out, t.OutLen, t.In, t.InLen = nil, 0, nil, 0
	t.Status, t.Sense, t.Drop = 0, nil, false
	switch {
	case c.Read() && c.Write():
		t.flagged = bidirectional
	case c.Write():
		t.flagged, t.Expected = writeData, t.expected
	case c.Read():
		t.flagged, t.ExpectedIn = readData, t.expected
	default:
		t.flagged, t.expected = noData, 0
	}
	t.unsolicited = !c.Final()
	return nil
}

func attributeOf(a iscsi.TaskAttribute) attribute {
	switch a {
	case iscsi.Ordered:
		return ordered
	case iscsi.HeadOfQueue:
		return headOfQueue
	}
	return simple // and untagged (section 11.3.1.2)
}

// Sense data of commands that never reach the device server, in fixed format
// (SPC-4, section 4.5.3).
var (
	senseMessageError = fixedSense(scsi.KeyIllegalRequest, 0x49, 0x00) // INVALID MESSAGE ERROR
	senseInvalidField = fixedSense(scsi.KeyIllegalRequest, 0x24, 0x00) // INVALID FIELD IN CDB
	senseDataLost     = fixedSense(scsi.KeyAbortedCommand, 0x47, 0x05) // PROTOCOL SERVICE CRC ERROR
)

func fixedSense(key scsi.SenseKey, asc, ascq byte) []byte {
	b := make([]byte, 18)
	b[0], b[2], b[7], b[12], b[13] = 0x70, byte(key), 10, asc, ascq
	return b
}

// refusal is the sense data for a command that the session itself refuses, or
// nil.
func refusal(c iscsi.SCSICommand) []byte {
	switch {
	case c.Attribute() >= iscsi.ACA:
		// SAM-5, section 8.6.5: no ACA condition is ever established here.
		return senseMessageError
	case c.Read() && c.Write():
		return senseInvalidField // no bidirectional command is supported
	}
	return nil
}

// start brings a task into its task set: at once, or when the budget for
// borrowed memory allows it.
func (s *Session) start(t *task, refused []byte) {
	if refused != nil {
		t.phase, t.decided, t.since = collecting, true, s.now
		t.Status, t.Sense = uint8(scsi.StatusCheckCondition), refused
		return
	}
	t.charge = charge(max(t.Expected, t.ExpectedIn))
	if !t.immediate && !s.affords(t) {
		t.phase = held
		s.holding = append(s.holding, t)
		return
	}
	s.begin(t)
}

// affords reports whether t may borrow its memory now. One task always may, so
// that every task comes to its turn.
func (s *Session) affords(t *task) bool {
	return len(s.holding) == 0 && s.fits(t.charge)
}

func (s *Session) fits(charge int) bool {
	return charge == 0 || s.lent == 0 || s.lent+charge <= s.cfg.Budget && s.part.room(s.lent+charge)
}

// charge is what a command may borrow at most that expects n bytes to move.
func charge(n int) int { return min(n, lun.MaxTransfer) }

// begin gives t to the device server.
func (s *Session) begin(t *task) {
	t.phase, t.begun, t.since = collecting, true, s.now
	s.lent += t.charge
	s.part.set(s.lent)
	s.setOf(t.LUN).enter(t)
	if s.nexus.Begin(&t.Command) == lun.Decided {
		t.decided = true
		return
	}
	t.in = cursor{vec: t.Out}
	for _, p := range t.Out {
		t.want += len(p)
	}
}

// startable reports whether the first held task can begin.
func (s *Session) startable() bool {
	return len(s.holding) > 0 && !s.dead && !s.holding[0].filling && s.fits(s.holding[0].charge)
}

// startHeld begins the held tasks that the budget has come to allow.
func (s *Session) startHeld() {
	for s.startable() {
		t := s.holding[0]
		s.holding = s.holding[1:]
		if t.phase = collecting; !t.spoiled {
			s.begin(t)
			t.in.fill(t.kept[:min(len(t.kept), t.want)])
		}
		t.kept = nil
		s.advance(t)
	}
}

// setOf finds the task set of a LUN. Initiators use few of them, and the last
// one again.
func (s *Session) setOf(lu uint64) *taskSet {
	for i, set := range s.sets {
		if set.lun == lu {
			s.sets[0], s.sets[i] = set, s.sets[0]
			return set
		}
	}
	set := &taskSet{lun: lu}
	if len(s.sets) >= maxSets {
		s.sets = dropEmpty(s.sets)
	}
	s.sets = append(s.sets, set)
	return set
}

// dropEmpty forgets task sets without tasks: LUN fields come from the peer and
// there are 2^64 of them. What is left is bounded by the tasks in flight.
func dropEmpty(sets []*taskSet) []*taskSet {
	kept := sets[:0]
	for _, set := range sets {
		if set.first != nil {
			kept = append(kept, set)
		}
	}
	clear(sets[len(kept):])
	return kept
}

// advance moves a task on as far as its data allows.
func (s *Session) advance(t *task) {
	switch {
	case t.phase != collecting || t.unsolicited:
	case t.spoiled && t.r2ts > 0:
	case t.decided && t.Drop:
		s.fail(ErrUnreachable)
	case t.decided:
		s.answer(t)
	case t.collected():
		t.OutGot = t.want
		t.phase = ready
		s.launch(t)
	default:
		s.solicit(t)
	}
}

// launch runs a task that has its data, if the order of its task set allows.
func (s *Session) launch(t *task) {
	if t.phase == ready && t.enabled {
		t.phase = running
		s.nexus.Run(&t.Command)
	}
}

// complete takes a task back from the device server.
func (s *Session) complete(t *task) {
	switch {
	case t.aborted || s.dead:
		s.end(t)
	case t.Drop:
		s.fail(ErrUnreachable)
		s.end(t)
	default:
		s.answer(t)
	}
}

// forget takes t out of everything by which it can be found, and runs what
// waited for it.
func (s *Session) forget(t *task) {
	t.phase = answered
	s.tasks.remove(t)
	s.inFlight.Add(-1)
	if t.immediate {
		s.immediate--
	}
	if t.set != nil {
		s.enabled = t.set.leave(t, s.enabled[:0])
		for _, e := range s.enabled {
			s.launch(e)
		}
	}
	if s.dead {
		s.rest.Broadcast()
	}
}

// release gives back what t borrowed, and t itself.
func (s *Session) release(t *task) {
	if t.begun {
		s.nexus.Finish(&t.Command)
		s.lent -= t.charge
		s.part.set(s.lent)
	}
	s.freeTask(t)
}

// stamp fills in the numbers that every PDU of a target has. status says that
// it takes a StatSN.
func (s *Session) stamp(r iscsi.Response, status bool) {
	r.SetStatSN(s.statSN)
	if status {
		s.statSN++
	}
	s.openWindow()
	r.SetWindow(s.window.CmdWindow)
	s.window.told = s.window.Last
}

// openWindow lets in as many commands as there are free places, unless bytes
// are short.
func (s *Session) openWindow() {
	if s.lent < s.cfg.Budget && len(s.holding) == 0 && s.leave < quiescing {
		s.window.open(s.tasks.count - s.immediate)
	}
}

// reopen tells an initiator that believes the window to be closed that it has
// been opened, when no answer is going to.
func (s *Session) reopen() {
	if s.dead || s.nexus == nil || s.tasks.count > 0 || s.window.told+1 != s.window.First {
		return
	}
	if s.openWindow(); s.window.closed() {
		s.nopIn(iscsi.ReservedTag, iscsi.ReservedTag, 0, nil)
	}
}
