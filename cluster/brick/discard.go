package brick

import (
	"errors"
	"slices"

	"petal/placement"
)

// Discard forgets everything of a link: what families have in its buckets, the
// marks and missing blocks of the link, and how far its buckets have come. done is
// called when all of that is so, durably, which takes a destage; it must not
// block, and may be called before Discard returns if the brick has failed. The
// caller has no record or read of the link under way, nor prepared ones left.
func (b *Brick) Discard(link LinkID, buckets func(placement.Bucket) bool, families []placement.Family, done func(error)) {
	set := new(bucketSet)
	for i := range placement.Bucket(placement.Buckets) {
		if buckets(i) {
			set.add(i)
		}
	}
	families = slices.DeleteFunc(slices.Clone(families), func(f placement.Family) bool { return f == 0 })
	g := &noteGroup{left: len(families) + 1, end: done}
	for _, f := range append(families, 0) { // last the link itself
		b.appendControl(head{Type: typeDiscard, Key: placement.Key{Family: f}, Link: link, Buckets: set}, func(err error) {
			if c := b.o.Cache; c != nil && err == nil && f != 0 {
				c.DropFamily(f)
			}
			g.one(nil, err)
		})
	}
	b.kickDestage()
}

// destageDiscard does one family's part of Discard, or the link's: its batch.
func (b *Brick) destageDiscard(p *pend) error {
	f, link := p.key.Family, p.last.link
	x := b.erase(p)
	defer x.batch.Close()
	for i := range b.pending.shards { // readers that are looking look again
		s := &b.pending.shards[i]
		s.mu.Lock()
		s.moves++
		s.mu.Unlock()
	}
	if f == 0 {
		if err := b.eraseLasts(x, p); err != nil {
			return err
		}
	} else {
		lacking, lackingEnd := linkBounds(keyLacking, link)
		stale, staleEnd := linkBounds(keyStale, link)
		err := errors.Join(x.entries(f, p.set), x.notes(f, lacking, lackingEnd, lackingSize-tailSize), x.notes(f, stale, staleEnd, staleSize-tailSize))
		if err != nil {
			return err
		}
	}
	if err := x.apply(f); err != nil {
		return err
	}
	if p.then != nil {
		p.then(nil)
	}
	return nil
}

// eraseLasts takes the link's lasts out of the map, but for what has been
// committed since.
func (b *Brick) eraseLasts(x *erasure, p *pend) error {
	lo, hi := linkBounds(keyLast, p.last.link)
	if err := x.batch.DeleteRange(lo, hi, nil); err != nil {
		return err
	}
	for _, l := range b.lasts.buckets(p.last.link) {
		b.order.mu.Lock()
		none, value := l.Committed == placement.Stamp{}, l.value()
		b.order.mu.Unlock()
		if none {
			continue
		}
		if err := l.set(x.batch, value); err != nil {
			return err
		}
	}
	return nil
}

// forgetLasts makes the order of a link begin again. It is called when the record
// that says so is durable.
func (b *Brick) forgetLasts(link LinkID) {
	for _, l := range b.lasts.buckets(link) {
		b.order.mu.Lock()
		l.Last, l.past = Last{}, History{}
		b.order.mu.Unlock()
	}
}
