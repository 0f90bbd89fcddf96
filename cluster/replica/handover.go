package replica

import (
	"encoding/binary"
	"time"

	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/cluster/wire"
	"petal/placement"
)

// What goes with a cut when there are three copies (R9): whoever is given what it
// lacks of a bucket also learns what the others lack that are out of sync, and the
// bucket's history. It has it durably when it has the cut, since all of it goes
// into one journal in the order in which it came; so if it is head next, it can
// let them in.
//
//	LinkControl, codeHistory   from u64, then ver u64, seq u64 of each end
//	LinkControl, codeMarks     members u8, then marks as in Missing
//	LinkControl, codeKeep      marks as in Missing: of a cut that marks all that the member has, but this

// handOver sends it. The mutex is not held.
func (l *seat) handOver(e *link.Effect) bool {
	l.lock()
	out := placement.MembersOf(len(l.servers)) &^ l.m.Config().InSync &^ placement.Members(0).With(e.Member)
	l.unlock()
	if !l.sendHistory(e) {
		return false
	}
	for ; out != 0; out = out.Without(out.First()) {
		marks, err := l.marked(out.First(), e.Bucket, nil)
		for err == nil && len(marks) > 0 {
			n := min(len(marks), marksMax)
			if !l.sendOthers(e, out.First(), marks[:n]) {
				return false
			}
			marks = marks[n:]
		}
		if err != nil {
			return false
		}
	}
	return true
}

func (l *seat) sendHistory(e *link.Effect) bool {
	h := l.s.c.Store.History(l.id, e.Bucket)
	l.lock()
	defer l.unlock()
	le := binary.LittleEndian
	l.body = le.AppendUint64(l.body[:0], h.From)
	for _, s := range h.Ends {
		l.body = le.AppendUint64(le.AppendUint64(l.body, s.Ver), s.Seq)
	}
	return l.control(e, codeHistory)
}

func (l *seat) sendOthers(e *link.Effect, who placement.Member, marks []brick.Mark) bool {
	l.lock()
	defer l.unlock()
	l.body = append(l.body[:0], byte(placement.Members(0).With(who)))
	l.body = appendMarks(l.body, marks)
	return l.control(e, codeMarks)
}

// control sends l.body. The mutex is held.
func (l *seat) control(e *link.Effect, code uint8) bool {
	m := &l.msg
	*m = wire.Message{Kind: wire.LinkControl, Link: l.id, Ver: e.Ver, Bucket: e.Bucket, Code: code, Data: m.Data[:0], Body: l.body}
	return l.post1(e.Member, m)
}

// learns reports whether a member may tell this one what goes with a cut now. It
// need not be of the present attempt to be let in: under one version it is true
// or, of marks, more than true. The mutex is held.
func (l *seat) learns(from placement.Member, m *wire.Message) bool {
	c := l.m.Config()
	switch l.m.State() {
	case link.Leaving, link.Out:
		return m.Ver == l.ver && from == c.Head
	case link.Opening:
		return m.Ver == l.ver && c.InSync.Has(from)
	}
	return false
}

// learnHistory takes what sendHistory sent.
func (l *seat) learnHistory(from placement.Member, m *wire.Message) {
	const most = 256 // far more than a brick keeps
	if len(m.Body)%16 != 8 || len(m.Body) > 16*most || m.Bucket >= placement.Buckets {
		return
	}
	le := binary.LittleEndian
	h := brick.History{From: le.Uint64(m.Body)}
	for b := m.Body[8:]; len(b) > 0; b = b[16:] {
		s := placement.Stamp{Ver: le.Uint64(b), Seq: le.Uint64(b[8:])}
		if n := len(h.Ends); s.Ver > m.Ver || s.Seq == 0 || s.Ver == 0 || n > 0 && s.Ver <= h.Ends[n-1].Ver {
			return
		}
		h.Ends = append(h.Ends, s)
	}
	l.lock()
	if l.learns(from, m) {
		delete(l.keep, m.Bucket) // a cut begins with its history
		l.s.c.Store.AddHistory(l.id, m.Bucket, h)
	}
	l.unlock()
}

