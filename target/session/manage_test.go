package session

import (
	"bytes"
	"testing"
	"testing/synctest"

	"petal/target/iscsi"
	"petal/target/lun"
	"petal/target/serial"
)

func (r *rig) taskRequest(f iscsi.TaskFunction) iscsi.TaskRequest {
	q := r.immediate(iscsi.OpTaskRequest).TaskRequest()
	q.SetFunction(f)
	q.SetRefITT(iscsi.ReservedTag)
	return q
}

func (r *rig) wantTask(code iscsi.TaskResponseCode) {
	r.t.Helper()
	if a := r.want(iscsi.OpTaskResponse).TaskResponse(); a.Code() != code || a.ITT() != r.itt {
		r.t.Fatalf("response %v to %d, want %v to %d", a.Code(), a.ITT(), code, r.itt)
	}
}

// TestAbortRunning: the answer waits until the task can have no effect, and the
// task is not answered.
func TestAbortRunning(t *testing.T) {
	for _, f := range []iscsi.TaskFunction{iscsi.AbortTask, iscsi.AbortTaskSet, iscsi.ClearTaskSet, iscsi.LogicalUnitReset} {
		t.Run(f.String(), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.nexus.hold, r.nexus.stubborn = true, true
				h := r.command(0x28, 10, 10)
				r.send(h, nil)
				q := r.taskRequest(f)
				if f == iscsi.AbortTask {
					q.SetRefITT(h.ITT())
				}
				r.send(q.BHS, nil)
				r.wantNothing()
				if r.nexus.saw().aborted != 1 {
					t.Fatalf("aborted %d times", r.nexus.saw().aborted)
				}
				r.nexus.completeAll()
				r.wantTask(iscsi.TaskFunctionComplete)
				r.wantNothing()
			})
		})
	}
}

// TestAbortWaiting: a task that waits for data ends at once, and the data that
// comes all the same is thrown away.
func TestAbortWaiting(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		h := r.command(0x2a, 4000, 4000)
		r.send(h, nil)
		q := *r.want(iscsi.OpR2T)
		a := r.taskRequest(iscsi.AbortTask)
		a.SetRefITT(h.ITT())
		r.send(a.BHS, nil)
		r.wantTask(iscsi.TaskFunctionComplete)
		r.sendBurst(h, q.R2T().TTT(), 0, pattern(4000))
		again := r.command(0x00, 0, 0)
		r.send(again, nil)
		r.wantStatus(again, 0)
		if len(r.nexus.saw().order) > 0 {
			t.Error("the aborted command ran")
		}
	})
}

// TestAbortWhileFilling: a task is aborted by another nexus while its data is
// on its way into lent memory, which must not be given back before.
func TestAbortWhileFilling(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		h := r.command(0x2a, 3000, 3000)
		h.SetDataLength(3000)
		r.out.AppendRaw(append(bytes.Clone(h[:]), pattern(3000)[:1000]...))
		r.flush()
		synctest.Wait()
		done := make(chan struct{})
		r.s.AbortAll(0, false, func() { close(done) })
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("done while memory is being filled")
		default:
		}
		if r.nexus.saw().finished != 0 {
			t.Fatal("finished while memory is being filled")
		}
		r.out.AppendRaw(pattern(3000)[1000:])
		r.flush()
		<-done
		if r.nexus.saw().finished != 1 || len(r.nexus.saw().order) != 0 {
			t.Errorf("finished %d, run %d", r.nexus.saw().finished, len(r.nexus.saw().order))
		}
	})
}

// TestAbortOrdered: the end of an aborted task lets run what waited for it.
func TestAbortOrdered(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		h := r.command(0x2a, 4000, 4000)
		h.SCSICommand().SetAttribute(iscsi.Ordered)
		r.send(h, nil)
		r.want(iscsi.OpR2T)
		next := r.command(0x28, 10, 10)
		r.send(next, nil)
		r.wantNothing()
		a := r.taskRequest(iscsi.AbortTask)
		a.SetRefITT(h.ITT())
		r.send(a.BHS, nil)
		r.want(iscsi.OpDataIn)
		r.data()
		r.wantTask(iscsi.TaskFunctionComplete)
	})
}

