package replica

import (
	"petal/cluster/cache"
	"petal/cluster/link"
	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// How messages of the machine travel: each kind as a wire kind, its list as
// Progress elements, what has no field of its own in one that the kind leaves
// free:
//
//	Replicate            Replicate, the record's data; Committed
//	Recover              Replicate with FlagRecovery; Committed is Prev
//	Cut                  Missing, the marks; Index is Session, Committed is Prev
//	Want                 Want; Committed is Prev
//	Ack, Summary, Opened, Rejoin under their names; Index is Session
//	Committed, Ask       LinkControl with a Code of their own
//	-                    LinkControl: operations of a bucket, before a Cut (R12)
//	-                    LinkControl: its history and marks for others, before a Cut (R9)
//
// First and Last are two bits of Code.
const (
	codeFirst     = 1 << 0
	codeLast      = 1 << 1
	codeCommitted = 1 << 2
	codeAsk       = 1 << 3
	codeOps       = 1 << 4
	codeHistory   = 1 << 5
	codeMarks     = 1 << 6
	codeKeep      = 1 << 7

	codeWhole = 1 << 2 // of a Cut's first part: all that the member has is marked, but what it is to keep
)

var wireKinds = [...]wire.Kind{
	link.MsgReplicate: wire.Replicate, link.MsgAck: wire.Ack, link.MsgCommitted: wire.LinkControl, link.MsgAsk: wire.LinkControl,
	link.MsgSummary: wire.Summary, link.MsgWant: wire.Want, link.MsgRecover: wire.Replicate, link.MsgCut: wire.Missing,
	link.MsgOpened: wire.Opened, link.MsgRejoin: wire.Rejoin,
}

// send sends a message of the machine. The mutex is held.
func (l *seat) send(e *link.Effect) {
	if e.Msg.Kind == link.MsgReplicate {
		t := l.tasks[e.Rec.Ref-1]
		l.sendRecord(e.Member, &e.Msg, t.rec.Op, &payload{key: t.rec.Key, mask: t.rec.Mask, sum: &t.rec.Sum, buf: t.buf})
		return
	}
	if e.Msg.Kind == link.MsgRejoin && !l.fitness.asks(&e.Msg) {
		return
	}
	m := l.message(&e.Msg)
	l.s.load.fill(&m.Load)
	l.post1(e.Member, m)
}

// post1 sends a message to a member.
func (l *seat) post1(to placement.Member, m *wire.Message) bool {
	return l.s.c.Transport.Send(l.servers[to], m)
}

// message makes msg the seat's message to be sent.
func (l *seat) message(msg *link.Msg) *wire.Message {
	m := &l.msg
	*m = wire.Message{
		Kind: wireKinds[msg.Kind], Link: l.id, Ver: msg.Ver, Bucket: msg.Bucket, Stamp: msg.Stamp, Committed: msg.Committed,
		Excluded: msg.Excluded, Index: msg.Session, Data: m.Data[:0],
	}
	switch msg.Kind {
	case link.MsgWant, link.MsgRecover, link.MsgCut:
		m.Committed = msg.Prev
	case link.MsgCommitted:
		m.Code = codeCommitted
	case link.MsgAsk:
		m.Code = codeAsk
	}
	if msg.First {
		m.Code |= codeFirst
	}
	if msg.Last {
		m.Code |= codeLast
	}
	l.body = l.body[:0]
	for _, e := range msg.List {
		l.body = wire.AppendProgress(l.body, wire.Progress{Bucket: e.Bucket, Durable: e.Stamp})
	}
	m.Body = l.body
	return m
}

// payload is what a record writes.
type payload struct {
	key  placement.Key
	mask placement.Mask
	sum  *[placement.BlocksPerChunk]uint32
	buf  *slab.Buf // nil: zeros
	refs cache.Refs
}

// sendRecord sends a Replicate or Recover with its data.
func (l *seat) sendRecord(to placement.Member, msg *link.Msg, op placement.OpID, p *payload) {
	m := l.message(msg)
	if msg.Kind == link.MsgRecover {
		m.Flags |= wire.FlagRecovery
	}
	m.Op, m.Key, m.Mask = op, p.key, p.mask
	switch {
	case p.buf != nil:
		m.Sum = *p.sum
		m.Data = append(m.Data, cache.Ref{Buf: p.buf, Len: p.buf.Len()})
	case len(p.refs) > 0:
		m.Sum = *p.sum
		m.Data = append(m.Data, p.refs...)
	default:
		m.Flags |= wire.FlagZero
	}
	l.post1(to, m)
	clear(m.Data)
	m.Data = m.Data[:0]
}

// parse makes a message of another member the machine's, with its list in the
// seat's memory. It reports false if it is none.
func (l *seat) parse(m *wire.Message, msg *link.Msg) bool {
	*msg = link.Msg{Ver: m.Ver, Bucket: m.Bucket, Stamp: m.Stamp, Committed: m.Committed, Excluded: m.Excluded, Session: m.Index}
	msg.First, msg.Last = m.Code&codeFirst != 0, m.Code&codeLast != 0
	switch m.Kind {
	case wire.Replicate:
		msg.Kind = link.MsgReplicate
		if m.Flags&wire.FlagRecovery != 0 {
			msg.Kind, msg.Prev, msg.Committed = link.MsgRecover, m.Committed, placement.Stamp{}
		}
		return true
	case wire.Ack:
		msg.Kind = link.MsgAck
		return true
	case wire.Summary:
		msg.Kind = link.MsgSummary
	case wire.Rejoin:
		msg.Kind = link.MsgRejoin
	case wire.Want:
		msg.Kind, msg.Prev, msg.Committed = link.MsgWant, m.Committed, placement.Stamp{}
	case wire.Missing:
		msg.Kind, msg.Prev, msg.Committed = link.MsgCut, m.Committed, placement.Stamp{}
		return true
	case wire.Opened:
		msg.Kind = link.MsgOpened
	case wire.LinkControl:
		switch {
		case m.Code&codeCommitted != 0:
			msg.Kind = link.MsgCommitted
		case m.Code&codeAsk != 0:
			msg.Kind = link.MsgAsk
		default:
			return false
		}
	default:
		return false
	}
	l.entries = l.entries[:0]
	err := wire.ParseProgress(m.Body, func(p wire.Progress) bool {
		l.entries = append(l.entries, link.Entry{Bucket: p.Bucket, Stamp: p.Durable})
		return len(l.entries) <= link.ListMax
	})
	msg.List = l.entries
	return err == nil && len(l.entries) <= link.ListMax
}
