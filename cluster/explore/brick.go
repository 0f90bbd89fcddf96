package explore

import (
	"petal/cluster/link"
	"petal/placement"
)

// brick models what the link needs of one disk: a journal that becomes durable
// record by record, home blocks, marks, missing blocks, and the index of R11.
// Blocks hold the number of the write they come from; zero is empty.
type brick struct {
	recs    [maxRecs]rec // the journal, in order of appending
	nrecs   uint8
	todo    [maxTodo]todo // what is not durable yet; within a class in order
	ntodo   uint8
	home    [maxBlocks]uint8   // destaged
	last    [maxBlocks]stamp   // per bucket: known to be committed, durably
	gone    [maxBlocks]stamp   // per bucket: the journal has no record up to here
	floor   [maxBlocks]stamp   // per bucket: the index knows every record above it
	index   [maxWrites]indexed // by write
	missing uint8              // blocks; as reads see it
	missed  uint8              // durable
	both    uint8              // of two members: records up to this version may not name the other, durable
	marks   [maxMembers]uint8  // blocks that a member lacks, durable (but for what recs say)
	past    [maxBlocks]past    // per bucket: its committed records (but for those in recs)
}

// past is the history of a bucket: by ver the number of the last record that was
// committed.
type past [maxVers]uint8

func (p *past) add(s stamp) { p[s.ver] = max(p[s.ver], s.seq) }

func (p *past) join(q *past) {
	for v, seq := range q {
		p.add(stamp{uint8(v), seq})
	}
}

// common is the greatest stamp of the history that is not after s.
func (p *past) common(s stamp) stamp {
	for v := int(s.ver); v > 0; v-- {
		switch seq := p[v]; {
		case seq > 0 && v == int(s.ver):
			return stamp{s.ver, min(seq, s.seq)}
		case seq > 0:
			return stamp{uint8(v), seq}
		}
	}
	return stamp{}
}

// history is all that was ever committed of a bucket.
func (d *brick) history(bucket uint8) past {
	p := d.past[bucket]
	for _, r := range d.recs[:d.nrecs] {
		if r.bucket == bucket && r.committed {
			p.add(r.stamp)
		}
	}
	return p
}

// rec is a record in the journal.
type rec struct {
	stamp     stamp
	write     uint8 // id
	val       uint8 // what the block holds after it: id+1 of the write or, recovered from home, of a later one
	bucket    uint8
	block     uint8
	excluded  placement.Members
	durable   bool
	committed bool // volatile
	after     bool // appended after the block went missing last: its commit clears that
}

type indexed struct {
	on       bool
	stamp    stamp
	excluded placement.Members
}

type todoKind uint8

const (
	todoRecord todoKind = iota + 1 // a record
	todoMark                       // EffectMark
	todoVoid                       // EffectDiscard
	todoMiss                       // EffectStoreCut
	todoSeal                       // EffectSealCut
	todoHand                       // marks that came with EffectStoreCut
	todoDrop                       // EffectDropMarks
)

type todo struct {
	kind    todoKind
	stamp   stamp // of the record, or of the cut
	bucket  uint8
	blocks  uint8
	members placement.Members
}

func (d *brick) find(bucket uint8, s stamp) *rec {
	for i := range d.recs[:d.nrecs] {
		if d.recs[i].stamp == s && d.recs[i].bucket == bucket {
			return &d.recs[i]
		}
	}
	return nil
}

func (d *brick) remove(i int) {
	copy(d.recs[i:], d.recs[i+1:d.nrecs])
	d.nrecs--
	d.recs[d.nrecs] = rec{}
}

func (d *brick) later(t todo) { d.todo[d.ntodo] = t; d.ntodo++ }

func (d *brick) room() bool { return d.nrecs < maxRecs && d.ntodo+4 <= maxTodo }

// class is a kind of things that become durable in order; between classes there
// is none.
type class uint8

const (
	records class = iota
	voids
	rest
)

func (k todoKind) class() class {
	switch k {
	case todoRecord:
		return records
	case todoVoid:
		return voids
	}
	return rest
}

// next returns the first thing to do of a class; -1 if there is none.
func (d *brick) next(c class) int {
	for i := range d.todo[:d.ntodo] {
		if d.todo[i].kind.class() == c {
			return i
		}
	}
	return -1
}

func (d *brick) did(i int) {
	copy(d.todo[i:], d.todo[i+1:d.ntodo])
	d.ntodo--
	d.todo[d.ntodo] = todo{}
}

// append takes a record: not durable yet.
func (d *brick) append(r rec) {
	r.after = true
	d.recs[d.nrecs] = r
	d.nrecs++
	d.index[r.write] = indexed{true, r.stamp, r.excluded}
	d.later(todo{kind: todoRecord, stamp: r.stamp, bucket: r.bucket})
}

