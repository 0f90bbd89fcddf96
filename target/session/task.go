package session

import (
	"petal/target/iscsi"
	"petal/target/lun"
	"petal/target/serial"
)

// phase is where a task is in its life; see the package comment.
type phase uint8

const (
	held phase = iota
	collecting
	ready
	running
	answered
)

// task is one SCSI command. Tasks are pooled by their session.
type task struct {
	lun.Command
	session *Session
	itt     uint32
	phase   phase
	// immediate tasks take no place in the command window.
	immediate bool
	begun     bool // Begin was called: Finish is owed
	decided   bool // Begin has ended the command
	spoiled   bool // data was lost: fails when all that was asked for has come
	aborted   bool // ends without an answer, or
	tell      bool // with TASK ABORTED
	filling   bool // the reader is reading into lent memory without the baton

	flagged  direction // what the initiator said about data
	expected int       // ExpectedDataTransferLength
	began    int64     // when it came, nanoseconds of the session's clock
	since    int64     // when it began to wait for data
	cdb      [16]byte
	charge   int    // bytes of the session's budget
	kept     []byte // data of a held task
	reply    uint32 // Data-In and R2T PDUs sent
	sense    [2]byte

	// Data-Out. want is how much of the expected data has a use; came is how
	// much of it came, in order, used or not.
	in          cursor
	want, came  int
	unsolicited bool // more data comes unasked, until the F bit
	asked       int  // data before it has been asked for or came unasked
	dataSN      serial.DataSN
	r2t         [iscsi.MaxOutstandingR2T]r2t // outstanding, oldest first
	r2ts        int
	r2tSN       serial.R2TSN

	waiters []*waiter // who waits for the end of an aborted task

	chain, next   *task    // taskTable, completions
	set           *taskSet // the task set it is in, with its place there
	before, after *task
	attr          attribute
	enabled       bool
}

// direction is the R and W bits of a command.
type direction uint8

const (
	noData direction = iota
	readData
	writeData
	bidirectional
)

// r2t is one outstanding R2T.
type r2t struct {
	ttt        uint32
	end        int // offset behind its last byte
	nextDataSN serial.DataSN
}

// waiter counts down the aborted tasks that somebody waits for.
type waiter struct {
	tasks int
	done  func()
}

// collected reports whether all data has come that the command may run on.
func (t *task) collected() bool { return !t.unsolicited && t.came >= t.want }

// newTask takes a task from the pool.
func (s *Session) newTask() *task {
	if n := len(s.idle); n > 0 {
		t := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return t
	}
	t := &task{session: s}
	t.Done = func(*lun.Command) { s.done(t) }
	return t
}

// freeTask gives t back. Nothing refers to it any more.
func (s *Session) freeTask(t *task) {
	if len(s.idle) >= tasksKept {
		return
	}
	t.immediate, t.begun, t.decided, t.spoiled, t.aborted, t.tell, t.filling = false, false, false, false, false, false, false
	t.kept, t.waiters, t.in = nil, nil, cursor{}
	t.want, t.came, t.asked, t.charge = 0, 0, 0, 0
	t.r2ts, t.r2tSN, t.dataSN, t.reply = 0, 0, 0, 0
	s.idle = append(s.idle, t)
}
