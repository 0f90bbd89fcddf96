package brick

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"petal/journal"
	"petal/placement"
)

// Mark names blocks of a chunk at one node that some copy lacks.
type Mark struct {
	Bucket placement.Bucket
	Key    placement.Key
	Mask   placement.Mask
}

// MarksMax is the most marks of one call of AddMarks or AddMissing.
const MarksMax = 4096

// Notes are what a brick keeps about blocks that a copy lacks. Both kinds begin
// in the journal and reach the map with the destage of their chunk:
//
//	marks    another member lacks them: the survivor's list (R8)
//	         's' | gmap | position | member u8 | bucket u16 | family, chunk, ^node -> mask u16
//	missing  this copy lacks them: the rejoiner's list (R9). The truth is the
//	         mask in the chunk's entry; this finds the chunk:
//	         'i' | gmap | position | bucket u16 | family, chunk, ^node -> mask u16
//
// Keys are big-endian, masks little-endian.
const (
	keyStale   = 's'
	keyLacking = 'i'
	tailSize   = 4 + 8 + 4
)

// markSpace is a member of a link that another keeps marks of.
type markSpace struct {
	link   LinkID
	member placement.Member
}

func staleBucket(s markSpace, bucket placement.Bucket) []byte {
	k := append(appendLink(make([]byte, 0, 32), keyStale, s.link), byte(s.member))
	return binary.BigEndian.AppendUint16(k, uint16(bucket))
}

func lackingBucket(link LinkID, bucket placement.Bucket) []byte {
	return binary.BigEndian.AppendUint16(appendLink(make([]byte, 0, 32), keyLacking, link), uint16(bucket))
}

// appendTail ends a note's key. It sorts like keys of entries do.
func appendTail(b []byte, k placement.Key) []byte {
	return append(b, appendKey(make([]byte, 0, keySize), k)[1:]...)
}

// parseNote decodes what follows the prefix of a note's key, and its value.
func parseNote(tail, v []byte) (k placement.Key, m placement.Mask, err error) {
	if len(tail) != tailSize || len(v) != 2 {
		return k, 0, rotten("map", "has a note %x of %d bytes", tail, len(v))
	}
	k, err = parseKey(append([]byte{keyData}, tail...))
	return k, placement.Mask(binary.LittleEndian.Uint16(v)), err
}

func noteValue(m placement.Mask) []byte { return binary.LittleEndian.AppendUint16(nil, uint16(m)) }

// compareKeys orders keys as the map does: newest node first.
func compareKeys(x, y placement.Key) int {
	return cmp.Or(cmp.Compare(x.Family, y.Family), cmp.Compare(x.Chunk, y.Chunk), cmp.Compare(y.Node, x.Node))
}

// noteGroup is a call of AddMarks or AddMissing under way.
type noteGroup struct {
	mu   sync.Mutex
	left int
	err  error
	end  func(error)
}

func (g *noteGroup) one(_ *Record, err error) {
	g.mu.Lock()
	g.left--
	g.err = cmp.Or(g.err, err)
	over := g.left == 0
	err = g.err
	g.mu.Unlock()
	if over {
		g.end(err)
	}
}

// appendNotes journals marks, each as a record of the brick's own.
func (b *Brick) appendNotes(typ headType, link LinkID, members placement.Members, marks []Mark, end func(error)) {
	if len(marks) > MarksMax {
		panic("brick: too many marks")
	}
	if len(marks) == 0 {
		end(nil)
		return
	}
	if err := b.Failed(); err != nil {
		end(err)
		return
	}
	g := &noteGroup{left: len(marks), end: end}
	records := make([]Record, len(marks))
	for i, m := range marks {
		records[i] = Record{Kind: Absent, Key: m.Key, Mask: m.Mask, Link: link, Bucket: m.Bucket, Excluded: members, Done: g.one, local: typ}
		if !records[i].valid() {
			end(syscall.EINVAL)
			return
		}
	}
	for i := range records {
		r := &records[i]
		p, err := b.take(r, true)
		if err != nil {
			g.one(r, err)
			continue
		}
		b.send(r, p)
	}
}

// note enters a record that says something about what a copy lacks.
func (x *lasts) note(p *pend) {
	if p.excluded == 0 && p.typ != typeMissing {
		return
	}
	x.mu.Lock()
	p.noted = true
	p.last.notes = append(p.last.notes, p)
	x.mu.Unlock()
}

