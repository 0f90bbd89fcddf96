package brick

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"petal/journal"
	"petal/placement"
)

// Last says how far the order of a bucket has come here (R10).
type Last struct {
	Durable   placement.Stamp // the greatest that is durable, committed or prepared
	Committed placement.Stamp // the greatest that is committed; never after Durable
}

// last is what the brick knows of one bucket of a link.
type last struct {
	link   LinkID
	bucket placement.Bucket

	Last          // under order.mu
	past  History // of what is committed; under order.mu
	dirty bool    // Committed is greater than in the map; under order.mu

	notes []*pend // records that mark blocks or say that they are missing; under lasts.mu
}

// lasts finds the last of a bucket.
type lasts struct {
	mu    sync.Mutex
	links map[LinkID]*[placement.Buckets]*last

	void map[markSpace]uint64 // marks made under a lower version do not count
}

func (x *lasts) init() {
	x.links, x.void = map[LinkID]*[placement.Buckets]*last{}, map[markSpace]uint64{}
}

func (x *lasts) get(link LinkID, bucket placement.Bucket) *last {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.links[link]
	if t == nil {
		t = new([placement.Buckets]*last)
		x.links[link] = t
	}
	l := t[bucket]
	if l == nil {
		l = &last{link: link, bucket: bucket}
		t[bucket] = l
	}
	return l
}

// buckets returns the buckets of a link that something is known of, ascending.
func (x *lasts) buckets(link LinkID) (all []*last) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t := x.links[link]; t != nil {
		for _, l := range t {
			if l != nil {
				all = append(all, l)
			}
		}
	}
	return all
}

// Lasts calls f for each bucket of a link in which a record with a stamp has
// been durable here since the brick was made or the link discarded, ascending.
// It survives destage, trim and crash. f must not call the brick.
//
// After Open, Durable is without gaps: a record that is in doubt and lies behind
// one of its bucket that was torn or has rotted is undone by Open. Nobody was
// told of it if acknowledgements go out in the order of stamps (R3). While
// records are under way, Durable is the greatest that is Done.
func (b *Brick) Lasts(link LinkID, f func(placement.Bucket, Last)) {
	for _, l := range b.lasts.buckets(link) {
		b.order.mu.Lock()
		now := l.Last
		b.order.mu.Unlock()
		if now != (Last{}) {
			f(l.bucket, now)
		}
	}
}

// counts reports whether the record is of its bucket's order.
func (p *pend) counts() bool { return p.typ.ordered() && p.stamp != (placement.Stamp{}) }

// advanceTo notes what has become of a record. order.mu is held.
func (o *order) advanceTo(p *pend, state uint32) {
	l := p.last
	if state&(stateDurable|stateSettled) != stateDurable|stateSettled || !p.counts() {
		return
	}
	if l.Durable.Before(p.stamp) {
		l.Durable = p.stamp
	}
	if state&stateCommitted == 0 {
		return
	}
	news := l.past.add(p.stamp)
	if l.Committed.Before(p.stamp) {
		l.Committed, news = p.stamp, true
	}
	if news {
		o.soil(l)
	}
}

// soil remembers that the map is behind. order.mu is held.
func (o *order) soil(l *last) {
	if !l.dirty {
		l.dirty = true
		o.dirty = append(o.dirty, l)
	}
}

// cutTo says that everything of a bucket up to a stamp is committed here, or
// known to be missing.
func (o *order) cutTo(l *last, s placement.Stamp) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.Durable.Before(s) {
		l.Durable = s
	}
	l.past.add(s)
	if l.Committed.Before(s) {
		l.Committed = s
		o.soil(l)
	}
}

// retreat takes back that a record, which was the last of its bucket, is
// durable. Its predecessor has the number before; the first of a version has one
// that is not known, so what is committed stands for it.
func (o *order) retreat(p *pend) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := p.last
	if !p.counts() || l.Durable.Before(p.stamp) {
		return
	}
	before := placement.Stamp{Ver: p.stamp.Ver, Seq: p.stamp.Seq - 1}
	if p.stamp.Seq <= 1 || before.Before(l.Committed) {
		before = l.Committed
	}
	l.Durable = before
}

// Keys of lasts in the map, and their values.
//
//	'l' | gmap u32 | position u32 | bucket u16   big-endian: ver u64, seq u64, little-endian;
//	    then the history: from u64, and ver u64, seq u64 of each end but the last,
//	    which is the same. Without it (from before there was one) no more is known
//	"mlasts"                                     u64: the lasts know every record up to this LSN
const (
	keyLast     = 'l'
	lastKeySize = 1 + 4 + 4 + 2
)

var keyLasts = []byte("mlasts")

func appendLink(b []byte, prefix byte, link LinkID) []byte {
	b = append(b, prefix)
	b = binary.BigEndian.AppendUint32(b, link.GMap)
	return binary.BigEndian.AppendUint32(b, link.Position)
}

