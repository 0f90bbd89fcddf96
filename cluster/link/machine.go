package link

import (
	"fmt"
	"time"

	"petal/placement"
)

// State is where a member stands with its link.
//
//	        in sync                               out of sync
//	Idle ------------> Settling <---------.  ,-----------------> Leaving <---.
//	                      |  ^            |  |                      |        |
//	 all taken is durable,|  | a new ver  | let in again   all taken|        | a new ver, or the
//	 the witness written  v  |            |               is durable v        | head asks again
//	                    Opening           '------------------------ Out -----'
//	 the union is durable |
//	 everywhere (R10)     v
//	                     Open      lease over, fenced or brick failed: from Settling,
//	                               Opening and Open to Closed, from there only by a new ver
type State uint8

const (
	Idle     State = iota // no configuration yet
	Settling              // in sync under a new ver: waits for its own brick
	Opening               // exchanges with the other members (R10)
	Open                  // admits and serves, under a lease
	Closed                // waits for a new ver
	Leaving               // out of sync: waits for its own brick
	Out                   // out of sync: asks to be let in
)

var stateNames = [...]string{Idle: "idle", Settling: "settling", Opening: "opening", Open: "open", Closed: "closed", Leaving: "leaving", Out: "out"}

func (s State) String() string { return name(stateNames[:], uint8(s), "state") }

// edges are the legal changes of state: bit t of edges[s] is s to t.
var edges = [...]uint8{
	Idle:     1<<Settling | 1<<Leaving,
	Settling: 1<<Settling | 1<<Opening | 1<<Closed | 1<<Leaving,
	Opening:  1<<Settling | 1<<Open | 1<<Closed | 1<<Leaving,
	Open:     1<<Settling | 1<<Closed | 1<<Leaving,
	Closed:   1<<Settling | 1<<Leaving,
	Leaving:  1<<Settling | 1<<Leaving | 1<<Out,
	Out:      1<<Settling | 1<<Leaving,
}

// Options are what a machine must know from the start.
type Options struct {
	Self      placement.Member
	Copies    int           // members of the link, 1 to placement.MaxCopies
	Admission time.Duration // a lease with less left admits no write (R5)
	Complain  time.Duration // without an acknowledgement for so long the head complains
	Window    int           // records in flight at most; 0: DefaultWindow
	Fault     Fault         // rules to break; tests of tests only
}

// DefaultWindow is how many records of a link a head has in flight at most.
const DefaultWindow = 1 << 16

// Machine is one member's side of one link. It is not safe for concurrent use:
// the shell holds one mutex from a question to the Step that answers it.
type Machine struct {
	o     Options
	all   placement.Members // of the link
	state State
	cfg   placement.Config
	grant lease
	cause Cause             // of Closed
	up    placement.Members // whose ordered connection is up

	witnessed  uint64 // ver that the brick has noted
	undurable  int    // records taken but not yet durable
	marking    int    // EffectMark under way
	discarding int    // EffectDiscard under way
	storing    int    // Cuts whose last part is being stored
	dropping   int    // EffectDropMarks under way
	failed     bool   // the brick failed a record: not in sync again before EventMended

	open    opening
	join    joining           // head: whom it lets in
	before  placement.Members // who was in sync when the machine opened last
	known   placement.Members // out of sync, and what they have is known: bucket.have
	session uint64            // out of sync: the current attempt to be let in
	whole   bool              // out of sync: in this attempt all is cut that was ever written to
	wait    [placement.MaxCopies]waiting

	pages []*page
	slots []slot
	free  int32 // first free slot, +1
	used  int

	notes   []placement.Bucket // whose commits the others are to be told
	entries []Entry            // memory of the lists in out
	out     []Effect
	checks  int // how often check was called
}

// waiting is what the head waits for from one member.
type waiting struct {
	records int           // taken, not acknowledged
	since   time.Duration // the last sign of progress
}

// New returns the machine of a member that knows no configuration. Restore and
// then Events bring it to life.
func New(o Options) *Machine {
	if o.Copies < 1 || o.Copies > placement.MaxCopies || int(o.Self) >= o.Copies {
		panic(fmt.Sprintf("link: member %d of %d", o.Self, o.Copies))
	}
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	return &Machine{o: o, all: placement.MembersOf(o.Copies)}
}

// Restore tells what the brick holds of a bucket after a restart: the last
// committed stamp and the prepared records in order of their stamps. It must
// precede all events. Records behind a gap were acknowledged by nobody (R3);
// Restore returns how many of prepared it keeps: the shell voids the rest.
func (m *Machine) Restore(b placement.Bucket, committed placement.Stamp, prepared []Record) int {
	if m.state != Idle {
		panic("link: Restore of a machine that is " + m.state.String())
	}
	bk := m.touch(b)
	bk.last, bk.committed = committed, committed
	bk.have[m.o.Self] = committed
	for i, r := range prepared {
		if !follows(bk.last, r.Stamp) {
			return i
		}
		m.push(bk, r)
		m.markDurable(bk, r.Stamp)
	}
	return len(prepared)
}

// follows reports whether a record t may come right after s: the next number
// of the same ver, or the first of a later one.
func follows(s, t placement.Stamp) bool {
	if s.Ver == t.Ver {
		return t.Seq == s.Seq+1
	}
	return t.Ver > s.Ver && t.Seq == 1
}

// State returns where the member stands.
func (m *Machine) State() State { return m.state }

// Config returns the configuration that the machine goes by; the zero Config
// if none.
func (m *Machine) Config() placement.Config { return m.cfg }

// Head reports whether this member orders the link's writes.
func (m *Machine) Head() bool { return m.inSync() && m.cfg.Head == m.o.Self }