// unnote takes it out again, before it can be another record.
func (x *lasts) unnote(p *pend) {
	if !p.noted {
		return
	}
	x.mu.Lock()
	n := p.last.notes
	i := slices.Index(n, p)
	n[i], n[len(n)-1] = n[len(n)-1], nil
	p.last.notes, p.noted = n[:len(n)-1], false
	x.mu.Unlock()
}

// unmark notes that a control record is durable that voids marks.
func (x *lasts) unmark(p *pend, lsn journal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := p.last
	if l.unmarked == nil {
		l.unmarked = map[placement.Member]unmarkPoint{}
		x.unmarked = append(x.unmarked, l)
	}
	for s := p.excluded; s != 0; s = s.Without(s.First()) {
		if l.unmarked[s.First()].lsn < lsn {
			l.unmarked[s.First()] = unmarkPoint{lsn: lsn}
		}
	}
}

// unmarkedAt returns up to which LSN marks of a member do not count in a bucket.
func (x *lasts) unmarkedAt(l *last, m placement.Member) unmarkPoint {
	x.mu.Lock()
	defer x.mu.Unlock()
	return l.unmarked[m]
}

// prune forgets unmarks that no record can be older than.
func (x *lasts) prune(applied journal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	kept := x.unmarked[:0]
	for _, l := range x.unmarked {
		for m, u := range l.unmarked {
			if u.inMap && u.lsn <= applied {
				delete(l.unmarked, m)
			}
		}
		if len(l.unmarked) > 0 {
			kept = append(kept, l)
		} else {
			l.unmarked = nil
		}
	}
	clear(x.unmarked[len(kept):])
	x.unmarked = kept
}

// pendingNotes returns, in order of key, what records that the map does not know
// say about blocks of a bucket: marks of a member, or with missing what this copy
// lacks. Prepared records count.
func (x *lasts) pendingNotes(l *last, m placement.Member, missing bool, after placement.Key) (marks []Mark, u unmarkPoint) {
	x.mu.Lock()
	defer x.mu.Unlock()
	u = l.unmarked[m]
	all := map[placement.Key]placement.Mask{}
	for _, p := range l.notes {
		if missing != (p.typ == typeMissing) || !missing && (!p.excluded.Has(m) || !p.above(u.lsn)) {
			continue
		}
		if after.Family == 0 || compareKeys(p.key, after) > 0 {
			all[p.key] |= p.mask
		}
	}
	for k, m := range all {
		marks = append(marks, Mark{l.bucket, k, m})
	}
	slices.SortFunc(marks, func(x, y Mark) int { return compareKeys(x.Key, y.Key) })
	return marks, u
}

var errEnough = errors.New("enough")

// mergeNotes appends to dst the notes of a bucket, those in the map under prefix
// and the pending ones, ascending after a key, until dst is full.
func (b *Brick) mergeNotes(dst []Mark, bucket placement.Bucket, prefix []byte, after placement.Key, pending []Mark) ([]Mark, error) {
	add := func(k placement.Key, m placement.Mask) error {
		if n := len(dst); n > 0 && dst[n-1].Bucket == bucket && dst[n-1].Key == k {
			dst[n-1].Mask |= m
			return nil
		}
		if len(dst) == cap(dst) {
			return errEnough
		}
		dst = append(dst, Mark{bucket, k, m})
		return nil
	}
	upTo := func(k *placement.Key) error {
		for len(pending) > 0 && (k == nil || compareKeys(pending[0].Key, *k) <= 0) {
			if err := add(pending[0].Key, pending[0].Mask); err != nil {
				return err
			}
			pending = pending[1:]
		}
		return nil
	}
	var err error
	if prefix != nil {
		lo := prefix
		if after.Family != 0 {
			lo = append(appendTail(slices.Clone(prefix), after), 0)
		}
		err = b.pmap.raw(lo, keyAfter(prefix), func(k, v []byte) error {
			key, m, err := parseNote(k[len(prefix):], v)
			if err != nil {
				return err
			}
			if err := upTo(&key); err != nil {
				return err
			}
			return add(key, m)
		})
	}
	if err == nil {
		err = upTo(nil)
	}
	if err == errEnough {
		err = nil
	}
	return dst, err
}

