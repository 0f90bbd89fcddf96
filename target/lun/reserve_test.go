package lun

import (
	"errors"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"petal/target/scsi"

	"pgregory.net/rapid"
)

var (
	nexusA = NexusID{"iqn.a", [6]byte{1}, 1}
	nexusB = NexusID{"iqn.b", [6]byte{2}, 1}
	nexusC = NexusID{"iqn.c", [6]byte{3}, 2}
)

func nobody(string) [][6]byte { return nil }

// must applies a request that has to end with GOOD.
func must(t *testing.T, s *reservationState, id NexusID, o scsi.PersistentOut) *reservationState {
	t.Helper()
	next, out := s.apply(id, o, nobody)
	if out != good {
		t.Fatalf("%v by %v: %v %v", o, id, out.status, out.sense)
	}
	if err := next.validate(); err != nil {
		t.Fatalf("%v by %v: %v", o, id, err)
	}
	return next
}

func register(key uint64) scsi.PersistentOut {
	return scsi.PersistentOut{Action: scsi.SARegisterIgnore, ActionKey: key}
}

// registered is a state with the three nexuses registered under keys 1, 2, 3.
func registered(t *testing.T) *reservationState {
	s := &reservationState{}
	for i, id := range []NexusID{nexusA, nexusB, nexusC} {
		s = must(t, s, id, register(uint64(i+1)))
	}
	return s
}

func TestRegister(t *testing.T) {
	cases := []struct {
		name string
		by   NexusID
		o    scsi.PersistentOut
		want outcome
		keys []uint64
	}{
		{"new", NexusID{"iqn.d", [6]byte{4}, 1}, scsi.PersistentOut{ActionKey: 9}, good, []uint64{1, 2, 3, 9}},
		{"new with a key that none has", NexusID{"iqn.d", [6]byte{4}, 1}, scsi.PersistentOut{Key: 9, ActionKey: 9}, conflict, nil},
		{"change", nexusA, scsi.PersistentOut{Key: 1, ActionKey: 9}, good, []uint64{9, 2, 3}},
		{"change with another's key", nexusA, scsi.PersistentOut{Key: 2, ActionKey: 9}, conflict, nil},
		{"unregister", nexusB, scsi.PersistentOut{Key: 2}, good, []uint64{1, 3}},
		{"unregister what is not", NexusID{"iqn.d", [6]byte{4}, 1}, scsi.PersistentOut{}, good, nil},
		{"same initiator, other port", NexusID{"iqn.a", [6]byte{1}, 7}, scsi.PersistentOut{ActionKey: 9}, good, []uint64{1, 2, 3, 9}},
		{"two ports more", NexusID{"iqn.d", [6]byte{4}, 1}, scsi.PersistentOut{ActionKey: 9, SpecifyPorts: []scsi.TransportID{
			{Name: "iqn.e", ISID: [6]byte{1}, HasISID: true}, {Name: "iqn.f", ISID: [6]byte{1}, HasISID: true}}}, good, []uint64{1, 2, 3, 9, 9, 9}},
		{"a port that is registered", NexusID{"iqn.d", [6]byte{4}, 1}, scsi.PersistentOut{ActionKey: 9, SpecifyPorts: []scsi.TransportID{
			{Name: "iqn.a", ISID: [6]byte{1}, HasISID: true}}}, badParamOutcome(28, -1), nil},
		{"more ports by a registrant", nexusA, scsi.PersistentOut{Key: 1, ActionKey: 9, SpecifyPorts: []scsi.TransportID{}}, badParamOutcome(20, 3), nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := registered(t)
			next, out := s.apply(c.by, c.o, nobody)
			if out != c.want {
				t.Fatalf("%v %v, want %v %v", out.status, out.sense, c.want.status, c.want.sense)
			}
			if c.keys == nil {
				if next != s {
					t.Error("the state has changed")
				}
				return
			}
			if got := keysOf(next); !slices.Equal(got, c.keys) {
				t.Errorf("keys %v, want %v", got, c.keys)
			}
			if next.generation != s.generation+1 {
				t.Errorf("generation %d after %d", next.generation, s.generation)
			}
		})
	}
}

