package session

import (
	"time"

	"petal/target/iscsi"
)

// lifeline finds out whether the peer still lives: after Ping without a byte
// from it a NOP-In asks, and after PingTimeout more the session is lost. One
// timer per session, touched once per interval and never by a command. A peer
// that takes long to read a large answer lives too: no ping gets past that.
//
//	     heard            heard
//	   .-------.        .-------.
//	   v       |        v       |
//	listening -+--> pinged -----+--> dead
//	      silent Ping     silent PingTimeout
type lifeline struct {
	timer  *time.Timer
	heard  uint32 // Session.heard when the timer was set
	taken  uint32 // Session.taken then
	pinged bool
}

// discoveryIdle is how long a discovery session may be silent: it is not to be
// pinged (section 4.3: SendTargets and logout only).
const discoveryIdle = time.Minute

func (l *lifeline) start(s *Session) {
	if s.cfg.Ping < 0 {
		return
	}
	l.heard, l.taken = s.heard.Load(), s.taken.Load()
	l.timer = time.AfterFunc(l.interval(s), func() { s.post(func() { l.tick(s) }) })
}

func (l *lifeline) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

func (l *lifeline) interval(s *Session) time.Duration {
	switch {
	case s.nexus == nil:
		return discoveryIdle
	case l.pinged:
		return s.cfg.PingTimeout
	}
	return s.cfg.Ping
}

// tick is called with the baton when the timer has run down.
func (l *lifeline) tick(s *Session) {
	if s.dead {
		return
	}
	s.now = s.clock()
	heard, taken := s.heard.Load(), s.taken.Load()
	if taken != l.taken {
		s.dataAt = s.now // an R2T may wait behind what is being sent
	}
	switch {
	case s.starved():
		s.fail(ErrNoData)
		return
	case heard != l.heard || taken != l.taken:
		l.heard, l.taken, l.pinged = heard, taken, false
	case l.pinged || s.nexus == nil:
		s.fail(ErrDeadPeer)
		return
	default:
		l.pinged = true
		s.nopIn(iscsi.ReservedTag, s.newTTT(), 0, nil)
	}
	l.timer.Reset(l.interval(s))
}

// starved reports whether the initiator has left a command without the data
// that it owes, and sent none at all, for dataTimeout: the memory lent for it
// is not lent for ever. An initiator that is well has aborted it by then.
func (s *Session) starved() bool {
	late := s.now - int64(dataTimeout)
	if s.dataAt > late {
		return false
	}
	starved := false
	s.tasks.each(func(t *task) {
		starved = starved || t.phase == collecting && t.since <= late
	})
	return starved
}
