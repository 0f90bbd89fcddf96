package link

import (
	"time"

	"petal/placement"
)

// The questions change nothing. Where the answer is Take, the shell appends
// the record to the brick and tells Step (EventAppended) before it lets go of
// the link's mutex.

// Admit answers whether this server, as head, may admit a write of b now, under
// which stamp, and which members will lack it (R8).
//
//	Take       append it under the stamp
//	GoToHead   in sync, but not head
//	OutOfDate  out of sync: ask the head
//	NotOpen    opening, or closed until a new ver
//	NoLease    less than the admission window is left of the lease (R5)
//	Held       the bucket is being cut, or the window is full: again in a moment
func (m *Machine) Admit(b placement.Bucket, now time.Duration) (placement.Stamp, placement.Members, Verdict) {
	switch v := m.serves(now + m.o.Admission); {
	case v != Serve:
		return placement.Stamp{}, 0, v
	case m.cfg.Head != m.o.Self:
		return placement.Stamp{}, 0, GoToHead
	case m.used >= m.o.Window || int(b) >= placement.Buckets:
		return placement.Stamp{}, 0, Held
	}
	bk := m.look(b)
	if bk == nil {
		bk = &bucket{}
	}
	if bk.held && !m.broken(FaultNoHold) {
		return placement.Stamp{}, 0, Held
	}
	return m.nextStamp(bk), m.lacking(bk), Take
}

// nextStamp numbers the head's next record of the bucket (R3).
func (m *Machine) nextStamp(b *bucket) placement.Stamp {
	if b.last.Ver == m.cfg.Ver {
		return placement.Stamp{Ver: m.cfg.Ver, Seq: b.last.Seq + 1}
	}
	return placement.Stamp{Ver: m.cfg.Ver, Seq: 1}
}

// lacking are the members that will not get the bucket's next record (R8).
func (m *Machine) lacking(b *bucket) placement.Members {
	return m.absent() &^ m.joined(b)
}

// keepers are who must have a record of the bucket before it is committed (R2).
func (m *Machine) keepers(bk *bucket) placement.Members { return m.cfg.InSync | bk.cut }

// mayCommit answers whether the bucket's first record in doubt is committed
// (R2): durable here and at every other keeper. Who is alone needs a lease at
// that moment (R5); with another member, that one's check of the ver is the
// fence. A mark on its way to the disk holds it back (R8).
func (m *Machine) mayCommit(b *bucket, now time.Duration) bool {
	if b.first == 0 {
		return false
	}
	s := &m.slots[b.first-1]
	if !s.durable || s.marking {
		return false
	}
	for k := m.keepers(b).Without(m.o.Self); k != 0; k = k.Without(k.First()) {
		if b.have[k.First()].Before(s.rec.Stamp) {
			return false
		}
	}
	return !m.alone() || m.leased(now)
}

// Accept answers whether this member may take the record of a Replicate or
// Recover message from a member.
//
//	Take       append it under the message's stamp
//	Duplicate  it is here: give the message to Step, which acknowledges again
//	OldVer, NewerVer, NotOpen, OutOfDate, Gap: drop it; its sender sends again
//	           what matters when the reason is gone
func (m *Machine) Accept(from placement.Member, msg *Msg) Verdict {
	switch {
	case m.broken(FaultAnyVer) && msg.Kind == MsgReplicate:
	case msg.Ver < m.cfg.Ver:
		return OldVer
	case msg.Ver > m.cfg.Ver:
		return NewerVer
	}
	if int(msg.Bucket) >= placement.Buckets || msg.Stamp.Seq == 0 || msg.Stamp.Ver == 0 || from == m.o.Self {
		return Gap
	}
	bk := m.look(msg.Bucket)
	if bk == nil {
		bk = &bucket{}
	}
	switch msg.Kind {
	case MsgReplicate:
		return m.acceptReplicate(from, msg, bk)
	case MsgRecover:
		return m.acceptRecover(from, msg, bk)
	}
	return Gap
}

func (m *Machine) acceptReplicate(from placement.Member, msg *Msg, bk *bucket) Verdict {
	switch m.state {
	case Open:
	case Out:
		// Let in so far only what is cut; when all is cut that was ever written
		// to, a bucket that nobody ever wrote to needs none (R9).
		if !bk.cut.Has(m.o.Self) && !(m.whole && bk.last == placement.Stamp{}) {
			return OutOfDate
		}
	case Leaving:
		return OutOfDate
	default:
		if !m.broken(FaultAnyVer) {
			return NotOpen
		}
	}
	switch {
	case from != m.cfg.Head || m.Head() || msg.Stamp.Ver != m.cfg.Ver && !m.broken(FaultAnyVer):
		return Gap
	case !bk.last.Before(msg.Stamp) && !m.broken(FaultNoOrder):
		return Duplicate
	case m.broken(FaultNoOrder):
		return m.acceptUnordered(bk, msg.Stamp)
	case msg.Stamp != m.nextStamp(bk) && !m.broken(FaultAnyVer):
		return Gap
	case m.used >= 2*m.o.Window:
		return Gap
	}
	return Take
}

func (m *Machine) acceptRecover(from placement.Member, msg *Msg, bk *bucket) Verdict {
	switch {
	case m.state != Opening:
		return NotOpen
	case !m.cfg.InSync.Has(from) || !m.Head() && from != m.cfg.Head || msg.Stamp.Ver >= m.cfg.Ver:
		return Gap
	case !bk.last.Before(msg.Stamp):
		return Duplicate
	case msg.Prev != bk.last || m.used >= 2*m.o.Window:
		return Gap
	}
	return Take
}

// MayRead answers whether this member may serve a read of b now. conflict says
// that the brick has a prepared record of one of the blocks (R4): only the head
// knows whether it is committed. What the brick calls missing is the shell's to
// redirect (R9).
//
//	Serve      read, then ask StillMayRead before the data is used
//	GoToHead   a record of these blocks is in doubt here
//	OutOfDate, NotOpen, NoLease as in Admit
func (m *Machine) MayRead(b placement.Bucket, conflict bool, now time.Duration) Verdict {
	switch v := m.serves(now); {
	case v != Serve:
		return v
	case conflict && m.cfg.Head != m.o.Self && !m.broken(FaultReadInDoubt):
		return GoToHead
	}
	return Serve
}

// StillMayRead answers whether data that was read after MayRead said Serve
// under ver may be used (R5).
func (m *Machine) StillMayRead(ver uint64, now time.Duration) bool {
	return ver == m.cfg.Ver && m.serves(now) == Serve
}

// serves is Serve if the machine is open with a lease that lasts beyond now.
func (m *Machine) serves(now time.Duration) Verdict {
	switch {
	case m.state == Leaving || m.state == Out:
		return OutOfDate
	case m.state != Open:
		return NotOpen
	case !m.leased(now):
		return NoLease
	}
	return Serve
}