func keysOf(s *reservationState) (keys []uint64) {
	for _, r := range s.registrations {
		keys = append(keys, r.key)
	}
	return keys
}

func TestRegistrationsAreBounded(t *testing.T) {
	s := &reservationState{}
	for i := range registrationsMax {
		s, _ = s.apply(NexusID{Initiator: fmt.Sprint("iqn.", i), Port: 1}, register(1), nobody)
	}
	next, out := s.apply(nexusA, register(1), nobody)
	if next != s || out.sense.Code != scsi.CodeInsufficientRegResource {
		t.Errorf("%d registrations: %v", len(next.registrations), out.sense)
	}
	if _, err := decodeReservations(s.encode()); err != nil {
		t.Error(err)
	}
}

func TestAllTargetPortsIsOneRegistration(t *testing.T) {
	o := register(5)
	o.AllPorts = true
	s := must(t, &reservationState{}, nexusA, o)
	other := nexusA
	other.Port = 9
	if s.find(other) < 0 || s.find(nexusA) < 0 || s.find(nexusB) >= 0 {
		t.Error("not exactly the ports of the initiator port are registered")
	}
	if s = must(t, s, other, register(0)); len(s.registrations) != 0 {
		t.Error("still registered")
	}
}

func TestSpecifiedInitiatorDeviceIsAllItsPorts(t *testing.T) {
	known := func(name string) [][6]byte {
		if name == "iqn.b" {
			return [][6]byte{{1}, {2}}
		}
		return nil
	}
	s, out := (&reservationState{}).apply(nexusA, scsi.PersistentOut{ActionKey: 5,
		SpecifyPorts: []scsi.TransportID{{Name: "iqn.b"}}}, known)
	if out != good || len(s.registrations) != 3 || s.find(nexusB) < 0 {
		t.Errorf("%v, %v", out.status, s.registrations)
	}
}

// expectNotices checks the unit attentions of a step.
func expectNotices(t *testing.T, s, next *reservationState, want map[NexusID]attention) {
	t.Helper()
	got := map[NexusID]attention{}
	for _, n := range s.changes(next) {
		got[n.to.nexus] = n.kind
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("unit attentions %v, want %v", got, want)
	}
}

func TestReserveAndRelease(t *testing.T) {
	for _, typ := range []scsi.ReservationType{1, 3, 5, 6, 7, 8} {
		t.Run(typ.String(), func(t *testing.T) {
			s := registered(t)
			r := must(t, s, nexusA, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: typ})
			if r.generation != s.generation {
				t.Error("RESERVE counts as a generation")
			}
			if r.holds(nexusB) != typ.AllRegistrants() || !r.holds(nexusA) {
				t.Error("the wrong nexuses hold it")
			}
			if next, out := r.apply(nexusA, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: typ}, nobody); next != r || out != good {
				t.Error("the holder can't reserve again")
			}
			_, out := r.apply(nexusB, scsi.PersistentOut{Action: scsi.SAReserve, Key: 2, Type: typ}, nobody)
			if (out == good) != typ.AllRegistrants() {
				t.Errorf("RESERVE by another: %v", out.status)
			}
			other := scsi.WriteExclusive
			if typ == other {
				other = scsi.ExclusiveAccess
			}
			if _, out := r.apply(nexusA, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: other}, nobody); out != conflict {
				t.Errorf("another type: %v", out.status)
			}
			if _, out := r.apply(nexusA, scsi.PersistentOut{Action: scsi.SARelease, Key: 1, Type: other}, nobody); out.sense.Code != scsi.CodeInvalidRelease {
				t.Errorf("RELEASE of another type: %v", out.sense)
			}
			if !typ.AllRegistrants() {
				if next, out := r.apply(nexusB, scsi.PersistentOut{Action: scsi.SARelease, Key: 2, Type: typ}, nobody); next != r || out != good {
					t.Error("RELEASE by one that holds nothing is not without effect")
				}
			}
			free := must(t, r, nexusA, scsi.PersistentOut{Action: scsi.SARelease, Key: 1, Type: typ})
			want := map[NexusID]attention{}
			if typ.Registrants() {
				want[nexusB], want[nexusC] = attentionReservationsReleased, attentionReservationsReleased
			}
			expectNotices(t, r, free, want)
			if free.typ != scsi.NoReservation || !r.revokes(&reservationState{action: scsi.SAPreempt}) {
				t.Error("not released")
			}
		})
	}
}

