package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/meta"
	"petal/cluster/replica"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// bareOp is a command on its way: one chunk, sent to one server at a time until
// there is an answer, the command is too old, or it is cancelled.
type bareOp struct {
	b       *bare
	id      placement.OpID
	kind    kind
	key     placement.Key
	from    uint32
	to      uint32
	data    []byte // write: what to write; compare and write: expected, then new
	began   time.Duration
	at      placement.Server // who has it, 0: nobody
	hint    placement.Server
	again   bool
	tries   uint64
	cancels bool
	ended   bool
	done    func(p []byte, miscompare int, err error)
}

const retryWait = 20 * time.Millisecond

func (b *bare) disk() *meta.Disk { return b.group.State().Disk(diskName) }

func (b *bare) read(off uint64, n int, done func(p []byte, err error)) {
	b.do(opRead, off, n, nil, func(p []byte, _ int, err error) { done(p, err) })
}

func (b *bare) write(off uint64, p []byte, done func(error)) {
	b.do(opWrite, off, len(p), p, func(_ []byte, _ int, err error) { done(err) })
}

func (b *bare) zero(off, n uint64, done func(error)) {
	b.do(opZero, off, int(n), nil, func(_ []byte, _ int, err error) { done(err) })
}

func (b *bare) compareAndWrite(off uint64, compare, p []byte, done func(int, error)) {
	b.do(opCAW, off, len(p), slices.Concat(compare, p), func(_ []byte, at int, err error) { done(at, err) })
}

func (b *bare) do(k kind, off uint64, n int, data []byte, done func([]byte, int, error)) {
	d := b.disk()
	b.number++
	op := &bareOp{
		b: b, kind: k, id: placement.OpID{Coordinator: uint32(b.m.id), Incarnation: uint32(b.incarnation), Number: b.number},
		key:  placement.Key{Family: d.Family, Node: d.Node, Chunk: placement.Chunk(off / placement.ChunkSize)},
		from: uint32(off % placement.ChunkSize), data: data, began: b.clock.Now(), done: done,
	}
	op.to = op.from + uint32(n)
	if op.to > placement.ChunkSize {
		panic("sim: a command leaves its chunk")
	}
	b.ops = append(b.ops, op)
	op.send()
}

func (op *bareOp) end(p []byte, at int, err error) {
	if op.ended {
		return
	}
	op.ended = true
	op.b.ops = slices.DeleteFunc(op.b.ops, func(o *bareOp) bool { return o == op })
	op.done(p, at, err)
}

// retry sends the command again, soon.
func (op *bareOp) retry() {
	op.at = 0
	op.tries++
	tries := op.tries
	op.b.clock.AfterFunc(between(op.b.rng, retryWait/4, retryWait), func() {
		if op.tries == tries && !op.ended {
			op.send()
		}
	})
}

// send picks a server and hands it the command. A command that is too old is
// cancelled instead (R13).
func (op *bareOp) send() {
	b := op.b
	if b.clock.Now()-op.began >= b.s.times.Command || b.incarnation == 0 {
		op.cancel()
		return
	}
	st := b.group.State()
	d := b.disk()
	if d == nil {
		op.retry()
		return
	}
	g := st.GMap(st.Family(d.Family).GMap)
	bucket := placement.BucketOf(op.key.Family, op.key.Chunk)
	members, config := g.Members(g.Position(bucket)), st.Link(g.LinkOf(bucket))
	to := members[config.Head]
	switch {
	case op.hint != 0:
		to, op.hint = op.hint, 0
	case op.kind == opRead:
		if m := placement.Member(b.rng.IntN(len(members))); config.InSync.Has(m) && !op.again {
			to = members[m]
		}
	}
	op.at = to
	if to == b.m.id {
		op.local(d, config.Ver)
	} else {
		op.remote(to, d, g.LinkOf(bucket), config.Ver)
	}
	op.again = true
}

func (op *bareOp) local(d *meta.Disk, ver uint64) {
	o := &replica.Op{
		ID: op.id, Again: op.again, Key: op.key, From: op.from, To: op.to, VVer: d.VVer, Ver: ver,
		Kind: [...]replica.OpKind{opRead: replica.Read, opWrite: replica.Write, opZero: replica.Zero, opCAW: replica.CompareAndWrite}[op.kind],
	}
	tries := op.tries
	switch op.kind {
	case opWrite:
		o.Buf, o.Sum = op.blocks()
	case opCAW:
		o.Buf = op.b.pool.Get(len(op.data))
		copy(o.Buf.Bytes(), op.data)
	}
	o.Done = func(o *replica.Op) {
		var p []byte
		if o.Status == wire.OK && op.kind == opRead {
			for _, r := range o.Bufs {
				p = append(p, r.Bytes()...)
			}
			p = p[o.From%placement.BlockSize:][:o.To-o.From]
		}
		o.Bufs.Release()
		if o.Buf != nil {
			o.Buf.Release()
		}
		if op.tries == tries {
			op.answer(o.Status, p, int(o.At-op.from), o.Head, fmt.Sprintf("bad %#x", o.Bad))
		}
	}
	op.b.replica.Do(o)
}

// blocks lays the data out as a write wants it.
func (op *bareOp) blocks() (*slab.Buf, [placement.BlocksPerChunk]uint32) {
	first := op.from / placement.BlockSize * placement.BlockSize
	end := (op.to + placement.BlockSize - 1) / placement.BlockSize * placement.BlockSize
	buf := op.b.pool.Get(int(end - first))
	clear(buf.Bytes())
	copy(buf.Bytes()[op.from-first:], op.data)
	m := op.message(wire.Write)
	m.Data = cache.Refs{{Buf: buf, Off: int(op.from - first), Len: int(op.to - op.from)}}
	m.SetSums()
	return buf, m.Sum
}

