package initiator

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"petal/target/iscsi"
	"petal/target/scsi"
	"petal/target/serial"
)

// ProtocolError says that the target broke RFC 7143; the connection is closed.
type ProtocolError struct{ Why string }

func (e *ProtocolError) Error() string { return "initiator: the target " + e.Why }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{Why: fmt.Sprintf(format, args...)}
}

// DropError says that the target asked, with an asynchronous message, for the
// end of the connection.
type DropError struct{ Event iscsi.AsyncEvent }

func (e *DropError) Error() string { return "initiator: asynchronous message: " + e.Event.String() }

// source sends what there is to send before it waits for more to read.
type source struct {
	s  *Session
	nc net.Conn
}

func (r source) Read(p []byte) (int, error) {
	r.s.Flush()
	return r.nc.Read(p)
}

// run is the session's goroutine.
func (s *Session) run() {
	defer close(s.ended)
	for {
		err := s.serve()
		if err = s.lost(err); err != nil {
			s.finish(err)
			return
		}
	}
}

// readBuffer holds what a depth of 32 brings in 4 KiB reads, with headers.
const readBuffer = 160 << 10

// serve reads PDUs until the connection fails.
func (s *Session) serve() error {
	s.mu.Lock()
	conn, p := s.conn, s.params
	s.mu.Unlock()
	r := iscsi.NewReader(source{s, conn.nc}, readBuffer)
	s.reader = r
	r.HeaderDigest, r.DataDigest, r.MaxData = p.HeaderDigest, p.DataDigest, p.MaxRecv
	for {
		h, err := r.Next()
		if err != nil {
			return err
		}
		s.received.Add(1)
		if err := s.dispatch(h); err != nil {
			return err
		}
	}
}

// lost takes down the connection and, if the session is to go on, makes a new
// one. The error is why the session has ended.
func (s *Session) lost(why error) error {
	s.mu.Lock()
	s.up = false
	s.conn.Close()
	gone := s.takeControls()
	closed := s.closed
	s.mu.Unlock()
	for _, t := range gone {
		t.Err = why
		t.Done(t)
	}
	if closed != nil {
		return closed
	}
	if s.options.Reconnect == 0 {
		return fmt.Errorf("initiator: connection lost: %w", why)
	}
	began := time.Now()
	s.tell(Event{Lost: why})
	if err := s.reconnect(why); err != nil {
		return err
	}
	s.tell(Event{After: time.Since(began)})
	return nil
}

func (s *Session) tell(e Event) {
	if s.options.OnEvent != nil {
		s.options.OnEvent(e)
	}
}

// retryEvery is the time between two attempts to connect again.
const retryEvery = 50 * time.Millisecond

// paths are the portals to try in turn, so long after the loss of the
// connection: the same one, and when time enough has passed the others too.
func (s *Session) paths(since time.Duration) []string {
	delay := s.options.PathDelay
	if delay == 0 {
		delay = DefaultPathDelay
	}
	if since < delay {
		return []string{s.host}
	}
	all := append([]string{s.url.Host}, s.options.Portals...)
	i := slices.Index(all, s.host)
	return append(slices.Clone(all[i:]), all[:i]...)
}

// reconnect tries for as long as the options say.
func (s *Session) reconnect(why error) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.options.Reconnect)
	defer cancel()
	ticker := time.NewTicker(retryEvery)
	defer ticker.Stop()
	began := time.Now()
	for try := 0; ; try++ {
		paths := s.paths(time.Since(began))
		err := s.connect(ctx, paths[try%len(paths)])
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.closed != nil {
				return s.closed
			}
			return fmt.Errorf("initiator: connection lost (%w) and not regained in %v: %w", why, s.options.Reconnect, err)
		case <-ticker.C:
		}
	}
}