// noteBatch enters what a batch's records say into the map.
type noteBatch struct {
	b       *Brick
	batch   *pebble.Batch
	lacking map[LinkID]int64
	stale   map[markSpace]int64
}

func newNoteBatch(b *Brick, batch *pebble.Batch) *noteBatch {
	return &noteBatch{b: b, batch: batch}
}

func (n *noteBatch) add(p *chunkPlan) error {
	if err := n.addMissing(p); err != nil {
		return err
	}
	for i, r := range p.records {
		if r.excluded == 0 {
			continue
		}
		for s := r.excluded; s != 0; s = s.Without(s.First()) {
			if err := n.addMarks(p, i, s.First()); err != nil {
				return err
			}
		}
	}
	return nil
}

// addMissing keeps the index of missing blocks in step with the chunk's entry.
func (n *noteBatch) addMissing(p *chunkPlan) error {
	if p.was.Missing == p.is.Missing {
		return nil
	}
	var l *last
	for _, r := range p.records {
		if l == nil || r.typ == typeMissing {
			l = r.last
		}
	}
	if n.lacking == nil {
		n.lacking = map[LinkID]int64{}
	}
	n.lacking[l.link] += int64(blocks(p.is.Missing) - blocks(p.was.Missing))
	k := appendTail(lackingBucket(l.link, l.bucket), p.key)
	if p.is.Missing == 0 {
		return n.batch.Delete(k, nil)
	}
	return n.batch.Set(k, noteValue(p.is.Missing), nil)
}

// addMarks adds the marks that a plan's records, from the i'th on, make of a
// member; the first of a bucket speaks for all of it.
func (n *noteBatch) addMarks(p *chunkPlan, i int, m placement.Member) error {
	l := p.records[i].last
	u := n.b.lasts.unmarkedAt(l, m)
	var add placement.Mask
	for j, r := range p.records {
		if r.last != l || !r.excluded.Has(m) {
			continue
		}
		if j < i {
			return nil // done with that one
		}
		if r.LSN() > u.lsn {
			add |= r.mask
		}
	}
	if add == 0 {
		return nil
	}
	space := markSpace{l.link, m}
	k := appendTail(staleBucket(space, l.bucket), p.key)
	old, c, err := n.b.pmap.db.Get(k)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if n.stale == nil {
			n.stale = map[markSpace]int64{}
		}
		n.stale[space]++
	case err != nil:
		return err
	default:
		_, had, err := parseNote(k[len(k)-tailSize:], old)
		c.Close()
		if err != nil {
			return err
		}
		if had|add == had {
			return nil
		}
		add |= had
	}
	return n.batch.Set(k, noteValue(add), nil)
}

// applied counts what the batch has brought.
func (n *noteBatch) applied() { n.b.count(n.lacking, n.stale) }

func (b *Brick) count(lacking map[LinkID]int64, stale map[markSpace]int64) {
	if lacking == nil && stale == nil {
		return
	}
	b.usageMu.Lock()
	defer b.usageMu.Unlock()
	for l, n := range lacking {
		b.lacking[l] += n
	}
	for s, n := range stale {
		b.stale[s] += n
	}
}

// loadNotes counts the notes in the map, at open.
func (b *Brick) loadNotes() error {
	err := b.pmap.raw([]byte{keyLacking}, []byte{keyLacking + 1}, func(k, v []byte) error {
		if len(k) != 1+8+2+tailSize {
			return rotten("map", "has a note %x", k)
		}
		_, m, err := parseNote(k[11:], v)
		b.lacking[parseLink(k)] += int64(bits.OnesCount16(uint16(m)))
		return err
	})
	if err != nil {
		return err
	}
	return b.pmap.raw([]byte{keyStale}, []byte{keyStale + 1}, func(k, v []byte) error {
		if len(k) != 1+8+1+2+tailSize {
			return rotten("map", "has a note %x", k)
		}
		_, _, err := parseNote(k[12:], v)
		b.stale[markSpace{parseLink(k), placement.Member(k[9])}]++
		return err
	})
}

// parseLink decodes the link of a key.
func parseLink(k []byte) LinkID {
	return LinkID{GMap: binary.BigEndian.Uint32(k[1:]), Position: binary.BigEndian.Uint32(k[5:])}
}
