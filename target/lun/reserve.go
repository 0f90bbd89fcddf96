package lun

import (
	"slices"

	"petal/target/scsi"
)

// Persistent reservations (SPC-4 5.12) as a pure state machine:
//
//	next, outcome := state.apply(nexus, request, known)
//	attentions    := changes(state, next)
//
// A state is never changed once made; commands judge by a pointer to it.
//
// ALL_TG_PT makes one registration that covers every target port, present and
// future; it lives and dies as one.

// registrationsMax bounds the registrations of a unit: 64 nodes with 4 paths,
// four times over.
const registrationsMax = 1024

// registration is one registered I_T nexus, or with allPorts one initiator
// port on all target ports (then nexus.Port is 0).
type registration struct {
	nexus    NexusID
	allPorts bool
	key      uint64
}

// covers tells whether the registration is one of the nexus.
func (r *registration) covers(id NexusID) bool {
	return r.nexus.Initiator == id.Initiator && r.nexus.ISID == id.ISID &&
		(r.allPorts || r.nexus.Port == id.Port)
}

// reservationState is the persistent reservations of a unit.
//
// Invariant: typ is none, or there are registrations; unless typ is an All
// Registrants type or none, holder is covered by one of them. Keys are not
// zero. No nexus is covered twice.
type reservationState struct {
	generation    uint32 // PRgeneration
	aptpl         bool
	registrations []registration // in the order in which they were made
	typ           scsi.ReservationType
	holder        NexusID // of types other than All Registrants

	// The change that led here, from which every node derives unit attentions
	// and aborts.
	action uint8
	actor  NexusID

	// closed says that the stored state can't be read: nothing is allowed.
	closed bool
}

// find is the index of the registration that covers the nexus, or -1.
func (s *reservationState) find(id NexusID) int {
	return slices.IndexFunc(s.registrations, func(r registration) bool { return r.covers(id) })
}

// holds tells whether the nexus holds the reservation.
func (s *reservationState) holds(id NexusID) bool {
	switch {
	case s.typ == scsi.NoReservation:
		return false
	case s.typ.AllRegistrants():
		return s.find(id) >= 0
	default:
		return s.holder == id
	}
}

// holderKey is the key that READ RESERVATION tells, and PREEMPT compares.
func (s *reservationState) holderKey() uint64 {
	if s.typ == scsi.NoReservation || s.typ.AllRegistrants() {
		return 0
	}
	if i := s.find(s.holder); i >= 0 {
		return s.registrations[i].key
	}
	return 0
}

// outcome is how a PERSISTENT RESERVE OUT ends. The zero value is GOOD.
type outcome struct {
	status scsi.Status
	sense  scsi.Sense
}

var (
	good     = outcome{}
	conflict = outcome{status: scsi.StatusReservationConflict}
)

func illegalOutcome(code scsi.Code) outcome {
	return outcome{scsi.StatusCheckCondition, scsi.Sense{Key: scsi.KeyIllegalRequest, Code: code}}
}

func badParamOutcome(at int, bit int8) outcome {
	o := illegalOutcome(scsi.CodeInvalidFieldInParams)
	o.sense.Field, o.sense.HasField = scsi.FieldPointer{Byte: uint16(at), Bit: bit}, true
	return o
}

// Offsets in the parameter list, for field pointers.
const (
	paramActionKey = 8
	paramFlags     = 20
	paramTransport = 28
	paramMoveTo    = 24
)

// apply carries out a PERSISTENT RESERVE OUT of the nexus. next is s itself if
// nothing changes. known gives the ISIDs with which an initiator is logged in,
// for TransportIDs that name an initiator with all its ports.
func (s *reservationState) apply(id NexusID, o scsi.PersistentOut, known func(initiator string) [][6]byte) (next *reservationState, out outcome) {
	if o.Action == scsi.SARegister || o.Action == scsi.SARegisterIgnore {
		return s.register(id, o, known)
	}
	// All others are for registrants that know their key (SPC-4 5.12.10 ff.).
	me := s.find(id)
	if me < 0 || s.registrations[me].key != o.Key {
		return s, conflict
	}
	switch o.Action {
	case scsi.SAReserve:
		return s.reserve(id, o)
	case scsi.SARelease:
		return s.release(id, o)
	case scsi.SAClear:
		next = s.changed(id, o.Action)
		next.generation++
		next.registrations = nil
		next.typ, next.holder = scsi.NoReservation, NexusID{}
		return next, good
	case scsi.SAPreempt, scsi.SAPreemptAbort:
		return s.preempt(id, o)
	case scsi.SARegisterMove:
		return s.move(id, o)
	}
	return s, illegalOutcome(scsi.CodeInvalidFieldInCDB)
}

