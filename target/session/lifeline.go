package session

import (
	"time"

	"petal/target/iscsi"
)

// lifeline finds out whether the peer still lives: after Ping without a byte
// from it a NOP-In asks, and after PingTimeout more the session is lost. One
// timer per session, touched once per interval and never by a command.
//
//	     heard            heard
//	   .-------.        .-------.
//	   v       |        v       |
//	listening -+--> pinged -----+--> dead
//	      silent Ping     silent PingTimeout
type lifeline struct {
	timer  *time.Timer
	heard  uint32 // Session.heard when the timer was set
	pinged bool
}

// discoveryIdle is how long a discovery session may be silent: it is not to be
// pinged (section 4.3: SendTargets and logout only).
const discoveryIdle = time.Minute

func (l *lifeline) start(s *Session) {
	if s.cfg.Ping < 0 {
		return
	}
	l.heard = s.heard.Load()
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
	heard := s.heard.Load()
	switch {
	case heard != l.heard:
		l.heard, l.pinged = heard, false
	case l.pinged || s.nexus == nil:
		s.fail(ErrDeadPeer)
		return
	default:
		l.pinged = true
		s.nopIn(iscsi.ReservedTag, s.newTTT(), 0, nil)
	}
	l.timer.Reset(l.interval(s))
}