// takeControls takes the control tasks out of the table; s.mu is held.
func (s *Session) takeControls() []*Task {
	var gone []*Task
	for _, t := range s.tasks {
		if t != nil && t.kind == kindControl {
			s.release(t)
			gone = append(gone, t)
		}
	}
	return gone
}

// finish ends the session: every task ends with why.
func (s *Session) finish(why error) {
	s.mu.Lock()
	s.closed = why
	s.cancel()
	var gone []*Task
	for _, t := range s.tasks {
		if t != nil {
			gone = append(gone, t)
		}
	}
	s.tasks, s.free, s.waiting = nil, nil, fifo{}
	s.mu.Unlock()
	for _, t := range gone {
		t.Err = why
		t.Done(t)
	}
}

// dispatch takes one PDU.
func (s *Session) dispatch(h *iscsi.BHS) error {
	switch h.Opcode() {
	case iscsi.OpDataIn:
		return s.dataIn(h.DataIn())
	case iscsi.OpSCSIResponse:
		return s.response(h.SCSIResponse())
	case iscsi.OpR2T:
		return s.r2t(h.R2T())
	case iscsi.OpNOPIn:
		if h.ITT() == iscsi.ReservedTag {
			return s.ping(h.NOPIn())
		}
		return s.controlResponse(h)
	case iscsi.OpTaskResponse, iscsi.OpTextResponse, iscsi.OpLogoutResp:
		return s.controlResponse(h)
	case iscsi.OpReject:
		return protocolErrorf("rejected a PDU: %v", h.Reject().Reason())
	case iscsi.OpAsyncMessage:
		return s.async(h.AsyncMessage())
	}
	return protocolErrorf("sent a PDU with %v", h.Opcode())
}

// note takes the numbers of a response; counts says that it has a StatSN of
// its own. s.mu is held.
func (s *Session) note(r iscsi.Response, counts bool) error {
	if counts {
		if r.StatSN() != s.statSN && !s.options.AnyStatSN {
			return protocolErrorf("sent StatSN %d in %v, expected is %d", r.StatSN(), r.Opcode(), s.statSN)
		}
		s.statSN = r.StatSN() + 1
	}
	w := r.Window()
	// RFC 7143, section 4.2.2.1: values below what was there before are old.
	if w.Last.After(s.window.Last) {
		s.window.Last = w.Last
		s.advance()
	}
	return nil
}

// find returns the command that a PDU is about; s.mu is held.
func (s *Session) find(h *iscsi.BHS) (*Task, error) {
	t := s.task(h.ITT())
	if t == nil {
		return nil, protocolErrorf("sent %v for ITT %#x, which is no task", h.Opcode(), h.ITT())
	}
	return t, nil
}

