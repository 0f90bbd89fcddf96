package lun

import (
	"sync/atomic"

	"petal/target/scsi"
)

// Function is a task management function, by its number in iSCSI
// (RFC 7143 11.5.1).
type Function uint8

const (
	AbortTask        Function = 1
	AbortTaskSet     Function = 2
	ClearACA         Function = 3
	ClearTaskSet     Function = 4
	LogicalUnitReset Function = 5
	TargetWarmReset  Function = 6
	TargetColdReset  Function = 7
	TaskReassign     Function = 8
)

// Response answers a task management function (RFC 7143 11.6.1).
type Response uint8

const (
	FunctionComplete     Response = 0
	TaskDoesNotExist     Response = 1
	LUNDoesNotExist      Response = 2
	FunctionNotSupported Response = 5
	FunctionRejected     Response = 255
)

// Manage carries out a task management function as far as it reaches beyond
// the session's own tasks. done is called once, from any goroutine, when no
// command that the function ends can have an effect any more.
//
// LOGICAL UNIT RESET and the two target resets end the tasks of every nexus by
// its AbortAll, the caller's included. ABORT TASK, ABORT TASK SET and CLEAR
// TASK SET are the session's own work, since each nexus has a task set of its
// own (TST 001b); Manage just answers whether the unit is there.
func (n *Nexus) Manage(f Function, lunField uint64, done func(Response)) {
	switch f {
	case TargetWarmReset, TargetColdReset:
		n.device.reset(n, done)
		return
	case ClearACA, TaskReassign:
		done(FunctionNotSupported) // NormACA 0; ERL 0
		return
	}
	p := n.path(lunField)
	switch {
	case p == nil:
		done(LUNDoesNotExist)
	case f == LogicalUnitReset:
		p.unit.reset(n, attentionLUReset, func(err error) { done(outcomeOf(err)) })
	case f == AbortTask || f == AbortTaskSet || f == ClearTaskSet:
		done(FunctionComplete)
	default:
		done(FunctionNotSupported)
	}
}

// path finds the I_T_L nexus of an 8-byte LUN field, or nil.
func (n *Nexus) path(lunField uint64) *path {
	lun, ok := scsi.DecodeLUN(lunField)
	if !ok {
		return nil
	}
	return (*n.paths.Load())[lun]
}

// reset is a hard reset of every logical unit (SAM-5 6.3.2).
func (d *Device) reset(by *Nexus, done func(Response)) {
	units := *d.units.Load()
	var failed atomic.Pointer[error]
	whenAll(len(units), func() {
		if err := failed.Load(); err != nil {
			done(outcomeOf(*err))
			return
		}
		done(FunctionComplete)
	}, func(one func()) {
		for _, u := range units {
			u.reset(by, attentionHardReset, func(err error) {
				if err != nil {
					failed.Store(&err)
				}
				one()
			})
		}
	})
}

// outcomeOf answers a reset. One that other nodes may not have heard of is
// rejected: the initiator tries harder.
func outcomeOf(err error) Response {
	if err != nil {
		return FunctionRejected
	}
	return FunctionComplete
}

// ResetElsewhere says that another node has carried out a reset of the logical
// unit: the commands of this node end too, and its nexuses hear of it.
func (u *Unit) ResetElsewhere() { u.resetHere(nil, attentionLUReset, func() {}) }

// reset aborts all commands of the unit and puts back what does not outlive a
// reset: mode pages, RESERVE, PREVENT (SAM-5 6.3.3). Persistent reservations
// stay. by is the nexus that asks for it. After done(nil) no command of any
// node that came before has an effect any more.
func (u *Unit) reset(by *Nexus, k attention, done func(error)) {
	if u.cfg.Reset == nil {
		u.resetHere(by, k, func() { done(nil) })
		return
	}
	// Both at once: a command that waits for its data ends when the other nodes
	// have been told to refuse it.
	var elsewhere error
	whenAll(2, func() { done(elsewhere) }, func(one func()) {
		u.cfg.Reset(func(err error) { elsewhere = err; one() })
		u.resetHere(by, k, one)
	})
}

// resetHere is reset as far as this node goes.
func (u *Unit) resetHere(by *Nexus, k attention, done func()) {
	paths, tell := u.allPaths(), u.modes.taskAborted()
	whenAll(len(paths), func() {
		u.modes.reset()
		u.legacy.Store(nil)
		for _, p := range paths {
			p.prevented.Store(false)
			p.attention.establish(k)
		}
		done()
	}, func(one func()) {
		for _, p := range paths {
			p.abortAll(tell && p.nexus != by, one)
		}
	})
}

// abortAll ends all tasks of the path; with tell they end with TASK ABORTED.
func (p *path) abortAll(tell bool, done func()) {
	if p.nexus.cfg.AbortAll == nil {
		done()
		return
	}
	p.nexus.cfg.AbortAll(p.lun, tell, done)
}

// whenAll calls start with a function that is to be called n times; the last
// call calls done. With n = 0 done is called at once.
func whenAll(n int, done func(), start func(one func())) {
	if n == 0 {
		done()
		return
	}
	var left atomic.Int64
	left.Store(int64(n))
	start(func() {
		if left.Add(-1) == 0 {
			done()
		}
	})
}
