package cluster

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/replica"
	"petal/cluster/wire"
	"petal/placement"
)

// The vver barrier (DESIGN B), from the side of who needs it. A new vver has been
// agreed on; the barrier is complete when nothing that was admitted under an
// older one can newly take effect:
//
//	ask every member in sync: "applied? what you had admitted committed?"
//	   <- yes, with the vers of its links under which that holds
//	for each link, under its present ver:
//	   every member in sync has answered                   -> done
//	   one has no lease: raft excludes it, the ver moves,
//	       the others are asked again (M13)
//	   none has a lease: CompleteBarrier gives the link a
//	       new ver, so R10 precedes any service (M17)      -> done
//
// The end of a lease alone is not enough: a record that is durable only there
// would be committed by a later union.

// ErrBarrier says that it could not be made certain in time that older commands
// have no effect any more. It is agreed that they shall have none.
var ErrBarrier = errors.New("cluster: not all servers that hold the disk have answered in time")

// barriers are those that this node waits for.
type barriers struct {
	mu   sync.Mutex
	last uint64
	list []*barrier
}

// barrier is one.
type barrier struct {
	n      *Node
	number uint64
	disk   meta.ID
	family placement.Family
	node   placement.Node
	vver   uint64
	since  time.Duration
	tries  int
	done   func(error)

	// Under barriers.mu.
	answers    []meta.Answer
	completing bool
	ended      bool
}

// fence waits until nothing that was admitted to a disk under an older vver than
// that of s can newly take effect.
func (n *Node) fence(s *meta.State, disk meta.ID, done func(error)) {
	d := s.DiskByID(disk)
	if d == nil {
		done(nil)
		return
	}
	b := &barrier{n: n, disk: disk, family: d.Family, node: d.Node, vver: d.VVer, since: n.env.Clock.Now(), done: done}
	n.barriers.mu.Lock()
	n.barriers.last++
	b.number = n.barriers.last
	n.barriers.list = append(n.barriers.list, b)
	n.barriers.mu.Unlock()
	b.round()
}

// end ends the barrier, once.
func (b *barrier) end(err error) {
	bs := &b.n.barriers
	bs.mu.Lock()
	first := !b.ended
	b.ended = true
	bs.list = slices.DeleteFunc(bs.list, func(x *barrier) bool { return x == b })
	bs.mu.Unlock()
	if first {
		b.done(err)
	}
}

// check ends the barrier if it is complete, and else returns who has still to
// answer.
func (b *barrier) check() (ask []placement.Server) {
	bs, s := &b.n.barriers, b.n.State()
	bs.mu.Lock()
	ended, answers := b.ended, b.answers
	bs.mu.Unlock()
	if ended {
		return nil
	}
	open := s.Outstanding(b.disk, answers)
	if s.DiskByID(b.disk) == nil || len(open) == 0 {
		b.end(nil)
		return nil
	}
	for _, id := range open {
		l := s.LinkInfo(id)
		for m, srv := range s.LinkServers(id) {
			m := placement.Member(m)
			told := slices.Contains(answers, meta.Answer{Link: id, Ver: l.Ver, Member: m})
			if l.InSync.Has(m) && !told && !slices.Contains(ask, srv) {
				ask = append(ask, srv)
			}
		}
	}
	return ask
}

// round asks those who have not answered, again and again.
func (b *barrier) round() {
	ask := b.check()
	if len(ask) == 0 {
		return
	}
	n := b.n
	age := n.env.Clock.Now() - b.since
	if n.ctx.Err() != nil || n.coord.lapsed.Load() || age >= n.opt.Times.Barrier {
		b.end(ErrBarrier)
		return
	}
	for _, srv := range ask {
		b.ask(srv)
	}
	if age >= n.opt.Times.Lease {
		b.complete()
	}
	b.tries++
	n.env.Clock.AfterFunc(min(n.opt.Times.Renewal/10<<min(b.tries, 4), n.opt.Times.Renewal), b.round)
}

// ask asks one server.
func (b *barrier) ask(srv placement.Server) {
	n := b.n
	if srv != n.self {
		if n.net != nil {
			n.net.Send(srv, &wire.Message{Kind: wire.Barrier, Key: placement.Key{Family: b.family, Node: b.node}, VVer: b.vver, Index: b.number})
		}
		return
	}
	if s := n.store.Load(); s != nil {
		s.replica.Barrier(replica.BarrierID{Asker: n.self, Number: b.number}, b.family, b.node, b.vver, func(links []replica.LinkVer) {
			n.barriers.answer(n.self, b.number, placement.Key{Family: b.family, Node: b.node}, b.vver, links)
		})
	}
}