func TestUnregisteringTheHolderReleases(t *testing.T) {
	for typ, want := range map[scsi.ReservationType]map[NexusID]attention{
		scsi.WriteExclusive:                {},
		scsi.WriteExclusiveRegistrantsOnly: {nexusB: attentionReservationsReleased, nexusC: attentionReservationsReleased},
	} {
		s := must(t, registered(t), nexusA, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: typ})
		next := must(t, s, nexusA, register(0))
		if next.typ != scsi.NoReservation {
			t.Errorf("%v: still reserved", typ)
		}
		expectNotices(t, s, next, want)
	}
	// All Registrants ends with the last of them.
	s := must(t, registered(t), nexusA, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: scsi.WriteExclusiveAllRegistrants})
	s = must(t, s, nexusA, register(0))
	s = must(t, s, nexusB, register(0))
	if s.typ != scsi.WriteExclusiveAllRegistrants {
		t.Error("released with a registrant left")
	}
	if s = must(t, s, nexusC, register(0)); s.typ != scsi.NoReservation {
		t.Error("reserved by nobody")
	}
}

func TestClear(t *testing.T) {
	s := must(t, registered(t), nexusA, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: scsi.ExclusiveAccess})
	next := must(t, s, nexusB, scsi.PersistentOut{Action: scsi.SAClear, Key: 2})
	if len(next.registrations) != 0 || next.typ != scsi.NoReservation || next.generation != s.generation+1 {
		t.Error(next)
	}
	expectNotices(t, s, next, map[NexusID]attention{nexusA: attentionReservationsPreempted, nexusC: attentionReservationsPreempted})
}

func TestPreempt(t *testing.T) {
	const we, ea, wr, wa = scsi.WriteExclusive, scsi.ExclusiveAccess, scsi.WriteExclusiveRegistrantsOnly, scsi.WriteExclusiveAllRegistrants
	preempted, released := attentionRegistrationsPreempted, attentionReservationsReleased
	cases := []struct {
		name    string
		held    scsi.ReservationType // by A
		target  uint64               // preempted key, by C
		typ     scsi.ReservationType
		want    outcome
		keys    []uint64
		after   scsi.ReservationType
		holder  NexusID
		notices map[NexusID]attention
	}{
		{"the holder", we, 1, we, good, []uint64{2, 3}, we, nexusC, map[NexusID]attention{nexusA: preempted}},
		{"the holder, other type", we, 1, ea, good, []uint64{2, 3}, ea, nexusC, map[NexusID]attention{nexusA: preempted, nexusB: released}},
		{"a registrant", we, 2, we, good, []uint64{1, 3}, we, nexusA, map[NexusID]attention{nexusB: preempted}},
		{"a registrant, none holds", 0, 2, we, good, []uint64{1, 3}, 0, NexusID{}, map[NexusID]attention{nexusB: preempted}},
		{"oneself, none holds", 0, 3, we, good, []uint64{1, 2}, 0, NexusID{}, map[NexusID]attention{}},
		{"no such key", we, 9, we, conflict, nil, 0, NexusID{}, nil},
		{"key zero", we, 0, we, badParamOutcome(8, -1), nil, 0, NexusID{}, nil},
		{"all registrants by zero", wa, 0, wr, good, []uint64{3}, wr, nexusC, map[NexusID]attention{nexusA: preempted, nexusB: preempted}},
		{"one of all registrants", wa, 1, wr, good, []uint64{2, 3}, wa, NexusID{}, map[NexusID]attention{nexusA: preempted}},
	}
	for _, c := range cases {
		for _, action := range []uint8{scsi.SAPreempt, scsi.SAPreemptAbort} {
			t.Run(fmt.Sprint(c.name, "/", action), func(t *testing.T) {
				s := registered(t)
				if c.held != 0 {
					s = must(t, s, nexusA, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: c.held})
				}
				next, out := s.apply(nexusC, scsi.PersistentOut{Action: action, Key: 3, ActionKey: c.target, Type: c.typ}, nobody)
				if out != c.want {
					t.Fatalf("%v %v", out.status, out.sense)
				}
				if out != good {
					if next != s {
						t.Error("the state has changed")
					}
					return
				}
				if !slices.Equal(keysOf(next), c.keys) || next.typ != c.after || next.holder != c.holder {
					t.Errorf("keys %v, %v by %v", keysOf(next), next.typ, next.holder)
				}
				if next.generation != s.generation+1 || !s.revokes(next) {
					t.Errorf("generation %d after %d", next.generation, s.generation)
				}
				expectNotices(t, s, next, c.notices)
			})
		}
	}
}

