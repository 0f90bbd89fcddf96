package lun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"petal/target/scsi"
)

// persistentOut sends PERSISTENT RESERVE OUT.
func (r *rig) persistentOut(n *Nexus, o scsi.PersistentOut) result {
	r.t.Helper()
	list := o.Append(nil)
	c := make([]byte, 10)
	c[0], c[1], c[2] = byte(scsi.OpPersistentOut), o.Action, byte(o.Type)
	binary.BigEndian.PutUint32(c[5:], uint32(len(list)))
	return r.do(n, c, list)
}

func (r *rig) persistent(n *Nexus, o scsi.PersistentOut) {
	r.t.Helper()
	if res := r.persistentOut(n, o); res.status != scsi.StatusGood {
		r.t.Fatalf("%+v: %v %v", o, res.status, res.sense)
	}
}

var (
	testUnitReady = cdb("00 00 00 00 00 00")
	readOne       = cdb("28 00 00000000 00 0001 00")
	writeOne      = cdb("2a 00 00000000 00 0001 00")
)

// attentionOf takes the next unit attention of a nexus, or CodeNone.
func (r *rig) attentionOf(n *Nexus) scsi.Code {
	r.t.Helper()
	res := r.do(n, testUnitReady, nil)
	if res.status != scsi.StatusCheckCondition || res.sense.Key != scsi.KeyUnitAttention {
		return scsi.CodeNone
	}
	return res.sense.Code
}

func TestAccessUnderReservations(t *testing.T) {
	cases := []struct {
		typ                              scsi.ReservationType
		regRead, regWrite, read, written bool
	}{
		{scsi.WriteExclusive, true, false, true, false},
		{scsi.ExclusiveAccess, false, false, false, false},
		{scsi.WriteExclusiveRegistrantsOnly, true, true, true, false},
		{scsi.ExclusiveAccessRegistrantsOnly, true, true, false, false},
		{scsi.WriteExclusiveAllRegistrants, true, true, true, false},
		{scsi.ExclusiveAccessAllRegistrants, true, true, false, false},
	}
	for _, c := range cases {
		t.Run(c.typ.String(), func(t *testing.T) {
			r := newRig(t, 512)
			registrant, stranger := r.attach("iqn.host2", 1), r.attach("iqn.host3", 1)
			r.persistent(r.nexus, register(1))
			r.persistent(registrant, register(2))
			r.persistent(r.nexus, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: c.typ})
			may := func(who string, n *Nexus, cdb, out []byte, want bool) {
				t.Helper()
				status := scsi.StatusReservationConflict
				if want {
					status = scsi.StatusGood
				}
				if res := r.do(n, cdb, out); res.status != status {
					t.Errorf("%s, % x: %v, want %v", who, cdb, res.status, status)
				}
			}
			block := make([]byte, 512)
			may("holder", r.nexus, readOne, nil, true)
			may("holder", r.nexus, writeOne, block, true)
			may("registrant", registrant, readOne, nil, c.regRead)
			may("registrant", registrant, writeOne, block, c.regWrite)
			may("stranger", stranger, readOne, nil, c.read)
			may("stranger", stranger, writeOne, block, c.written)
			// These are allowed always.
			for _, free := range []string{"00 00 00 00 00 00", "12 00 00 00 60 00", "25 00 00000000 00 00 00 00",
				"03 00 00 00 12 00", "a0 00 00 00 00 00 00000100 00 00", "5e 00 00 00 00 00 00 0100 00",
				"1e 00 00 00 00 00", "1b 00 00 00 01 00", "4d 00 40 00 00 0000 0100 00"} {
				may("stranger", stranger, cdb(free), nil, true)
			}
			for _, write := range []string{"35 00 00000000 00 0000 00", "1e 00 00 00 01 00", "16 00 00 00 00 00"} {
				may("stranger", stranger, cdb(write), nil, false)
			}
		})
	}
}

func TestReservationChangesWhileDataIsOnItsWay(t *testing.T) {
	r := newRig(t, 512)
	other := r.attach("iqn.host2", 1)
	ended := 0
	c := &Command{CDB: writeOne, Expected: 512, Done: func(*Command) { ended++ }}
	if other.Begin(c) != Wait {
		t.Fatal("decided")
	}
	r.persistent(r.nexus, register(1))
	r.persistent(r.nexus, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: scsi.WriteExclusive})
	c.OutGot = copy(c.Out[0], fill(512, 1))
	other.Run(c)
	if ended != 1 || scsi.Status(c.Status) != scsi.StatusReservationConflict {
		t.Errorf("ended %d times with %v", ended, scsi.Status(c.Status))
	}
	other.Finish(c)
	if r.disk.Mapped() != 0 {
		t.Error("the data was written")
	}
}

