package replica

import (
	"petal/cluster/link"
	"petal/cluster/wire"
)

// A brick that has failed takes nothing any more, and nobody knows what it holds.
// Its links go on with the other copies: the machine closes for good and complains
// of itself until it is excluded (R6). What was in flight here is answered at once,
// for its fate is with the others (R12), and gives up its locks: who waited for
// them, and whoever comes later, is told in admit that nothing is taken here.

// fail tells the machine that this server's disk has failed, and whoever waits
// that it is not known what becomes of it. The mutex is held.
func (l *seat) fail(err error) {
	if !l.broken {
		l.broken = true
		l.s.c.Log.Error("the disk fails the link", "link", l.id, "error", err)
	}
	for _, t := range l.tasks {
		if t == nil || t.shown || t.op == nil { // in this order: who is shown is answered without the mutex
			continue
		}
		op, held := t.op, t.held
		t.op, t.held = nil, false
		t.users.Add(1) // the lock is part of it
		l.later = append(l.later, func() {
			if held {
				t.s.locks.Release(&t.lock)
			}
			l.s.end(op, wire.Failed)
			t.unuse()
		})
	}
	l.step(&link.Event{Kind: link.EventDurable, Failed: true})
}

// crowded gives up the link because there is no space for a record. The others go
// on without this member, and it comes back when there is. The mutex is held.
func (l *seat) crowded() {
	l.full = true
	l.s.load.avail.Store(0) // until it is looked at again
	l.s.c.Log.Error("a link is left: there is no space for its records", "link", l.id)
	l.step(&link.Event{Kind: link.EventDurable, Failed: true})
}

// lookForSpace comes back if there is. The mutex is held.
func (l *seat) lookForSpace() {
	if l.full && !l.broken && l.m.State() == link.Out && l.s.load.avail.Load() >= comeBackBytes {
		l.full = false
		l.s.c.Log.Info("a link is asked for again: there is space", "link", l.id)
		l.step(&link.Event{Kind: link.EventMended})
	}
}

// lookAtDisk notices the end of a disk of which no record has told: the link has
// been idle, or only read. The mutex is held.
func (l *seat) lookAtDisk() {
	if err := l.s.c.Store.Failed(); err != nil && !l.broken {
		l.fail(err)
	}
}
