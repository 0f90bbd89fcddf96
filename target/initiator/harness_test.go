package initiator_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"petal/target"
	"petal/target/initiator"
	"petal/target/lun"
)

const testTarget = "iqn.2026-11.petal:test"

// testHost is a loopback address of this process alone. A port that is closed
// must not become somebody else's: other test processes take free ports of
// 127.0.0.1 all the time, and serve targets of the same name.
var testHost = fmt.Sprintf("127.%d.%d.%d", 128|os.Getpid()>>16&127, os.Getpid()>>8&255, os.Getpid()&255)

// serve serves disk as LUN 0 of testTarget and returns the server and its
// portal.
func serve(t testing.TB, disk lun.Disk, change func(*target.Target)) (*target.Server, string) {
	t.Helper()
	s := target.New(target.Config{})
	t.Cleanup(s.Close)
	export(t, s, disk, change)
	addr, err := s.Listen(target.Portal{Listen: testHost + ":0", TPGT: 1})
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

// patience is how long a test waits for what is sure to come: it shows what
// hangs, and how fast a machine is is not for a test to say.
const patience = 2 * time.Minute

// within bounds what a test waits for.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
