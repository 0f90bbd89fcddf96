package initiator_test

import (
	"context"
	"testing"
	"time"

	"petal/target"
	"petal/target/initiator"
	"petal/target/lun"
)

const testTarget = "iqn.2026-11.petal:test"

// serve serves disk as LUN 0 of testTarget and returns the server and its
// portal.
func serve(t testing.TB, disk lun.Disk, change func(*target.Target)) (*target.Server, string) {
	t.Helper()
	s := target.New(target.Config{})
	t.Cleanup(s.Close)
	export(t, s, disk, change)
	addr, err := s.Listen(target.Portal{Listen: "127.0.0.1:0", TPGT: 1})
	if err != nil {
		t.Fatal(err)
	}
	return s, addr.String()
}

func export(t testing.TB, s *target.Server, disk lun.Disk, change func(*target.Target)) {
	t.Helper()
	u, err := lun.NewUnit(lun.UnitConfig{Disk: disk, Reservations: lun.NewMemoryReservations(), UUID: [16]byte{1}, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	d := lun.NewDevice(testTarget)
	d.SetUnit(0, u)
	x := target.Target{Device: d}
	if change != nil {
		change(&x)
	}
	if err := s.SetTarget(testTarget, x); err != nil {
		t.Fatal(err)
	}
}

func urlOf(portal string) initiator.URL {
	return initiator.URL{Host: portal, Target: testTarget}
}

// within bounds what a test waits for.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// dial logs in and clears the unit attentions.
func dial(t testing.TB, portal string, o initiator.Options) (*initiator.Session, *initiator.Disk) {
	t.Helper()
	s, err := initiator.Dial(within(t), urlOf(portal), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	d, err := initiator.OpenDisk(within(t), s)
	if err != nil {
		t.Fatal(err)
	}
	return s, d
}