func TestRegisterAndMove(t *testing.T) {
	to := scsi.TransportID{Name: "iqn.d", ISID: [6]byte{4}, HasISID: true}
	dest := NexusID{"iqn.d", [6]byte{4}, 3}
	s := must(t, registered(t), nexusA, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: scsi.WriteExclusive})
	move := scsi.PersistentOut{Action: scsi.SARegisterMove, Key: 1, ActionKey: 7, MovePort: 3, MoveTo: to}

	next := must(t, s, nexusA, move)
	if !next.holds(dest) || next.holds(nexusA) || len(next.registrations) != 4 {
		t.Error(next, next.registrations)
	}
	unregister := move
	unregister.Unregister = true
	if next = must(t, s, nexusA, unregister); !next.holds(dest) || next.find(nexusA) >= 0 {
		t.Error(next, next.registrations)
	}
	again := move
	again.MovePort, again.MoveTo = 1, scsi.TransportID{Name: "iqn.b", ISID: [6]byte{2}, HasISID: true}
	if next = must(t, s, nexusA, again); !slices.Equal(keysOf(next), []uint64{1, 7, 3}) || !next.holds(nexusB) {
		t.Error("to a registrant:", next, next.registrations)
	}
	byB := move
	byB.Key = 2
	if _, out := s.apply(nexusB, byB, nobody); out != conflict {
		t.Errorf("by one that does not hold it: %v", out.status)
	}
	self := move
	self.MovePort, self.MoveTo = 1, scsi.TransportID{Name: "iqn.a", ISID: [6]byte{1}, HasISID: true}
	if _, out := s.apply(nexusA, self, nobody); out.sense.Code != scsi.CodeInvalidFieldInParams {
		t.Errorf("to oneself: %v", out.sense)
	}
}

func TestOnlyRegistrantsWithTheirKey(t *testing.T) {
	s := registered(t)
	stranger := NexusID{"iqn.d", [6]byte{4}, 1}
	for action := scsi.SAReserve; action <= scsi.SARegisterMove; action++ {
		if action == scsi.SARegisterIgnore {
			continue
		}
		o := scsi.PersistentOut{Action: action, Type: scsi.WriteExclusive, ActionKey: 2}
		if next, out := s.apply(stranger, o, nobody); out != conflict || next != s {
			t.Errorf("action %d by a stranger: %v", action, out.status)
		}
		o.Key = 2
		if next, out := s.apply(nexusA, o, nobody); out != conflict || next != s {
			t.Errorf("action %d with another's key: %v", action, out.status)
		}
	}
}

