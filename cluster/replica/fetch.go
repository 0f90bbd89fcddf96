package replica

import (
	"errors"
	"time"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/link"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// block is a block in a buffer; a nil buffer is none.
type block struct {
	buf *slab.Buf // a reference
	off int
	sum uint32
}

// fetch is a question to another member for blocks.
type fetch struct {
	l     *seat
	to    placement.Member
	tag   uint64
	key   placement.Key
	mask  placement.Mask
	bare  bool // what is at this very node, not what a reader would see
	until time.Duration
	done  func(*fetch)

	// The answer. Blocks of none of data, zeros and bad are not there at all.
	status wire.Status
	data   placement.Mask
	zeros  placement.Mask
	bad    placement.Mask
	sum    [placement.BlocksPerChunk]uint32
	refs   cache.Refs // of data, in order: whole blocks
}

// codeBare in a Fetch asks for one node only.
const codeBare = 1

// fetch asks a member for blocks. done is called once, without the mutex: the
// references are released when it returns.
func (l *seat) fetch(to placement.Member, key placement.Key, mask placement.Mask, bare bool, done func(*fetch)) {
	l.lock()
	l.ask(&fetch{l: l, to: to, key: key, mask: mask, bare: bare, done: done})
	l.unlock()
}

// ask sends the question. The mutex is held.
func (l *seat) ask(f *fetch) {
	l.tag++
	f.tag, f.until = l.tag, l.s.now()+l.s.c.Times.Admission
	l.fetches = append(l.fetches, f)
	m := &l.msg
	*m = wire.Message{Kind: wire.Fetch, Link: l.id, Ver: l.ver, Key: f.key, Mask: f.mask, Index: f.tag, Data: m.Data[:0]}
	if f.bare {
		m.Code = codeBare
	}
	if !l.post1(f.to, m) {
		l.end(f, wire.NoLease)
		return
	}
	l.later = append(l.later, func() {
		l.s.mu.Lock()
		l.s.watch()
		l.s.mu.Unlock()
	})
}

// end ends a question. The mutex is held.
func (l *seat) end(f *fetch, st wire.Status) {
	for i, x := range l.fetches {
		if x == f {
			l.fetches = append(l.fetches[:i], l.fetches[i+1:]...)
			f.status = st
			l.later = append(l.later, func() {
				f.done(f)
				f.refs.Release()
			})
			return
		}
	}
}

// endAll ends the questions that are to end. The mutex is held.
func (l *seat) endAll(over func(*fetch) bool) {
	for i := 0; i < len(l.fetches); {
		if f := l.fetches[i]; over(f) {
			l.end(f, wire.NoLease)
		} else {
			i++
		}
	}
}

func (l *seat) failFetches(m placement.Member) { l.endAll(func(f *fetch) bool { return f.to == m }) }
func (l *seat) dropFetches()                   { l.endAll(func(*fetch) bool { return true }) }

func (l *seat) expireFetches(now time.Duration) {
	l.endAll(func(f *fetch) bool { return f.until <= now })
	if len(l.fetches) > 0 {
		l.later = append(l.later, func() {
			l.s.mu.Lock()
			l.s.watch()
			l.s.mu.Unlock()
		})
	}
}

// keep takes the blocks of the answer over and returns which there are. Zeros
// come from the pool; what is not there reads as zeros, too.
func (f *fetch) keep(got *[placement.BlocksPerChunk]block) placement.Mask {
	if f.status != wire.OK {
		return 0
	}
	for m := f.mask &^ f.bad; m != 0; m &= m - 1 {
		i := firstBlock(m)
		if f.data>>i&1 == 0 {
			got[i] = block{buf: f.l.s.c.Pool.Zero()}
			continue
		}
		b := f.block(i)
		b.buf.Retain()
		got[i] = b
	}
	return f.mask &^ f.bad
}

// block returns block i of data.
func (f *fetch) block(i int) block {
	k := rank(f.data, i)
	off := k * placement.BlockSize
	for _, r := range f.refs {
		if off < r.Len {
			return block{r.Buf, r.Off + off, f.sum[k]}
		}
		off -= r.Len
	}
	return block{}
}

// fetched takes the answer to a question.
func (l *seat) fetched(from placement.Member, m *wire.Message) {
	if m.Mask|m.Zeros|m.Bad != 0 && m.Status == wire.OK && !m.Verify() || m.Mask != 0 && m.Flags&wire.FlagZero != 0 {
		l.s.damaged.Add(1) // not what it says that it is
		return             // it ends by time
	}
	l.lock()
	for _, f := range l.fetches {
		if f.tag != m.Index || f.to != from || f.key != m.Key || m.Ver != l.ver || (m.Mask|m.Zeros|m.Bad)&^f.mask != 0 {
			continue
		}
		f.data, f.zeros, f.bad, f.sum = m.Mask, m.Zeros, m.Bad, m.Sum
		for _, r := range m.Data {
			f.refs = append(f.refs, cache.Ref{Buf: r.Buf.Retain(), Off: r.Off, Len: r.Len})
		}
		l.end(f, m.Status)
		break
	}
	l.unlock()
}

// supply is an answer to a question of another member, while its blocks are
// being read.
type supply struct {
	l  *seat
	to placement.Member
	m  wire.Message
	rd brick.ReadOp
}

// fetchFor answers a question of another member. A block with a record in doubt
// is not given: the asker may know already that the record is committed (R4).
func (l *seat) fetchFor(from placement.Member, m *wire.Message) {
	x := &supply{l: l, to: from}
	x.m = wire.Message{Kind: wire.Fetched, Link: l.id, Ver: m.Ver, Key: m.Key, Index: m.Index}
	lineage := []placement.Node{m.Key.Node}
	if d := l.s.view.Load().disk(m.Key); d != nil && m.Code&codeBare == 0 {
		lineage = d.lineage
	}
	l.lock()
	ok := m.Ver == l.ver && l.m.State() == link.Open && m.Key.Family != 0 && m.Key.Node != 0 && m.Key.Chunk <= maxChunk && m.Mask != 0
	l.unlock()
	if !ok || l.s.c.Store.Conflict(m.Key.Family, lineage, m.Key.Chunk, m.Mask) {
		x.refuse(wire.NotReady)
		return
	}
	x.m.Mask = m.Mask
	x.rd.Family, x.rd.Lineage, x.rd.Chunk, x.rd.Bare = m.Key.Family, lineage, m.Key.Chunk, m.Code&codeBare != 0
	x.rd.First = firstBlock(m.Mask)
	x.rd.Count = lastBlock(m.Mask) - x.rd.First + 1
	x.rd.Done = func(*brick.ReadOp) { x.read() }
	l.s.load.begin()
	l.s.c.Store.Read(&x.rd)
}

func (x *supply) refuse(st wire.Status) {
	x.m.Status, x.m.Mask = st, 0
	x.send()
}

func (x *supply) send() {
	x.l.s.load.fill(&x.m.Load)
	x.l.s.c.Transport.Send(x.l.servers[x.to], &x.m)
}

// read sends what was read.
func (x *supply) read() {
	x.l.s.load.end()
	want := x.m.Mask
	x.m.Mask = 0
	var medium *brick.MediumError
	lack := x.rd.Missing
	if errors.As(x.rd.Err, &medium) {
		lack |= medium.Blocks
	} else if x.rd.Err != nil && !errors.Is(x.rd.Err, brick.ErrElsewhere) {
		x.refuse(wire.Failed)
		return
	}
	x.m.Bad = lack & want
	i := x.rd.First
	for _, r := range x.rd.Bufs {
		for off := 0; off < r.Len; off += placement.BlockSize {
			bit := placement.Mask(1) << i
			i++
			switch {
			case want&bit == 0 || lack&bit != 0 || x.rd.Absent&bit != 0:
			case r.Buf.IsZero() || x.rd.Zero&bit != 0:
				x.m.Zeros |= bit
			default:
				x.m.Mask |= bit
				x.m.Data = append(x.m.Data, cache.Ref{Buf: r.Buf, Off: r.Off + off, Len: placement.BlockSize})
			}
		}
	}
	if x.m.Mask == 0 {
		x.m.Flags |= wire.FlagZero // no data
	} else {
		x.m.SetSums()
	}
	x.send()
	x.rd.Bufs.Release()
}
