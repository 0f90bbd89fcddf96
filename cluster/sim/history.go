package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"petal/placement"
)

// sectorsPerBlock is how many self-describing sectors a block has.
const sectorsPerBlock = placement.BlockSize / sectorBytes

// kind is a kind of operation.
type kind uint8

const (
	opRead kind = iota
	opWrite
	opZero
	opCAW
)

var kindNames = [...]string{opRead: "read", opWrite: "write", opZero: "zero", opCAW: "compare-and-write"}

func (k kind) String() string { return kindNames[k] }

// outcome is what is known about an attempt.
type outcome uint8

const (
	unknown    outcome = iota // it may take effect until its end, or never
	done                      // it took effect between call and return
	miscompare                // a COMPARE AND WRITE found something else
	never                     // it had and will have no effect
)

// content is what a block holds.
type content [sectorsPerBlock]value

// attempt is one try of an operation through one node, as far as it concerns
// one block. Each attempt writes a value of its own, so whether one of unknown
// outcome took effect is often seen later.
type attempt struct {
	kind    kind
	block   uint64
	client  int
	node    placement.Server
	v       value
	mask    uint8   // sectors
	seen    content // of a read; what a COMPARE AND WRITE expects
	outcome outcome

	call, ret int64         // in the order of all calls and returns; ret of an unknown one bounds its effect
	at, until time.Duration // the same in time, for people
	lax       bool          // of a miscompare: anything may have been there

	vver  uint64 // of the disk, as far as the node knew at the call
	limit int64  // no effect after this: a barrier was complete (see fence); 0: none
}

const forever = math.MaxInt64

// history is everything that clients have seen of a disk, by block.
type history struct {
	blocks map[uint64][]*attempt
	tick   int64
	ops    int
}

func newHistory() *history { return &history{blocks: map[uint64][]*attempt{}} }

func (h *history) now() int64 { h.tick++; return h.tick }

// add records an attempt that begins now.
func (h *history) add(block uint64, a *attempt) {
	h.ops++
	a.block = block
	h.blocks[block] = append(h.blocks[block], a)
}

// fence notes that a barrier is complete: what was admitted under vver or an
// older one has no effect from now on that it had not before (DESIGN B).
func (h *history) fence(vver uint64) {
	now := h.now()
	for _, all := range h.blocks {
		for _, a := range all {
			if a.vver <= vver && a.limit == 0 && a.ret > now {
				a.limit = now
			}
		}
	}
}

// disorder is a block whose attempts can't be put in one order.
type disorder struct {
	block uint64
	text  string // the attempts
}

// check looks at all blocks and returns those that are not linearizable, and
// how many could not be judged in time.
func (h *history) check(limit time.Duration) (bad []disorder, gaveUp int) {
	blocks := make([]uint64, 0, len(h.blocks))
	for b := range h.blocks {
		blocks = append(blocks, b)
	}
	slices.Sort(blocks)
	for _, b := range blocks {
		ops := settle(h.blocks[b])
		switch porcupine.CheckOperationsTimeout(blockModel, operations(ops), limit) {
		case porcupine.Illegal:
			bad = append(bad, disorder{block: b, text: describe(h.blocks[b])})
		case porcupine.Unknown:
			gaveUp++
		}
	}
	return bad, gaveUp
}

// settle decides what it can about attempts of unknown outcome, so that the
// checker has less to try:
//
//   - one that somebody saw took effect before that one returned;
//   - one that nobody saw can be left out, unless it explains a COMPARE AND
//     WRITE that did not compare: then that one is taken at its word;
//   - zeros have no value of their own: they stay open.
func settle(all []*attempt) []attempt {
	seenBy := map[value]int64{} // the earliest return of who saw it
	for _, a := range all {
		if a.outcome == done && (a.kind == opRead || a.kind == opCAW) {
			for i, v := range a.seen {
				if a.mask>>i&1 != 0 && v != a.v {
					if at, ok := seenBy[v]; !ok || a.ret < at {
						seenBy[v] = a.ret
					}
				}
			}
		}
	}
	var ops []attempt
	var dropped []*attempt
	for _, a := range all {
		if a.limit != 0 && a.limit < a.ret {
			c := *a
			a, c.ret = &c, c.limit
		}
		switch {
		case a.outcome == never || a.outcome == unknown && a.kind == opRead:
		case a.outcome == unknown && a.kind != opZero:
			if at, ok := seenBy[a.v]; ok {
				c := *a
				c.outcome, c.ret = done, min(a.ret, at)
				ops = append(ops, c)
			} else {
				dropped = append(dropped, a)
			}
		default:
			ops = append(ops, *a)
		}
	}
	for i := range ops {
		if o := &ops[i]; o.outcome == miscompare {
			o.lax = slices.ContainsFunc(dropped, func(d *attempt) bool { return d.call < o.ret && d.mask&o.mask != 0 })
		}
	}
	return ops
}

func operations(ops []attempt) []porcupine.Operation {
	out := make([]porcupine.Operation, 0, len(ops))
	for i := range ops {
		a := &ops[i]
		out = append(out, porcupine.Operation{ClientId: a.client, Input: a, Call: a.call, Return: max(a.ret, a.call)})
	}
	return out
}

// blockModel is a block: a register of sectors.
var blockModel = (&porcupine.NondeterministicModel{
	Init:  func() []any { return []any{content{}} },
	Step:  func(state, input, _ any) []any { return input.(*attempt).step(state.(content)) },
	Equal: func(a, b any) bool { return a.(content) == b.(content) },
}).ToModel()

// step returns what a block may hold after the attempt, nothing if the attempt
// can't have been where it held s.
func (a *attempt) step(s content) []any {
	match := true
	for i, v := range a.seen {
		match = match && (a.mask>>i&1 == 0 || s[i] == v)
	}
	after := s
	for i := range after {
		if a.mask>>i&1 != 0 {
			after[i] = a.v
		}
	}
	switch a.kind {
	case opRead:
		if match {
			return []any{s}
		}
		return nil
	case opCAW:
		switch {
		case a.outcome == miscompare && (!match || a.lax):
			return []any{s}
		case a.outcome == done && match:
			return []any{after}
		}
		return nil
	}
	if a.outcome == unknown {
		return []any{after, s}
	}
	return []any{after}
}

// describe writes the attempts on a block for people, in the order of their
// calls.
func describe(ops []*attempt) string {
	var b strings.Builder
	for _, a := range ops {
		until := "          ..."
		if a.outcome != unknown {
			until = fmt.Sprintf("%12.6f", a.until.Seconds())
		}
		fmt.Fprintf(&b, "%12.6f %s client %d at %d: %v %#02x", a.at.Seconds(), until, a.client, a.node, a.kind, a.mask)
		switch {
		case a.kind == opRead && a.outcome == done:
			fmt.Fprintf(&b, " saw %v", a.seen)
		case a.kind == opCAW:
			fmt.Fprintf(&b, " of %v writes %d", a.seen, a.v)
		case a.kind != opRead:
			fmt.Fprintf(&b, " writes %d", a.v)
		}
		fmt.Fprintf(&b, ": %v\n", [...]string{"unknown", "done", "miscompare", "never"}[a.outcome])
	}
	return b.String()
}