func TestPreemptedNexusHearsOfItAndIsAborted(t *testing.T) {
	for _, action := range []uint8{scsi.SAPreempt, scsi.SAPreemptAbort} {
		t.Run(fmt.Sprint(action), func(t *testing.T) {
			r := newRig(t, 512)
			var mu sync.Mutex
			var waiting []func()
			aborted := make(chan struct{}, 8)
			victim := r.quiet(r.device.Attach(NexusConfig{Initiator: "iqn.host2", TargetPort: 1,
				AbortAll: func(lun uint64, _ bool, done func()) {
					mu.Lock()
					waiting = append(waiting, done)
					mu.Unlock()
					aborted <- struct{}{}
				}}))
			r.persistent(r.nexus, register(1))
			r.persistent(victim, register(2))
			r.persistent(victim, scsi.PersistentOut{Action: scsi.SAReserve, Key: 2, Type: scsi.WriteExclusive})

			preempt := scsi.PersistentOut{Action: action, Key: 1, ActionKey: 2, Type: scsi.WriteExclusive}
			ended := make(chan result)
			go func() { ended <- r.persistentOut(r.nexus, preempt) }()
			if action == scsi.SAPreemptAbort {
				// Once by the change of state, once to be waited for.
				<-aborted
				<-aborted
				select {
				case <-ended:
					t.Error("ended before the aborts")
				default:
				}
				mu.Lock()
				for _, done := range waiting {
					done()
				}
				mu.Unlock()
			}
			if res := <-ended; res.status != scsi.StatusGood {
				t.Fatal(res.status, res.sense)
			}
			if got := r.attentionOf(victim); got != scsi.CodeRegistrationsPreempted {
				t.Errorf("unit attention %v", got)
			}
			r.conflict(victim, writeOne, make([]byte, 512))
			if len(aborted) != 0 {
				t.Error("aborted by PREEMPT alone")
			}
		})
	}
}

func TestReservationsComeFromTheStore(t *testing.T) {
	// Two units on one store are two nodes.
	r := newRig(t, 512)
	r.persistent(r.nexus, register(1))
	r.persistent(r.nexus, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: scsi.ExclusiveAccess})

	again := newRig(t, 512)
	again.store = r.store
	u, err := NewUnit(UnitConfig{Disk: again.disk, Reservations: r.store, Name: "again"})
	if err != nil {
		t.Fatal(err)
	}
	again.device.SetUnit(1, u)
	n := again.attach("iqn.host2", 1)
	res := again.expect(n, 1, readOne, nil, 0)
	for res.sense.Key == scsi.KeyUnitAttention {
		res = again.expect(n, 1, readOne, nil, 0)
	}
	if res.status != scsi.StatusReservationConflict {
		t.Errorf("%v, want RESERVATION CONFLICT", res.status)
	}
}

func TestRacingRegistrationsAllCount(t *testing.T) {
	r := newRig(t, 512)
	const n = 32
	var all sync.WaitGroup
	for i := range n {
		nexus := r.attach(fmt.Sprint("iqn.host", i), byte(i))
		all.Go(func() { r.persistent(nexus, register(uint64(i+1))) })
	}
	all.Wait()
	if s := r.unit.reservations.state.Load(); len(s.registrations) != n || s.generation != n {
		t.Error(s)
	}
}

func TestUnreadableReservationsAllowNothing(t *testing.T) {
	r := newRig(t, 512)
	_, version := r.store.Load()
	if err := r.store.Store(t.Context(), []byte{99}, version, false); err != nil {
		t.Fatal(err)
	}
	r.conflict(r.nexus, writeOne, make([]byte, 512))
	r.conflict(r.nexus, readOne, nil)
	if res := r.do(r.nexus, cdb("5e 00 00 00 00 00 00 0100 00"), nil); !res.drop {
		t.Error("READ KEYS of what can't be read:", res.status)
	}
	if _, err := NewUnit(UnitConfig{Disk: r.disk, Reservations: r.store}); !errors.Is(err, errReservationsNewer) {
		t.Error(err)
	}
}

func TestPersistentOutOfUnknownOutcomeDrops(t *testing.T) {
	r := newRig(t, 512)
	r.store.SetFail(func() error { return errors.New("no quorum") })
	if res := r.persistentOut(r.nexus, register(1)); !res.drop {
		t.Error(res.status, res.sense)
	}
}