func (op *bareOp) message(k wire.Kind) *wire.Message {
	return &wire.Message{Kind: k, Op: op.id, Key: op.key, From: op.from, To: op.to}
}

func (op *bareOp) remote(to placement.Server, d *meta.Disk, l placement.LinkID, ver uint64) {
	m := op.message([...]wire.Kind{opRead: wire.Read, opWrite: wire.Write, opZero: wire.Zero, opCAW: wire.CompareAndWrite}[op.kind])
	m.VVer, m.Ver, m.Link = d.VVer, ver, l
	if op.again {
		m.Code = replica.CodeAgain
	}
	if op.data != nil {
		for p := range slices.Chunk(op.data, slab.Large) {
			buf := op.b.pool.Get(len(p))
			copy(buf.Bytes(), p)
			m.Data = append(m.Data, cache.Ref{Buf: buf, Len: len(p)})
		}
		m.SetSums()
	}
	sent := op.b.ends.Send(to, m)
	m.Data.Release()
	if !sent {
		op.retry()
	}
}

// reply takes another server's answer.
func (b *bare) reply(from placement.Server, m *wire.Message) {
	i := slices.IndexFunc(b.ops, func(o *bareOp) bool { return o.id == m.Op })
	if i < 0 || b.ops[i].at != from {
		return
	}
	op := b.ops[i]
	if m.Kind == wire.CancelReply {
		op.cancelled(m.Status)
		return
	}
	var p []byte
	if m.Status == wire.OK && op.kind == opRead {
		if !m.Verify() {
			b.s.failf("machine %d: %v from %d does not match its sums", b.m.id, m, from)
		}
		p = op.assemble(m)
	}
	at := -1
	if m.Status == wire.Miscompare {
		at = int(m.From - op.from)
	}
	op.answer(m.Status, p, at, m.Head, fmt.Sprintf("bad %#x", m.Bad))
}

// assemble puts together what a reply has: data, and zeros between them.
func (op *bareOp) assemble(m *wire.Message) []byte {
	var data []byte
	for _, r := range m.Data {
		data = append(data, r.Bytes()...)
	}
	p := make([]byte, op.to-op.from)
	for at := op.from; at < op.to; {
		block := at / placement.BlockSize
		next := min(op.to, (block+1)*placement.BlockSize)
		if m.Mask>>block&1 != 0 {
			data = data[copy(p[at-op.from:next-op.from], data):]
		} else if m.Zeros>>block&1 == 0 {
			op.b.s.failf("machine %d: %v says nothing of block %d", op.b.m.id, m, block)
		}
		at = next
	}
	return p
}

// answer deals with how a try ended.
func (op *bareOp) answer(st wire.Status, p []byte, at int, head placement.Server, detail string) {
	if op.ended {
		return
	}
	switch st {
	case wire.OK:
		op.end(p, -1, nil)
	case wire.Miscompare:
		op.end(nil, at, nil)
	case wire.Canceled:
		op.end(nil, -1, errBusy)
	case wire.NoSpace, wire.Invalid, wire.Medium:
		op.b.s.failf("machine %d: %v of bytes %d to %d of chunk %d through %d ends with %v, %s", op.b.m.id, op.kind, op.from, op.to, op.key.Chunk, op.at, st, detail)
		op.end(nil, -1, fmt.Errorf("sim: %v", st))
	default:
		op.hint = head
		op.retry()
	}
}

// cancel makes sure that the command has no effect any more, or gives it up.
func (op *bareOp) cancel() {
	if op.cancels || op.kind == opRead {
		op.end(nil, -1, fmt.Errorf("sim: no answer within %v", op.b.s.times.Command))
		return
	}
	op.cancels = true
	b := op.b
	tries := op.tries
	b.clock.AfterFunc(b.s.times.Admission, func() {
		if op.tries == tries {
			op.end(nil, -1, fmt.Errorf("sim: not even cancelled within %v", b.s.times.Admission))
		}
	})
	d := b.disk()
	if d == nil {
		return
	}
	st := b.group.State()
	g := st.GMap(st.Family(d.Family).GMap)
	l := g.LinkOf(placement.BucketOf(op.key.Family, op.key.Chunk))
	op.at = g.Members(l.Position)[st.Link(l).Head]
	if op.at != b.m.id {
		m := op.message(wire.Cancel)
		m.VVer, m.Link, m.Ver = d.VVer, l, st.Link(l).Ver
		b.ends.Send(op.at, m)
		return
	}
	b.replica.Cancel(op.id, op.key, func(st wire.Status, _ placement.Server) { op.cancelled(st) })
}

// cancelled takes the answer to cancel. A COMPARE AND WRITE that had been done
// had succeeded, or else it would not have been remembered as done.
func (op *bareOp) cancelled(st wire.Status) {
	switch st {
	case wire.OK:
		op.end(nil, -1, nil)
	case wire.Canceled:
		op.end(nil, -1, errBusy)
	}
}

func sortedLinks(m map[placement.LinkID]brick.LinkMark) []placement.LinkID {
	return slices.SortedFunc(maps.Keys(m), func(a, b placement.LinkID) int {
		return cmp.Or(cmp.Compare(a.GMap, b.GMap), cmp.Compare(a.Position, b.Position))
	})
}
