package replica

import (
	"cmp"
	"slices"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/link"
	"petal/placement"
)

// ranger sends a member the records of a bucket that it lacks, in order, under
// their own stamps (R10): those in doubt from the journal, those committed as
// their blocks are now, for what came after will follow.
type ranger struct {
	l    *seat
	e    link.Effect
	recs []rangeRecord
	rd   brick.ReadOp
	at   int // of recs: being read
}

// rangeRecord is a record to be sent.
type rangeRecord struct {
	stamp    placement.Stamp
	op       placement.OpID
	key      placement.Key
	mask     placement.Mask
	excluded placement.Members
	zero     bool
	task     *task // in doubt: its data are the task's; else committed
	sum      [placement.BlocksPerChunk]uint32
	refs     cache.Refs
}

// rangeMax is how many records are sent one by one; a member that lacks more of
// one bucket gets a list of what to fetch.
const rangeMax = 256

// sendRange begins to send what Member lacks of Bucket after Prev up to Stamp.
// The machine is opening: nothing of it is committed or admitted meanwhile.
func (l *seat) sendRange(e link.Effect) {
	x := &ranger{l: l, e: e}
	known := l.past.since(e.Bucket, e.Prev, e.Stamp, func(p *past) {
		x.recs = append(x.recs, rangeRecord{stamp: p.stamp, op: p.op, key: p.key, mask: p.mask, excluded: e.Members})
	})
	for _, t := range l.tasks {
		if t == nil || t.rec.Bucket != e.Bucket {
			continue
		}
		if s := t.rec.Stamp(); e.Prev.Before(s) && !e.Stamp.Before(s) {
			t.users.Add(1) // until drop
			x.recs = append(x.recs, rangeRecord{
				stamp: s, op: t.rec.Op, key: t.rec.Key, mask: t.rec.Mask, excluded: t.rec.Excluded | e.Members,
				zero: t.rec.Kind == brick.Zero, task: t, sum: t.rec.Sum,
			})
		}
	}
	slices.SortFunc(x.recs, func(a, b rangeRecord) int {
		return cmp.Or(cmp.Compare(a.stamp.Ver, b.stamp.Ver), cmp.Compare(a.stamp.Seq, b.stamp.Seq))
	})
	x.rd.Done = func(*brick.ReadOp) { x.read() }
	if !known || len(x.recs) == 0 || len(x.recs) > rangeMax {
		l.later = append(l.later, x.cut)
		return
	}
	l.later = append(l.later, x.next)
}

// current reports whether the link is opening still, as when the range was asked
// for: as long as it is, nothing of it is committed or given up.
func (x *ranger) current() bool {
	x.l.lock()
	defer x.l.unlock()
	return x.valid()
}

func (x *ranger) valid() bool {
	return x.l.ver == x.e.Ver && x.l.m.State() == link.Opening && !x.l.closed
}

// next reads the next record's data, or sends them all.
func (x *ranger) next() {
	for ; x.at < len(x.recs); x.at++ {
		r := &x.recs[x.at]
		switch {
		case !x.current():
			x.drop()
			return
		case r.zero:
		case r.task != nil && r.task.buf != nil:
			r.refs = cache.Refs{{Buf: r.task.buf.Retain(), Len: r.task.buf.Len()}}
		case r.task != nil:
			x.l.s.c.Store.ReadPrepared(r.task.rec, &x.rd)
			return
		default:
			x.rd.Family, x.rd.Lineage, x.rd.Chunk, x.rd.Bare = r.key.Family, []placement.Node{r.key.Node}, r.key.Chunk, true
			x.rd.First = firstBlock(r.mask)
			x.rd.Count = lastBlock(r.mask) - x.rd.First + 1
			x.l.s.c.Store.Read(&x.rd)
			return
		}
	}
	x.send()
}

// read takes the data of a record.
func (x *ranger) read() {
	r := &x.recs[x.at]
	if !x.current() {
		x.rd.Bufs.Release()
		x.drop()
		return
	}
	if x.rd.Err != nil {
		x.rd.Bufs.Release()
		x.cut() // it can't be had here; whoever has it will be asked
		return
	}
	if r.task != nil {
		r.sum = r.task.rec.Sum // reading may have changed it
		r.refs, x.rd.Bufs = x.rd.Bufs, nil
	} else {
		x.pick(r)
	}
	x.at++
	x.next()
}

// pick takes the blocks of the record's mask from those that were read.
func (x *ranger) pick(r *rangeRecord) {
	i, n := x.rd.First, 0
	for _, ref := range x.rd.Bufs {
		for off := 0; off < ref.Len; off += placement.BlockSize {
			if r.mask>>i&1 != 0 {
				r.refs.Add(ref.Buf, ref.Off+off, placement.BlockSize)
				r.sum[n] = checksum(ref.Bytes()[off : off+placement.BlockSize])
				n++
			}
			i++
		}
	}
	x.rd.Bufs.Release()
	r.zero = x.rd.Zero&r.mask == r.mask
}

// send sends the records, each with the stamp of the one before it.
func (x *ranger) send() {
	l := x.l
	l.lock()
	prev := x.e.Prev
	if x.valid() {
		for i := range x.recs {
			r := &x.recs[i]
			msg := link.Msg{
				Kind: link.MsgRecover, Ver: x.e.Ver, Bucket: x.e.Bucket, Stamp: r.stamp, Prev: prev, Excluded: r.excluded,
			}
			p := &payload{key: r.key, mask: r.mask, sum: &r.sum, refs: r.refs}
			if r.zero {
				p.refs = nil
			}
			l.sendRecord(x.e.Member, &msg, r.op, p)
			prev = r.stamp
		}
	}
	l.unlock()
	x.drop()
}

func (x *ranger) drop() {
	for i := range x.recs {
		x.recs[i].refs.Release()
		if t := x.recs[i].task; t != nil {
			x.recs[i].task = nil
			t.unuse()
		}
	}
}

// cut sends a list of what to fetch instead of the records: the blocks of those
// that are known, or, if some are forgotten (R11), of the whole bucket.
func (x *ranger) cut() {
	l := x.l
	defer x.drop()
	marks := make([]brick.Mark, 0, len(x.recs))
	for _, r := range x.recs {
		marks = append(marks, brick.Mark{Key: r.key, Bucket: x.e.Bucket, Mask: r.mask})
	}
	l.lock()
	known := l.past.since(x.e.Bucket, x.e.Prev, x.e.Stamp, func(*past) {})
	l.unlock()
	var keep []brick.Mark
	if !known {
		var err error
		if marks, keep, err = l.everything(x.e.Bucket, false, marks); err != nil {
			return
		}
	}
	e := x.e
	e.Session, e.Common = 0, e.Prev
	if l.handOver(&e) && l.sendKeep(&e, keep) {
		l.sendMarks(&e, marks, !known)
	}
}
