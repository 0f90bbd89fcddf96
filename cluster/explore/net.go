package explore

import (
	"petal/cluster/link"
	"petal/placement"
)

// sendMsg puts a machine's message under way, with what the shell adds to it.
func (s *state) sendMsg(x int, e *link.Effect) {
	m := &e.Msg
	p := packet{
		kind: m.Kind, ver: uint8(m.Ver), bucket: uint8(m.Bucket), stamp: small(m.Stamp), prev: small(m.Prev), committed: small(m.Committed),
		excluded: m.Excluded, session: uint8(m.Session), first: m.First, last: m.Last, nlist: uint8(len(m.List)),
	}
	for i, l := range m.List {
		p.list[i] = listed{uint8(l.Bucket), small(l.Stamp)}
	}
	if m.Kind == link.MsgReplicate {
		p.write = uint8(e.Rec.Ref)
		p.val = p.write + 1
	}
	s.post(x, int(e.Member), p)
}

func (s *state) post(from, to int, p packet) {
	if s.w.net[pairOf(from, to)] != netUp {
		return
	}
	q := &s.w.q[from][to]
	if q.n == maxQueue {
		s.full = true
		return
	}
	q.m[q.n] = p
	q.n++
}

// deliver hands over the first packet from one member to another.
func (s *state) deliver(from, to int) {
	q := &s.w.q[from][to]
	p := q.m[0]
	copy(q.m[:], q.m[1:q.n])
	q.n--
	q.m[q.n] = packet{}

	var list [maxBlocks]link.Entry
	for i, l := range p.list[:p.nlist] {
		list[i] = link.Entry{Bucket: placement.Bucket(l.bucket), Stamp: l.stamp.wide()}
	}
	m := link.Msg{
		Kind: p.kind, Ver: uint64(p.ver), Bucket: placement.Bucket(p.bucket), Stamp: p.stamp.wide(), Prev: p.prev.wide(), Committed: p.committed.wide(),
		Excluded: p.excluded, Session: uint64(p.session), First: p.first, Last: p.last, List: list[:p.nlist],
	}
	if p.kind == link.MsgReplicate || p.kind == link.MsgRecover {
		if s.m[to].Accept(placement.Member(from), &m) == link.Take {
			s.take(to, link.Record{Bucket: m.Bucket, Stamp: m.Stamp, Excluded: m.Excluded, Ref: uint64(p.write)}, m.Committed, p.val)
			return
		}
	}
	s.inHand = &p
	s.step(to, &link.Event{Kind: link.EventMessage, Member: placement.Member(from), Msg: &m}, 0)
	s.inHand = nil
}

// take gives a record to the brick, and tells the machine.
func (s *state) take(x int, r link.Record, committed placement.Stamp, val uint8) {
	d := &s.w.srv[x].disk
	if !d.room() {
		s.full = true
		return
	}
	block := s.k.Writes[r.Ref]
	d.append(rec{stamp: small(r.Stamp), write: uint8(r.Ref), val: val, bucket: uint8(r.Bucket), block: block, excluded: r.Excluded})
	s.step(x, &link.Event{Kind: link.EventAppended, Rec: r, Committed: committed}, 0)
}

// connect brings a pair's connection up, if both ends live.
func (s *state) connect(a, b int) {
	w := &s.w
	if !w.srv[a].up || !w.srv[b].up || w.net[pairOf(a, b)] != netDown {
		return
	}
	w.net[pairOf(a, b)] = netUp
	s.step(a, &link.Event{Kind: link.EventUp, Member: placement.Member(b)}, 0)
	s.step(b, &link.Event{Kind: link.EventUp, Member: placement.Member(a)}, 0)
}

// disconnect loses all that is under way.
func (s *state) disconnect(a, b int) {
	w := &s.w
	w.net[pairOf(a, b)] = netDown
	w.q[a][b], w.q[b][a] = queue{}, queue{}
	for _, e := range [2][2]int{{a, b}, {b, a}} {
		if w.srv[e[0]].up {
			w.srv[e[0]].again()
			s.step(e[0], &link.Event{Kind: link.EventDown, Member: placement.Member(e[1])}, 0)
		}
	}
}

// again forgets an attempt to let the other in.
func (v *server) again() { v.trust.both, v.trust.session = v.disk.both, 0 }

// crash loses what is volatile. What the server sent may still arrive.
func (s *state) crash(x int, rot bool) {
	w := &s.w
	v := &w.srv[x]
	v.disk.crash()
	if rot {
		v.disk.rot()
		w.rotten = uint8(x) + 1
	}
	*v = server{raft: v.raft, disk: v.disk}
	v.again()
	s.m[x] = s.machine(x)
	for y := range s.k.Members {
		if y == x || w.net[pairOf(x, y)] == netDown {
			continue
		}
		w.q[y][x] = queue{}
		w.net[pairOf(x, y)] = netDying
		if !w.srv[y].up {
			s.disconnect(x, y)
		}
	}
}

// restart brings a server back: what its brick has goes to the machine, raft
// agrees on its start, and it goes by no configuration before that.
func (s *state) restart(x int) {
	w := &s.w
	v := &w.srv[x]
	v.up = true
	for b := range s.k.Blocks {
		s.restore(x, uint8(b))
	}
	c := w.current()
	if s.k.Broken&ForgetExclusion != 0 && !c.insync.Has(placement.Member(x)) && !s.anyUp(c.insync) {
		c.insync, c.head = placement.Members(0).With(placement.Member(x)), uint8(x)
	}
	s.full = s.full || !w.reconfigure(c.insync, int(c.head), s.k.MaxVer)
	v.applied = w.nlog
	v.vv = w.bar >= barAgreed
	s.step(x, &link.Event{Kind: link.EventConfig, Config: config(w.current()), Index: uint64(w.nlog)}, 0)
	for y := range s.k.Members {
		if y != x {
			s.connect(x, y)
		}
	}
}

func (s *state) anyUp(of placement.Members) bool {
	for x := range s.k.Members {
		if of.Has(placement.Member(x)) && s.w.srv[x].up {
			return true
		}
	}
	return false
}

// restore tells the machine what the brick has of a bucket.
func (s *state) restore(x int, b uint8) {
	d := &s.w.srv[x].disk
	var prepared []link.Record
	for i := range d.recs[:d.nrecs] {
		r := &d.recs[i]
		switch {
		case r.bucket != b:
		case r.stamp.atMost(d.last[b]):
			d.commit(b, r.stamp)
		default:
			prepared = append(prepared, link.Record{Bucket: placement.Bucket(b), Stamp: r.stamp.wide(), Excluded: r.excluded, Ref: uint64(r.write)})
		}
	}
	for _, r := range prepared[s.m[x].Restore(placement.Bucket(b), d.last[b].wide(), prepared):] {
		for i := range d.recs[:d.nrecs] {
			if d.recs[i].stamp == small(r.Stamp) && d.recs[i].bucket == b {
				d.index[d.recs[i].write] = indexed{}
				d.remove(i)
				break
			}
		}
	}
}
