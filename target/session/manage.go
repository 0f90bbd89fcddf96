package session

import (
	"petal/target/iscsi"
	"petal/target/lun"
	"petal/target/scsi"
)

// maxManaging bounds the task management functions in progress.
const maxManaging = 64

// manage takes a Task Management Function Request (RFC 7143, section 11.5).
// Requests come in CmdSN order on the one connection, and an immediate one
// comes after everything that it may refer to.
func (s *Session) manage(r iscsi.TaskRequest) error {
	if err := s.receive(nil); err != nil {
		return err
	}
	if s.managing >= maxManaging {
		return rejectf(iscsi.RejectTooManyImmediate, "%d task management functions in progress", s.managing)
	}
	s.managing++
	itt, f, lu := r.ITT(), r.Function(), r.LUN()
	s.log.Debug("task management", "function", f.String(), "lun", lu, "ref", r.RefITT())
	reply := func(code lun.Response) {
		s.post(func() { s.taskReply(itt, f, iscsi.TaskResponseCode(code)) })
	}
	switch f {
	case iscsi.AbortTask:
		s.abortTask(r, reply)
	case iscsi.AbortTaskSet, iscsi.ClearTaskSet:
		s.abortAll(onLUN(lu), false, func() { s.nexus.Manage(lun.Function(f), lu, reply) })
	case iscsi.LogicalUnitReset, iscsi.TargetWarmReset, iscsi.TargetColdReset:
		// The device server ends our tasks too, by AbortAll. Those for a unit
		// that it does not know are none of its, and end with no effect.
		s.nexus.Manage(lun.Function(f), lu, reply)
	case iscsi.TaskReassign:
		s.taskReply(itt, f, iscsi.TaskReassignNotSupported)
	default:
		s.taskReply(itt, f, iscsi.TaskFunctionNotSupported)
	}
	return nil
}

// taskReply answers a task management function (section 11.6).
func (s *Session) taskReply(itt uint32, f iscsi.TaskFunction, code iscsi.TaskResponseCode) {
	s.managing--
	r := s.out.begin(iscsi.OpTaskResponse).TaskResponse()
	r.SetITT(itt)
	r.SetCode(code)
	s.stamp(r.Response, true)
	s.out.filling.Append(r.BHS, nil, nil)
	if f == iscsi.TargetColdReset && code == iscsi.TaskFunctionComplete {
		// Section 11.5.1: the target "MUST then terminate all of its TCP
		// connections to all initiators". Ours goes first, after this answer.
		s.reset = true
		s.depart(ErrReset)
	}
}

// abortTask ends one task (section 11.6.1). A task that cannot be found has
// been answered, or never came:
//
//	RefCmdSN                       answer
//	before ExpCmdSN                task does not exist: it has been answered
//	in the window, before CmdSN    function complete: it is not coming any more
//	else                           task does not exist
func (s *Session) abortTask(r iscsi.TaskRequest, reply func(lun.Response)) {
	lu := r.LUN()
	t := s.tasks.get(r.RefITT())
	if t != nil && sameLUN(t.LUN, lu) {
		w := &waiter{tasks: 1, done: func() { reply(lun.FunctionComplete) }}
		s.abort(t, false, w)
		s.countDown(w)
		return
	}
	ref := r.RefCmdSN()
	if t == nil && s.window.Contains(ref) && ref.Before(r.CmdSN()) {
		if ref == s.window.First {
			s.window.First++
		}
		reply(lun.FunctionComplete)
		return
	}
	s.nexus.Manage(lun.AbortTask, lu, func(code lun.Response) {
		if code == lun.FunctionComplete {
			code = lun.TaskDoesNotExist
		}
		reply(code)
	})
}

// abort ends a task, with tell by status TASK ABORTED, else without an answer;
// w is told when it can have no effect.
func (s *Session) abort(t *task, tell bool, w *waiter) {
	w.tasks++
	t.waiters = append(t.waiters, w)
	if t.aborted {
		return
	}
	t.aborted, t.tell = true, tell
	switch {
	case t.phase == running:
		s.nexus.Abort(&t.Command) // Done ends it
	case t.filling:
		// the reader ends it when it no longer writes to the lent memory
	default:
		s.end(t)
	}
}

// abortAll aborts all tasks that match, and calls done when none of them can
// have an effect.
func (s *Session) abortAll(match func(*task) bool, tell bool, done func()) {
	w := &waiter{tasks: 1, done: done}
	s.tasks.each(func(t *task) {
		if match(t) {
			s.abort(t, tell, w)
		}
	})
	s.countDown(w)
}

// end ends an aborted task. Of data that is still on its way for it nothing is
// kept: the target transfer tags are never used again.
func (s *Session) end(t *task) {
	if t.phase == held {
		s.unhold(t)
	}
	waiters := t.waiters
	if t.tell && !s.dead {
		t.Status, t.Sense, t.InLen, t.OutLen = uint8(scsi.StatusTaskAborted), nil, 0, 0
		s.answer(t)
	} else {
		s.forget(t)
		s.release(t)
	}
	for _, w := range waiters {
		s.countDown(w)
	}
}

func (s *Session) unhold(t *task) {
	for i, h := range s.holding {
		if h == t {
			s.holding = append(s.holding[:i], s.holding[i+1:]...)
			return
		}
	}
}

func (s *Session) countDown(w *waiter) {
	if w.tasks--; w.tasks == 0 {
		w.done()
	}
}

// onLUN matches the tasks of one logical unit.
func onLUN(lu uint64) func(*task) bool {
	return func(t *task) bool { return sameLUN(t.LUN, lu) }
}

// sameLUN compares 8-byte LUN fields, which have several forms for one number
// (SAM-5, section 4.7).
func sameLUN(a, b uint64) bool {
	if a == b {
		return true
	}
	m, okA := scsi.DecodeLUN(a)
	n, okB := scsi.DecodeLUN(b)
	return okA && okB && m == n
}

// resetMatch matches the tasks that AbortAll is to end. A PERSISTENT RESERVE
// OUT that is running may be what asks for it, and would wait for itself; it
// writes no data, so sparing it is no harm.
func resetMatch(lu uint64) func(*task) bool {
	on := onLUN(lu)
	return func(t *task) bool {
		return on(t) && !(t.phase == running && t.cdb[0] == persistentReserveOut)
	}
}

const persistentReserveOut = 0x5f
