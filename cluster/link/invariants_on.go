//go:build invariants

package link

import (
	"fmt"

	"petal/placement"
)

// Invariants reports whether the package was built with its dear checks.
const Invariants = true

// check panics if what holds between events does not. With a rule broken on
// purpose it holds nothing against it.
func (m *Machine) check() {
	m.checks++
	if m.o.Fault != 0 || len(m.pages) > 16 && m.checks%256 != 0 {
		return // of a large link now and then
	}
	held := func(ok bool, format string, a ...any) {
		if !ok {
			panic(fmt.Sprintf("link: member %d, %s, ver %d: %s", m.o.Self, m.state, m.cfg.Ver, fmt.Sprintf(format, a...)))
		}
	}
	held(m.state != Open && m.state != Opening || m.inSync(), "out of sync")
	held(m.state != Leaving && m.state != Out || !m.inSync(), "in sync")
	held(!m.join.active || (m.state == Open || m.state == Closed) && m.Head() && !m.cfg.InSync.Has(m.join.member), "lets %d in", m.join.member)
	var n counts
	m.each(func(b placement.Bucket, k *bucket) { m.checkBucket(b, k, &n, held) })
	held(n == counts{m.used, m.undurable, m.marking, m.discarding, m.storing, m.join.pipeline}, "counted %+v", n)
	if m.state == Opening && m.open.planned {
		held(m.lagging() == m.open.behind, "%d lag, not %d", m.lagging(), m.open.behind)
	}
}

// counts are what the machine keeps as sums over its buckets.
type counts struct{ used, undurable, marking, discarding, storing, pipeline int }

func (m *Machine) checkBucket(b placement.Bucket, k *bucket, n *counts, held func(bool, string, ...any)) {
	self := k.have[m.o.Self]
	held(!self.Before(k.committed) && !k.last.Before(self), "bucket %d: committed %s, durable %s, last %s", b, k.committed, self, k.last)
	held(k.cut == 0 || m.state == Out || m.join.active, "bucket %d: cut for %#x", b, k.cut)
	held(!k.held || m.join.active, "bucket %d: held", b)
	held(!k.gathering || k.held && k.first == 0, "bucket %d: gathered with records in flight", b)
	prev, durable, tail := k.committed, true, int32(0)
	for i := k.first; i != 0; i = m.slots[i-1].next {
		s := &m.slots[i-1]
		held(prev.Before(s.rec.Stamp), "bucket %d: %s after %s", b, s.rec.Stamp, prev)
		held(s.rec.Bucket == b, "bucket %d: record of %d", b, s.rec.Bucket)
		if !s.durable {
			n.undurable++
		}
		if durable && !s.durable {
			held(k.fresh == i, "bucket %d: fresh is not the first that is not durable", b)
			durable = false
		}
		if s.marking {
			n.marking++
		}
		if s.leaving {
			n.discarding++
		}
		n.used++
		prev, tail = s.rec.Stamp, i
	}
	held(k.tail == tail && (!durable || k.fresh == 0), "bucket %d: its list", b)
	if k.storing {
		n.storing++
	}
	if k.held || k.awaited {
		n.pipeline++
	}
}

// lagging counts what opening.behind should be.
func (m *Machine) lagging() (n int) {
	m.each(func(_ placement.Bucket, b *bucket) {
		to := m.target(b)
		for k := m.cfg.InSync; k != 0; k = k.Without(k.First()) {
			if b.have[k.First()].Before(to) {
				n++
			}
		}
	})
	return n
}
