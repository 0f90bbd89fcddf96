package cluster

import (
	"sync"
	"sync/atomic"

	"petal/cluster/wire"
	"petal/placement"
)

// When the lease ends (R5), this node can't answer for anything any more: others
// may have gone on without it. Its sessions end, and what they have in flight
// must not keep them. So every command ends at once, with an error that says
// nothing. What becomes of its parts:
//
//	a read, or a write that nobody has got   ended
//	a write whose fate is open               an orphan: without a command, it stays
//	                                         in the coordinator's lists, and is
//	                                         cancelled (R12) or too old at last (R13)
//
// The lease may be back in a moment, and the initiators with it, who send again
// what was not answered. So that an orphan never takes effect on top of what was
// written after it, no other write of this node goes to its chunk before its fate
// is known: what the head answers to the cancellation is final.

// errLapsed ends what is in flight when the lease does.
var errLapsed error = &unreachableError{statusError(wire.NoLease)}

// orphans counts them by chunk.
type orphans struct {
	n  atomic.Int32
	mu sync.Mutex
	by map[orphanKey]int
}

type orphanKey struct {
	family placement.Family
	chunk  placement.Chunk
}

func (o *orphans) add(p *piece) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by == nil {
		o.by = map[orphanKey]int{}
	}
	o.by[orphanKey{p.Key.Family, p.Key.Chunk}]++
	o.n.Add(1)
}

// remove reports whether that was the last one.
func (o *orphans) remove(p *piece) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := orphanKey{p.Key.Family, p.Key.Chunk}
	if o.by[k]--; o.by[k] == 0 {
		delete(o.by, k)
	}
	return o.n.Add(-1) == 0
}

// block reports whether a write has to wait for an orphan.
func (o *orphans) block(p *piece) bool {
	if o.n.Load() == 0 || !p.writes() {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.by[orphanKey{p.Key.Family, p.Key.Chunk}] > 0
}

// letAllGo ends every command in flight, after lapsed was set. It may be called
// again: whoever puts a piece into a list and then finds lapsed set does so.
func (c *coordinator) letAllGo() {
	var kept []*piece
	var cancels []cancellation
	over := c.takeAll(func(p *piece) bool {
		if p.orphan || !p.writes() {
			return !p.orphan
		}
		if !p.local && !p.cancelling {
			cancels = append(cancels, p.cancellation())
		}
		p.abandoned()
		kept = append(kept, p)
		return false
	})
	c.mu.Lock()
	for p := c.waiting.first; p != nil; {
		next := p.next
		switch {
		case p.orphan:
		case p.writes() && p.open:
			p.abandoned()
			kept = append(kept, p)
		default:
			c.waiting.remove(p)
			p.place = nowhere
			c.flying.Add(-1)
			over = append(over, p)
		}
		p = next
	}
	c.mu.Unlock()
	for _, x := range cancels {
		c.cancelAt(x)
	}
	for _, p := range over {
		if p.local {
			p.giveUp(errLapsed)
			continue
		}
		c.copies.end(p, c, false)
		p.end(errLapsed)
	}
	for _, p := range kept {
		p.orphaned()
	}
	for _, q := range c.asked.take(func(*ask) bool { return true }) {
		q.done(nil, false, wire.NoLease)
	}
}

// letGo ends the command of a piece that is in no list. The caller owns it, and
// gives it up.
func (c *coordinator) letGo(p *piece) {
	if !p.writes() || !p.open {
		p.end(errLapsed)
		return
	}
	p.abandoned()
	c.wait(p)
	p.orphaned()
}

// abandoned makes an orphan of the piece. Its command has yet to be told, and
// the piece is not free before it has been.
func (p *piece) abandoned() {
	p.orphan, p.cancelling, p.why, p.hint = true, true, errLapsed, 0
	p.v.c.orphans.add(p)
}

// orphaned tells the command.
func (p *piece) orphaned() {
	p.unlock()
	p.owner.pieceDone(p, errLapsed, true)
	p.given()
}

// shut ends what is left when the node closes: nobody will answer any more.
func (c *coordinator) shut() {
	c.lapsed.Store(true)
	c.letAllGo()
	var over []*piece
	c.mu.Lock()
	c.closed = true
	for p := c.waiting.first; p != nil; p = c.waiting.first {
		c.waiting.remove(p)
		p.place = nowhere
		c.flying.Add(-1)
		over = append(over, p)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	over = append(over, c.takeAll(func(p *piece) bool { return !p.local })...)
	for _, p := range over {
		p.end(errLapsed)
	}
}
