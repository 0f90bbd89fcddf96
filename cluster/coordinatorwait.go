package cluster

import (
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// What is sent again waits for so long first, twice as long each time, unless
// something changes before: a state, a connection.
const (
	retryMin = time.Millisecond
	retryMax = 64 * time.Millisecond
)

// wait puts a piece off that has to be sent again, or ends it if it is too old
// for that. The caller owns the piece.
func (c *coordinator) wait(p *piece) {
	if p.hedge != nil && (p.second || p.hedge.over.Load()) {
		p.end(errHedged)
		return
	}
	if c.expired(p) {
		return
	}
	c.counts.retries.Add(1)
	p.due = c.clock.Now() + min(retryMin<<min(p.tries, 10), retryMax)
	p.tries++
	c.count(p)
	orphan := p.orphan
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.flying.Add(-1)
		p.end(errLapsed)
		return
	}
	p.place = inWaiting
	c.waiting.push(p)
	c.arm(p.due)
	c.mu.Unlock()
	if !orphan && c.lapsed.Load() {
		c.letAllGo()
	}
}

// expired ends a piece, or has it cancelled, if its time is up.
func (c *coordinator) expired(p *piece) bool {
	if p.began == 0 {
		return false
	}
	switch age := c.tick.Load() - p.began; {
	case p.cancelling && age >= ageMax+c.grace():
		c.counts.expired.Add(1)
		p.end(&unreachableError{statusError(p.Status)})
	case !p.cancelling && age >= ageMax:
		c.abandon(p, c.tooOld(p))
	default:
		return false
	}
	return true
}

// tooOld is the error of a piece whose time is up. The initiator is to send it
// again, and to this node if the data are out of everybody's reach at the
// moment: errCutOff if they are out of this one's only.
func (c *coordinator) tooOld(p *piece) error {
	r := p.v.state.Load().routes.of(p.v.family, p.span.chunk)
	could := []placement.Server{r.head()}
	if !p.writes() {
		could = could[:0]
		for i, id := range r.servers {
			if r.InSync.Has(placement.Member(i)) {
				could = append(could, id)
			}
		}
	}
	err := ErrBusy
	for _, id := range could {
		s := c.copies.of(id)
		switch {
		case id == c.self || s == nil || s.up.Load():
			return ErrBusy
		case s.lost(c.clock.Now(), c.patience()):
			err = errCutOff
		}
	}
	return err
}

// patience is for how long a server must be live and out of reach to count as
// lost: who is dead is not live for longer.
func (c *coordinator) patience() time.Duration { return c.times.Lease + c.times.Renewal }

// grace is how many ticks a cancellation may take.
func (c *coordinator) grace() uint32 {
	return uint32(c.times.Admission*ageTicks/c.times.Command) + 1
}

// abandon ends a piece with err, once it is certain that it has no effect.
func (c *coordinator) abandon(p *piece, err error) {
	if !p.open {
		p.end(err)
		return
	}
	p.cancelling, p.why, p.hint = true, err, 0
	c.send(p)
}

// sendCancel asks the head for the piece's fate (R12).
func (c *coordinator) sendCancel(p *piece, to placement.Server) {
	c.counts.cancels.Add(1)
	p.server, p.local = to, false
	id, link, key := p.ID, p.v.state.Load().routes.of(p.v.family, p.span.chunk).link, p.Key
	m := c.member()
	if to == c.self && m == nil || to != c.self && c.net == nil {
		c.wait(p)
		return
	}
	c.putDown(p)
	if to == c.self {
		m.Cancel(id, key, func(status wire.Status, head placement.Server) { c.cancelEnd(to, id, status, head) })
		return
	}
	if !c.net.Send(to, &wire.Message{Kind: wire.Cancel, Op: id, Link: link, Key: key}) {
		c.lost(id, to)
	}
}

// cancelEnd gets the answer to a cancellation.
func (c *coordinator) cancelEnd(from placement.Server, id placement.OpID, status wire.Status, head placement.Server) {
	p := c.take(id, from)
	if p == nil {
		return
	}
	switch status {
	case wire.OK:
		p.Status = wire.OK
		p.end(nil)
	case wire.Canceled:
		c.canceled(p)
	default:
		p.Status, p.hint = status, head
		c.wait(p)
	}
}

// canceled ends a piece that has no effect and never will.
func (c *coordinator) canceled(p *piece) { p.end(p.why) }

