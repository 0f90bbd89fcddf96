package brick

import (
	"sync"
	"sync/atomic"

	"petal/journal"
)

// order knows every record from the oldest that is not yet in the map to the
// newest, by LSN, and with that three watermarks:
//
//	        applied        settled   committed        last
//	  ........|...............|..........|..............|
//	  in map   \__ to be destaged, some out of order __/
//
//	Invariant: applied <= committed, applied <= settled, both <= last.
//
// A record enters when it is durable. A gap holds every watermark back, so a
// lazy record that was committed early counts only from then on.
type order struct {
	mu    sync.Mutex
	base  journal.LSN // LSN of slots[first]
	slots []*pend     // ring, length a power of two
	first int
	n     int     // slots in use, gaps included
	dirty []*last // that the map is behind of

	committed atomic.Uint64 // every record up to here is committed
	settled   atomic.Uint64 // the extents of all records up to here are complete
	applied   atomic.Uint64 // every record up to here is wholly in the map
}

func (o *order) init(applied journal.LSN) {
	o.base, o.slots = applied+1, make([]*pend, 1024)
	o.committed.Store(uint64(applied))
	o.settled.Store(uint64(applied))
	o.applied.Store(uint64(applied))
}

// at returns the slot of an LSN, making room up to it.
func (o *order) at(l journal.LSN) **pend {
	i := int(l - o.base)
	for i >= len(o.slots) {
		bigger := make([]*pend, 2*len(o.slots))
		for k := range o.n {
			bigger[k] = o.slots[(o.first+k)&(len(o.slots)-1)]
		}
		o.slots, o.first = bigger, 0
	}
	o.n = max(o.n, i+1)
	return &o.slots[(o.first+i)&(len(o.slots)-1)]
}

func (o *order) peek(l uint64) *pend {
	i := int(journal.LSN(l) - o.base)
	if i < 0 || i >= o.n {
		return nil
	}
	return o.slots[(o.first+i)&(len(o.slots)-1)]
}

// mark adds flags to a record and moves the watermarks. stateDurable comes with
// the LSN. It reports whether the record became ready by this call.
func (o *order) mark(p *pend, flags uint32, lsn journal.LSN) (ready bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := p.state.Load()
	now := was | flags
	p.state.Store(now)
	if flags&stateDurable != 0 {
		p.at(lsn, lsn)
		*o.at(lsn) = p
	}
	o.advanceTo(p, now)
	o.advance()
	return was&stateReady != stateReady && now&stateReady == stateReady
}

func (o *order) advance() {
	for {
		p := o.peek(o.settled.Load() + 1)
		if p == nil || p.state.Load()&stateSettled == 0 {
			break
		}
		o.settled.Add(1)
	}
	for {
		p := o.peek(o.committed.Load() + 1)
		if p == nil || p.state.Load()&stateCommitted == 0 {
			break
		}
		o.committed.Add(1)
	}
}

// doneMark stands in order for every record that is done with, so that its pend
// can be used again.
var doneMark = func() *pend {
	p := &pend{}
	p.state.Store(stateReady)
	return p
}()

// finish marks records as wholly in the map and returns the applied watermark.
// Only the destager calls it.
func (o *order) finish(done []*pend) journal.LSN {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range done {
		*o.at(p.LSN()) = doneMark
	}
	for o.n > 0 {
		p := o.slots[o.first]
		if p != doneMark {
			break
		}
		o.slots[o.first] = nil
		o.first = (o.first + 1) & (len(o.slots) - 1)
		o.n--
		o.base++
	}
	o.applied.Store(uint64(o.base - 1))
	return o.base - 1
}

// skip enters a record that the map has no use for.
func (o *order) skip(l journal.LSN) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*o.at(l) = doneMark
	o.advance()
}

// stuck returns records in the older half of the journal that are durable but
// not committed: nothing before them can be trimmed.
func (o *order) stuck() (all []*pend) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k := 0; k < o.n/2 && len(all) < batchRecords; k++ {
		p := o.slots[(o.first+k)&(len(o.slots)-1)]
		if p != nil && p != doneMark && !p.typ.control() && p.state.Load() == stateDurable|stateSettled {
			all = append(all, p)
		}
	}
	return all
}

// move gives a record that has been carried forward its new place.
func (o *order) move(p *pend, to journal.LSN) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*o.at(p.LSN()) = doneMark
	*o.at(to) = p
	p.lsn.Store(uint64(to))
	o.advance()
}

// refresh moves the watermarks after recovery has filled the slots.
func (o *order) refresh() {
	o.finish(nil)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.committed.Store(max(o.committed.Load(), uint64(o.base-1)))
	o.settled.Store(max(o.settled.Load(), uint64(o.base-1)))
	o.advance()
}

// ready calls f for each record that may be destaged, oldest first, until f
// returns false. f runs under the lock and must be quick.
func (o *order) ready(f func(*pend) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k := range o.n {
		p := o.slots[(o.first+k)&(len(o.slots)-1)]
		if p == nil || p == doneMark || p.state.Load()&stateReady != stateReady {
			continue
		}
		if !f(p) {
			return
		}
	}
}
