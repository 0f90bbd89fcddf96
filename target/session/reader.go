package session

import (
	"errors"
	"fmt"

	"petal/target/iscsi"
)

// read takes PDUs off the connection until it fails or the session is over.
func (s *Session) read() error {
	for {
		h, err := s.next()
		if err != nil {
			return err
		}
		s.heard.Add(1)
		s.lock()
		s.now = s.clock()
		err = s.burst(h)
		if err == nil && s.dead {
			err = s.err
		}
		for err == nil && s.out.backlogged() && !s.dead {
			s.out.flush()
			s.await()
		}
		if err != nil {
			s.lastWords()
		}
		s.unlock()
		if err != nil {
			return err
		}
	}
}

// burst handles a PDU and all others that are whole in the input buffer.
func (s *Session) burst(h *iscsi.BHS) error {
	for {
		if err := s.one(h); err != nil || s.dead || !s.in.Buffered() {
			return err
		}
		if s.out.filling.Pending() > burstFlush {
			s.run()
			s.out.flush()
		}
		var err error
		if h, err = s.next(); err != nil {
			return err
		}
	}
}

// one handles one PDU. What it returns costs the connection.
func (s *Session) one(h *iscsi.BHS) error {
	s.header = h
	err := s.handle(h)
	if err == nil {
		return nil
	}
	reject, ok := errors.AsType[*iscsi.RejectError](err)
	if !ok {
		return err
	}
	if err := s.receive(nil); err != nil {
		return err
	}
	s.reject(h, reject.Reason)
	s.log.Info("PDU rejected", "opcode", h.Opcode().String(), "reason", reject.Error())
	if reject.Reason == iscsi.RejectDataDigest || reject.Reason == iscsi.RejectProtocolError {
		// Section 7.8 lets a target without recovery give up the connection:
		// its initiator then retries the whole command elsewhere.
		return err
	}
	return nil
}

// handle does what the PDU asks for.
func (s *Session) handle(h *iscsi.BHS) error {
	switch h.Opcode() {
	case iscsi.OpDataOut:
		return s.dataOut(h.DataOut())
	case iscsi.OpSNACK:
		// Section 11.16: with ErrorRecoveryLevel 0 there is nothing to resend.
		return rejectf(iscsi.RejectSNACK, "SNACK with ErrorRecoveryLevel 0")
	case iscsi.OpSCSICommand, iscsi.OpTaskRequest, iscsi.OpTextRequest, iscsi.OpLogoutReq, iscsi.OpNOPOut:
	case iscsi.OpLoginRequest:
		return protocolError("Login Request in the full-feature phase (section 11.12)")
	default:
		return rejectf(iscsi.RejectCommandNotSupported, "opcode %#x", byte(h.Opcode()))
	}
	if !h.Immediate() {
		switch s.window.admit(h.Request().CmdSN()) {
		case outside:
			// Section 4.2.2.1: "The target MUST silently ignore any
			// non-immediate command outside of this range".
			return s.receive(nil)
		case gap:
			// One connection carries them in order, and without recovery
			// nothing is sent again: what is missing will not come.
			return protocolError("CmdSN %d left out (section 4.2.2.1)", s.window.First)
		}
	}
	if s.nexus == nil && h.Opcode() != iscsi.OpTextRequest && h.Opcode() != iscsi.OpLogoutReq {
		// Section 4.3: a discovery session knows only SendTargets and logout.
		return rejectf(iscsi.RejectProtocolError, "%v in a discovery session", h.Opcode())
	}
	switch h.Opcode() {
	case iscsi.OpSCSICommand:
		return s.command(h.SCSICommand())
	case iscsi.OpTaskRequest:
		return s.manage(h.TaskRequest())
	case iscsi.OpTextRequest:
		return s.textRequest(h.TextRequest())
	case iscsi.OpLogoutReq:
		return s.logout(h.LogoutRequest())
	}
	return s.nopOut(h.NOPOut())
}

// receive reads the present data segment into vec, and throws away what does
// not fit. It gives the baton away meanwhile, unless the data is already in
// the input buffer.
func (s *Session) receive(vec [][]byte) error {
	if s.in.DataLength() == 0 {
		return nil
	}
	if !s.in.DataBuffered() {
		s.unlock()
		defer s.lock()
	}
	return s.readSegment(vec)
}

// next is the next header.
func (s *Session) next() (h *iscsi.BHS, err error) {
	defer s.outside(&err)
	return s.in.Next()
}

// readSegment reads the rest of the present data segment.
func (s *Session) readSegment(vec [][]byte) (err error) {
	defer s.outside(&err)
	if len(vec) > 0 {
		if _, err := s.in.ReadData(vec); err != nil {
			return err
		}
	}
	return s.in.Skip()
}

// receiveCopy is receive into memory of its own, for what is not data of a
// command: at most limit bytes, which is below MaxRecvDataSegmentLength.
func (s *Session) receiveCopy(limit int) ([]byte, error) {
	b := make([]byte, min(s.in.DataLength(), limit))
	s.one1[0] = b
	return b, s.receive(s.one1[:])
}

// lastWords lets what has been said of an error reach the initiator.
func (s *Session) lastWords() {
	s.out.deadline()
	s.run()
	for s.out.flush(); s.out.sending && !s.dead; s.out.flush() {
		s.await()
	}
}

// protocolError is an error that costs the connection.
func protocolError(format string, args ...any) error {
	return &iscsi.ConnectionError{Why: fmt.Sprintf(format, args...)}
}

// rejectf is an error that costs one PDU.
func rejectf(reason iscsi.RejectReason, format string, args ...any) error {
	return &iscsi.RejectError{Reason: reason, Why: fmt.Sprintf(format, args...)}
}
