package brick

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

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
//	         's' | gmap | position | member u8 | bucket u16 | family, chunk, ^node -> mask u16, ver u64
//	         'u' | gmap | position | member u8 -> ver u64: marks of a lower version are void
//	missing  this copy lacks them: the rejoiner's list (R9). The truth is the
//	         mask in the chunk's entry; this finds the chunk:
//	         'i' | gmap | position | bucket u16 | family, chunk, ^node -> mask u16
//
// Keys are big-endian, values little-endian. The version of a mark is the greatest
// under which any of its blocks was marked.
const (
	keyStale     = 's'
	keyUnmarked  = 'u'
	keyLacking   = 'i'
	tailSize     = 4 + 8 + 4
	staleSize    = 1 + 8 + 1 + 2 + tailSize // of the keys
	lackingSize  = 1 + 8 + 2 + tailSize
	unmarkedSize = 1 + 8 + 1
)

// markSpace is a member of a link that another keeps marks of.
type markSpace struct {
	link   LinkID
	member placement.Member
}

func (s markSpace) key(prefix byte) []byte {
	return append(appendLink(make([]byte, 0, 32), prefix, s.link), byte(s.member))
}

func staleBucket(s markSpace, bucket placement.Bucket) []byte {
	return binary.BigEndian.AppendUint16(s.key(keyStale), uint16(bucket))
}

func lackingBucket(link LinkID, bucket placement.Bucket) []byte {
	return binary.BigEndian.AppendUint16(appendLink(make([]byte, 0, 32), keyLacking, link), uint16(bucket))
}

// appendTail ends a note's key. It sorts like keys of entries do.
func appendTail(b []byte, k placement.Key) []byte {
	return append(b, appendKey(make([]byte, 0, keySize), k)[1:]...)
}

// parseNote decodes what follows the prefix of a note's key, and its value. A
// note without a version has the highest.
func parseNote(tail, v []byte) (k placement.Key, m placement.Mask, ver uint64, err error) {
	if len(tail) != tailSize || len(v) != 2 && len(v) != 10 {
		return k, 0, 0, rotten("map", "has a note %x of %d bytes", tail, len(v))
	}
	ver = 1<<64 - 1
	if len(v) == 10 {
		ver = binary.LittleEndian.Uint64(v[2:])
	}
	k, err = parseKey(append([]byte{keyData}, tail...))
	return k, placement.Mask(binary.LittleEndian.Uint16(v)), ver, err
}

func lackingValue(m placement.Mask) []byte { return binary.LittleEndian.AppendUint16(nil, uint16(m)) }

func markValue(m placement.Mask, ver uint64) []byte {
	return binary.LittleEndian.AppendUint64(lackingValue(m), ver)
}

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

