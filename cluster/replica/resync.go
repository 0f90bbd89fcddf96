package replica

import (
	"encoding/binary"
	"slices"

	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/cluster/wire"
	"petal/placement"
)

// marksMax is how many marks go into one message and one record of the brick.
const marksMax = 4096

// mark makes it durable that members lack a record although its own journal
// record does not say so (R7, R8).
func (l *seat) mark(r link.Record, members placement.Members) {
	rec := l.tasks[r.Ref-1].rec
	l.s.c.Store.AddMarks(l.id, members, []brick.Mark{markOf(rec)}, l.ver, func(err error) {
		if err != nil {
			return // the brick has failed; so will the record's link
		}
		l.post(link.Event{Kind: link.EventMarked, Rec: r})
	})
}

func markOf(r *brick.Record) brick.Mark {
	return brick.Mark{Key: r.Key, Bucket: r.Bucket, Mask: r.Mask}
}

// void gives up records of a member that was excluded with them in doubt (R9),
// the last of a bucket first, and tells the machine of each. The mutex is held.
func (l *seat) void(tail []link.Record) {
	for i := len(tail) - 1; i >= 0; i-- {
		r := tail[i]
		t := l.leave(r.Ref)
		l.s.c.Store.Abandon(t.rec, func(err error) {
			l.call(func() {
				t.result = wire.NotReady // the others may have committed it
				l.over.push(t)
				if err == nil {
					l.step(&link.Event{Kind: link.EventDiscarded, Rec: r})
				}
			})
		})
	}
}

// sendCut sends what a member lacks of a bucket (R9): its marks, and what it has
// lost of the records that it once had; everything, if that is not known, nor the
// marks can be trusted to be all, or the member has nothing of worth. Nothing of the bucket is in flight, and nothing is
// admitted until the machine hears that it is sent.
func (l *seat) sendCut(e link.Effect) {
	var marks []brick.Mark
	known := !e.All
	if till, ok := l.known(&e); e.All && ok {
		known, e.Till = true, till
	}
	if known && e.Prev.Before(e.Till) {
		known = l.past.since(e.Bucket, e.Prev, e.Till, func(p *past) {
			marks = append(marks, brick.Mark{Key: p.key, Bucket: p.bucket, Mask: p.mask})
		})
	}
	how := some
	switch {
	case l.blank.Has(e.Member):
		how = whole
	case !known:
		how = most
	}
	// First it becomes durable that all this is committed here: else, after a
	// crash, it could be taken for a tail and given up in favour of the very
	// member that is to get it.
	l.s.c.Store.AddMissing(l.id, e.Bucket, nil, e.Stamp, func(err error) {
		if err == nil {
			l.call(func() { l.later = append(l.later, func() { l.gather(&e, marks, how) }) })
		}
	})
}

// extent is how much a cut tells to copy.
type extent uint8

const (
	some  extent = iota // what is marked
	most                // and all that is here: what the member has lost is not known
	whole               // and all that is missing here: it has nothing of worth (R14)
)

// gather completes the marks of a cut and sends them. The mutex is not held: the
// map may have to be read.
func (l *seat) gather(e *link.Effect, marks []brick.Mark, how extent) {
	var keep []brick.Mark
	marks, err := l.marked(e.Member, e.Bucket, marks)
	if err == nil && how != some {
		marks, keep, err = l.everything(e.Bucket, how == whole, marks)
	}
	if err == nil && e.All && how != whole && !l.common(e) {
		l.s.c.Log.Warn("a member can't be let in before it is known what it has", "link", l.id, "bucket", e.Bucket, "member", e.Member)
		return // the join will be given up
	}
	if err == nil && l.noteJoin(e.Ver) && l.handOver(e) && l.sendKeep(e, keep) && l.sendMarks(e, marks, how != some) {
		l.post(link.Event{Kind: link.EventCutSent, Member: e.Member, Bucket: e.Bucket, Session: e.Session})
	}
}

// marked appends the brick's marks of a bucket for a member.
func (l *seat) marked(to placement.Member, bucket placement.Bucket, marks []brick.Mark) ([]brick.Mark, error) {
	var from placement.Key
	dst := make([]brick.Mark, 0, 256)
	for {
		got, err := l.s.c.Store.Marks(l.id, to, bucket, from, dst[:0])
		if err != nil {
			return nil, err
		}
		marks = append(marks, got...)
		if len(got) < cap(dst) {
			return marks, nil
		}
		from = got[len(got)-1].Key
	}
}

