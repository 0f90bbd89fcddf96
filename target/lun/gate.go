package lun

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// gate lets a change of reservations wait until every command that was judged
// before it has been handed to the disk. Without it a command could be judged,
// be overtaken by a preemption and all that it waits for, and then be written.
//
//	command   enter; judge by the present state; hand to the disk; leave
//	change    replace the state; drain
//
// What is handed to the disk before drain returns is for the store's barrier to
// wait for or refuse. Commands do not wait for each other nor for a change, and
// may be nested, since a disk may call done from within: that is why this is
// not a sync.RWMutex. The zero gate is ready.
type gate struct {
	mu    sync.Mutex // one drain at a time
	phase atomic.Uint32
	// inside[p] is how many commands entered in phase p and have not left.
	inside [2]atomic.Int64
}

// enter begins the stretch from judging a command to handing it to the disk;
// the phase is for leave. It never blocks.
func (g *gate) enter() (phase uint32) {
	phase = g.phase.Load() & 1
	g.inside[phase].Add(1)
	return phase
}

func (g *gate) leave(phase uint32) { g.inside[phase].Add(-1) }

// drain returns when all that had entered before it was called have left. It
// is not to be called from inside. The stretch is short and does not block, so
// it yields instead of sleeping.
func (g *gate) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Twice, since a command may have read the phase before the one before this
	// drain and count itself only now.
	for range 2 {
		old := g.phase.Add(1) - 1
		for g.inside[old&1].Load() != 0 {
			runtime.Gosched()
		}
	}
}
