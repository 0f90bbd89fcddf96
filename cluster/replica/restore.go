package replica

import (
	"cmp"
	"slices"

	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/placement"
)

// restore tells a new machine what the brick holds: how far each bucket is, and
// the records in doubt. What was committed lately is remembered again (R11, R12).
func (l *seat) restore(rec *brick.Recovery) {
	if rec == nil {
		return
	}
	prepared := map[placement.Bucket][]*brick.Record{}
	buckets := map[placement.Bucket]placement.Stamp{}
	for _, r := range rec.Prepared {
		if r.Link == l.id {
			prepared[r.Bucket] = append(prepared[r.Bucket], r)
			buckets[r.Bucket] = placement.Stamp{}
		}
	}
	l.s.c.Store.Lasts(l.id, func(b placement.Bucket, x brick.Last) {
		buckets[b] = x.Committed
		l.past.begin(b, x.Committed)
	})
	l.remember(rec.Recent)
	for _, x := range rec.Done {
		if x.Link == l.id {
			l.past.tell(x.Op, l.s.now())
		}
	}
	for _, b := range sortedKeys(buckets) {
		l.restoreBucket(b, buckets[b], prepared[b])
	}
}

func sortedKeys(m map[placement.Bucket]placement.Stamp) []placement.Bucket {
	keys := make([]placement.Bucket, 0, len(m))
	for b := range m {
		keys = append(keys, b)
	}
	slices.Sort(keys)
	return keys
}

// remember takes what replay found committed into the history. The first record
// of a bucket only says where memory begins: what was before it is not known.
func (l *seat) remember(recent []brick.Recent) {
	seen := map[placement.Bucket]bool{}
	for i := range recent {
		r := &recent[i]
		if r.Link != l.id {
			continue
		}
		if !seen[r.Bucket] {
			seen[r.Bucket] = true
			l.past.begin(r.Bucket, r.Stamp)
		}
		l.past.put(past{stamp: r.Stamp, op: r.Op, key: r.Key, mask: r.Mask, bucket: r.Bucket})
	}
}

// restoreBucket gives the machine a bucket's records in doubt. Those behind a
// gap were acknowledged by nobody, and are voided.
func (l *seat) restoreBucket(b placement.Bucket, committed placement.Stamp, prepared []*brick.Record) {
	slices.SortFunc(prepared, func(a, b *brick.Record) int {
		return cmp.Or(cmp.Compare(a.Ver, b.Ver), cmp.Compare(a.Seq, b.Seq))
	})
	tasks := make([]*task, len(prepared))
	records := make([]link.Record, len(prepared))
	for i, r := range prepared {
		t := l.s.newTask()
		t.l, t.bucket, t.rec = l, b, r
		t.users.Store(1)
		t.ref = l.enter(t)
		tasks[i], records[i] = t, t.record()
	}
	kept := l.m.Restore(b, committed, records)
	for i := len(prepared) - 1; i >= kept; i-- {
		t := l.leave(tasks[i].ref)
		l.s.c.Store.Abandon(t.rec, func(error) { t.recycle() })
	}
}