// sendKeep tells a member of which blocks of a bucket it is to keep what it has,
// since they are missing here.
func (l *seat) sendKeep(e *link.Effect, marks []brick.Mark) bool {
	l.lock()
	defer l.unlock()
	for len(marks) > 0 {
		n := min(len(marks), marksMax)
		l.body = appendMarks(l.body[:0], marks[:n])
		if !l.control(e, codeKeep) {
			return false
		}
		marks = marks[n:]
	}
	return true
}

// keepMax bounds what is remembered of sendKeep: 32 bytes each.
const keepMax = 1 << 20

// learnKeep takes what sendKeep sent.
func (l *seat) learnKeep(from placement.Member, m *wire.Message) {
	marks, ok := parseMarks(m, 0)
	l.lock()
	if ok && l.learns(from, m) && len(l.keep[m.Bucket])+len(marks) <= keepMax {
		if l.keep == nil {
			l.keep = map[placement.Bucket][]brick.Mark{}
		}
		l.keep[m.Bucket] = append(l.keep[m.Bucket], marks...)
	}
	l.unlock()
}

// learnMarks takes what sendOthers sent.
func (l *seat) learnMarks(from placement.Member, m *wire.Message) {
	marks, ok := parseMarks(m, 1)
	if !ok {
		return
	}
	l.lock()
	who := placement.Members(m.Body[0]) & placement.MembersOf(len(l.servers))
	who &^= l.m.Config().InSync.With(l.self)
	if who != 0 && l.learns(from, m) {
		l.s.c.Store.AddMarks(l.id, who, marks, l.ver, func(err error) {
			if err != nil {
				l.call(func() { l.fail(err) })
			}
		})
	}
	l.unlock()
}

// appendMarks encodes marks as parseMarks wants them.
func appendMarks(b []byte, marks []brick.Mark) []byte {
	for _, x := range marks {
		b = wire.AppendMark(b, wire.Mark{Key: x.Key, Mask: x.Mask})
	}
	return b
}

// parseMarks decodes a message's marks behind skip bytes; false if they are none.
func parseMarks(m *wire.Message, skip int) (marks []brick.Mark, ok bool) {
	if len(m.Body) < skip {
		return nil, false
	}
	ok = true
	err := wire.ParseMarks(m.Body[skip:], func(x wire.Mark) bool {
		marks = append(marks, brick.Mark{Key: x.Key, Bucket: m.Bucket, Mask: x.Mask})
		ok = placement.BucketOf(x.Key.Family, x.Key.Chunk) == m.Bucket && len(marks) <= marksMax
		return ok
	})
	return marks, ok && err == nil
}

// againAfter is how often a head is asked at most to send its records again.
const againAfter = 50 * time.Millisecond

// askAgain has the head send again what this member has not acknowledged (R3), for
// a record came damaged: it answers a Summary when it is open as it does one of a
// member that missed the opening. Else it would wait, and have the member excluded.
func (l *seat) askAgain(from placement.Member) {
	l.lock()
	defer l.unlock()
	now := l.s.now()
	if l.m.State() != link.Open || l.m.Config().Head != from || l.asked != 0 && now-l.asked < againAfter {
		return
	}
	l.asked = now
	l.post1(from, l.message(&link.Msg{Kind: link.MsgSummary, Ver: l.ver, First: true, Last: true}))
}

// common completes a cut for a member of which it is not known what it has: by the
// bucket's history, which records both have. It reports false if that does not go
// back so far, and this server misses blocks of the bucket: a tail that the member
// would give up may be all that is left of them. The mutex is not held.
func (l *seat) common(e *link.Effect) bool {
	h := l.s.c.Store.History(l.id, e.Bucket)
	common, ok := h.Common(e.Prev)
	if e.Common = common; ok {
		return true
	}
	lack, err := l.s.c.Store.Missing(l.id, brick.Mark{Bucket: e.Bucket}, make([]brick.Mark, 0, 1))
	return err == nil && (len(lack) == 0 || lack[0].Bucket != e.Bucket)
}
