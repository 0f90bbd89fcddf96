package cluster

import (
	"errors"
	"sync/atomic"
	"time"

	"petal/cluster/replica"
	"petal/placement"
)

// Hedged reads (DESIGN H): a read that takes longer than all but a few of another
// copy's do is asked for there too, and the first good answer is the command's.
// The other one is not waited for. Each answer is one that its server may give
// (R4, R5), so neither is stale. Hedges are paid for by reads, one by fifty, with
// a little saved up: when all are slow, the load does not grow.
//
//	first  ----------- asked ----------------- late ......... answer, too late
//	second                    '--- asked ----------- answer: the command's
const (
	hedgeLeast = 2 * time.Millisecond // nobody is late before that
	hedgeLook  = time.Millisecond     // between two looks, at least, and a quarter of what is late
	hedgeCost  = 50                   // reads by which one hedge is paid for
	hedgeSaved = 16                   // hedges that may be saved up
)

// errHedged ends the piece of a hedge that nobody needs.
var errHedged = errors.New("cluster: another copy is asked")

// hedge is a read that two copies are asked for.
type hedge struct {
	over          atomic.Bool // one of them was good, or the first has failed for good
	owner         *readOp
	first, second uint64 // numbers of their op ids
}

// watchReads sees to it that late reads are noticed while there are any.
func (c *coordinator) watchReads() {
	if !c.watching.Load() && c.watching.CompareAndSwap(false, true) {
		c.clock.AfterFunc(c.copies.patience(), c.lookForLate)
	}
}

// patience is how long nobody needs to look for late reads.
func (t *copyTable) patience() time.Duration {
	least := lateFirst
	if list := t.servers.Load(); list != nil {
		for _, s := range *list {
			least = min(least, s.lateAfter())
		}
	}
	return max(hedgeLook, least/4)
}

// lookForLate hedges the reads that are late.
func (c *coordinator) lookForLate() {
	now, any := c.clock.Now(), false
	var seconds []*piece
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for p := s.reads.first; p != nil; p = p.next {
			any = true
			if second := c.hedge(p, now); second != nil {
				seconds = append(seconds, second)
			}
		}
		s.mu.Unlock()
	}
	for _, p := range seconds {
		c.counts.hedges.Add(1)
		to := p.hint
		p.ID.Incarnation, p.hint = c.incarnation.Load(), 0
		r := p.v.state.Load().routes.of(p.v.family, p.span.chunk)
		p.Ver = r.Ver
		if to == c.self {
			c.sendLocal(p, r)
		} else {
			c.sendRemote(p, r, to)
		}
	}
	c.watching.Store(false)
	if any {
		c.watchReads()
	}
}

// hedge makes a late read's second piece, nil if it gets none. The shard of p is
// locked.
func (c *coordinator) hedge(p *piece, now time.Duration) *piece {
	r := p.v.state.Load().routes.of(p.v.family, p.span.chunk)
	if p.sent == 0 || p.hedge != nil || p.cancelling || r.InSync.Len() < 2 {
		return nil
	}
	var to placement.Server
	for i, id := range r.servers {
		s := c.copies.of(id)
		if id == p.server || !r.InSync.Has(placement.Member(i)) || s == nil || id != c.self && !s.up.Load() || time.Duration(s.shunned.Load()) > now {
			continue
		}
		if now-p.sent >= max(s.lateAfter(), hedgeLeast) {
			to = id
			break
		}
	}
	if to == 0 || !c.copies.payHedge() {
		return nil
	}
	owner := p.owner.(*readOp)
	second := p.v.newPiece(owner, replica.Read, p.span)
	second.Key, second.VVer, second.ID = p.Key, p.VVer, c.opID()
	second.began, second.slot, second.second, second.hint = p.began, p.slot, true, to
	h := &hedge{owner: owner, first: p.ID.Number, second: second.ID.Number}
	p.hedge, second.hedge = h, h
	return second
}

// payHedge reports whether a hedge may be made, and takes its price.
func (t *copyTable) payHedge() bool {
	reads := t.reads.Load()
	for {
		paid := t.paid.Load()
		from := paid
		if reads > hedgeSaved*hedgeCost {
			from = max(from, reads-hedgeSaved*hedgeCost)
		}
		if reads < from+hedgeCost {
			return false
		}
		if t.paid.CompareAndSwap(paid, from+hedgeCost) {
			return true
		}
	}
}

// ended is told that one of the two has ended, and reports whether that is left
// to be told to the command. has: a member still has the op, so the piece must
// not be freed here.
func (h *hedge) ended(p *piece, err error, has bool) (tell bool) {
	c, second := p.v.c, p.second
	if second && err != nil || !h.over.CompareAndSwap(false, true) {
		if has {
			p.given()
		} else {
			p.free()
		}
		return false
	}
	if !second {
		p.hedge = nil
		c.retire(h.second)
		return true
	}
	c.counts.hedgeWins.Add(1)
	owner := h.owner
	p.hedge, p.second = nil, false
	c.retire(h.first)
	owner.replaced(p)
	return false
}

// retire gives up the other piece of a hedge that is decided, if it is in flight;
// whoever else has it will find out.
func (c *coordinator) retire(number uint64) {
	s := c.shard(number)
	s.mu.Lock()
	p := s.by[number]
	if p != nil {
		c.takeUp(s, p)
	}
	s.mu.Unlock()
	switch {
	case p == nil:
	case p.local: // it ends when the member has
		p.given()
	default:
		c.copies.end(p, c, true) // so long it took at least
		p.free()
	}
}

// replaced takes a piece in the place of another of the same span, and as its end.
func (op *readOp) replaced(p *piece) {
	op.pieces[p.slot], op.errs[p.slot] = p, nil
	op.finish()
}