// complete asks the leader to end a barrier for links nobody of which has a
// lease. It refuses while somebody may have one.
func (b *barrier) complete() {
	bs := &b.n.barriers
	bs.mu.Lock()
	busy := b.completing
	b.completing = true
	cmd := &metapb.CompleteBarrier{Disk: b.disk[:], Vver: b.vver}
	for _, a := range b.answers {
		cmd.Answers = append(cmd.Answers, &metapb.BarrierAnswer{Gmap: a.Link.GMap, Position: a.Link.Position, Ver: a.Ver, Member: uint32(a.Member)})
	}
	bs.mu.Unlock()
	if busy {
		return
	}
	b.n.ProposeAsync(command(cmd), func(_ *meta.State, err error) {
		bs.mu.Lock()
		b.completing = false
		bs.mu.Unlock()
		if err == nil {
			b.end(nil)
		}
	})
}

// answer takes a server's answer.
func (bs *barriers) answer(from placement.Server, number uint64, key placement.Key, vver uint64, links []replica.LinkVer) {
	bs.mu.Lock()
	var b *barrier
	for _, x := range bs.list {
		if x.number == number && x.vver == vver && x.family == key.Family && x.node == key.Node { // numbers are of one life
			b = x
		}
	}
	if b != nil {
		s := b.n.State()
		for _, l := range links {
			m, ok := s.MemberOf(l.Link, from)
			if a := (meta.Answer{Link: l.Link, Ver: l.Ver, Member: m}); ok && !slices.Contains(b.answers, a) {
				b.answers = append(slices.Clip(b.answers), a)
			}
		}
	}
	bs.mu.Unlock()
	if b != nil {
		b.check()
	}
}

// wake looks at all barriers under a new state.
func (bs *barriers) wake() {
	bs.mu.Lock()
	list := slices.Clone(bs.list)
	bs.mu.Unlock()
	for _, b := range list {
		for _, srv := range b.check() {
			b.ask(srv)
		}
	}
}

// lapse ends all barriers: who waits for them is not answered by this node.
func (bs *barriers) lapse() {
	bs.mu.Lock()
	list := slices.Clone(bs.list)
	bs.mu.Unlock()
	for _, b := range list {
		b.end(ErrBarrier)
	}
}

// receive gets another server's answer: for each link gmap u32, position u32,
// ver u64, little-endian.
func (bs *barriers) receive(from placement.Server, m *wire.Message) {
	links, ok := parseLinkVers(m.Body)
	if ok {
		bs.answer(from, m.Index, m.Key, m.VVer, links)
	}
}

// barrierFor answers another server, as soon as that can be said.
func (n *Node) barrierFor(from placement.Server, m *wire.Message) {
	s := n.store.Load()
	if s == nil {
		return // it asks again
	}
	reply := wire.Message{Kind: wire.BarrierDone, Key: m.Key, VVer: m.VVer, Index: m.Index}
	s.replica.Barrier(replica.BarrierID{Asker: from, Number: m.Index}, m.Key.Family, m.Key.Node, m.VVer, func(links []replica.LinkVer) {
		reply.Body = appendLinkVers(nil, links)
		n.net.Send(from, &reply)
	})
}

const (
	linkVerBytes = 16
	linkVersMax  = 2 * placement.MaxRing * placement.MaxCopies // more links than a disk's servers have of its gmap
)

func appendLinkVers(b []byte, links []replica.LinkVer) []byte {
	for _, l := range links {
		b = binary.LittleEndian.AppendUint32(b, l.Link.GMap)
		b = binary.LittleEndian.AppendUint32(b, l.Link.Position)
		b = binary.LittleEndian.AppendUint64(b, l.Ver)
	}
	return b
}

func parseLinkVers(b []byte) (out []replica.LinkVer, ok bool) {
	if len(b)%linkVerBytes != 0 || len(b)/linkVerBytes > linkVersMax {
		return nil, false
	}
	for ; len(b) > 0; b = b[linkVerBytes:] {
		le := binary.LittleEndian
		out = append(out, replica.LinkVer{Link: placement.LinkID{GMap: le.Uint32(b), Position: le.Uint32(b[4:])}, Ver: le.Uint64(b[8:])})
	}
	return out, true
}
