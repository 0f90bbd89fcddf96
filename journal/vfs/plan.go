package vfs

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Plan is a list of faults that are to happen.
type Plan []rule

// rule is one line of a plan.
type rule struct {
	kind Kind
	any  bool // kind does not matter
	glob string

	nth       int     // the only matching operation that is hit; zero: no matter
	from      int     // the first that is; zero: no matter
	off, span int64   // bytes the operation must touch; off < 0: no matter
	chance    float64 // zero: always

	effect effect
	err    error // of fail and tear
	n      int64 // of misdirect and tear, in bytes; of flip, in bits

	seen int // operations that matched so far
}

type effect uint8

const (
	effectFail effect = iota
	effectLose
	effectMisdirect
	effectFlip
	effectTear
)

// ParsePlan reads a plan. A line is
//
//	OPERATION GLOB [CONDITION...] EFFECT
//
// The operation is one of open create remove rename list syncdir read write sync
// allocate punch truncate, or any. The glob is for the whole name, as in
// path.Match, or * for all. Of several lines that match, the first takes effect.
// Empty lines and what follows # are ignored.
//
// Conditions, all of which must hold:
//
//	nth=3        only the third operation for which the others hold
//	from=3       only the third and later ones
//	at=4096+512  it touches these 512 bytes from 4096 on
//	chance=0.01  once in a hundred times
//
// Effects:
//
//	fail EIO     it fails (EIO, ENOSPC, EROFS, EINTR) and does nothing; a read
//	             fault with at= is healed by a write over the whole range
//	lose         a write claims success and does nothing
//	misdirect N  a write or read goes N bytes further on
//	flip N       a write or read has bit N inverted, counted from at=, else from
//	             the start of the operation
//	tear N       a write does only its first N bytes, and fails with EIO
func ParsePlan(text string) (Plan, error) {
	var plan Plan
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		r, err := parseRule(fields)
		if err != nil {
			return nil, fmt.Errorf("vfs: plan line %d: %w", i+1, err)
		}
		plan = append(plan, r)
	}
	return plan, nil
}

// MustPlan is ParsePlan for plans that are written in tests.
func MustPlan(text string) Plan {
	plan, err := ParsePlan(text)
	if err != nil {
		panic(err)
	}
	return plan
}

func parseRule(fields []string) (r rule, err error) {
	if len(fields) < 3 {
		return r, fmt.Errorf("want operation, glob and effect")
	}
	r = rule{glob: fields[1], off: -1, any: fields[0] == "any"}
	if i := slices.Index(kindNames[:], fields[0]); i >= 0 {
		r.kind = Kind(i)
	} else if !r.any {
		return r, fmt.Errorf("unknown operation %q", fields[0])
	}
	if _, err := path.Match(r.glob, ""); err != nil {
		return r, fmt.Errorf("glob %q: %w", r.glob, err)
	}
	fields = fields[2:]
	for len(fields) > 0 && strings.Contains(fields[0], "=") {
		if err := r.condition(fields[0]); err != nil {
			return r, err
		}
		fields = fields[1:]
	}
	return r, r.parseEffect(fields)
}

func (r *rule) condition(field string) (err error) {
	key, value, _ := strings.Cut(field, "=")
	switch key {
	case "nth":
		r.nth, err = strconv.Atoi(value)
	case "from":
		r.from, err = strconv.Atoi(value)
	case "chance":
		r.chance, err = strconv.ParseFloat(value, 64)
	case "at":
		_, err = fmt.Sscanf(value, "%d+%d", &r.off, &r.span)
	default:
		err = fmt.Errorf("unknown condition")
	}
	if err != nil {
		return fmt.Errorf("%q: %w", field, err)
	}
	return nil
}

// failures are the errors a plan can name.
var failures = map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EROFS": syscall.EROFS, "EINTR": syscall.EINTR}

func (r *rule) parseEffect(fields []string) (err error) {
	switch {
	case len(fields) == 1 && fields[0] == "lose" && r.kind == OpWrite:
		r.effect = effectLose
		return nil
	case len(fields) != 2:
		return fmt.Errorf("want one effect, have %q", fields)
	}
	moves := r.kind == OpWrite || r.kind == OpRead
	switch name := fields[0]; {
	case name == "fail":
		if r.err = failures[fields[1]]; r.err == nil {
			return fmt.Errorf("unknown error %q", fields[1])
		}
		return nil
	case name == "misdirect" && moves:
		r.effect = effectMisdirect
		r.n, err = strconv.ParseInt(fields[1], 10, 64)
	case name == "flip" && moves:
		r.effect = effectFlip
		r.n, err = strconv.ParseInt(fields[1], 10, 64)
	case name == "tear" && r.kind == OpWrite:
		r.effect, r.err = effectTear, syscall.EIO
		r.n, err = strconv.ParseInt(fields[1], 10, 64)
	default:
		return fmt.Errorf("no effect %q for this operation", name)
	}
	return err
}

// bit is the place of the bit to flip in the file.
func (r *rule) bit(off int64) int64 {
	if r.off >= 0 {
		off = r.off
	}
	return off*8 + r.n
}

func (r *rule) matches(op Op) bool {
	if !r.any && r.kind != op.Kind {
		return false
	}
	if ok, _ := path.Match(r.glob, op.Name); !ok && r.glob != "*" {
		return false
	}
	return r.off < 0 || op.Off < r.off+r.span && r.off < op.Off+op.Len
}

// match returns the rule that hits op, and counts it.
func (p Plan) match(op Op, rng *rand.Rand) *rule {
	var hit *rule
	for i := range p {
		r := &p[i]
		if !r.matches(op) {
			continue
		}
		r.seen++
		if hit != nil || r.nth != 0 && r.seen != r.nth || r.seen < r.from {
			continue
		}
		if r.chance == 0 || rng.Float64() < r.chance {
			hit = r
		}
	}
	if hit == nil {
		return nil
	}
	copied := *hit
	return &copied
}

// heal ends the read faults in a range.
func (p *Plan) heal(name string, off, n int64) {
	*p = slices.DeleteFunc(*p, func(r rule) bool {
		return r.kind == OpRead && !r.any && r.effect == effectFail && r.off >= off && r.off+r.span <= off+n &&
			r.matches(Op{Kind: OpRead, Name: name, Off: off, Len: n})
	})
}

func (p Plan) clone() Plan { return slices.Clone(p) }

var (
	_ FS = (*OS)(nil)
	_ FS = (*Memory)(nil)
	_ FS = (*Fault)(nil)
)
