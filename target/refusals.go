package target

import (
	"sync"
	"time"
)

// refusals slows down initiators whose logins are refused: some try again four
// times a second for ever, and each try costs both of us.
type refusals struct {
	mu   sync.Mutex
	next map[string]time.Time // when the next refusal may be answered
}

// wait counts a refusal and returns how long its answer is to wait; ok is false
// if it is not to be answered at all.
func (r *refusals) wait(who string, now time.Time) (pause time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = map[string]time.Time{}
	}
	at := r.next[who]
	if at.Before(now) {
		at = now
	}
	pause = at.Sub(now)
	if pause > maxRefusalWait {
		return 0, false
	}
	if len(r.next) >= maxRefusals {
		r.forget(now)
	}
	r.next[who] = at.Add(refusalPause)
	return pause, true
}

// forget drops those whose pause is over, or all if that is none.
func (r *refusals) forget(now time.Time) {
	for who, at := range r.next {
		if at.Before(now) {
			delete(r.next, who)
		}
	}
	if len(r.next) >= maxRefusals {
		clear(r.next)
	}
}