func (s *Session) dataIn(d iscsi.DataIn) error {
	s.mu.Lock()
	t, err := s.find(d.BHS)
	ended := d.HasStatus()
	if err == nil {
		err = s.note(d.Response, ended)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	n, at := d.DataLength(), int(d.BufferOffset())
	switch {
	case d.DataSN() != serial.DataSN(t.dataSN):
		return protocolErrorf("sent DataSN %d, expected is %d", d.DataSN(), t.dataSN)
	case at+n > len(t.In):
		return protocolErrorf("sent data from %d to %d for a buffer of %d bytes", at, at+n, len(t.In))
	case at != t.InLen:
		return protocolErrorf("sent data at offset %d after %d bytes, though DataPDUInOrder and DataSequenceInOrder are in force", at, t.InLen)
	}
	t.dataSN++
	s.vector[0] = t.In[at : at+n]
	_, err = s.reader.ReadData(s.vector[:])
	if err != nil {
		return err
	}
	t.InLen += n
	if ended {
		t.Response, t.Status, t.Residual = iscsi.CommandCompleted, scsi.Status(d.Status()), d.Residual()
		s.complete(t)
	}
	return nil
}

func (s *Session) response(r iscsi.SCSIResponse) error {
	sense, err := s.reader.Data()
	if err != nil {
		return err
	}
	s.mu.Lock()
	t, err := s.find(r.BHS)
	if err == nil {
		err = s.note(r.Response, true)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	t.Response, t.Status, t.Residual = r.Code(), scsi.Status(r.Status()), r.Residual()
	if len(sense) >= 2 {
		n := int(sense[0])<<8 | int(sense[1])
		if n > len(sense)-2 {
			return protocolErrorf("sent SenseLength %d in a data segment of %d bytes", n, len(sense))
		}
		t.Sense = append(t.Sense[:0], sense[2:2+n]...)
	}
	s.complete(t)
	return nil
}

// complete gives t back.
func (s *Session) complete(t *Task) {
	s.mu.Lock()
	s.release(t)
	s.mu.Unlock()
	t.Done(t)
}

func (s *Session) r2t(r iscsi.R2T) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(r.BHS)
	if err == nil {
		err = s.note(r.Response, false)
	}
	if err != nil {
		return err
	}
	at, n := int(r.BufferOffset()), int(r.DesiredLength())
	if n == 0 || n > s.params.MaxBurst || at+n > len(t.Out) {
		return protocolErrorf("asked for %d bytes from %d on; MaxBurstLength is %d and the command's data %d", n, at, s.params.MaxBurst, len(t.Out))
	}
	if r.R2TSN() != serial.R2TSN(t.r2tSN) {
		return protocolErrorf("sent R2TSN %d, expected is %d", r.R2TSN(), t.r2tSN)
	}
	t.r2tSN++
	s.dataOut(t, r.TTT(), at, n)
	return nil
}

// ping answers a NOP-In that wants an answer.
func (s *Session) ping(n iscsi.NOPIn) error {
	data, err := s.reader.Data()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note(n.Response, false); err != nil || n.TTT() == iscsi.ReservedTag {
		return err
	}
	var h iscsi.BHS
	h.Reset(iscsi.OpNOPOut)
	o := h.NOPOut()
	o.SetImmediate(true)
	o.SetFinal(true)
	o.SetLUN(n.LUN())
	o.SetITT(iscsi.ReservedTag)
	o.SetTTT(n.TTT())
	o.SetCmdSN(s.cmdSN)
	o.SetExpStatSN(s.statSN)
	s.batch.AppendBytes(&h, append([]byte(nil), data...))
	return nil
}

// controlResponse ends a NOP-Out, text request, task management function or
// logout of ours.
func (s *Session) controlResponse(h *iscsi.BHS) error {
	data, err := s.reader.Data()
	if err != nil {
		return err
	}
	s.mu.Lock()
	t, err := s.find(h)
	if err == nil {
		err = s.note(h.Response(), true)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if t.kind != kindControl {
		return protocolErrorf("answered a command with %v", h.Opcode())
	}
	t.reply = *h
	t.text = append([]byte(nil), data...)
	if t.onReply != nil {
		t.onReply()
	}
	s.complete(t)
	return nil
}

func (s *Session) async(a iscsi.AsyncMessage) error {
	s.mu.Lock()
	err := s.note(a.Response, true)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	switch a.Event() {
	case iscsi.AsyncLogoutRequest, iscsi.AsyncDropConnection, iscsi.AsyncDropSession:
		return &DropError{Event: a.Event()}
	}
	return nil // a SCSI event: the unit attention that goes with it tells the same
}

// watch closes a connection on which nothing has come for long.
func (s *Session) watch(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var seen uint64
	pinged := false
	for {
		select {
		case <-s.ended:
			return
		case <-ticker.C:
		}
		if now := s.received.Load(); now != seen {
			seen, pinged = now, false
			continue
		}
		if pinged {
			s.mu.Lock()
			s.conn.Close()
			s.mu.Unlock()
			pinged = false
			continue
		}
		pinged = s.sendPing(nil, func(*Task) {}) == nil
	}
}