func (m *Machine) inSync() bool { return m.cfg.InSync.Has(m.o.Self) }

// alone reports whether this member is the only one in sync (R7).
func (m *Machine) alone() bool { return m.cfg.InSync == placement.Members(0).With(m.o.Self) }

// others are the members in sync but this one.
func (m *Machine) others() placement.Members { return m.cfg.InSync.Without(m.o.Self) }

// absent are the members out of sync.
func (m *Machine) absent() placement.Members { return m.all &^ m.cfg.InSync }

// become changes the state; an edge that is not drawn is a bug.
func (m *Machine) become(s State) {
	if edges[m.state]>>s&1 == 0 {
		panic(fmt.Sprintf("link: %s to %s", m.state, s))
	}
	m.state = s
}

// Step takes one event at time now and returns what is to be done. The slice
// and the lists in it are valid until the next Step.
func (m *Machine) Step(ev *Event, now time.Duration) []Effect {
	m.out, m.entries = m.out[:0], m.entries[:0]
	m.lapse(now)
	switch ev.Kind {
	case EventConfig:
		m.apply(ev.Config, ev.Index, now)
	case EventLease:
		m.granted(ev.Until, ev.Index, now)
	case EventFence:
		m.fence(ev.Ver)
	case EventUp:
		m.peerUp(ev.Member, now)
	case EventDown:
		m.peerDown(ev.Member, now)
	case EventAppended:
		m.appended(ev.Rec, ev.Committed, now)
	case EventDurable:
		m.durable(ev.Rec, ev.Failed, now)
	case EventMessage:
		m.receive(ev.Member, ev.Msg, now)
	case EventMarked:
		m.marked(ev.Rec, now)
	case EventDiscarded:
		m.discarded(ev.Rec)
	case EventWitnessed:
		m.witnessed = max(m.witnessed, ev.Ver)
		m.settle(now)
	case EventCutSent:
		m.cutSent(ev.Member, ev.Bucket, ev.Session, now)
	case EventCutStored:
		m.cutStored(ev.Bucket)
	case EventDropped:
		m.dropping--
		m.settle(now)
	case EventMended:
		m.mended()
	case EventTick:
		m.tick(now)
	default:
		panic("link: " + ev.Kind.String())
	}
	m.check()
	return m.out
}

// apply takes a configuration. One that is not newer only moves the index that
// leases wait for.
func (m *Machine) apply(c placement.Config, index uint64, now time.Duration) {
	if c.Ver > m.cfg.Ver {
		m.shut(CauseConfig)
		m.cfg = c
		m.open = opening{}
		m.forgetJoin()
		m.uncut()
		m.doubtMarks()
		if m.inSync() {
			m.become(Settling)
			m.emit(Effect{Kind: EffectWitness, Ver: c.Ver, Solo: m.alone() && m.o.Copies > 1})
		} else {
			m.become(Leaving)
		}
		for i := range m.wait {
			m.wait[i].since = now
		}
	}
	m.applied(index, now)
	m.settle(now)
}

// doubtMarks drops marks that a new configuration makes void (R9). Who is in sync
// has what it lacks as missing blocks; if that were forgotten here later than by
// the others, it might be told after its next absence to copy from nobody what it
// has copied already. And who is out does not hear of what happens: all that it
// knows of the others is void, until the head that lets it in tells it anew.
// Before that is durable it neither opens nor asks to be let in.
func (m *Machine) doubtMarks() {
	void := m.others()
	if !m.inSync() {
		void = m.all.Without(m.o.Self)
	}
	for k := void; k != 0; k = k.Without(k.First()) {
		m.drop(k.First(), m.cfg.Ver)
	}
	if m.broken(FaultKeepKnown) {
		return
	}
	m.known &^= void
	if !m.inSync() {
		m.before = 0
	}
}

func (m *Machine) drop(of placement.Member, ver uint64) {
	m.dropping++
	m.emit(Effect{Kind: EffectDropMarks, Member: of, Ver: ver})
}

// shut says that the machine serves no more, if it did.
func (m *Machine) shut(c Cause) {
	if m.state == Open {
		m.emit(Effect{Kind: EffectClosed, Ver: m.cfg.Ver, Cause: c})
	}
}

// closeFor stops a machine that is in sync until there is a new ver.
func (m *Machine) closeFor(c Cause) {
	switch m.state {
	case Settling, Opening, Open:
		m.shut(c)
		m.become(Closed)
		m.cause = c
	case Closed:
		m.cause = max(m.cause, c)
	}
}

func (m *Machine) fence(ver uint64) {
	if ver != m.cfg.Ver {
		return
	}
	m.closeFor(CauseFenced)
	m.propose(ProposeFenced, m.o.Self)
}

// settle moves on a machine that waited for its own brick.
func (m *Machine) settle(now time.Duration) {
	if m.undurable != 0 || m.storing != 0 || m.discarding != 0 || m.dropping != 0 {
		return
	}
	switch m.state {
	case Settling:
		if m.witnessed >= m.cfg.Ver && m.marking == 0 {
			m.become(Opening)
			m.beginOpening(now)
		}
	case Leaving:
		m.leave()
	}
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

func (m *Machine) send(to placement.Member, msg Msg) {
	if m.up.Has(to) {
		msg.Ver = m.cfg.Ver
		m.out = append(m.out, Effect{Kind: EffectSend, Member: to, Msg: msg})
	}
}

func (m *Machine) propose(what Proposal, about placement.Member) {
	m.emit(Effect{Kind: EffectPropose, What: what, Member: about, Ver: m.cfg.Ver})
}
