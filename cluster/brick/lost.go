package brick

import (
	"cmp"
	"fmt"
	"slices"

	"petal/journal"
	"petal/placement"
)

// place of a bucket in maps.
type bucketID struct {
	link   LinkID
	bucket placement.Bucket
}

// limits are stamps that buckets must not claim to have, nor any after them: of
// records that were torn or are lost.
type limits struct {
	at    map[bucketID]placement.Stamp
	given map[bucketID]*GivenUp // what is lost of these is given up
}

func newLimits() *limits { return &limits{map[bucketID]placement.Stamp{}, map[bucketID]*GivenUp{}} }

func (x *limits) add(id bucketID, s placement.Stamp) {
	if s == (placement.Stamp{}) {
		return
	}
	if was, ok := x.at[id]; !ok || s.Before(was) {
		x.at[id] = s
	}
}

// beyond reports whether a stamp is at or behind the bucket's limit.
func (x *limits) beyond(id bucketID, s placement.Stamp) bool {
	at, ok := x.at[id]
	return ok && s != (placement.Stamp{}) && !s.Before(at)
}

// impose cuts the lasts back to before the limits, in the map too: or the next
// life would take them for complete when the journal tells no more of the gap.
func (x *limits) impose(b *Brick) {
	for id, at := range x.at {
		l := b.lasts.get(id.link, id.bucket)
		before := placement.Stamp{Ver: at.Ver, Seq: at.Seq - 1}
		if at.Seq <= 1 { // the last of the version before is not known
			before = placement.Stamp{}
		}
		if l.Committed.Before(at) && before.Before(l.Committed) {
			before = l.Committed
		}
		if !l.Durable.Before(at) {
			l.Durable = before
		}
		if !l.Committed.Before(at) {
			l.Committed = before
			b.order.soil(l)
		}
	}
}

// cutOrder undoes records in doubt that lie behind a torn or lost one of their
// bucket, and returns them with the torn ones.
func (b *Brick) cutOrder(log []logged, torn []*logged, x *limits) []*logged {
	if !b.o.HoldPrepared {
		return torn
	}
	for _, r := range torn {
		x.add(bucketID{r.head.Link, r.head.Bucket}, r.head.stamp())
	}
	for i := range log {
		r := &log[i]
		h := &r.head
		if r.void || r.committed || r.home || !h.Type.ordered() || !x.beyond(bucketID{h.Link, h.Bucket}, h.stamp()) {
			continue
		}
		r.void = true
		torn = append(torn, r)
	}
	return torn
}

// lost finds the acknowledged records of which not even the head is left. What
// they wrote is gone, and nobody can say which blocks that were: unless another
// member of the link or the operator answers for it, the brick must not serve
// the older data that it has in their place.
//
// A record whose head is sound is not lost in this sense: its blocks are known
// and answer with a medium error.
func (b *Brick) lost(applied journal.LSN, ranges []journal.Range, log []logged, x *limits, rec *Recovery) error {
	known := make(map[journal.LSN]bool, len(log))
	for i := range log {
		known[log[i].lsn] = true
	}
	count := 0
	for _, r := range ranges {
		for l := max(r.From, applied+1); l <= r.To; l++ {
			if known[l] {
				continue
			}
			count++
			if n := len(rec.Lost); n > 0 && rec.Lost[n-1].To+1 == l {
				rec.Lost[n-1].To = l
			} else {
				rec.Lost = append(rec.Lost, LostRange{l, l})
			}
		}
	}
	if count == 0 {
		return nil
	}
	b.o.Log.Error("acknowledged writes are lost: their records have rotted in the journal", "records", count, "ranges", rec.Lost, "accepted", b.o.AcceptLoss)
	if b.o.HoldPrepared {
		rec.LostUnknown = max(0, count-b.findGaps(log, rec))
		if ask := b.o.OnLost; ask != nil {
			if err := ask(rec); err != nil {
				return err
			}
		}
		b.addGaps(rec, log, x)
		return nil
	}
	if b.o.AcceptLoss {
		return nil
	}
	return &FormatError{ErrRotten, "journal",
		fmt.Sprintf("%d acknowledged writes have rotted before they came home (records %d to %d), and which blocks they were is not known", count, rec.Lost[0].From, rec.Lost[len(rec.Lost)-1].To),
		"restore the disks from a backup; or `petal serve --accept-loss` serves what those blocks held before"}
}

