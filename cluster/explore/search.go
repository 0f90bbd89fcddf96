package explore

import (
	"fmt"
	"hash/maphash"
	"strings"

	"petal/cluster/link"
	"petal/placement"
)

// Result is what a search found.
type Result struct {
	States, Moves int
	Depth         int
	Complete      bool     // every state was seen; else MaxStates ended it
	Trace         []string // the shortest way to a violation; nil: none
	Violation     string
}

func (r *Result) String() string {
	t := fmt.Sprintf("%d states, %d moves, depth %d", r.States, r.Moves, r.Depth)
	switch {
	case r.Trace != nil:
		return fmt.Sprintf("%s: %s\n\t%s", t, r.Violation, strings.Join(r.Trace, "\n\t"))
	case !r.Complete:
		return t + ", not complete"
	}
	return t + ", complete"
}

// searcher goes through the states breadth first. A state is kept as its bytes
// until its successors are made, and as 64 bits of hash for ever.
type searcher struct {
	k      *Case
	s, t   *state
	seen   *hashSet
	seed   maphash.Seed
	parent []int32 // of each state, for the trace
	how    []move
	buf    []byte
}

// Search tries every order of events of a case, but stops at maxStates.
func Search(k *Case, maxStates int) *Result {
	q := &searcher{k: k, s: newState(k), t: newState(k), seen: newHashSet(), seed: maphash.MakeSeed()}
	first := newState(k)
	first.begin()
	res := &Result{}
	q.buf = first.encode(q.buf[:0])
	q.add(-1, move{})
	now := newFrontier()
	now.push(q.buf, 0)
	for ; now.n > 0; res.Depth++ {
		next := newFrontier()
		stop := false
		now.each(func(b []byte, id int32) bool {
			stop = q.expand(b, id, next, res, maxStates)
			return !stop
		})
		if stop {
			return res
		}
		now = next
	}
	res.Complete = true
	return res
}

func (q *searcher) add(parent int32, mv move) bool {
	if !q.seen.add(maphash.Bytes(q.seed, q.buf)) {
		return false
	}
	q.parent = append(q.parent, parent)
	q.how = append(q.how, mv)
	return true
}

// expand makes all successors of a state; true ends the search.
func (q *searcher) expand(b []byte, id int32, next *frontier, res *Result, maxStates int) (stop bool) {
	q.s.decode(b)
	var moves []move
	q.s.each(func(mv move) { moves = append(moves, mv) })
	went := false
	for _, mv := range moves {
		q.t.decode(b)
		if !q.t.do(mv) {
			went = went || q.t.full
			continue
		}
		went = true
		res.Moves++
		if bad := q.t.violation(); bad != "" {
			res.States, res.Violation = len(q.parent), bad
			res.Trace = q.trace(id, mv)
			return true
		}
		q.t.hasten()
		q.buf = q.t.encode(q.buf[:0])
		if !q.add(id, mv) {
			continue
		}
		next.push(q.buf, int32(len(q.parent)-1))
		if len(q.parent) >= maxStates {
			res.States = len(q.parent)
			return true
		}
	}
	res.States = len(q.parent)
	if stuck := q.s.stuck(); !went && stuck != "" {
		res.Violation = stuck
		res.Trace = q.trace(id, move{})
		return true
	}
	return false
}

func (q *searcher) trace(id int32, last move) []string {
	var how []move
	if last.kind != 0 {
		how = append(how, last)
	}
	for ; id > 0; id = q.parent[id] {
		how = append(how, q.how[id])
	}
	s := newState(q.k)
	s.begin()
	var t []string
	for i := len(how) - 1; i >= 0; i-- {
		t = append(t, s.describe(how[i]))
		s.do(how[i])
		s.hasten()
	}
	return t
}

// hasten makes moves at once that no other move can see the time of: a message
// of an older ver than its receiver's is dropped whenever it arrives, and that
// nothing more comes from a server that crashed matters to a join only.
func (s *state) hasten() {
	w := &s.w
	for a := range s.k.Members {
		for b := range s.k.Members {
			for a != b && s.k.Fault == 0 && w.srv[b].up && w.q[a][b].n > 0 && uint64(w.q[a][b].m[0].ver) < s.m[b].Config().Ver {
				s.deliver(a, b)
			}
			if a < b && w.net[pairOf(a, b)] == netDying && w.q[a][b].n == 0 && w.q[b][a].n == 0 && !s.m[a].Joining() && !s.m[b].Joining() {
				s.disconnect(a, b)
			}
		}
	}
}

// violation says what is wrong with a state, or nothing.
func (s *state) violation() string {
	if !s.w.explained(s.k) {
		return "no register explains the answers"
	}
	lost := uint8(1<<len(s.k.Blocks) - 1)
	for x := range s.k.Members {
		lost &= s.w.srv[x].disk.lacking()
	}
	if lost != 0 {
		return fmt.Sprintf("nobody has blocks %b", lost)
	}
	return ""
}

// stuck says what is wrong with a state from which nothing more can happen: all
// faults are healed, so all members should be open and all writes answered.
func (s *state) stuck() string {
	c := s.w.current()
	if c.ver >= s.k.MaxVer || s.w.nlog == maxLog {
		return ""
	}
	for x := range s.k.Members {
		if s.m[x].State() != link.Open || !c.insync.Has(placement.Member(x)) {
			return fmt.Sprintf("%s is %s for ever", server2(uint8(x)), s.m[x].State())
		}
	}
	return ""
}

func (s *state) encode(b []byte) []byte {
	c := codec{b: b}
	c.world(&s.w, s.k)
	b = c.b
	for x := range s.k.Members {
		if s.w.srv[x].up {
			b = s.m[x].AppendState(b)
		}
	}
	return b
}

func (s *state) decode(b []byte) {
	s.w, s.full = world{}, false
	c := codec{b: b, read: true}
	c.world(&s.w, s.k)
	b = c.b
	for x := range s.k.Members {
		if s.w.srv[x].up {
			b = s.m[x].LoadState(b)
		} else {
			s.m[x] = s.machine(x)
		}
	}
}
