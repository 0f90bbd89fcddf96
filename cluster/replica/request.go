package replica

import (
	"encoding/binary"
	"sync"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// request is an operation of another server's coordinator. It is pooled.
type request struct {
	Op
	s     *Server
	from  placement.Server
	link  placement.LinkID
	room  wire.Room
	reply wire.Message
}

var requests sync.Pool

func newRequest() *request {
	r, ok := requests.Get().(*request)
	if !ok {
		r = new(request)
		r.Done = func(*Op) { r.answer() }
	}
	return r
}

// CodeAgain in the Code of a Write, Zero or CompareAndWrite is Op.Again.
const CodeAgain = 1

// request takes an operation of another server. Data that do not match their
// sums are not believed (DESIGN D.5).
func (s *Server) request(from placement.Server, m *wire.Message) {
	r := newRequest()
	r.s, r.from, r.link, r.room = s, from, m.Link, m.Keep()
	r.ID, r.Key, r.From, r.To, r.VVer, r.Ver, r.Age, r.Sum = m.Op, m.Key, m.From, m.To, m.VVer, m.Ver, m.Age, m.Sum
	r.Lazy, r.Local, r.Again = m.Flags&wire.FlagLazy != 0, m.Flags&wire.FlagLocal != 0, m.Code&CodeAgain != 0
	st := wire.OK
	switch m.Kind {
	case wire.Read:
		r.Kind = Read
	case wire.Zero:
		r.Kind = Zero
	case wire.Write:
		r.Kind = Write
		r.Buf = s.whole(m.Data, int(m.From%placement.BlockSize), r.count()*placement.BlockSize)
	case wire.CompareAndWrite:
		r.Kind = CompareAndWrite
		r.Buf = s.whole(m.Data, 0, m.DataLength())
	}
	if (m.Kind == wire.Write || m.Kind == wire.CompareAndWrite) && !m.Verify() {
		s.damaged.Add(1)
		st = wire.Damaged
	}
	if st == wire.OK && r.ID.Coordinator != uint32(from) {
		st = wire.Invalid // nobody speaks for another
	}
	if st != wire.OK {
		r.Result = Result{Bufs: r.Bufs[:0]}
		r.Status = st
		r.answer()
		return
	}
	s.Do(&r.Op)
}

// whole returns n bytes that hold the data at off, in one piece: a reference to
// what was received, if it lies that way.
func (s *Server) whole(data cache.Refs, off, n int) *slab.Buf {
	if len(data) == 1 && data[0].Off == off && data[0].Buf.Len() == n {
		return data[0].Buf.Retain()
	}
	buf := s.c.Pool.Get(n)
	mem := buf.Bytes()[off:]
	for _, r := range data {
		mem = mem[copy(mem, r.Bytes()):]
	}
	return buf
}

// answer sends the outcome back and puts the request back.
func (r *request) answer() {
	m := &r.reply
	*m = wire.Message{
		Kind: wire.Reply, Status: r.Status, Op: r.ID, Ver: r.VerHere, VVer: r.VVerHere, From: r.From, To: r.To, Bad: r.Bad,
		Load: r.Load, Head: r.Head, Data: m.Data[:0],
	}
	if r.Status == wire.Miscompare {
		m.From = r.At
	}
	if len(r.Bufs) > 0 {
		r.data(m)
	}
	r.s.c.Transport.Send(r.from, m)
	clear(m.Data)
	m.Data = m.Data[:0]
	r.Bufs.Release()
	if r.Buf != nil {
		r.Buf.Release()
	}
	room := r.room
	r.Buf, r.s, r.room = nil, nil, wire.Room{}
	r.Result = Result{Bufs: r.Bufs}
	requests.Put(r)
	room.Return()
}

// data adds what was read: the bytes asked for, without the blocks that are the
// pool's zeros.
func (r *request) data(m *wire.Message) {
	block := uint32(r.first())
	for _, ref := range r.Bufs {
		for off := 0; off < ref.Len; off += placement.BlockSize {
			from, to := max(r.From, block*placement.BlockSize), min(r.To, (block+1)*placement.BlockSize)
			bit := placement.Mask(1) << block
			switch {
			case r.Bad&bit != 0:
			case ref.Buf.IsZero():
				m.Zeros |= bit
			default:
				m.Mask |= bit
				m.Data = append(m.Data, cache.Ref{Buf: ref.Buf, Off: ref.Off + off + int(from-block*placement.BlockSize), Len: int(to - from)})
			}
			block++
		}
	}
	m.SetSums()
}

// flushFor makes what is lazy durable for another server.
func (s *Server) flushFor(from placement.Server, m *wire.Message) {
	reply := wire.Message{Kind: wire.FlushReply, Op: m.Op, Key: m.Key, Link: m.Link, Index: m.Index}
	s.Flush(func(err error) {
		reply.Status = s.fault(err)
		s.c.Transport.Send(from, &reply)
	})
}

// mappedMax bounds the chunks of one answer.
const mappedMax = 4096

// mappedFor lists chunks for another server.
func (s *Server) mappedFor(from placement.Server, m *wire.Message) {
	reply := wire.Message{Kind: wire.MappedReply, Op: m.Op, Key: m.Key, Link: m.Link, Index: m.Index}
	s.Mapped(m.Link, m.Key, placement.Chunk(m.Index), mappedMax, func(list []MappedChunk, more bool, st wire.Status) {
		reply.Status = st
		if more {
			reply.Flags |= wire.FlagMore
		}
		reply.Body = AppendMapped(nil, list)
		s.c.Transport.Send(from, &reply)
	})
}

// mappedSize is an element of a MappedReply's body: chunk u64, mask u16.
const mappedSize = 10

// AppendMapped encodes the body of a MappedReply.
func AppendMapped(b []byte, list []MappedChunk) []byte {
	for _, c := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(c.Chunk))
		b = binary.LittleEndian.AppendUint16(b, uint16(c.Mask))
	}
	return b
}

// ParseMapped decodes the body of a MappedReply; false if it is none.
func ParseMapped(b []byte) ([]MappedChunk, bool) {
	if len(b)%mappedSize != 0 || len(b)/mappedSize > mappedMax {
		return nil, false
	}
	list := make([]MappedChunk, 0, len(b)/mappedSize)
	for ; len(b) > 0; b = b[mappedSize:] {
		c := MappedChunk{placement.Chunk(binary.LittleEndian.Uint64(b)), placement.Mask(binary.LittleEndian.Uint16(b[8:]))}
		if c.Chunk > maxChunk || len(list) > 0 && c.Chunk <= list[len(list)-1].Chunk {
			return nil, false
		}
		list = append(list, c)
	}
	return list, true
}