// findGaps finds stamps that lost records must have had: the numbers of a version
// have no gaps and begin with 1, and the map knows the last of what the journal
// has no more, and may have been further. It returns how many that are at least.
func (b *Brick) findGaps(log []logged, rec *Recovery) (count int) {
	seen := map[bucketID]placement.Stamp{}
	gap := func(id bucketID, from, to placement.Stamp) {
		first := placement.Stamp{Ver: to.Ver, Seq: 1}
		if from.Ver == to.Ver {
			first.Seq = from.Seq + 1
		}
		if from.Ver > to.Ver || to.Seq < first.Seq {
			return
		}
		rec.Gaps = append(rec.Gaps, Gap{Link: id.link, Bucket: id.bucket, First: first, Last: to})
		count += int(to.Seq - first.Seq + 1)
	}
	var order []bucketID
	for i := range log {
		h := &log[i].head
		s := h.stamp()
		if !h.Type.ordered() && h.Type != typeCut || s == (placement.Stamp{}) || log[i].moved || log[i].home && h.Origin != 0 {
			continue // one that was carried says nothing of those beside its old place
		}
		id := bucketID{h.Link, h.Bucket}
		was, ok := seen[id]
		if l := b.lasts.find(id.link, id.bucket); !ok {
			order = append(order, id)
			if l != nil {
				was = l.Committed
			}
		}
		if h.Type != typeCut {
			gap(id, was, placement.Stamp{Ver: s.Ver, Seq: s.Seq - 1})
		}
		seen[id] = s
	}
	for _, id := range order {
		if l := b.lasts.find(id.link, id.bucket); l != nil {
			gap(id, seen[id], l.Committed)
		}
	}
	return count
}

// addGaps limits the buckets that have gaps. In those of which the lost records are
// given up that is not before the first of the records in doubt behind the last
// one that all other members lack.
func (b *Brick) addGaps(rec *Recovery, log []logged, x *limits) {
	links := map[LinkID]*GivenUp{}
	for i := range rec.GivenUp {
		links[rec.GivenUp[i].Link] = &rec.GivenUp[i]
	}
	for _, g := range rec.Gaps {
		if id := (bucketID{g.Link, g.Bucket}); links[g.Link] == nil {
			x.add(id, g.First)
		} else {
			x.given[id] = links[g.Link]
		}
	}
	if rec.LostUnknown > 0 {
		for i := range rec.GivenUp {
			for _, l := range b.lasts.buckets(rec.GivenUp[i].Link) {
				x.given[bucketID{l.link, l.bucket}] = &rec.GivenUp[i]
			}
		}
		for i := range log {
			if h := &log[i].head; h.Type.ordered() && links[h.Link] != nil {
				x.given[bucketID{h.Link, h.Bucket}] = links[h.Link]
			}
		}
	}
	own := map[bucketID]placement.Stamp{} // the last that all others lack
	for i := range log {
		h := &log[i].head
		id := bucketID{h.Link, h.Bucket}
		if g := x.given[id]; g != nil && log[i].undecided() && h.Excluded&g.Lacking == g.Lacking && own[id].Before(h.stamp()) {
			own[id] = h.stamp()
		}
	}
	for i := range log {
		h := &log[i].head
		if id := (bucketID{h.Link, h.Bucket}); x.given[id] != nil && log[i].undecided() && own[id].Before(h.stamp()) {
			x.add(id, h.stamp())
		}
	}
}

// undecided reports whether the record is in doubt.
func (r *logged) undecided() bool {
	return r.head.Type.ordered() && r.head.stamp() != (placement.Stamp{}) && !r.void && !r.committed && !r.home
}

// give makes what is left of the buckets of which the lost records are given up
// count as committed.
func (x *limits) give(log []logged) {
	for i := range log {
		if h := &log[i].head; x.given[bucketID{h.Link, h.Bucket}] != nil && log[i].undecided() {
			log[i].committed = true
		}
	}
}

// closeGaps has the lasts, and the next life, know of it.
func (b *Brick) closeGaps(x *limits) {
	var all []head
	for id, g := range x.given {
		all = append(all, head{Type: typeCut, Link: id.link, Bucket: id.bucket, Ver: g.Ver, Seq: 1})
	}
	slices.SortFunc(all, func(x, y head) int {
		return cmp.Or(cmp.Compare(x.Link.GMap, y.Link.GMap), cmp.Compare(x.Link.Position, y.Link.Position), cmp.Compare(x.Bucket, y.Bucket))
	})
	for i := range all {
		b.takeEffect(&all[i])
		b.appendMark(all[i], func(error) {})
	}
}
