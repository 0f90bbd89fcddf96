package login

import (
	"slices"
	"strconv"
	"strings"

	"petal/target/iscsi"
)

// The constants that answer for a key (section 6.2).
const (
	notUnderstood = "NotUnderstood"
	irrelevant    = "Irrelevant"
	rejected      = "Reject"
)

// negotiation holds the parameters while they are being agreed upon.
//
// Invariant: p is what holds if nothing more is said. It begins as the defaults
// of the table.
type negotiation struct {
	p         Params
	discovery bool
	declared  bool     // we have said our MaxRecvDataSegmentLength
	seen      []string // values by row, "" where the key has not come
}

func (n *negotiation) init(discovery bool) {
	n.discovery = discovery
	n.seen = make([]string, len(rows))
	n.p.MaxRecv = iscsi.DefaultRecvDataSegment
	for i := range rows {
		if r := &rows[i]; r.set != nil {
			r.set(&n.p, r.def)
		}
	}
}

// params are the parameters agreed upon.
func (n *negotiation) params() Params {
	p := n.p
	if n.declared {
		p.MaxRecv = iscsi.RecvDataSegment
	}
	// Section 13.14: "FirstBurstLength MUST NOT exceed MaxBurstLength", also
	// where one of them is a default or came earlier.
	p.FirstBurst = min(p.FirstBurst, p.MaxBurst)
	return p
}

// answer computes the answers to keys, those we know in the order of the table
// and then the others.
func (n *negotiation) answer(pairs []iscsi.Pair, now when) ([]iscsi.Pair, *refusal) {
	var answers []iscsi.Pair
	for i := range rows {
		value, ok := iscsi.Lookup(pairs, rows[i].name)
		if !ok {
			continue
		}
		a, no := n.answerRow(i, value, now)
		if no != nil {
			return nil, no
		}
		if a != "" {
			answers = append(answers, iscsi.Pair{Key: rows[i].name, Value: a})
		}
	}
	for _, p := range pairs {
		known := slices.ContainsFunc(rows, func(r row) bool { return r.name == p.Key })
		if !known && p.Value != notUnderstood { // never an answer to an answer
			answers = append(answers, iscsi.Pair{Key: p.Key, Value: notUnderstood})
		}
	}
	return answers, nil
}

// answerRow is the answer to one key; "" for none.
func (n *negotiation) answerRow(i int, value string, now when) (string, *refusal) {
	r := &rows[i]
	switch {
	case r.kind == received:
		return "", refuse(iscsi.LoginInitiatorError, "%s is the target's to say", r.name)
	case r.when&now == 0:
		return "", refuse(iscsi.LoginInitiatorError, "%s in the wrong stage", r.name)
	case len(value) > iscsi.MaxValue:
		return "", refuse(iscsi.LoginInitiatorError, "%s with a value of %d bytes", r.name, len(value))
	}
	// Section 6.2: "neither the initiator nor the target should attempt to
	// declare or negotiate a parameter more than once during login". To say
	// the same again is what some initiators do at each stage.
	if before := n.seen[i]; before != "" && now != inFullFeature {
		if r.kind == declare && before == value {
			return "", nil
		}
		return "", refuse(iscsi.LoginInitiatorError, "%s comes again", r.name)
	}
	n.seen[i] = value
	switch value {
	case notUnderstood, irrelevant, rejected:
		return "", nil // an answer to what we have declared
	}
	if n.discovery && !r.discovery {
		return irrelevant, nil
	}
	a, ok := n.compute(r, value)
	if !ok && r.kind == declare {
		return "", refuse(iscsi.LoginInitiatorError, "%s=%s is out of its range", r.name, value) // there is no answer to refuse it with
	}
	return a, nil
}

// compute does what the key's kind says: it sets the result and returns the
// answer. A value that is not legal is answered with Reject, and what held
// before goes on to hold; then ok is false.
func (n *negotiation) compute(r *row, value string) (answer string, ok bool) {
	result, ok := r.result(value)
	if !ok {
		return rejected, false
	}
	if r.name == "FirstBurstLength" && number(result) > n.p.MaxBurst {
		result = strconv.Itoa(n.p.MaxBurst)
	}
	if r.set != nil {
		r.set(&n.p, result)
	}
	if r.kind == declare {
		return "", true
	}
	return result, true
}

// result is the outcome of a key for the value that the initiator offers, and
// false if it may not offer that.
func (r *row) result(value string) (string, bool) {
	switch r.kind {
	case and, or:
		if value != "Yes" && value != "No" {
			return "", false
		}
		// The answer is the outcome: ours decides unless it leaves it to the other.
		if (r.kind == and) == (r.ours == "Yes") {
			return value, true
		}
		return r.ours, true
	case minimum, maximum:
		theirs, ok := parseNumber(value)
		if !ok || theirs < r.lo || theirs > r.hi {
			return "", false
		}
		ours, _ := parseNumber(r.ours)
		if r.kind == minimum {
			return strconv.FormatUint(min(ours, theirs), 10), true
		}
		return strconv.FormatUint(max(ours, theirs), 10), true
	case list:
		for v := range strings.SplitSeq(value, ",") {
			if slices.Contains(r.choices, v) {
				return v, true
			}
		}
		return "", false
	case fixed:
		return r.ours, true
	}
	if r.hi == 0 {
		return value, true
	}
	v, ok := parseNumber(value)
	return value, ok && v >= r.lo && v <= r.hi
}