// changed is a copy of the state to be changed by the nexus.
func (s *reservationState) changed(id NexusID, action uint8) *reservationState {
	next := *s
	next.registrations = slices.Clone(s.registrations)
	next.action, next.actor = action, id
	return &next
}

// register is REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.12.7).
func (s *reservationState) register(id NexusID, o scsi.PersistentOut, known func(string) [][6]byte) (*reservationState, outcome) {
	me := s.find(id)
	if o.Action == scsi.SARegister {
		want := uint64(0)
		if me >= 0 {
			want = s.registrations[me].key
		}
		if o.Key != want {
			return s, conflict
		}
	}
	if o.SpecifyPorts != nil && me >= 0 {
		return s, badParamOutcome(paramFlags, 3)
	}
	switch {
	case me < 0 && o.ActionKey == 0:
		return s, good
	case o.ActionKey == 0:
		next := s.changed(id, o.Action)
		next.generation++
		next.remove(func(i int) bool { return i == me })
		return next, good
	case me >= 0:
		next := s.changed(id, o.Action)
		next.generation++
		next.aptpl = o.APTPL
		next.registrations[me].key = o.ActionKey
		if o.AllPorts && !next.widen(me) {
			return s, badParamOutcome(paramFlags, 2)
		}
		return next, good
	}
	next := s.changed(id, o.Action)
	next.generation++
	next.aptpl = o.APTPL
	if out := next.add(id, o, known); out != good {
		return s, out
	}
	return next, good
}

// widen makes a registration one of all target ports, unless another one of
// the same initiator port is in the way.
func (s *reservationState) widen(i int) bool {
	r := &s.registrations[i]
	for j := range s.registrations {
		o := &s.registrations[j].nexus
		if j != i && o.Initiator == r.nexus.Initiator && o.ISID == r.nexus.ISID {
			return false
		}
	}
	r.allPorts, r.nexus.Port = true, 0
	return true
}

// add registers the nexus, and with SPEC_I_PT the initiator ports named.
func (s *reservationState) add(id NexusID, o scsi.PersistentOut, known func(string) [][6]byte) outcome {
	add := func(id NexusID) bool {
		s.registrations = append(s.registrations, registration{nexus: id, key: o.ActionKey})
		return !o.AllPorts || s.widen(len(s.registrations)-1)
	}
	if !add(id) {
		return badParamOutcome(paramFlags, 2)
	}
	for _, t := range o.SpecifyPorts {
		isids := [][6]byte{t.ISID}
		if !t.HasISID {
			isids = known(t.Name)
		}
		for _, isid := range isids {
			other := NexusID{Initiator: t.Name, ISID: isid, Port: id.Port}
			if other == id {
				continue
			}
			if s.find(other) >= 0 || !add(other) {
				return badParamOutcome(paramTransport, -1)
			}
		}
	}
	if len(s.registrations) > registrationsMax {
		return illegalOutcome(scsi.CodeInsufficientRegResource)
	}
	return good
}

// remove drops registrations, and the reservation with the last holder
// (SPC-4 5.12.11.2.2).
func (s *reservationState) remove(drop func(i int) bool) {
	kept := s.registrations[:0:0]
	for i, r := range s.registrations {
		if !drop(i) {
			kept = append(kept, r)
		}
	}
	s.registrations = kept
	held := len(kept) > 0 && (s.typ.AllRegistrants() || s.find(s.holder) >= 0)
	if !held {
		s.typ, s.holder = scsi.NoReservation, NexusID{}
	}
}

// reserve is RESERVE (SPC-4 5.12.10).
func (s *reservationState) reserve(id NexusID, o scsi.PersistentOut) (*reservationState, outcome) {
	if s.typ != scsi.NoReservation {
		if s.holds(id) && s.typ == o.Type {
			return s, good
		}
		return s, conflict
	}
	next := s.changed(id, o.Action)
	next.take(id, o.Type)
	return next, good
}

func (s *reservationState) take(id NexusID, t scsi.ReservationType) {
	s.typ, s.holder = t, NexusID{}
	if !t.AllRegistrants() {
		s.holder = id
	}
}

// release is RELEASE (SPC-4 5.12.11.2.1).
func (s *reservationState) release(id NexusID, o scsi.PersistentOut) (*reservationState, outcome) {
	if !s.holds(id) {
		return s, good
	}
	if s.typ != o.Type {
		return s, illegalOutcome(scsi.CodeInvalidRelease)
	}
	next := s.changed(id, o.Action)
	next.typ, next.holder = scsi.NoReservation, NexusID{}
	return next, good
}

