package session

import (
	"errors"

	"petal/target/iscsi"
	"petal/target/scsi"
	"petal/target/serial"
)

// dataOut takes a SCSI Data-Out PDU (RFC 7143, section 11.7). Data for a task
// that is gone, or in answer to an R2T of one that was aborted, is thrown
// away: it may have been on its way when the task ended.
func (s *Session) dataOut(d iscsi.DataOut) error {
	t := s.tasks.get(d.ITT())
	if t == nil || t.aborted {
		return s.receive(nil)
	}
	if d.TTT() == iscsi.ReservedTag {
		return s.unsolicitedData(t, d)
	}
	if t.r2ts == 0 || t.r2t[0].ttt != d.TTT() {
		for _, r := range t.r2t[:t.r2ts] {
			if r.ttt == d.TTT() {
				return protocolError("Data-Out for a later R2T, but DataSequenceInOrder=Yes (section 13.19)")
			}
		}
		return s.receive(nil)
	}
	return s.solicitedData(t, d)
}

// unsolicitedData takes what comes without an R2T, up to FirstBurstLength.
func (s *Session) unsolicitedData(t *task, d iscsi.DataOut) error {
	n := s.in.DataLength()
	if !t.unsolicited {
		return protocolError("unsolicited data after the F bit (section 11.7.1)")
	}
	if t.came+n > min(s.par.FirstBurst, t.expected) {
		return protocolError("unsolicited data beyond FirstBurstLength or the expected length (section 13.14)")
	}
	if err := s.checkSequence(t, d, t.dataSN); err != nil {
		return err
	}
	t.dataSN++
	if d.Final() {
		t.unsolicited = false
	}
	return s.take(t, n)
}

// solicitedData takes what the oldest R2T has asked for.
func (s *Session) solicitedData(t *task, d iscsi.DataOut) error {
	n, r := s.in.DataLength(), &t.r2t[0]
	if err := s.checkSequence(t, d, r.nextDataSN); err != nil {
		return err
	}
	if end := t.came + n; end > r.end || d.Final() != (end == r.end) && !t.spoiled {
		return protocolError("Data-Out sequence ends at %d, the R2T at %d (section 11.8)", end, r.end)
	}
	r.nextDataSN++
	if d.Final() {
		t.r2ts--
		copy(t.r2t[:t.r2ts], t.r2t[1:])
	}
	return s.take(t, n)
}

// take receives the n bytes that the present PDU has for t, and moves t on.
func (s *Session) take(t *task, n int) error {
	err := s.place(t, n)
	if t.phase == answered {
		return err // it was aborted meanwhile
	}
	if reject, ok := errors.AsType[*iscsi.RejectError](err); ok && reject.Reason == iscsi.RejectDataDigest {
		s.spoil(t, "data digest")
		s.reject(s.header, reject.Reason)
		err = nil
	}
	if err == nil {
		s.advance(t)
	}
	return err
}

// checkSequence checks a Data-Out PDU's place in its sequence: DataPDUInOrder
// is always Yes here (section 13.18).
func (s *Session) checkSequence(t *task, d iscsi.DataOut, dataSN serial.DataSN) error {
	if d.DataSN() != dataSN && !t.spoiled {
		s.spoil(t, "DataSN")
	}
	if int(d.BufferOffset()) != t.came && !t.spoiled {
		return protocolError("buffer offset %d, want %d (section 11.7.6)", d.BufferOffset(), t.came)
	}
	return nil
}

// spoil makes a task fail that has lost data, by a digest error or, as section
// 7.9 has it, one implied by DataSN. Section 7.8: with "CHECK CONDITION [...]
// protocol service CRC error", but "the target MUST wait to receive all the
// data (signaled by a data PDU with the Final bit set for all outstanding
// R2Ts)". No further R2T is sent.
func (s *Session) spoil(t *task, why string) {
	s.log.Info("data of a command lost", "why", why, "itt", t.itt, "lun", t.LUN)
	t.spoiled, t.decided, t.want = true, true, 0
	t.Status, t.Sense = uint8(scsi.StatusCheckCondition), senseDataLost
}

// place receives n bytes, the whole present data segment, into the memory that
// was lent for t; what the command has no use for is thrown away. If t was
// aborted meanwhile, it ends here.
func (s *Session) place(t *task, n int) error {
	if n == 0 {
		return nil
	}
	t.filling = true
	var err error
	if t.phase == held {
		at := len(t.kept)
		t.kept = append(t.kept, make([]byte, n)...)
		s.one1[0] = t.kept[at:]
		err = s.receive(s.one1[:])
	} else {
		err = s.receive(pieces(&s.placing, &t.in, min(n, max(0, t.want-t.came))))
	}
	t.filling = false
	t.came += n
	s.dataAt = s.now
	s.bytesIn.Add(uint64(n))
	if t.aborted && t.phase != running {
		s.end(t)
	}
	return err
}

// pieces is the next n bytes of c as a vector in the memory of vec.
func pieces(vec *[][]byte, c *cursor, n int) [][]byte {
	clear(*vec)
	*vec = (*vec)[:0]
	for n > 0 {
		p := c.next(n)
		*vec = append(*vec, p)
		n -= len(p)
	}
	return *vec
}

// solicit asks for the data that is still to come, in R2Ts of at most
// MaxBurstLength, of which MaxOutstandingR2T may be outstanding.
func (s *Session) solicit(t *task) {
	if t.r2tSN == 0 {
		t.asked = t.came
	}
	for t.r2ts < min(s.par.MaxOutstandingR2T, len(t.r2t)) && t.asked < t.want {
		n := min(s.par.MaxBurst, t.want-t.asked)
		ttt := s.newTTT()
		r := s.out.begin(iscsi.OpR2T).R2T()
		r.SetLUN(t.LUN)
		r.SetITT(t.itt)
		r.SetTTT(ttt)
		s.stamp(r.Response, false)
		r.SetR2TSN(t.r2tSN)
		r.SetBufferOffset(uint32(t.asked))
		r.SetDesiredLength(uint32(n))
		s.out.filling.Append(r.BHS, nil, nil)
		t.r2tSN++
		t.reply++
		t.asked += n
		t.r2t[t.r2ts] = r2t{ttt: ttt, end: t.asked}
		t.r2ts++
	}
}

// newTTT makes a target transfer tag.
func (s *Session) newTTT() uint32 {
	s.nextTTT++
	if s.nextTTT == iscsi.ReservedTag {
		s.nextTTT = 1
	}
	return s.nextTTT
}