// miss makes blocks missing to reads, at once; the caller says when that is
// durable. What was appended before does not make them good.
func (d *brick) miss(blocks uint8) {
	d.missing |= blocks
	for i := range d.recs[:d.nrecs] {
		if blocks>>d.recs[i].block&1 != 0 {
			d.recs[i].after = false
		}
	}
}

func (d *brick) commit(bucket uint8, s stamp) bool {
	r := d.find(bucket, s)
	if r == nil {
		return false
	}
	r.committed = true
	if r.after {
		d.missing &^= 1 << r.block
	}
	return true
}

// inDoubt is the conflict of R4.
func (d *brick) inDoubt(block uint8) bool {
	for _, r := range d.recs[:d.nrecs] {
		if r.block == block && !r.committed {
			return true
		}
	}
	return false
}

// value is what a read of a block returns that is not missing.
func (d *brick) value(block uint8) uint8 {
	v := d.home[block]
	for _, r := range d.recs[:d.nrecs] {
		if r.block == block && r.committed && r.after {
			v = r.val
		}
	}
	return v
}

// prepared is what a read returns that shows records in doubt (M5).
func (d *brick) prepared(block uint8) uint8 {
	v := d.value(block)
	for _, r := range d.recs[:d.nrecs] {
		if r.block == block {
			v = r.val
		}
	}
	return v
}

// destage moves all that is committed home; false if there was nothing.
func (d *brick) destage() bool {
	some := false
	for i := 0; i < int(d.nrecs); {
		r := d.recs[i]
		if !r.committed || !r.durable {
			i++
			continue
		}
		some = true
		if r.after {
			d.home[r.block] = r.val
			d.missed &^= 1 << r.block
		}
		if d.last[r.bucket].before(r.stamp) {
			d.last[r.bucket] = r.stamp
		}
		if d.gone[r.bucket].before(r.stamp) {
			d.gone[r.bucket] = r.stamp
		}
		d.past[r.bucket].add(r.stamp)
		for m := range d.marks {
			if r.excluded.Has(placement.Member(m)) {
				d.marks[m] |= 1 << r.block
			}
		}
		d.remove(i)
	}
	return some
}

// fill stores a fetched block if it is still missing.
func (d *brick) fill(block, val uint8) {
	if d.missing>>block&1 == 0 {
		return
	}
	d.home[block] = val
	d.missing &^= 1 << block
	d.missed &^= 1 << block
}

// dropping reports whether a drop of marks is still to be done.
func (d *brick) dropping(e *link.Effect) bool {
	for _, t := range d.todo[:d.ntodo] {
		if t.kind == todoDrop && t.members.Has(e.Member) && t.stamp.ver == uint8(e.Ver) {
			return true
		}
	}
	return false
}

// lacking are the blocks that would be missing after a crash.
func (d *brick) lacking() uint8 {
	b := d.missed
	for _, r := range d.recs[:d.nrecs] {
		if r.durable && r.after {
			b &^= 1 << r.block
		}
	}
	return b
}

// lacks are the marks for a member.
func (d *brick) lacks(m placement.Member) uint8 {
	b := d.marks[m]
	for _, r := range d.recs[:d.nrecs] {
		if r.excluded.Has(m) {
			b |= 1 << r.block
		}
	}
	return b
}

// dropMarks forgets the marks for a member that were made under a lower ver. The
// machine makes no others before it has heard that it is done.
func (d *brick) dropMarks(m placement.Member, ver uint8) {
	d.marks[m] = 0
	for i := range d.recs[:d.nrecs] {
		if r := &d.recs[i]; r.stamp.ver < ver {
			r.excluded = r.excluded.Without(m)
		}
	}
}

// crash keeps what is durable. The index is what the journal says.
func (d *brick) crash() {
	for i := 0; i < int(d.nrecs); {
		if !d.recs[i].durable {
			d.remove(i)
			continue
		}
		d.recs[i].committed = false
		i++
	}
	d.todo, d.ntodo = [maxTodo]todo{}, 0
	d.missing = d.missed
	d.reindex()
}

// rot loses the last record of the journal; false if there is none.
func (d *brick) rot() bool {
	if d.nrecs == 0 {
		return false
	}
	d.remove(int(d.nrecs) - 1)
	d.reindex()
	return true
}

func (d *brick) reindex() {
	d.index = [maxWrites]indexed{}
	d.floor = d.gone
	for _, r := range d.recs[:d.nrecs] {
		d.index[r.write] = indexed{true, r.stamp, r.excluded}
	}
}
