package session

// Task attributes (SAM-5, section 8.6). ACA has no row: this target never
// establishes an ACA condition, so a command with that attribute is refused.
type attribute uint8

const (
	simple attribute = iota
	ordered
	headOfQueue
	attributes // how many there are
)

// mustWait is the ordering of one task set as a matrix (SAM-5, section 8.7):
// a new task with the attribute of the row stays dormant while an earlier,
// unfinished one with the attribute of the column is in the set.
var mustWait = [attributes][attributes]bool{
	//            simple ordered headOfQueue    <- earlier, unfinished
	simple:      {false, true, true},
	ordered:     {true, true, true},
	headOfQueue: {false, false, false},
}

// taskSet is the unfinished tasks of one I_T_L nexus (the control mode page
// says TST=001b: a task set per I_T nexus), in the order of their CmdSN.
//
// Invariant: unfinished counts the list by attribute, dormant those of it that
// are not enabled.
type taskSet struct {
	lun         uint64
	first, last *task
	unfinished  [attributes]int
	dormant     int
}

// enter puts t at the end of the set and decides whether it is enabled.
func (s *taskSet) enter(t *task) {
	t.set, t.before, t.after = s, s.last, nil
	if s.last != nil {
		s.last.after = t
	} else {
		s.first = t
	}
	s.last = t
	t.enabled = !waits(t.attr, &s.unfinished)
	s.unfinished[t.attr]++
	if !t.enabled {
		s.dormant++
	}
}

// leave takes t out and appends to ready the tasks that its end has enabled.
func (s *taskSet) leave(t *task, ready []*task) []*task {
	if t.before != nil {
		t.before.after = t.after
	} else {
		s.first = t.after
	}
	if t.after != nil {
		t.after.before = t.before
	} else {
		s.last = t.before
	}
	t.set, t.before, t.after = nil, nil, nil
	s.unfinished[t.attr]--
	if !t.enabled {
		s.dormant--
	}
	if s.dormant == 0 {
		return ready
	}
	var earlier [attributes]int
	for e := s.first; e != nil; e = e.after {
		if !e.enabled && !waits(e.attr, &earlier) {
			e.enabled = true
			s.dormant--
			ready = append(ready, e)
		}
		earlier[e.attr]++
	}
	return ready
}

// waits reports whether a task with attribute a has to wait for any of the
// unfinished tasks before it.
func waits(a attribute, unfinished *[attributes]int) bool {
	for b, n := range unfinished {
		if n > 0 && mustWait[a][b] {
			return true
		}
	}
	return false
}
