package lun

import (
	"runtime"
	"sync/atomic"
	"testing"

	"petal/target/scsi"
)

func TestDrainWaitsForThoseInside(t *testing.T) {
	var g gate
	first := g.enter()
	var left atomic.Bool
	drained := make(chan bool)
	go func() { g.drain(); drained <- left.Load() }()
	for g.phase.Load() == 0 {
		runtime.Gosched()
	}
	nested := g.enter() // does not wait for the drain
	g.leave(nested)
	left.Store(true)
	g.leave(first)
	if !<-drained {
		t.Error("drained with one inside")
	}
	g.drain()
}

// A write that was judged before a PREEMPT reaches the disk before the new
// reservations are in force, or not at all.
func TestPreemptWaitsForCommandsOnTheirWayToTheDisk(t *testing.T) {
	r := newRig(t, 512)
	victim := r.attach("iqn.host2", 1)
	r.persistent(r.nexus, register(1))
	r.persistent(victim, register(2))
	r.persistent(victim, scsi.PersistentOut{Action: scsi.SAReserve, Key: 2, Type: scsi.WriteExclusive})

	var preempted atomic.Bool
	done := make(chan struct{})
	r.disk.SetFail(func(op string, _ uint64, _ int) error {
		if op != "write" {
			return nil
		}
		// The victim's write has been judged and is on its way.
		r.disk.SetFail(nil)
		go func() {
			defer close(done)
			r.persistent(r.nexus, scsi.PersistentOut{Action: scsi.SAPreempt, Key: 1, ActionKey: 2, Type: scsi.WriteExclusive})
			preempted.Store(true)
		}()
		for r.unit.reservations.state.Load().action != scsi.SAPreempt {
			runtime.Gosched()
		}
		for range 1000 { // time for it to end, if it does not wait
			runtime.Gosched()
		}
		if preempted.Load() {
			t.Error("preempted with the write on its way")
		}
		return nil
	})
	r.good(victim, writeOne, fill(512, 1))
	<-done
	r.quiet(victim)
	r.conflict(victim, writeOne, fill(512, 2))
}

func TestLongCommandStopsWhenItsNexusIsPreempted(t *testing.T) {
	r := newRig(t, 512)
	victim := r.attach("iqn.host2", 1)
	r.persistent(r.nexus, register(1))
	pieces := 0
	r.disk.SetFail(func(op string, _ uint64, _ int) error {
		if op == "write" {
			if pieces++; pieces == 2 {
				_, version := r.store.Load()
				s := r.unit.reservations.state.Load()
				next, _ := s.apply(r.nexus.id, scsi.PersistentOut{Action: scsi.SAReserve, Key: 1, Type: scsi.ExclusiveAccess}, nobody)
				go r.store.Store(t.Context(), next.encode(), version, true)
				for r.unit.reservations.state.Load() == s {
					runtime.Gosched()
				}
			}
		}
		return nil
	})
	r.conflict(victim, cdb16(scsi.OpWriteSame16, 0, 0, 4*pieceMax/512), fill(512, 1))
	if pieces != 2 {
		t.Errorf("%d pieces were written", pieces)
	}
}
