package initiator

import (
	"context"
	"fmt"
	"strings"

	"petal/target/iscsi"
)

// Do submits t and waits for its end, in place of t.Done. The error is ctx's
// (then t stays the session's until it ends), or t's Failure.
func (s *Session) Do(ctx context.Context, t *Task) error {
	t.kind = kindCommand
	if err := s.await(ctx, t); err != nil {
		return err
	}
	return t.Failure()
}

// await submits t and waits for its end or ctx's.
func (s *Session) await(ctx context.Context, t *Task) error {
	done := make(chan struct{})
	t.Done = func(*Task) { close(done) }
	s.mu.Lock()
	err := s.enqueue(t)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.Flush()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exchange sends a control PDU and waits for the answer to it.
func (s *Session) exchange(ctx context.Context, t *Task) error {
	t.kind = kindControl
	t.control.Request().SetImmediate(true)
	if err := s.await(ctx, t); err != nil {
		return err
	}
	return t.Err
}

// Ping sends a NOP-Out and returns what the NOP-In brings back.
func (s *Session) Ping(ctx context.Context, data []byte) ([]byte, error) {
	t := nopOut(data)
	err := s.exchange(ctx, t)
	return t.text, err
}

func nopOut(data []byte) *Task {
	t := &Task{Out: data}
	t.control.Reset(iscsi.OpNOPOut)
	t.control.SetFinal(true)
	t.control.NOPOut().SetTTT(iscsi.ReservedTag)
	return t
}

// sendPing is Ping without waiting.
func (s *Session) sendPing(data []byte, done func(*Task)) error {
	t := nopOut(data)
	t.kind, t.Done = kindControl, done
	t.control.Request().SetImmediate(true)
	s.mu.Lock()
	err := s.enqueue(t)
	s.mu.Unlock()
	s.Flush()
	return err
}

// Manage sends a task management function for a logical unit. After ABORT
// TASK SET, CLEAR TASK SET and the resets the tasks that they ended are given
// back with ErrAborted. For ABORT TASK use Abort.
func (s *Session) Manage(ctx context.Context, f iscsi.TaskFunction, lun uint64) (iscsi.TaskResponseCode, error) {
	return s.manage(ctx, f, lun, nil)
}

// Abort sends ABORT TASK for t. If the answer is TaskFunctionComplete, t has
// ended, with ErrAborted unless its response came first.
func (s *Session) Abort(ctx context.Context, t *Task) (iscsi.TaskResponseCode, error) {
	return s.manage(ctx, iscsi.AbortTask, t.LUN, t)
}

func (s *Session) manage(ctx context.Context, f iscsi.TaskFunction, lun uint64, ref *Task) (iscsi.TaskResponseCode, error) {
	t := &Task{}
	t.control.Reset(iscsi.OpTaskRequest)
	t.control.SetFinal(true)
	t.control.SetLUN(lun)
	r := t.control.TaskRequest()
	r.SetFunction(f)
	r.SetRefITT(iscsi.ReservedTag)
	s.mu.Lock()
	below := s.orders
	if ref != nil {
		r.SetRefITT(ref.itt)
		r.SetRefCmdSN(ref.cmdSN)
	}
	s.mu.Unlock()
	t.onReply = func() {
		if t.reply.TaskResponse().Code() == iscsi.TaskFunctionComplete {
			s.abort(func(v *Task) bool { return ends(f, lun, ref, v) && v.order <= below })
		}
	}
	err := s.exchange(ctx, t)
	return t.reply.TaskResponse().Code(), err
}

// ends reports whether function f, sent for lun or for task ref, ended v.
func ends(f iscsi.TaskFunction, lun uint64, ref, v *Task) bool {
	switch f {
	case iscsi.AbortTask:
		return v == ref
	case iscsi.AbortTaskSet, iscsi.ClearTaskSet, iscsi.LogicalUnitReset:
		return v.LUN == lun
	case iscsi.TargetWarmReset, iscsi.TargetColdReset:
		return true
	}
	return false
}

// abort gives back the commands that the target will not answer.
func (s *Session) abort(which func(*Task) bool) {
	var gone []*Task
	s.mu.Lock()
	for _, t := range s.tasks {
		if t != nil && t.kind == kindCommand && which(t) && !s.waiting.has(t) {
			s.release(t)
			gone = append(gone, t)
		}
	}
	s.mu.Unlock()
	for _, t := range gone {
		t.Err = ErrAborted
		t.Done(t)
	}
}

// Logout ends the session in an orderly way.
func (s *Session) Logout(ctx context.Context) error {
	t := &Task{}
	t.control.Reset(iscsi.OpLogoutReq)
	t.control.SetFinal(true)
	t.control.LogoutRequest().SetReason(iscsi.LogoutSession)
	err := s.exchange(ctx, t)
	s.Close()
	if err != nil {
		return err
	}
	if code := t.reply.LogoutResponse().Code(); code != iscsi.LogoutDone {
		return fmt.Errorf("initiator: logout: %v", code)
	}
	return nil
}

// Portal is one line of a SendTargets answer.
type Portal struct {
	Target  string
	Address string // host:port
	Group   string // portal group tag
}

// SendTargets asks which targets there are: "All", a target's name, or "" for
// the session's own.
func (s *Session) SendTargets(ctx context.Context, what string) ([]Portal, error) {
	text, err := s.Text(ctx, iscsi.AppendPair(nil, "SendTargets", what))
	if err != nil {
		return nil, err
	}
	var portals []Portal
	target, addressed := "", true
	add := func(p Portal) { portals = append(portals, p) }
	for line := range strings.SplitSeq(string(text), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "TargetName":
			if !addressed {
				add(Portal{Target: target})
			}
			target, addressed = value, false
		case "TargetAddress":
			addr, group, _ := strings.Cut(value, ",")
			add(Portal{Target: target, Address: addr, Group: group})
			addressed = true
		}
	}
	if !addressed {
		add(Portal{Target: target})
	}
	return portals, nil
}

// maxTextRounds bounds the PDUs of one text answer.
const maxTextRounds = 1 << 12

// Text sends a text request and returns the whole text of the answer.
func (s *Session) Text(ctx context.Context, text []byte) ([]byte, error) {
	var answer []byte
	ttt := uint32(iscsi.ReservedTag)
	for range maxTextRounds {
		t := &Task{Out: text}
		t.control.Reset(iscsi.OpTextRequest)
		t.control.SetFinal(true)
		t.control.TextRequest().SetTTT(ttt)
		if err := s.exchange(ctx, t); err != nil {
			return nil, err
		}
		answer = append(answer, t.text...)
		r := t.reply.TextResponse()
		if r.Final() {
			return answer, nil
		}
		ttt, text = r.TTT(), nil
	}
	return nil, protocolErrorf("does not come to an end of its text")
}

// Discover logs in to a portal (host:port) for discovery and returns all it
// tells.
func Discover(ctx context.Context, portal string, options Options) ([]Portal, error) {
	s, err := Dial(ctx, URL{Host: portal}, options)
	if err != nil {
		return nil, err
	}
	portals, err := s.SendTargets(ctx, "All")
	if err == nil {
		err = s.Logout(ctx)
	}
	s.Close()
	<-s.Ended()
	return portals, err
}