// linkBounds returns the keys of a link under a prefix: from lo up to, not
// including, hi.
func linkBounds(prefix byte, link LinkID) (lo, hi []byte) {
	lo = appendLink(nil, prefix, link)
	return lo, keyAfter(lo)
}

// keyAfter returns the first key after all that begin with k, or nil if there is none.
func keyAfter(k []byte) []byte {
	k = slices.Clone(k)
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			return k[:i+1]
		}
	}
	return nil
}

// set puts what is committed of a bucket into a batch.
func (l *last) set(batch *pebble.Batch, value []byte) error {
	k := appendLink(make([]byte, 0, lastKeySize), keyLast, l.link)
	k = binary.BigEndian.AppendUint16(k, uint16(l.bucket))
	return batch.Set(k, value, nil)
}

// value is what the map says of a bucket. order.mu is held.
func (l *last) value() []byte {
	le := binary.LittleEndian
	v := make([]byte, 0, 24+16*len(l.past.Ends))
	v = le.AppendUint64(le.AppendUint64(v, l.Committed.Ver), l.Committed.Seq)
	v = le.AppendUint64(v, l.past.From)
	for _, s := range l.past.Ends {
		if s != l.Committed {
			v = le.AppendUint64(le.AppendUint64(v, s.Ver), s.Seq)
		}
	}
	return v
}

// parse takes a value of the map; false if it is none.
func (l *last) parse(v []byte) bool {
	le := binary.LittleEndian
	if len(v) < 16 || len(v)%16 != 8 && len(v) != 16 || len(v) > 24+16*historyEnds {
		return false
	}
	l.Committed = placement.Stamp{Ver: le.Uint64(v), Seq: le.Uint64(v[8:])}
	l.Durable, l.past = l.Committed, History{From: l.Committed.Ver}
	if v = v[16:]; len(v) > 0 {
		l.past.From = le.Uint64(v)
		for v = v[8:]; len(v) > 0; v = v[16:] {
			l.past.add(placement.Stamp{Ver: le.Uint64(v), Seq: le.Uint64(v[8:])})
		}
	}
	l.past.add(l.Committed)
	return true
}

// lastsBehind puts into a batch the lasts of records that are in the map though
// an older one is not: recovery takes them for committed by that. The others are
// in the journal until the next flush of the map.
func (b *Brick) lastsBehind(batch *pebble.Batch, done []*pend, applied journal.LSN) error {
	for _, p := range done {
		if p.LSN() <= applied {
			continue
		}
		if p.LSN() != p.turn() {
			if err := batch.Set(carriedHome(p.LSN()), nil, nil); err != nil {
				return err
			}
		}
		if !p.counts() {
			continue
		}
		b.order.mu.Lock()
		value := p.last.value()
		b.order.mu.Unlock()
		if err := p.last.set(batch, value); err != nil {
			return err
		}
	}
	return nil
}

// flushLasts puts all lasts that the map is behind of into a batch.
func (b *Brick) flushLasts(batch *pebble.Batch, applied journal.LSN) error {
	type now struct {
		l     *last
		value []byte
	}
	o := &b.order
	o.mu.Lock()
	all := make([]now, 0, len(o.dirty))
	for _, l := range o.dirty {
		l.dirty = false
		all = append(all, now{l, l.value()})
	}
	o.dirty = o.dirty[:0]
	o.mu.Unlock()
	slices.SortFunc(all, func(x, y now) int {
		return cmp.Or(cmp.Compare(x.l.link.GMap, y.l.link.GMap), cmp.Compare(x.l.link.Position, y.l.link.Position), cmp.Compare(x.l.bucket, y.l.bucket))
	})
	for _, x := range all {
		if err := x.l.set(batch, x.value); err != nil {
			return err
		}
	}
	if err := batch.DeleteRange([]byte{keyCarried}, carriedHome(applied+1), nil); err != nil {
		return err
	}
	return batch.Set(keyLasts, binary.LittleEndian.AppendUint64(nil, uint64(applied)), nil)
}

// loadLasts reads the lasts from the map, at open.
func (b *Brick) loadLasts() error {
	return b.pmap.raw([]byte{keyLast}, []byte{keyLast + 1}, func(k, v []byte) error {
		if len(k) != lastKeySize || binary.BigEndian.Uint16(k[9:]) >= placement.Buckets {
			return rotten("map", "has a last %x", k)
		}
		link := LinkID{GMap: binary.BigEndian.Uint32(k[1:]), Position: binary.BigEndian.Uint32(k[5:])}
		l := b.lasts.get(link, placement.Bucket(binary.BigEndian.Uint16(k[9:])))
		if !l.parse(v) {
			return rotten("map", "has a last of %d bytes", len(v))
		}
		return nil
	})
}

// raw calls f for each key in [lo, hi), in order. What it gets is valid during
// the call.
func (m *pmap) raw(lo, hi []byte, f func(k, v []byte) error) error {
	it, err := m.db.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("brick: map: %w", err)
		}
		if err := f(it.Key(), v); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	return nil
}
