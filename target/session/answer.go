package session

import (
	"encoding/binary"
	"time"

	"petal/target/iscsi"
	"petal/target/scsi"
	"petal/target/serial"
)

// answer sends the outcome of a task: its data in Data-In PDUs, and the status
// with the last of them or in a SCSI Response.
func (s *Session) answer(t *task) {
	s.forget(t)
	n := 0
	if t.flagged == readData {
		n = min(t.InLen, t.expected)
	}
	residual := t.residual()
	// Section 11.4.2: only a GOOD status may ride on data, and sense data never.
	rides := n > 0 && t.Status == uint8(scsi.StatusGood) && len(t.Sense) == 0
	if n > 0 {
		s.dataIn(t, n, rides, residual)
	}
	if !rides {
		s.response(t, residual)
	}
	s.bytesOut.Add(uint64(n))
	s.observe(t, n)
	if n > 0 || len(t.Sense) > 0 {
		s.out.filling.tasks = append(s.out.filling.tasks, t)
		return
	}
	s.release(t)
}

// dataIn sends the first n bytes of t's data, in PDUs that the initiator takes
// and sequences of MaxBurstLength (section 11.7).
func (s *Session) dataIn(t *task, n int, withStatus bool, residual iscsi.Residual) {
	in := cursor{vec: t.In}
	burst := 0
	for at := 0; at < n; {
		size := min(n-at, s.par.MaxSend, iscsi.MaxSendDataSegment, s.par.MaxBurst-burst)
		burst += size
		last := at+size == n
		d := s.out.begin(iscsi.OpDataIn).DataIn()
		d.SetFinal(last || burst == s.par.MaxBurst)
		if burst == s.par.MaxBurst {
			burst = 0
		}
		d.SetITT(t.itt)
		d.SetTTT(iscsi.ReservedTag)
		if last && withStatus {
			d.SetHasStatus(true)
			d.SetStatus(t.Status)
			d.SetResidual(residual)
			s.stamp(d.Response, true)
		} else {
			s.stamp(d.Response, false)
			d.SetStatSN(0) // reserved without status
		}
		d.SetDataSN(serial.DataSN(t.reply))
		d.SetBufferOffset(uint32(at))
		s.out.filling.Append(d.BHS, nil, pieces(&s.vec, &in, size))
		t.reply++
		at += size
	}
}

// response sends a SCSI Response (section 11.4).
func (s *Session) response(t *task, residual iscsi.Residual) {
	r := s.out.begin(iscsi.OpSCSIResponse).SCSIResponse()
	r.SetCode(iscsi.CommandCompleted)
	r.SetStatus(t.Status)
	r.SetITT(t.itt)
	r.SetExpDataSN(serial.DataSN(t.reply))
	r.SetResidual(residual)
	if t.flagged == bidirectional {
		r.SetReadResidual(residual)
	}
	s.stamp(r.Response, true)
	if len(t.Sense) == 0 {
		s.out.filling.Append(r.BHS, nil, nil)
		return
	}
	binary.BigEndian.PutUint16(t.sense[:], uint16(len(t.Sense)))
	clear(s.vec)
	s.vec = append(s.vec[:0], t.sense[:], t.Sense)
	s.out.filling.Append(r.BHS, nil, s.vec)
}

// residual compares what the CDB asked to be transferred with what the
// initiator expected (section 11.4.5.1):
//
//	flags   transferred    expected > transferred   expected < transferred
//	R       InLen          underflow                overflow
//	W       OutLen         underflow                overflow
//	none    either         -                        overflow
//
// A command that ended before its transfer transferred nothing. A transfer in
// the direction that the flags do not name counts only where they name none.
func (t *task) residual() iscsi.Residual {
	moved := 0
	switch t.flagged {
	case readData:
		moved = t.InLen
	case writeData:
		moved = t.OutLen
	case noData:
		moved = max(t.InLen, t.OutLen)
	}
	switch {
	case moved > t.expected:
		return iscsi.Residual{Overflow: true, Count: uint32(moved - t.expected)}
	case moved < t.expected:
		return iscsi.Residual{Underflow: true, Count: uint32(t.expected - moved)}
	}
	return iscsi.Residual{}
}

func (s *Session) observe(t *task, in int) {
	if o := s.cfg.Observer; o != nil {
		o.Command(t.LUN, t.cdb[0], in, t.OutGot, t.Status, time.Duration(s.now-t.began))
	}
}
