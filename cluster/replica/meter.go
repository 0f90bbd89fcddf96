package replica

import (
	"sync"
	"sync/atomic"
	"time"

	"petal/cluster/link"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// meter tells how busy this server's disk is with reads, for whoever chooses
// where to read (DESIGN H). How long a read takes is what that one measures.
type meter struct {
	queue atomic.Int32
	avail atomic.Uint64

	tight atomic.Int64 // when this server was last short of space
	told  atomic.Int64 // when it last said so
}

func (m *meter) begin() { m.queue.Add(1) }
func (m *meter) end()   { m.queue.Add(-1) }

func (m *meter) fill(l *wire.Load) {
	l.Queue, l.Avail = uint32(max(0, m.queue.Load())), m.avail.Load()
}

// lazyMeter bounds the memory of writes that are acknowledged and not durable.
type lazyMeter struct {
	max   int64
	bytes atomic.Int64
	n     atomic.Int64
	lost  atomic.Pointer[error] // why one of them will never be durable
}

// take sets memory aside for a lazy write; false if there is none left: then it
// is no lazy write, and its sync takes the lazy ones along.
func (m *lazyMeter) take(b *slab.Buf) bool {
	w := weight(b)
	if m.bytes.Add(w) > m.max {
		m.bytes.Add(-w)
		return false
	}
	m.n.Add(1)
	return true
}

func (m *lazyMeter) give(b *slab.Buf) {
	m.n.Add(-1)
	m.bytes.Add(-weight(b))
}

func weight(b *slab.Buf) int64 {
	if b == nil {
		return placement.BlockSize
	}
	return int64(b.Size())
}

// tombstones are operations that were cancelled before they came (R12). They
// are forgotten when nothing that was sent before can come any more.
type tombstones struct {
	n   atomic.Int32
	mu  sync.Mutex
	ids map[placement.OpID]time.Duration // until
	old []placement.OpID                 // in order of time
}

func (x *tombstones) add(id placement.OpID, now, keep time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ids == nil {
		x.ids = map[placement.OpID]time.Duration{}
	}
	for len(x.old) > 0 && x.ids[x.old[0]] < now {
		delete(x.ids, x.old[0])
		x.old = x.old[1:]
	}
	if _, ok := x.ids[id]; !ok {
		x.old = append(x.old, id)
	}
	x.ids[id] = now + keep
	x.n.Store(int32(len(x.ids)))
}

func (x *tombstones) has(id placement.OpID) bool {
	if x.n.Load() == 0 {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.ids[id]
	return ok
}

// shortBytes is the space below which a member takes no more allocating writes:
// beyond what all the others may have under way to it at that moment, so that it
// never runs out in the middle of a record.
const shortBytes = 64 << 20

// comeBackBytes is how much space there is before a member asks to be let in again
// that had none for a record.
const comeBackBytes = 2 * shortBytes

// meterSpace looks how much space is left. Heads learn it from acknowledgements;
// but one that has heard of too little sends nothing that would be acknowledged,
// so while it is little, and for a while after, they are told without being asked.
func (s *Server) meterSpace() {
	_, avail, _ := s.c.Store.Space()
	s.load.avail.Store(avail)
	now, m := s.now(), &s.load
	s.judgePaces(now)
	if avail < shortBytes {
		m.tight.Store(int64(now) + 1)
	}
	tight := time.Duration(m.tight.Load())
	if tight == 0 || now-tight > tellSpaceFor || now-time.Duration(m.told.Load()) < s.c.Times.Renewal {
		return
	}
	m.told.Store(int64(now))
	for _, l := range s.all() {
		l.lock()
		l.tellSpace()
		l.unlock()
	}
}

// tellSpaceFor is how long heads are told that there is space again: long enough
// for a connection to come back.
const tellSpaceFor = 10 * time.Second

// tellSpace tells the head of the link how much space is left here: an Ack of
// nothing. The mutex is held.
func (l *seat) tellSpace() {
	c := l.m.Config()
	if l.closed || c.Head == l.self || !c.InSync.Has(l.self) || !l.peers.Has(c.Head) {
		return
	}
	m := l.message(&link.Msg{Kind: link.MsgAck, Ver: l.ver})
	l.s.load.fill(&m.Load)
	l.post1(c.Head, m)
}

// hasSpace tells whether all the blocks of a write have space already, so that
// it needs none: the members' copies are alike. The map may have to be read.
func (t *task) hasSpace() bool {
	op := t.op
	mapped, err := t.s.c.Store.Provisioned(op.Key.Family, t.d.lineage[:1], op.Key.Chunk)
	return err == nil && op.mask()&^mapped == 0
}

// short reports whether another member in sync is nearly out of space. The
// brick here speaks for itself.
func (l *seat) short() bool {
	for m := l.m.Config().InSync.Without(l.self); m != 0; m = m.Without(m.First()) {
		if a := l.avail[m.First()]; a.known && a.bytes < shortBytes {
			return true
		}
	}
	return false
}