// twin is the slow twin of reservationState: a map from nexus to key, with the
// rules of SPC-4 5.12 written down once more, without ALL_TG_PT and SPEC_I_PT.
type twin struct {
	keys   map[NexusID]uint64
	typ    scsi.ReservationType
	holder NexusID
}

func (w *twin) do(id NexusID, o scsi.PersistentOut) scsi.Status {
	key, known := w.keys[id]
	switch o.Action {
	case scsi.SARegister, scsi.SARegisterIgnore:
		if o.Action == scsi.SARegister && o.Key != key {
			return scsi.StatusReservationConflict
		}
		if o.ActionKey == 0 {
			w.drop(id)
		} else {
			w.keys[id] = o.ActionKey
		}
		return scsi.StatusGood
	}
	if !known || key != o.Key {
		return scsi.StatusReservationConflict
	}
	all := w.typ == 7 || w.typ == 8
	mine := w.typ != 0 && (all || w.holder == id)
	switch o.Action {
	case scsi.SAReserve:
		switch {
		case w.typ == 0:
			w.hold(id, o.Type)
		case !mine || w.typ != o.Type:
			return scsi.StatusReservationConflict
		}
	case scsi.SARelease:
		if mine && w.typ != o.Type {
			return scsi.StatusCheckCondition
		}
		if mine {
			w.hold(NexusID{}, 0)
		}
	case scsi.SAClear:
		w.keys = map[NexusID]uint64{}
		w.hold(NexusID{}, 0)
	case scsi.SAPreempt, scsi.SAPreemptAbort:
		return w.preempt(id, o, all)
	}
	return scsi.StatusGood
}

func (w *twin) preempt(id NexusID, o scsi.PersistentOut, all bool) scsi.Status {
	if o.ActionKey == 0 && !all {
		return scsi.StatusCheckCondition
	}
	take := o.ActionKey == 0 || w.typ != 0 && !all && w.keys[w.holder] == o.ActionKey
	hit := take
	for other, key := range w.keys {
		if o.ActionKey != 0 && key != o.ActionKey {
			continue
		}
		hit = true
		if !take || other != id {
			delete(w.keys, other)
		}
	}
	if !hit {
		return scsi.StatusReservationConflict
	}
	if take {
		w.hold(id, o.Type)
	} else if all && len(w.keys) == 0 {
		w.hold(NexusID{}, 0)
	}
	return scsi.StatusGood
}

func (w *twin) hold(id NexusID, typ scsi.ReservationType) {
	w.typ, w.holder = typ, id
	if typ == 0 || typ >= 7 {
		w.holder = NexusID{}
	}
}

func (w *twin) drop(id NexusID) {
	delete(w.keys, id)
	if w.typ != 0 && (w.typ >= 7 && len(w.keys) == 0 || w.typ < 7 && w.holder == id) {
		w.hold(NexusID{}, 0)
	}
}

// The same cases each time, unless the command line wants others (-rapid.seed,
// -rapid.checks): what is red was made so by a change.
func init() {
	flag.Set("rapid.seed", "1")
	flag.Set("rapid.checks", "1000")
}

