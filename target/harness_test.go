package target

import (
	"testing"

	"petal/target/lun"
)

const (
	testTarget    = "iqn.2026-11.petal:test"
	testInitiator = "iqn.2026-11.petal:initiator"
)

// startServer serves a memory disk of 64 MiB as LUN 0 of testTarget on a
// loopback port, and returns the port's address.
func startServer(t testing.TB, cfg Config, change func(*Target)) (*Server, string) {
	t.Helper()
	s := New(cfg)
	d := lun.NewDevice(testTarget)
	u, err := lun.NewUnit(lun.UnitConfig{
		Disk: lun.NewMemoryDisk(64<<20, 512), Reservations: lun.NewMemoryReservations(), UUID: [16]byte{1}, Name: "disk0",
	})
	if err != nil {
		t.Fatal(err)
	}
	d.SetUnit(0, u)
	target := Target{Device: d}
	if change != nil {
		change(&target)
	}
	if err := s.SetTarget(testTarget, target); err != nil {
		t.Fatal(err)
	}
	a, err := s.Listen(Portal{Listen: "127.0.0.1:0", TPGT: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, a.String()
}