// preempt is PREEMPT and PREEMPT AND ABORT (SPC-4 5.12.11.4, table 61).
func (s *reservationState) preempt(id NexusID, o scsi.PersistentOut) (*reservationState, outcome) {
	me := s.find(id)
	all := s.typ.AllRegistrants()
	match := func(i int) bool { return s.registrations[i].key == o.ActionKey }
	takes := false // the reservation changes hands
	switch {
	case o.ActionKey == 0 && all:
		takes, match = true, func(int) bool { return true }
	case o.ActionKey == 0:
		return s, badParamOutcome(paramActionKey, -1)
	case s.typ != scsi.NoReservation && !all && s.holderKey() == o.ActionKey:
		takes = true
	}
	if !takes && !slices.ContainsFunc(s.registrations, func(r registration) bool { return r.key == o.ActionKey }) {
		return s, conflict
	}
	next := s.changed(id, o.Action)
	next.generation++
	if takes {
		// The preempting nexus itself stays registered.
		next.remove(func(i int) bool { return i != me && match(i) })
		next.take(id, o.Type)
	} else {
		next.remove(match)
	}
	return next, good
}

// move is REGISTER AND MOVE (SPC-4 5.12.8).
func (s *reservationState) move(id NexusID, o scsi.PersistentOut) (*reservationState, outcome) {
	if s.typ == scsi.NoReservation || s.typ.AllRegistrants() || !s.holds(id) {
		return s, conflict
	}
	to := NexusID{Initiator: o.MoveTo.Name, ISID: o.MoveTo.ISID, Port: o.MovePort}
	switch {
	case o.ActionKey == 0:
		return s, badParamOutcome(paramActionKey, -1)
	case !o.MoveTo.HasISID, to == id:
		return s, badParamOutcome(paramMoveTo, -1)
	}
	next := s.changed(id, o.Action)
	next.generation++
	next.aptpl = o.APTPL
	if i := next.find(to); i >= 0 {
		next.registrations[i].key = o.ActionKey
	} else {
		if len(next.registrations) == registrationsMax {
			return s, illegalOutcome(scsi.CodeInsufficientRegResource)
		}
		next.registrations = append(next.registrations, registration{nexus: to, key: o.ActionKey})
	}
	next.holder = to
	if o.Unregister {
		mine := next.find(id)
		if next.registrations[mine].covers(to) {
			return s, badParamOutcome(paramMoveTo, -1)
		}
		next.remove(func(i int) bool { return i == mine })
	}
	return next, good
}

// revokes tells whether the step from s to next takes rights away from a
// nexus, so that no command judged by s may take effect after it.
func (s *reservationState) revokes(next *reservationState) bool {
	switch next.action {
	case scsi.SAReserve, scsi.SAPreempt, scsi.SAPreemptAbort, scsi.SARegisterMove, scsi.SAClear:
		return true
	}
	return len(next.registrations) < len(s.registrations)
}

// removed is the registrations of s that next has no more, but for the
// actor's own.
func (s *reservationState) removed(next *reservationState) []registration {
	var gone []registration
	for _, r := range s.registrations {
		still := slices.ContainsFunc(next.registrations, func(o registration) bool {
			return o.nexus == r.nexus || o.covers(r.nexus)
		})
		if !still && !r.covers(next.actor) {
			gone = append(gone, r)
		}
	}
	return gone
}

// notice is a unit attention that a change of reservations establishes.
type notice struct {
	to   registration
	kind attention
}

// changes is the unit attentions of the step from s to next (SPC-4 5.12.11).
func (s *reservationState) changes(next *reservationState) (list []notice) {
	preempted := next.action == scsi.SAPreempt || next.action == scsi.SAPreemptAbort
	for _, r := range s.removed(next) {
		switch {
		case next.action == scsi.SAClear:
			list = append(list, notice{r, attentionReservationsPreempted})
		case preempted:
			list = append(list, notice{r, attentionRegistrationsPreempted})
		}
	}
	// RESERVATIONS RELEASED goes to the registrants that had access by a
	// reservation that is gone, or is of another type now.
	ended := s.typ.Registrants() && next.typ == scsi.NoReservation && next.action != scsi.SAClear
	retyped := preempted && s.typ != scsi.NoReservation && next.typ != scsi.NoReservation && s.typ != next.typ
	if ended || retyped {
		for _, r := range next.registrations {
			if !r.covers(next.actor) {
				list = append(list, notice{r, attentionReservationsReleased})
			}
		}
	}
	return list
}
