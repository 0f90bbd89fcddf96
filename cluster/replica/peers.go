package replica

import (
	"syscall"

	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/cluster/wire"
	"petal/placement"
)

// Up tells that messages can be sent to a server's process, Down that what was
// under way to it and from it is lost. They alternate; Up comes before any
// message of the connection, Down after the last.
func (s *Server) Up(peer placement.Server, incarnation uint64) {
	s.mu.Lock()
	s.up[peer] = incarnation
	s.mu.Unlock()
	s.peer(peer, true)
}

// Down: see Up.
func (s *Server) Down(peer placement.Server) {
	s.mu.Lock()
	delete(s.up, peer)
	s.mu.Unlock()
	s.peer(peer, false)
}

func (s *Server) peer(peer placement.Server, up bool) {
	for _, l := range s.all() {
		for m, server := range l.servers {
			if server == peer && placement.Member(m) != l.self {
				l.lock()
				l.peer(placement.Member(m), up)
				l.unlock()
			}
		}
	}
}

// peer tells the machine of a member's connection. The mutex is held.
func (l *seat) peer(m placement.Member, up bool) {
	ev := link.Event{Kind: link.EventDown, Member: m}
	l.peers = l.peers.Without(m)
	if up {
		ev.Kind = link.EventUp
		l.peers = l.peers.With(m)
		l.pulls.hope()
	}
	l.step(&ev)
	if !up {
		l.failFetches(m)
		l.trust.again()
	}
	l.pulls.wake()
}

// others are the other members in sync that can be reached, at best the head
// first. The mutex is not needed by who has it.
func (l *seat) others() placement.Members {
	l.lock()
	defer l.unlock()
	return l.sources()
}

func (l *seat) sources() placement.Members {
	return l.m.Config().InSync.Without(l.self) & l.peers
}

// away reports whether a member in sync can't be reached: what it has is not
// lost.
func (l *seat) away() bool {
	l.lock()
	defer l.unlock()
	return l.m.Config().InSync.Without(l.self)&^l.peers != 0
}

// mayReturn reports whether a member that is out of sync may bring back what is
// missing here: none may of which it is agreed that what it has is worth nothing
// (R14), as when the operator has accepted the loss.
func (l *seat) mayReturn() bool {
	l.lock()
	defer l.unlock()
	return l.awaited() != 0
}

// awaited are the members that may. The mutex is held.
func (l *seat) awaited() placement.Members {
	return placement.MembersOf(len(l.servers)) &^ l.m.Config().InSync &^ l.blank
}

// Receive takes a message of another server, of the kinds of the classes
// replicate, request and background, that a member is asked. It does not keep
// m; replies to a coordinator (Reply, CancelReply, MappedReply, FlushReply) are
// not for it.
func (s *Server) Receive(from placement.Server, incarnation uint64, m *wire.Message) {
	switch m.Kind {
	case wire.Write, wire.Read, wire.Zero, wire.CompareAndWrite:
		s.request(from, m)
		return
	case wire.Cancel:
		s.cancelFor(from, m)
		return
	case wire.Mapped:
		s.mappedFor(from, m)
		return
	case wire.Flush:
		s.flushFor(from, m)
		return
	}
	l := s.seat(m.Link)
	if l == nil {
		return // not a member, or not yet: what matters is sent again
	}
	who, ok := l.member(from)
	if !ok {
		return
	}
	switch m.Kind {
	case wire.Replicate:
		l.replicated(who, m)
	case wire.Missing:
		l.cut(who, m)
	case wire.Fetch:
		l.fetchFor(who, m)
	case wire.Fetched:
		l.fetched(who, m)
	default:
		l.told(who, m)
	}
}

// member returns which other member of the link a server is.
func (l *seat) member(s placement.Server) (placement.Member, bool) {
	for m, server := range l.servers {
		if server == s && placement.Member(m) != l.self {
			return placement.Member(m), true
		}
	}
	return 0, false
}

// told gives the machine a message.
func (l *seat) told(from placement.Member, m *wire.Message) {
	if m.Kind == wire.LinkControl {
		switch m.Code {
		case codeOps:
			l.learnOps(m)
			return
		case codeHistory:
			l.learnHistory(from, m)
			return
		case codeMarks:
			l.learnMarks(from, m)
			return
		case codeKeep:
			l.learnKeep(from, m)
			return
		}
	}
	var msg link.Msg
	l.lock()
	if m.Kind == wire.Ack {
		l.avail[from] = space{true, m.Load.Avail}
		if m.Stamp == (placement.Stamp{}) { // that is all it says
			l.unlock()
			return
		}
		l.paces[from].end(l.id, m.Bucket, m.Stamp, l.s.now(), l.s.c.Times.Complain)
	}
	if l.parse(m, &msg) {
		l.step(&link.Event{Kind: link.EventMessage, Member: from, Msg: &msg})
	}
	l.unlock()
}

// replicated takes a record of another member (R3). Its data are held against
// their checksums before anything is believed.
func (l *seat) replicated(from placement.Member, m *wire.Message) {
	var msg link.Msg
	if !validRecord(m) || !m.Verify() {
		l.s.damaged.Add(1)
		l.askAgain(from)
		return
	}
	l.lock()
	l.parse(m, &msg)
	switch v := l.m.Accept(from, &msg); v {
	case link.Take:
		l.take(from, m, &msg)
	case link.Duplicate:
		l.step(&link.Event{Kind: link.EventMessage, Member: from, Msg: &msg})
	}
	l.unlock()
}

func validRecord(m *wire.Message) bool {
	return m.Mask != 0 && m.Key.Family != 0 && m.Key.Node != 0 && m.Bucket == placement.BucketOf(m.Key.Family, m.Key.Chunk)
}

// take appends another member's record. The mutex is held.
func (l *seat) take(from placement.Member, m *wire.Message, msg *link.Msg) {
	s := l.s
	t := s.newTask()
	t.l, t.bucket = l, m.Bucket
	r := t.rec
	r.Kind, r.Key, r.Mask, r.Bucket, r.Op, r.Sum = brick.Zero, m.Key, m.Mask, m.Bucket, m.Op, m.Sum
	r.Link, r.Ver, r.Seq, r.Excluded, r.Lazy = l.id, m.Stamp.Ver, m.Stamp.Seq, m.Excluded, false
	if m.Flags&wire.FlagZero == 0 {
		t.buf = s.whole(m.Data, 0, m.DataLength())
		r.Kind, r.Buf = brick.Write, t.buf
	}
	t.users.Store(2)
	if err := s.c.Store.Append(r); err != nil {
		t.recycle()
		if err == syscall.ENOSPC {
			l.crowded()
		} else {
			l.fail(err)
		}
		return
	}
	t.ref = l.enter(t)
	l.paces[l.self].begin(l.id, m.Bucket, m.Stamp, s.now())
	l.step(&link.Event{Kind: link.EventAppended, Rec: t.record(), Committed: msg.Committed})
}