// arm has the timer run at due or earlier. mu is held.
func (c *coordinator) arm(due time.Duration) {
	if c.timer != nil {
		if c.timerAt <= due {
			return
		}
		c.timer.Stop()
	}
	c.timerAt = due
	c.timer = c.clock.AfterFunc(max(0, due-c.clock.Now()), c.onTimer)
}

// onTimer sends what has waited long enough.
func (c *coordinator) onTimer() {
	now := c.clock.Now()
	c.mu.Lock()
	c.timer = nil
	c.mu.Unlock()
	c.resend(func(p *piece) bool { return p.due <= now })
}

// wake sends everything that waits: something has changed.
func (c *coordinator) wake() { c.resend(func(*piece) bool { return true }) }

// resend sends those waiting pieces that which says.
func (c *coordinator) resend(which func(*piece) bool) {
	c.mu.Lock()
	var ready pieceList
	for p := c.waiting.first; p != nil; {
		next := p.next
		if which(p) {
			c.waiting.remove(p)
			p.place = nowhere
			c.flying.Add(-1)
			ready.push(p)
		} else {
			c.arm(p.due)
		}
		p = next
	}
	c.mu.Unlock()
	for p := ready.first; p != nil; p = ready.first {
		ready.remove(p)
		if !c.expired(p) {
			c.send(p)
		}
	}
}

// peerDown: what that server had may or may not happen. It is asked again.
func (c *coordinator) peerDown(peer placement.Server) {
	c.copies.setUp(peer, false, c.clock.Now())
	for _, p := range c.takeAll(func(p *piece) bool { return p.server == peer && !p.local }) {
		c.copies.end(p, c, false)
		p.Status, p.shun = wire.NotReady, peer
		c.wait(p)
	}
	c.asked.down(peer)
}

// peerUp: somebody who was away can be asked again.
func (c *coordinator) peerUp(peer placement.Server) {
	c.copies.setUp(peer, true, c.clock.Now())
	c.wake()
}

// takeAll takes up all pieces in flight that which says.
func (c *coordinator) takeAll(which func(*piece) bool) []*piece {
	var out []*piece
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, l := range []*pieceList{&s.reads, &s.writes} {
			for p := l.first; p != nil; {
				next := p.next
				if which(p) {
					c.takeUp(s, p)
					out = append(out, p)
				}
				p = next
			}
		}
		s.mu.Unlock()
	}
	return out
}

// onTick counts the age of what is under way.
func (c *coordinator) onTick() {
	c.tick.Add(1)
	c.sweep()
	c.resend(func(p *piece) bool { return c.tick.Load()-p.began >= ageMax })
	c.ticking.Store(false)
	if c.flying.Load() > 0 && c.ticking.CompareAndSwap(false, true) {
		c.clock.AfterFunc(c.times.Command/ageTicks, c.onTick)
	}
}

// cancellation is what is to be said about a piece that a server has.
type cancellation struct {
	id    placement.OpID
	to    placement.Server
	link  placement.LinkID
	key   placement.Key
	local bool
}

func (p *piece) cancellation() cancellation {
	return cancellation{p.ID, p.server, p.v.state.Load().routes.of(p.v.family, p.span.chunk).link, p.Key, p.local}
}

// cancelAt has a server cancel what it has. Whichever answer comes first counts.
func (c *coordinator) cancelAt(x cancellation) {
	c.counts.cancels.Add(1)
	if x.local {
		c.member().Cancel(x.id, x.key, func(wire.Status, placement.Server) {}) // Done comes, too
	} else if !c.net.Send(x.to, &wire.Message{Kind: wire.Cancel, Op: x.id, Link: x.link, Key: x.key}) {
		c.lost(x.id, x.to)
	}
}

// sweep ends what has been with a server for too long. A write is cancelled
// there first; if even that gets no answer, its fate stays open. What a local
// member has stays with it: the command ends without it.
func (c *coordinator) sweep() {
	now := c.tick.Load()
	var cancels []cancellation
	old := c.takeAll(func(p *piece) bool {
		age := now - p.began
		switch {
		case age < ageMax:
			return false
		case !p.writes(), age >= ageMax+c.grace():
			return true
		case !p.cancelling:
			p.cancelling, p.why = true, ErrBusy
			cancels = append(cancels, p.cancellation())
		}
		return false
	})
	for _, x := range cancels {
		c.cancelAt(x)
	}
	for _, p := range old {
		c.counts.expired.Add(1)
		err := error(ErrBusy)
		if p.writes() {
			err = &unreachableError{statusError(wire.NotReady)}
		}
		if p.local {
			p.giveUp(err)
			continue
		}
		c.copies.end(p, c, false)
		p.end(err)
	}
}