// everything appends all blocks of the chunks of a bucket that this server has
// anything of; with missing also those that it misses itself. Else it returns
// those apart, but for what is in marks already: the member is to keep what it
// has of them.
func (l *seat) everything(bucket placement.Bucket, missing bool, marks []brick.Mark) (all, keep []brick.Mark, err error) {
	marked := map[placement.Key]placement.Mask{}
	for _, m := range marks {
		marked[m.Key] |= m.Mask
	}
	dst := make([]placement.Key, 0, 256)
	families, err := l.s.c.Store.Families(nil)
	for _, f := range families {
		if !l.s.belongs(f, l.id) {
			continue
		}
		var from placement.Key
		for {
			got, err := l.s.c.Store.Keys(f, bucket, from, dst[:0])
			if err != nil {
				return nil, nil, err
			}
			for _, k := range got {
				var sums brick.Sums
				if err := l.s.c.Store.Sums(k, &sums); err != nil {
					return nil, nil, err
				}
				mask := placement.Full
				if !missing {
					mask &^= sums.Missing
				}
				if rest := placement.Full &^ mask &^ marked[k]; rest != 0 {
					keep = append(keep, brick.Mark{Key: k, Bucket: bucket, Mask: rest})
				}
				if mask != 0 {
					marks = append(marks, brick.Mark{Key: k, Bucket: bucket, Mask: mask})
				}
			}
			if len(got) < cap(dst) {
				break
			}
			from = got[len(got)-1]
		}
	}
	return marks, keep, err
}

// mine is all that this server has of a bucket, but for what it is to keep: who
// tells what to copy may have nothing of it left that would name it.
func (l *seat) mine(bucket placement.Bucket, keep []brick.Mark) (marks []brick.Mark, err error) {
	kept := map[placement.Key]placement.Mask{}
	for _, m := range keep {
		kept[m.Key] |= m.Mask
	}
	all, _, err := l.everything(bucket, true, nil)
	for _, m := range all {
		if m.Mask &^= kept[m.Key]; m.Mask != 0 {
			marks = append(marks, m)
		}
	}
	return marks, err
}

// belongs reports whether a family's chunks are spread by the link's gmap.
func (s *Server) belongs(f placement.Family, id placement.LinkID) bool {
	return s.view.Load().families[f] == id.GMap
}

// sendMarks sends a Cut in as many parts as it needs. With whole all that the
// member has of the bucket counts as marked.
func (l *seat) sendMarks(e *link.Effect, marks []brick.Mark, whole bool) bool {
	l.lock()
	defer l.unlock()
	msg := link.Msg{Kind: link.MsgCut, Ver: e.Ver, Bucket: e.Bucket, Stamp: e.Stamp, Prev: e.Common, Session: e.Session}
	l.sendOps(e)
	for first := true; first || len(marks) > 0; first = false {
		n := min(len(marks), marksMax)
		part := marks[:n]
		marks = marks[n:]
		msg.First, msg.Last = first, len(marks) == 0
		m := l.message(&msg)
		if whole && first {
			m.Code |= codeWhole
		}
		l.body = appendMarks(l.body, part)
		m.Body = l.body
		if !l.post1(e.Member, m) {
			return false
		}
	}
	return true
}

// sendOps tells a member that is let in which operations of a bucket have taken
// effect lately, so that it knows them again if it is head when they are resent
// (R12). The mutex is held.
func (l *seat) sendOps(e *link.Effect) {
	m := &l.msg
	*m = wire.Message{Kind: wire.LinkControl, Link: l.id, Ver: e.Ver, Bucket: e.Bucket, Code: codeOps, Data: m.Data[:0]}
	l.body = l.body[:0]
	l.past.lately(e.Bucket, l.s.now(), func(id placement.OpID) {
		le := binary.LittleEndian
		l.body = le.AppendUint32(le.AppendUint32(l.body, id.Coordinator), id.Incarnation)
		l.body = le.AppendUint64(l.body, id.Number)
	})
	if m.Body = l.body; len(l.body) > 0 {
		l.post1(e.Member, m)
	}
}

const opSize = 16

// learnOps takes what sendOps sent.
func (l *seat) learnOps(m *wire.Message) {
	l.lock()
	defer l.unlock()
	if m.Ver != l.ver || len(m.Body) > opsMax*opSize {
		return
	}
	le, now := binary.LittleEndian, l.s.now()
	for b := m.Body; len(b) >= opSize; b = b[opSize:] {
		l.past.tell(placement.OpID{Coordinator: le.Uint32(b), Incarnation: le.Uint32(b[4:]), Number: le.Uint64(b[8:])}, now)
	}
}

