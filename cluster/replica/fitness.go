package replica

import (
	"time"

	"petal/cluster/link"
)

// fitness keeps a member whose disk takes too long from asking to be let in: the head
// would have to wait for it with every write from the first cut on (R9), for as long
// as it gets on at all. Before it asks, it makes something durable, twice; if that took
// longer than a quarter of Times.Complain, it tries again after Complain.
type fitness struct {
	l       *seat
	good    bool          // just found to be well
	asking  bool          // the rest of the present Rejoin goes, too
	once    bool          // one has been quick
	trying  bool          // under way, or a timer will
	changed time.Duration // when it was found out
}

// asks reports whether a part of a Rejoin may go. If not, the machine is told when it
// may, and begins anew. The mutex is held.
func (x *fitness) asks(msg *link.Msg) bool {
	now := x.l.s.now()
	if msg.First {
		x.asking = x.good && now-x.changed < x.l.s.c.Times.Complain
		x.good = false
	}
	if !x.asking {
		x.try()
	}
	return x.asking
}

// try makes something durable. The mutex is held.
func (x *fitness) try() {
	if x.trying {
		return
	}
	x.trying = true
	l := x.l
	began := l.s.now()
	l.later = append(l.later, func() {
		l.s.c.Store.Touch(func(err error) {
			l.call(func() {
				x.trying = false
				if err == nil { // else the disk has failed
					x.tried(l.s.now() - began)
				}
			})
		})
	})
}

func (x *fitness) tried(took time.Duration) {
	l, complain := x.l, x.l.s.c.Times.Complain
	p := l.paces[l.self]
	p.mu.Lock()
	p.count(took, complain)
	p.mu.Unlock()
	switch {
	case took > complain/4 || l.full:
		x.once = false
	case !x.once: // it may have come right before the end of something long
		x.once = true
		x.try()
		return
	default:
		x.once, x.good, x.changed = false, true, l.s.now()
		l.step(&link.Event{Kind: link.EventMended})
		return
	}
	if l.m.State() != link.Out || l.closed || l.full {
		return
	}
	l.s.c.Log.Warn("the disk is too slow to be in sync", "link", l.id, "took", took)
	x.trying = true
	l.s.c.Clock.AfterFunc(complain, func() {
		l.lock()
		if x.trying = false; !l.closed && l.m.State() == link.Out {
			x.try()
		}
		l.unlock()
	})
}