func TestPersistentOutParameters(t *testing.T) {
	r := newRig(t, 512)
	r.persistent(r.nexus, register(1))
	list := scsi.PersistentOut{Key: 1, ActionKey: 2}.Append(nil)
	cases := []struct {
		name string
		cdb  string
		list []byte
		code scsi.Code
	}{
		{"no list", "5f 00 00 00 00 00000000 00", nil, scsi.CodeParameterListLength},
		{"short list", "5f 00 00 00 00 00000010 00", list[:16], scsi.CodeParameterListLength},
		{"less sent than announced", "5f 00 00 00 00 00000018 00", list[:16], scsi.CodeParameterListLength},
		{"too long", "5f 00 00 00 00 00ffffff 00", list, scsi.CodeParameterListLength},
		{"unknown type", "5f 01 02 00 00 00000018 00", list, scsi.CodeInvalidFieldInCDB},
		{"unknown scope", "5f 01 13 00 00 00000018 00", list, scsi.CodeInvalidFieldInCDB},
		{"unknown service action", "5f 08 01 00 00 00000018 00", list, scsi.CodeInvalidFieldInCDB},
	}
	for _, c := range cases {
		res := r.do(r.nexus, cdb(c.cdb), c.list)
		if res.sense.Code != c.code {
			t.Errorf("%s: %v %v, want %v", c.name, res.status, res.sense, c.code)
		}
	}
}

func TestReserveOfAnother(t *testing.T) {
	r := newRig(t, 512)
	other := r.attach("iqn.host2", 1)
	reserve, release := cdb("16 00 00 00 00 00"), cdb("17 00 00 00 00 00")
	r.good(r.nexus, reserve, nil)
	r.good(r.nexus, reserve, nil)
	r.conflict(other, reserve, nil)
	r.good(other, release, nil)
	for _, c := range []string{"00 00 00 00 00 00", "28 00 00000000 00 0001 00", "1a 00 3f 00 ff 00", "5e 00 00 00 00 00 00 0100 00"} {
		r.conflict(other, cdb(c), nil)
		r.good(r.nexus, cdb(c), nil)
	}
	r.good(other, cdb("12 00 00 00 60 00"), nil)
	r.good(r.nexus, release, nil)
	r.good(other, reserve, nil)

	t.Run("ends with the nexus", func(t *testing.T) {
		other.Detach(true)
		r.good(r.nexus, reserve, nil)
	})
	t.Run("ends with a reset", func(t *testing.T) {
		third := r.attach("iqn.host3", 1)
		r.conflict(third, reserve, nil)
		third.Manage(LogicalUnitReset, 0, func(resp Response) {
			if resp != FunctionComplete {
				t.Error(resp)
			}
		})
		r.quiet(third)
		r.good(third, reserve, nil)
	})
}

func TestReserveBesidePersistentReservations(t *testing.T) {
	r := newRig(t, 512)
	other := r.attach("iqn.host2", 1)
	r.persistent(r.nexus, register(1))
	r.good(r.nexus, cdb("16 00 00 00 00 00"), nil)
	r.conflict(other, cdb("16 00 00 00 00 00"), nil)
	if r.unit.legacy.Load() != nil {
		t.Error("reserved the old way by a registrant")
	}
	r.good(r.nexus, cdb("17 00 00 00 00 00"), nil)
}

func TestLateRegistrantHasAccess(t *testing.T) {
	r := newRig(t, 512)
	other := r.attach("iqn.host2", 1)
	r.persistent(r.nexus, register(1))
	r.persistent(r.nexus, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: scsi.ExclusiveAccessRegistrantsOnly})
	r.conflict(other, readOne, nil)
	r.persistent(other, register(2))
	r.good(other, readOne, nil)
	r.persistent(other, register(0))
	r.conflict(other, readOne, nil)
}

// remote is a store that hears late of what other nodes have changed.
type remote struct {
	*MemoryReservations
	behind func()
	err    error
}

func (r *remote) Sync(done func(error)) {
	go func() {
		if r.behind != nil {
			r.behind()
		}
		done(r.err)
	}()
}

// PERSISTENT RESERVE IN tells what all nodes have agreed upon, or nothing.
func TestPersistentInIsPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 512)
		store := &remote{MemoryReservations: r.store}
		r.unit.reservations.store = store
		store.behind = func() {
			_, version := r.store.Load()
			next, _ := (&reservationState{}).apply(NexusID{Initiator: "iqn.elsewhere", Port: 2}, register(7), nobody)
			if err := r.store.Store(t.Context(), next.encode(), version, false); err != nil {
				t.Error(err)
			}
			store.behind = nil
		}
		keys := cdb("5e 00 00000000 00 0100 00")
		if got := r.good(r.nexus, keys, nil); len(got) != 16 || got[15] != 7 {
			t.Errorf("READ KEYS: % x", got)
		}
		store.err = errors.New("no quorum")
		if res := r.do(r.nexus, keys, nil); !res.drop {
			t.Errorf("without knowing: %v % x", res.status, res.data)
		}
	})
}
