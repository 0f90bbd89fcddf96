package initiator

import (
	"slices"

	"petal/target/iscsi"
	"petal/target/serial"
)

// encode appends t's request to the batch; s.mu is held and the command window
// has been looked at.
func (s *Session) encode(t *Task) {
	t.Sends++
	if t.kind == kindControl {
		r := t.control.Request()
		r.SetITT(t.itt)
		r.SetCmdSN(s.cmdSN)
		r.SetExpStatSN(s.statSN)
		s.batch.AppendBytes(&t.control, t.Out)
		return
	}
	var h iscsi.BHS
	h.Reset(iscsi.OpSCSICommand)
	c := h.SCSICommand()
	c.SetImmediate(t.Immediate)
	c.SetAttribute(t.Attribute)
	expected := t.expected()
	out := t.Out[:min(len(t.Out), int(expected))]
	c.SetWrite(len(t.Out) > 0)
	c.SetRead(len(t.Out) == 0 && expected > 0)
	c.SetExpectedLength(expected)
	c.SetLUN(t.LUN)
	c.SetITT(t.itt)
	c.SetCmdSN(s.cmdSN)
	c.SetExpStatSN(s.statSN)
	copy(c.CDB(), t.CDB[:])
	t.cmdSN = s.cmdSN
	if !t.Immediate {
		s.cmdSN++
	}
	// RFC 7143, sections 13.10 to 13.14: immediate and unsolicited data
	// together are at most FirstBurstLength.
	immediate, unsolicited := 0, 0
	if !s.params.InitialR2T {
		unsolicited = min(len(out), s.params.FirstBurst)
	}
	if s.params.ImmediateData {
		immediate = min(len(out), s.params.FirstBurst, s.params.MaxSend)
	}
	c.SetFinal(unsolicited <= immediate)
	s.batch.AppendBytes(&h, out[:immediate])
	if unsolicited > immediate {
		s.dataOut(t, iscsi.ReservedTag, immediate, unsolicited-immediate)
	}
}

// dataOut appends one sequence of Data-Out PDUs; s.mu is held.
func (s *Session) dataOut(t *Task, ttt uint32, offset, length int) {
	var h iscsi.BHS
	h.Reset(iscsi.OpDataOut)
	d := h.DataOut()
	d.SetLUN(t.LUN)
	d.SetITT(t.itt)
	d.SetTTT(ttt)
	d.SetExpStatSN(s.statSN)
	for sn := 0; length > 0; sn++ {
		n := min(length, s.params.MaxSend)
		length -= n
		d.SetFinal(length == 0)
		d.SetDataSN(serial.DataSN(sn))
		d.SetBufferOffset(uint32(offset))
		s.batch.AppendBytes(&h, t.Out[offset:offset+n])
		offset += n
	}
}

// advance sends what the command window lets through now; s.mu is held.
func (s *Session) advance() {
	for s.waiting.len() > 0 && s.room() {
		s.encode(s.waiting.pop())
	}
}

// resend sends on a new connection all commands that have not ended, in the
// order of their submission; s.mu is held. The target has ended all tasks of
// the session that this one replaced before it answered the login (RFC 7143,
// section 6.3.5), so that none can take effect after its second sending.
func (s *Session) resend() {
	var tasks []*Task
	for _, t := range s.tasks {
		if t != nil {
			tasks = append(tasks, t)
		}
	}
	slices.SortFunc(tasks, func(a, b *Task) int { return int(int64(a.order) - int64(b.order)) })
	s.waiting = fifo{}
	for _, t := range tasks {
		t.renew()
		if t.Immediate || s.waiting.len() == 0 && s.room() {
			s.encode(t)
		} else {
			s.waiting.push(t)
		}
	}
}