// cut takes a part of what this server lacks of a bucket.
func (l *seat) cut(from placement.Member, m *wire.Message) {
	var msg link.Msg
	marks, ok := parseMarks(m, 0)
	if !ok {
		return
	}
	if m.Code&codeWhole != 0 {
		l.lock()
		keep := l.keep[m.Bucket]
		ok := l.learns(from, m)
		l.unlock()
		own, err := l.mine(m.Bucket, keep)
		if !ok || err != nil {
			return // the sender will have to begin again
		}
		marks = append(marks, own...)
	}
	l.lock()
	l.parse(m, &msg)
	l.cutMarks = marks
	l.step(&link.Event{Kind: link.EventMessage, Member: from, Msg: &msg})
	l.cutMarks = nil
	l.unlock()
}

// storeCut makes the marks in hand missing blocks.
func (l *seat) storeCut(e *link.Effect) {
	for marks := l.cutMarks; len(marks) > 0; {
		n := min(len(marks), marksMax)
		l.s.c.Store.AddMissing(l.id, e.Bucket, marks[:n], placement.Stamp{}, func(err error) {
			if err != nil {
				l.call(func() { l.fail(err) })
			}
		})
		marks = marks[n:]
	}
}

// sealCut makes a cut's stamp the bucket's last, with the missing blocks that
// came before: what was up to there is here, or is known to be missing.
func (l *seat) sealCut(e *link.Effect) {
	bucket := e.Bucket
	l.past.begin(bucket, e.Stamp)
	l.s.c.Store.AddMissing(l.id, bucket, nil, e.Stamp, func(err error) {
		if err != nil {
			l.call(func() { l.fail(err) })
			return
		}
		l.call(func() {
			l.pulls.sealed = append(l.pulls.sealed, bucket)
			l.unseal()
		})
	})
}

// unseal tells the machine of the cuts that are sealed. A member in sync that has
// come to miss blocks by them (R10, R11) must be known to: or else it could be
// kept in preference to the one who has them, whose end would be theirs. So it
// has that agreed on first, as a Rejoined of itself; until then nobody serves the
// link. The mutex is held.
func (l *seat) unseal() {
	if len(l.pulls.sealed) == 0 {
		return
	}
	if l.m.Config().InSync.Has(l.self) && !l.filling.Has(l.self) && l.s.c.Store.MissingCount(l.id) > 0 {
		p := Proposal{Kind: Rejoined, Link: l.id, Member: l.self, Ver: l.ver}
		l.later = append(l.later, func() { l.s.c.Propose(p) })
		if !l.pulls.unsealing { // it may get lost
			l.pulls.unsealing = true
			l.s.c.Clock.AfterFunc(l.s.c.Times.Renewal, func() {
				l.lock()
				if l.pulls.unsealing = false; !l.closed {
					l.unseal()
				}
				l.unlock()
			})
		}
		return
	}
	sealed := l.pulls.sealed
	l.pulls.sealed = nil
	for _, bucket := range sealed {
		l.step(&link.Event{Kind: link.EventCutStored, Bucket: bucket})
	}
}

// dropMarks forgets marks that are void.
func (l *seat) dropMarks(e *link.Effect) {
	done := func(err error) {
		if err == nil { // else the brick has failed
			l.post(link.Event{Kind: link.EventDropped})
		}
	}
	if l.s.c.Store.MarkCount(l.id, e.Member) == 0 {
		done(nil)
		return
	}
	l.s.c.Store.DropMarks(l.id, e.Member, e.Ver, done)
}

// discardAll throws away what this server has of a link: its disk was set back
// or replaced, or another copy was declared to be the right one (R14). Only then
// is the machine told of the configuration. The mutex is held.
func (l *seat) discardAll(v *linkView) {
	if l.discarding == v.config.Ver {
		return
	}
	l.discarding = v.config.Ver
	c := *v
	l.later = append(l.later, func() {
		l.s.c.Store.Discard(l.id, l.s.bucketsOf(l.id), l.s.familiesOf(l.id), func(err error) {
			if err != nil {
				return // the brick has failed
			}
			l.call(func() {
				l.blankAt = c.config.Ver
				l.later = append(l.later, l.catchUp)
			})
		})
	})
}

// catchUp tells the machine what is agreed by now: it was told of nothing while
// things were thrown away, and a lease may wait for the index.
func (l *seat) catchUp() {
	v := l.s.view.Load()
	for i := range v.links {
		if v.links[i].id == l.id {
			l.configure(&v.links[i], v.index)
		}
	}
}

// bucketsOf says which buckets are a link's.
func (s *Server) bucketsOf(id placement.LinkID) func(placement.Bucket) bool {
	g := s.view.Load().gmaps[id.GMap]
	return func(b placement.Bucket) bool { return g != nil && g.LinkOf(b) == id }
}

// familiesOf returns the families whose chunks a link has a part of.
func (s *Server) familiesOf(id placement.LinkID) (out []placement.Family) {
	for f, g := range s.view.Load().families {
		if g == id.GMap {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out
}