// TestAbortTaskUnknown is the table of section 11.6.1.
func TestAbortTaskUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		ref, cmdSN serial.CmdSN // from ExpCmdSN
		want       iscsi.TaskResponseCode
	}{
		"answered":          {-1 & 0xffffffff, 0, iscsi.TaskDoesNotExist},
		"skipped":           {0, 1, iscsi.TaskFunctionComplete},
		"not sent yet":      {1, 1, iscsi.TaskDoesNotExist},
		"beyond the window": {9, 10, iscsi.TaskDoesNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				h := r.command(0x00, 0, 0)
				r.send(h, nil)
				r.wantStatus(h, 0)
				a := r.taskRequest(iscsi.AbortTask)
				a.SetRefITT(4711)
				a.SetRefCmdSN(r.cmdSN + c.ref)
				a.SetCmdSN(r.cmdSN + c.cmdSN)
				r.send(a.BHS, nil)
				r.wantTask(c.want)
				if c.want == iscsi.TaskFunctionComplete {
					r.cmdSN++ // that one has been accounted for
				}
				h = r.command(0x00, 0, 0)
				r.send(h, nil)
				r.wantStatus(h, 0)
			})
		})
	}
}

// TestOtherFunctions: those that end nothing of the session's own.
func TestOtherFunctions(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		for f, want := range map[iscsi.TaskFunction]iscsi.TaskResponseCode{
			iscsi.TaskReassign: iscsi.TaskReassignNotSupported, iscsi.ClearACA: iscsi.TaskFunctionNotSupported,
			iscsi.TargetWarmReset: iscsi.TaskFunctionComplete, 99: iscsi.TaskFunctionNotSupported,
		} {
			r.send(r.taskRequest(f).BHS, nil)
			r.wantTask(want)
		}
		if r.nexus.saw().managed[0] != lun.TargetWarmReset {
			t.Errorf("managed %v", r.nexus.saw().managed)
		}
	})
}

// TestPreemptOfOneself: a PERSISTENT RESERVE OUT that has the tasks of its own
// nexus aborted is not among them, or it would wait for itself.
func TestPreemptOfOneself(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.nexus.hold = true
		r.send(r.command(0x5f, 0, 0), nil)
		r.send(r.command(0x28, 10, 10), nil)
		synctest.Wait()
		done := make(chan struct{})
		r.s.AbortAll(0, false, func() { close(done) })
		<-done
		if saw := r.nexus.saw(); saw.aborted != 1 || len(saw.running) != 1 || saw.running[0].CDB[0] != 0x5f {
			t.Errorf("aborted %d, running %d", saw.aborted, len(saw.running))
		}
	})
}

// TestTaskAborted: tasks that another nexus ends with TAS are answered with TASK
// ABORTED, wherever they are, before that nexus hears that they have ended.
func TestTaskAborted(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Budget = 5000 }, func(r *rig) {
		r.nexus.hold, r.nexus.stubborn = true, true
		running, waiting, ordered := r.command(0x28, 10, 10), r.command(0x2a, 4000, 4000), r.command(0x28, 20, 20)
		ordered.SCSICommand().SetAttribute(iscsi.Ordered)
		heldBack := r.command(0x2a, 3000, 3000)
		r.send(running, nil)
		r.send(waiting, nil)
		q := *r.want(iscsi.OpR2T)
		r.send(ordered, nil)
		r.send(heldBack, pattern(1000))
		synctest.Wait()
		done := make(chan bool, 1)
		r.s.AbortAll(0, true, func() { done <- true })
		got := map[uint32]bool{}
		for range 3 {
			a := r.want(iscsi.OpSCSIResponse).SCSIResponse()
			if a.Status() != 0x40 || got[a.ITT()] || a.ITT() == running.ITT() {
				t.Errorf("status %#x of %d", a.Status(), a.ITT())
			}
			got[a.ITT()] = true
			if a.ITT() == waiting.ITT() && (!a.Residual().Underflow || a.Residual().Count != 4000) {
				t.Errorf("residual %+v", a.Residual())
			}
		}
		synctest.Wait()
		if len(done) > 0 {
			t.Error("done while a task is running")
		}
		r.nexus.completeAll()
		r.wantStatus(running, 0x40)
		synctest.Wait()
		if len(done) != 1 {
			t.Error("not done")
		}
		r.sendBurst(waiting, q.R2T().TTT(), 0, pattern(4000)) // on its way all the time
		r.wantNothing()
		if n := len(r.nexus.saw().written); n > 0 {
			t.Errorf("%d writes took effect", n)
		}
	})
}
