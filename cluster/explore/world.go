package explore

import (
	"petal/cluster/link"
	"petal/placement"
)

// Bounds of the model's arrays. A move that would exceed one is not made: the
// case is then complete only within the bound, so they are generous.
const (
	maxMembers = placement.MaxCopies
	maxBlocks  = 2
	maxWrites  = 3
	maxLog     = 14
	maxRecs    = 6
	maxTodo    = 10
	maxQueue   = 8
	maxVers    = 12
)

// world is a whole small cluster around one link, but for the machines, which
// are the real ones. It has no pointers, so a copy of it is a copy.
type world struct {
	log    [maxLog]entry // what raft agreed upon
	nlog   uint8
	rejoin struct{ member, ver uint8 } // a proposal on its way to raft; ver 0: none
	srv    [maxMembers]server
	q      [maxMembers][maxMembers]queue // q[from][to]
	net    [maxMembers]netState          // of the pairs 0-1, 0-2, 1-2
	wst    [maxWrites]uint8              // wNew...
	mon    [maxBlocks]uint32             // the monitor
	bar    uint8                         // barUnasked...
	rotten uint8                         // member + 1 whose lost record is not made good yet
	used   Budget                        // what the adversary has spent
}

// entry is one command of the raft log.
type entry struct {
	kind   uint8 // entryConfig...
	ver    uint8
	insync placement.Members
	head   uint8
}

const (
	entryConfig = iota + 1
	entryVVer   // the nexus of write 0 is preempted
	entryFence  // head is the member to stop, under ver
)

const (
	wNew   = iota
	wTaken // admitted by a head
	wDone  // answered
)

const (
	barUnasked = iota
	barAgreed
	barAnswered
)

// server is one member of the link: what its process holds besides the
// machine, and its brick.
type server struct {
	up      bool
	leased  bool // the leader must wait for its end
	raft    bool // connected to raft
	vv      bool // has applied entryVVer
	fenced  uint8
	applied uint8               // entries of the log
	cuts    [maxBlocks]gathered // per bucket
	fetch   fetched
	trust   struct{ both, session uint8 } // brick.both before the present attempt to let the other in
	disk    brick
}

// gathered is a cut that is about to be sent (EffectSendCut).
type gathered struct {
	on               bool
	to, ver, session uint8
	marks            uint8
	stamp, common    stamp
}

// fetched is a block on its way to where it is missing.
type fetched struct {
	on              bool
	block, val, ver uint8
}

// netState is the state of the ordered connection of a pair of members.
type netState uint8

const (
	netUp    netState = iota
	netDying          // one end crashed; what it sent may still arrive
	netDown
)

func pairOf(a, b int) int {
	if a > b {
		a, b = b, a
	}
	return a + b - 1
}

// queue is what is under way from one member to another.
type queue struct {
	n uint8
	m [maxQueue]packet
}

// packet is a link.Msg with what the shell adds.
type packet struct {
	kind        link.MsgKind
	ver, bucket uint8
	stamp       stamp
	prev        stamp
	committed   stamp
	excluded    placement.Members
	session     uint8
	first, last bool
	list        [maxBlocks]listed
	nlist       uint8
	write, val  uint8             // Replicate, Recover: id of the write, and what the block holds after it
	marks       uint8             // Cut: blocks
	others      [maxMembers]uint8 // Cut: blocks that others lack
	past        past              // Cut
}

type listed struct {
	bucket uint8
	stamp  stamp
}

// stamp is a placement.Stamp in two bytes.
type stamp struct{ ver, seq uint8 }

func (s stamp) wide() placement.Stamp {
	return placement.Stamp{Ver: uint64(s.ver), Seq: uint64(s.seq)}
}
func small(s placement.Stamp) stamp { return stamp{uint8(s.Ver), uint8(s.Seq)} }
func (s stamp) before(t stamp) bool { return s.ver < t.ver || s.ver == t.ver && s.seq < t.seq }
func (s stamp) atMost(t stamp) bool { return !t.before(s) }

// current is the configuration that raft has agreed upon.
func (w *world) current() entry {
	for i := int(w.nlog) - 1; ; i-- {
		if w.log[i].kind == entryConfig {
			return w.log[i]
		}
	}
}

// agree appends a command; false if the log is full.
func (w *world) agree(e entry) bool {
	if w.nlog == maxLog {
		return false
	}
	w.log[w.nlog] = e
	w.nlog++
	return true
}

// reconfigure agrees on a new configuration.
func (w *world) reconfigure(insync placement.Members, head int, maxVer uint8) bool {
	c := w.current()
	if c.ver >= maxVer {
		return false
	}
	return w.agree(entry{entryConfig, c.ver + 1, insync, uint8(head)})
}

func config(e entry) placement.Config {
	return placement.Config{Ver: uint64(e.ver), InSync: e.insync, Head: placement.Member(e.head)}
}