// appendNotes journals marks, each as a record of the brick's own, and behind
// them what last says, if anything.
func (b *Brick) appendNotes(typ headType, link LinkID, members placement.Members, marks []Mark, ver uint64, last *head, end func(error)) {
	if len(marks) > MarksMax {
		panic("brick: too many marks")
	}
	g := &noteGroup{left: len(marks) + 1, end: end}
	records := make([]Record, len(marks))
	err := b.Failed()
	for i, m := range marks {
		records[i] = Record{Kind: Absent, Key: m.Key, Mask: m.Mask, Link: link, Bucket: m.Bucket, Ver: ver, Excluded: members, Done: g.one, local: typ}
		if !records[i].valid() {
			err = cmp.Or(err, error(syscall.EINVAL))
		}
	}
	if err != nil {
		end(err)
		return
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
	if last == nil {
		g.one(nil, nil)
		return
	}
	b.appendMark(*last, func(err error) { g.one(nil, err) })
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

// voidBefore makes marks of a version below ver count no more.
func (x *lasts) voidBefore(s markSpace, ver uint64) {
	x.mu.Lock()
	x.void[s] = max(x.void[s], ver)
	x.mu.Unlock()
}

// voidAt returns the version below which marks do not count.
func (x *lasts) voidAt(s markSpace) uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.void[s]
}

// marks reports whether the record marks blocks of a member, with marks of a
// version below ver void.
func (p *pend) marks(m placement.Member, ver uint64) bool {
	return p.excluded.Has(m) && p.stamp.Ver >= ver
}

// pendingNotes returns, in order of key, what records that the map does not know
// say about blocks of a bucket: marks of a member, or with missing what this copy
// lacks. Prepared records count.
func (x *lasts) pendingNotes(l *last, m placement.Member, missing bool, after placement.Key) (marks []Mark) {
	x.mu.Lock()
	defer x.mu.Unlock()
	void := x.void[markSpace{l.link, m}]
	all := map[placement.Key]placement.Mask{}
	for _, p := range l.notes {
		if missing != (p.typ == typeMissing) || !missing && !p.marks(m, void) {
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
	return marks
}

var errEnough = errors.New("enough")

// mergeNotes appends to dst the notes of a bucket, those in the map under prefix
// that are not void and the pending ones, ascending after a key, until dst is full.
func (b *Brick) mergeNotes(dst []Mark, bucket placement.Bucket, prefix []byte, void uint64, after placement.Key, pending []Mark) ([]Mark, error) {
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
	lo := prefix
	if after.Family != 0 {
		lo = append(appendTail(slices.Clone(prefix), after), 0)
	}
	err := b.pmap.raw(lo, keyAfter(prefix), func(k, v []byte) error {
		key, m, ver, err := parseNote(k[len(prefix):], v)
		if err != nil || ver < void {
			return err
		}
		if err := upTo(&key); err != nil {
			return err
		}
		return add(key, m)
	})
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
	return n.batch.Set(k, lackingValue(p.is.Missing), nil)
}

// addMarks adds the marks that a plan's records, from the i'th on, make of a
// member; the first of a bucket speaks for all of it.
func (n *noteBatch) addMarks(p *chunkPlan, i int, m placement.Member) error {
	l := p.records[i].last
	space := markSpace{l.link, m}
	void := n.b.lasts.voidAt(space)
	var add placement.Mask
	var ver uint64
	for j, r := range p.records {
		if r.last != l || !r.excluded.Has(m) {
			continue
		}
		if j < i {
			return nil // done with that one
		}
		if r.marks(m, void) {
			add |= r.mask
			ver = max(ver, r.stamp.Ver)
		}
	}
	if add == 0 {
		return nil
	}
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
		_, had, hadVer, err := parseNote(k[len(k)-tailSize:], old)
		c.Close()
		if err != nil || had|add == had && ver <= hadVer {
			return err
		}
		if hadVer >= void {
			add, ver = add|had, max(ver, hadVer)
		}
	}
	return n.batch.Set(k, markValue(add, ver), nil)
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
	count := func(prefix byte, size int, f func(k []byte, m placement.Mask)) error {
		return b.pmap.raw([]byte{prefix}, []byte{prefix + 1}, func(k, v []byte) error {
			if len(k) != size {
				return rotten("map", "has a note %x", k)
			}
			_, m, _, err := parseNote(k[size-tailSize:], v)
			f(k, m)
			return err
		})
	}
	return errors.Join(
		count(keyLacking, lackingSize, func(k []byte, m placement.Mask) { b.lacking[parseLink(k)] += int64(blocks(m)) }),
		count(keyStale, staleSize, func(k []byte, _ placement.Mask) { b.stale[markSpace{parseLink(k), placement.Member(k[9])}]++ }),
		b.pmap.raw([]byte{keyUnmarked}, []byte{keyUnmarked + 1}, func(k, v []byte) error {
			if len(k) != unmarkedSize || len(v) != 8 {
				return rotten("map", "has an unmark %x of %d bytes", k, len(v))
			}
			b.lasts.voidBefore(markSpace{parseLink(k), placement.Member(k[9])}, binary.LittleEndian.Uint64(v))
			return nil
		}))
}

// parseLink decodes the link of a key.
func parseLink(k []byte) LinkID {
	return LinkID{GMap: binary.BigEndian.Uint32(k[1:]), Position: binary.BigEndian.Uint32(k[5:])}
}
