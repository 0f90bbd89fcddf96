package session

import "sync/atomic"

// Shared is the memory that the commands of many sessions may borrow together,
// beside the one command that each may always have.
//
// A session takes its part in units of sharedUnit, so that small commands seldom
// touch what all sessions touch. The zero Shared has no limit.
type Shared struct {
	limit int64
	taken atomic.Int64 // bytes
}

// NewShared returns a Shared of limit bytes.
func NewShared(limit int) *Shared { return &Shared{limit: int64(limit)} }

const sharedUnit = 1 << 20

// part is a session's part of a Shared, which may be nil. It belongs to the
// holder of the baton.
type part struct {
	of    *Shared
	bytes int // taken
}

// room reports whether the session may lend n bytes in all.
func (p *part) room(n int) bool {
	return p.of == nil || n <= p.bytes || p.of.limit == 0 ||
		p.of.taken.Load()+int64(units(n)-p.bytes) <= p.of.limit
}

// set makes the part what n bytes lent need. A part that has become a little
// too large is kept until nothing is lent.
func (p *part) set(n int) {
	want := units(n)
	if p.of == nil || want == p.bytes || want < p.bytes && n > 0 && p.bytes-want <= 4*sharedUnit {
		return
	}
	p.of.taken.Add(int64(want - p.bytes))
	p.bytes = want
}

func units(n int) int { return (n + sharedUnit - 1) / sharedUnit * sharedUnit }
