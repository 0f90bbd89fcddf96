package initiator

import (
	"errors"
	"fmt"

	"petal/target/iscsi"
	"petal/target/scsi"
	"petal/target/serial"
)

// Task is one SCSI command. It belongs to the caller before Submit and from
// the call of Done on, and may then be used again; in between, memory and all
// fields belong to the session. A Task used again allocates nothing.
type Task struct {
	LUN       uint64 // the LUN field; see WireLUN
	CDB       [16]byte
	Attribute iscsi.TaskAttribute // Untagged is the zero value
	Immediate bool
	// Expected overrides the Expected Data Transfer Length, to test residuals;
	// nil: the length of Out, else of In.
	Expected *uint32
	Out      []byte // goes out; not to be set together with In
	In       []byte // where what comes in goes
	// Done is called once, by the session's goroutine. It may Submit, and must
	// not block.
	Done func(*Task)
	User any // the caller's own

	// The result. If Err is set, no response came and the rest is not valid.
	Err      error
	Response iscsi.ResponseCode
	Status   scsi.Status
	Sense    []byte // memory of the Task, kept from use to use
	InLen    int    // bytes received in In
	Residual iscsi.Residual
	// Sends counts how often the command was sent: more than once after
	// reconnections.
	Sends int

	internal
}

// internal is the session's part of a Task.
type internal struct {
	kind    kind
	itt     uint32
	cmdSN   serial.CmdSN
	order   uint64 // of submission in the session
	dataSN  uint32 // expected in the next Data-In
	r2tSN   uint32 // expected in the next R2T
	control iscsi.BHS
	reply   iscsi.BHS // the response to a control task
	text    []byte    // its data
	onReply func()    // called with the two set, before Done
}

// kind tells commands from the session's own exchanges.
type kind uint8

const (
	kindCommand kind = iota
	kindControl      // NOP-Out, task management, text, logout: sent immediate, never twice
)

// errors that a Task may end with.
var (
	ErrClosed  = errors.New("initiator: session closed")
	ErrAborted = errors.New("initiator: task aborted by task management")
)

// StatusError is a SCSI status other than GOOD.
type StatusError struct {
	Response iscsi.ResponseCode
	Status   scsi.Status
	Sense    scsi.Sense
}

func (e *StatusError) Error() string {
	switch {
	case e.Response != iscsi.CommandCompleted:
		return "initiator: " + e.Response.String()
	case e.Status == scsi.StatusCheckCondition:
		return fmt.Sprintf("initiator: %v", e.Sense)
	}
	return fmt.Sprintf("initiator: %v", e.Status)
}

// Failure is nil if the task ended with GOOD, else Err or a *StatusError.
func (t *Task) Failure() error {
	if t.Err != nil {
		return t.Err
	}
	if t.Response == iscsi.CommandCompleted && t.Status == scsi.StatusGood {
		return nil
	}
	e := &StatusError{Response: t.Response, Status: t.Status}
	e.Sense, _ = scsi.ParseSense(t.Sense)
	return e
}

// UnitAttention reports whether the task ended with a unit attention
// condition: it was not executed, and is to be sent again.
func (t *Task) UnitAttention() bool {
	if t.Err != nil || t.Status != scsi.StatusCheckCondition {
		return false
	}
	s, ok := scsi.ParseSense(t.Sense)
	return ok && s.Key == scsi.KeyUnitAttention
}

// expected is the Expected Data Transfer Length.
func (t *Task) expected() uint32 {
	if t.Expected != nil {
		return *t.Expected
	}
	return uint32(max(len(t.Out), len(t.In)))
}

// renew makes the task as new, for the first sending or the next.
func (t *Task) renew() {
	t.Err, t.Response, t.Status, t.InLen = nil, 0, 0, 0
	t.Sense, t.Residual = t.Sense[:0], iscsi.Residual{}
	t.dataSN, t.r2tSN = 0, 0
}
