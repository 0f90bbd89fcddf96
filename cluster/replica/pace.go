package replica

import (
	"sync"
	"sync/atomic"
	"time"

	"petal/placement"
)

// pace is how fast a server makes records durable, seen from here: this one's
// disk, or another server with its disk and the way there. One record at a time
// is timed. A server that stands still is complained of by the link's machine; this
// is for one that goes on, and takes far too long (DESIGN A.2).
type pace struct {
	timing atomic.Bool

	mu     sync.Mutex
	link   placement.LinkID // of the record that is timed; zero: none
	bucket placement.Bucket
	stamp  placement.Stamp
	began  time.Duration
	after  time.Duration // when the next may be timed

	from    time.Duration // of the present window; 0: none yet
	n, slow int           // records timed in it, and those that took longer than Times.Complain
	late    int           // windows in a row in which too many did
}

// A server is judged slow that was so in paceWindows windows of paceWindow, each
// long enough for a record or two that take too long.
const paceWindows = 2

func paceWindow(complain time.Duration) time.Duration { return 5 * complain / paceWindows }

// begin times a record, unless another one is being timed.
func (p *pace) begin(link placement.LinkID, b placement.Bucket, s placement.Stamp, now time.Duration) {
	if p.timing.Load() || !p.timing.CompareAndSwap(false, true) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now < p.after {
		p.timing.Store(false)
		return
	}
	p.link, p.bucket, p.stamp, p.began = link, b, s, now
}

// end: the records of a bucket are durable up to a stamp.
func (p *pace) end(link placement.LinkID, b placement.Bucket, s placement.Stamp, now, complain time.Duration) {
	if !p.timing.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != link || p.bucket != b || s.Before(p.stamp) {
		return
	}
	took := now - p.began
	p.count(took, complain)
	// Disks take records in groups: who always comes right after one waits for the
	// next one only, and others for two.
	p.after = now + took*time.Duration(p.n%4)/4
	p.link = placement.LinkID{}
	p.timing.Store(false)
}

func (p *pace) count(took, complain time.Duration) {
	if p.n++; took > complain {
		p.slow++
	}
}

// judge ends a window, and reports whether the server is slow: whether a quarter of
// the records that were timed took too long, again. What was lost on the way counts
// for nothing.
func (p *pace) judge(now, complain time.Duration) (slow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != (placement.LinkID{}) && now-p.began > 4*paceWindow(complain) {
		p.link = placement.LinkID{}
		p.timing.Store(false)
	}
	if p.from == 0 {
		p.from = now
	}
	if now-p.from < paceWindow(complain) {
		return false
	}
	if p.late++; p.slow == 0 || p.slow*4 < p.n {
		p.late = 0
	}
	p.from, p.n, p.slow = now, 0, 0
	return p.late >= paceWindows
}

// timeRecord times a record that this server has just appended as head. The
// mutex is held.
func (l *seat) timeRecord(b placement.Bucket, s placement.Stamp, now time.Duration) {
	for in := l.m.Config().InSync; in != 0; in = in.Without(in.First()) {
		l.paces[in.First()].begin(l.id, b, s, now)
	}
}

// judgePaces says who is slow.
func (s *Server) judgePaces(now time.Duration) {
	for _, l := range s.all() {
		for m, p := range l.paces[:len(l.servers)] {
			if !l.alone() && p.judge(now, s.c.Times.Complain) {
				s.c.Propose(Proposal{Kind: Slow, Link: l.id, Member: placement.Member(m), Ver: l.verNow.Load()})
			}
		}
	}
}

// pace returns what is known of a server. s.mu is held.
func (s *Server) pace(id placement.Server) *pace {
	if s.paces[id] == nil {
		s.paces[id] = new(pace)
	}
	return s.paces[id]
}
