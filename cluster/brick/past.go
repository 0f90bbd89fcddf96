package brick

import (
	"slices"

	"petal/placement"
)

// History tells which records of a bucket were ever committed: of each version of
// the link the number of the last one. All before it in its version were, too; all
// other records that a member may hold never were. So a member that has been away
// learns which of its last records count (R9).
//
// Members agree on it as far as both know: what is committed is so everywhere. So
// any two histories of a bucket can be joined, in any order, any number of times.
type History struct {
	From uint64            // versions below it are not known
	Ends []placement.Stamp // ascending, one for a version
}

// historyEnds is how many versions a history keeps.
const historyEnds = 32

// Common returns the greatest record of the history that is not after s; false if
// that is not known.
func (h *History) Common(s placement.Stamp) (placement.Stamp, bool) {
	for i := len(h.Ends) - 1; i >= 0; i-- {
		switch e := h.Ends[i]; {
		case e.Ver == s.Ver && s.Seq < e.Seq:
			return s, true
		case e.Ver <= s.Ver:
			return e, true
		}
	}
	return placement.Stamp{}, h.From == 0
}

// add notes that a record was committed. It reports whether that is news of
// another version than the last.
func (h *History) add(s placement.Stamp) (news bool) {
	if s.Ver < h.From || s == (placement.Stamp{}) {
		return false
	}
	i := len(h.Ends)
	for i > 0 && h.Ends[i-1].Ver >= s.Ver {
		i--
	}
	if i < len(h.Ends) && h.Ends[i].Ver == s.Ver {
		news = i < len(h.Ends)-1 && h.Ends[i].Seq < s.Seq
		h.Ends[i].Seq = max(h.Ends[i].Seq, s.Seq)
		return news
	}
	h.Ends = slices.Insert(h.Ends, i, s)
	if len(h.Ends) > historyEnds {
		h.begin(h.Ends[1].Ver)
	}
	return true
}

// begin forgets versions below one.
func (h *History) begin(from uint64) (news bool) {
	if from <= h.From {
		return false
	}
	h.From = from
	n := 0
	for n < len(h.Ends) && h.Ends[n].Ver < from {
		n++
	}
	h.Ends = append(h.Ends[:0], h.Ends[n:]...)
	return true
}

func (h *History) clone() History { return History{h.From, slices.Clone(h.Ends)} }

// History returns what is known of a bucket's history: all records that are
// committed and durable here, and what AddHistory told.
func (b *Brick) History(link LinkID, bucket placement.Bucket) History {
	l := b.lasts.find(link, bucket)
	if l == nil {
		return History{}
	}
	b.order.mu.Lock()
	defer b.order.mu.Unlock()
	return l.past.clone()
}

// AddHistory joins what another member knows of a bucket's history to what is
// known here. It is durable when anything is that is appended later.
func (b *Brick) AddHistory(link LinkID, bucket placement.Bucket, h History) {
	h.Ends = h.Ends[max(0, len(h.Ends)-historyEnds):]
	for _, s := range h.Ends {
		b.appendMark(head{Type: typeHistory, Link: link, Bucket: bucket, Ver: s.Ver, Seq: s.Seq, Target: h.From}, func(error) {})
	}
}

// learn takes a record of AddHistory. order.mu is not held.
func (o *order) learn(l *last, s placement.Stamp, from uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.past.begin(from)
	l.past.add(s)
	o.soil(l)
}
