package session

import (
	"math"
	"time"

	"petal/target/iscsi"
)

// nopOut takes a NOP-Out (RFC 7143, section 11.18): a ping of the initiator, or
// its answer to one of ours.
func (s *Session) nopOut(n iscsi.NOPOut) error {
	if n.ITT() == iscsi.ReservedTag {
		if !n.Immediate() {
			return protocolError("NOP-Out without a tag that is not immediate (section 11.18)")
		}
		return s.receive(nil) // any PDU shows that the peer lives
	}
	lu, itt := n.LUN(), n.ITT()
	echo, err := s.receiveCopy(s.par.MaxSend)
	if err != nil {
		return err
	}
	s.nopIn(itt, iscsi.ReservedTag, lu, echo)
	return nil
}

// nopIn sends a NOP-In (section 11.19). Only the answer to a ping takes a
// StatSN.
func (s *Session) nopIn(itt, ttt uint32, lu uint64, data []byte) {
	n := s.out.begin(iscsi.OpNOPIn).NOPIn()
	n.SetLUN(lu)
	n.SetITT(itt)
	n.SetTTT(ttt)
	s.stamp(n.Response, itt != iscsi.ReservedTag)
	s.out.filling.AppendBytes(n.BHS, data)
}

// logout takes a Logout Request (section 11.14). With one connection, closing
// it and closing the session are the same.
func (s *Session) logout(l iscsi.LogoutRequest) error {
	itt, reason, cid := l.ITT(), l.Reason(), l.CID()
	if err := s.receive(nil); err != nil {
		return err
	}
	code := iscsi.LogoutDone
	switch {
	case reason == iscsi.LogoutRecovery:
		code = iscsi.LogoutRecoveryUnsupported
	case reason == iscsi.LogoutConnection && cid != s.cfg.CID:
		code = iscsi.LogoutCIDNotFound
	case reason > iscsi.LogoutRecovery:
		return rejectf(iscsi.RejectInvalidPDUField, "logout reason %d", reason)
	}
	if code != iscsi.LogoutDone {
		s.logoutReply(itt, code)
		return nil
	}
	s.log.Debug("logout", "reason", reason.String())
	s.leave = loggingOut
	// Section 11.14: what is in flight is ended; its answers are not waited for.
	s.abortAll(func(*task) bool { return true }, false, func() {
		s.logoutReply(itt, iscsi.LogoutDone)
		s.lost = false
		s.depart(errLoggedOut)
	})
	return nil
}

func (s *Session) logoutReply(itt uint32, code iscsi.LogoutCode) {
	r := s.out.begin(iscsi.OpLogoutResp).LogoutResponse()
	r.SetITT(itt)
	r.SetCode(code)
	r.SetTime2Wait(uint16(s.par.Time2Wait))
	r.SetTime2Retain(uint16(s.par.Time2Retain))
	s.stamp(r.Response, true)
	s.out.filling.Append(r.BHS, nil, nil)
}

// reject sends a Reject with the header of the bad PDU (section 11.17).
func (s *Session) reject(bad *iscsi.BHS, reason iscsi.RejectReason) {
	header := append([]byte(nil), bad[:]...)
	r := s.out.begin(iscsi.OpReject).Reject()
	r.SetReason(reason)
	r.SetITT(iscsi.ReservedTag)
	s.stamp(r.Response, true)
	s.out.filling.AppendBytes(r.BHS, header)
}

// async sends an Asynchronous Message (section 11.9); times are seconds.
func (s *Session) async(e iscsi.AsyncEvent, p1, p2, p3 uint16) {
	a := s.out.begin(iscsi.OpAsyncMessage).AsyncMessage()
	a.SetITT(iscsi.ReservedTag)
	a.SetEvent(e)
	a.SetParameters(p1, p2, p3)
	s.stamp(a.Response, true)
	s.out.filling.Append(a.BHS, nil, nil)
}

// RequestNegotiation asks the initiator to negotiate parameters by text, within
// the time given.
func (s *Session) RequestNegotiation(within time.Duration) {
	s.post(func() {
		if !s.dead {
			s.async(iscsi.AsyncNegotiate, 0, 0, seconds(within))
		}
	})
}

// Drop ends the session after telling the initiator so, and when it may come
// back. why is what Serve returns.
func (s *Session) Drop(why error, wait, retain time.Duration) {
	s.post(func() {
		if s.dead || s.leave == lastWords {
			return
		}
		s.async(iscsi.AsyncDropSession, 0, seconds(wait), seconds(retain))
		s.depart(why)
	})
}

// askLogout asks the initiator to log out within the time given.
func (s *Session) askLogout(within time.Duration) {
	if s.dead || s.leave != staying {
		return
	}
	s.leave = requested
	s.async(iscsi.AsyncLogoutRequest, 0, 0, seconds(within))
}

// quiesce takes no further command and ends the session when none is in flight.
func (s *Session) quiesce() {
	if s.dead || s.leave >= quiescing {
		return
	}
	s.leave = quiescing
}

// settle ends a quiescing session that has come to rest.
func (s *Session) settle() {
	if s.leave == quiescing && s.tasks.count == 0 {
		s.async(iscsi.AsyncDropConnection, s.cfg.CID, uint16(s.par.Time2Wait), uint16(s.par.Time2Retain))
		s.depart(ErrDrained)
	}
}

// depart ends the session as soon as what has been said is sent.
func (s *Session) depart(why error) {
	if !s.dead && s.leave != lastWords {
		s.out.deadline()
		s.why, s.leave = why, lastWords
	}
}

func seconds(d time.Duration) uint16 {
	return uint16(min(d/time.Second, math.MaxUint16))
}

// textRequest takes a Text Request (section 11.10).
func (s *Session) textRequest(r iscsi.TextRequest) error {
	if s.cfg.Text == nil {
		return rejectf(iscsi.RejectCommandNotSupported, "text")
	}
	request := *r.BHS
	data, err := s.receiveCopy(iscsi.MaxText + 1)
	if err != nil {
		return err
	}
	header, answer, err := s.cfg.Text.Step(request.TextRequest(), data)
	if err != nil {
		return err
	}
	s.par.MaxSend = s.cfg.Text.MaxSend()
	s.stamp(header.Response(), true)
	s.out.filling.AppendBytes(&header, answer)
	return nil
}