func TestReservationsAgreeWithTheirTwin(t *testing.T) {
	nexuses := []NexusID{nexusA, nexusB, nexusC, {"iqn.a", [6]byte{1}, 2}}
	rapid.Check(t, func(t *rapid.T) {
		s, w := &reservationState{}, &twin{keys: map[NexusID]uint64{}}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := rapid.SampledFrom(nexuses).Draw(t, "by")
			o := scsi.PersistentOut{
				Action:    rapid.Uint8Range(0, 6).Draw(t, "action"),
				Type:      rapid.SampledFrom([]scsi.ReservationType{1, 3, 5, 6, 7, 8}).Draw(t, "type"),
				Key:       rapid.Uint64Range(0, 3).Draw(t, "key"),
				ActionKey: rapid.Uint64Range(0, 3).Draw(t, "action key"),
			}
			if rapid.Bool().Draw(t, "true key") {
				o.Key = w.keys[id]
			}
			next, out := s.apply(id, o, nobody)
			if want := w.do(id, o); out.status != want {
				t.Fatalf("%v by %v: %v, twin %v", o, id, out.status, want)
			}
			if next.typ != w.typ || next.holder != w.holder || len(next.registrations) != len(w.keys) {
				t.Fatalf("%v by %v: %v held by %v, twin %v by %v", o, id, next, next.holder, w.typ, w.holder)
			}
			for _, r := range next.registrations {
				if w.keys[r.nexus] != r.key {
					t.Fatalf("%v by %v: %v has key %d, twin %d", o, id, r.nexus, r.key, w.keys[r.nexus])
				}
			}
			checkStep(t, s, next)
			s = next
		}
	})
}

// checkStep checks what holds for every step of the state machine.
func checkStep(t *rapid.T, s, next *reservationState) {
	if err := next.validate(); err != nil {
		t.Fatal(err)
	}
	back, err := decodeReservations(next.encode())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(normal(back), normal(next)) {
		t.Fatalf("%+v decodes as %+v", next, back)
	}
	for _, n := range s.changes(next) {
		if n.to.covers(next.actor) {
			t.Fatal("a unit attention for the nexus that made the change")
		}
	}
	// Whoever loses access by this step must be covered by revokes.
	for _, id := range []NexusID{nexusA, nexusB, nexusC} {
		if mayWrite(s, id) && !mayWrite(next, id) && !s.revokes(next) {
			t.Fatalf("%v may not write any more, but nothing is revoked", id)
		}
	}
}

func mayWrite(s *reservationState, id NexusID) bool {
	return s.typ == scsi.NoReservation || s.holds(id) || s.typ.Registrants() && s.find(id) >= 0
}

func normal(s *reservationState) reservationState {
	n := *s
	if len(n.registrations) == 0 {
		n.registrations = nil
	}
	return n
}

func TestDecodeReservations(t *testing.T) {
	value := registered(t).encode()
	for n := 1; n < len(value); n++ {
		if _, err := decodeReservations(value[:n]); !errors.Is(err, errReservationsCorrupt) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(value), err)
		}
	}
	if _, err := decodeReservations(append(value, 0)); !errors.Is(err, errReservationsCorrupt) {
		t.Error("a byte too many:", err)
	}
	newer := slices.Clone(value)
	newer[0]++
	if _, err := decodeReservations(newer); !errors.Is(err, errReservationsNewer) {
		t.Error("a newer version:", err)
	}
	if s, err := decodeReservations(nil); err != nil || len(s.registrations) != 0 {
		t.Error("no value:", err)
	}
	nobody := &reservationState{typ: scsi.WriteExclusive, holder: nexusA}
	if _, err := decodeReservations(nobody.encode()); !errors.Is(err, errReservationsCorrupt) {
		t.Error("held by one that is not registered:", err)
	}
}

func FuzzDecodeReservations(f *testing.F) {
	f.Add([]byte{})
	f.Add((&reservationState{}).encode())
	s := &reservationState{typ: scsi.WriteExclusive, holder: nexusA,
		registrations: []registration{{nexus: nexusA, key: 1}, {nexus: NexusID{Initiator: "iqn.b"}, allPorts: true, key: 2}}}
	f.Add(s.encode())
	f.Fuzz(func(t *testing.T, value []byte) {
		s, err := decodeReservations(value)
		if err != nil {
			return
		}
		back, err := decodeReservations(s.encode())
		if err != nil {
			t.Fatalf("% x decodes, but not what it encodes to: %v", value, err)
		}
		if !reflect.DeepEqual(normal(back), normal(s)) {
			t.Fatalf("%+v, then %+v", s, back)
		}
	})
}
