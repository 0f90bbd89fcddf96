package target

import (
	"testing"

	"petal/target/lun"
)

const (
	testTarget    = "iqn.2026-11.petal:test"
	testInitiator = "iqn.2026-11.petal:initiator"
)

// bench is a server on a loopback port that serves a disk in memory, of 64
// MiB, as LUN 0 of testTarget.
type bench struct {
	t       testing.TB
	server  *Server
	device  *lun.Device
	disk    *lun.MemoryDisk
	address string // of the first portal
}

func newBench(t testing.TB, cfg Config) *bench {
	t.Helper()
	b := &bench{t: t, server: New(cfg), device: lun.NewDevice(testTarget)}
	b.useDisk(lun.NewMemoryDisk(64<<20, 512))
	t.Cleanup(b.server.Close)
	b.set(Target{})
	b.address = b.listen(1)
	return b
}

// useDisk makes LUN 0 of d.
func (b *bench) useDisk(d *lun.MemoryDisk) {
	b.t.Helper()
	u, err := lun.NewUnit(lun.UnitConfig{
		Disk: d, Reservations: lun.NewMemoryReservations(), UUID: [16]byte{1}, Name: "disk0",
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.disk = d
	b.device.SetUnit(0, u)
}

// set serves the device as testTarget, with the rest of t.
func (b *bench) set(t Target) {
	b.t.Helper()
	t.Device = b.device
	if err := b.server.SetTarget(testTarget, t); err != nil {
		b.t.Fatal(err)
	}
}

// listen opens one more portal.
func (b *bench) listen(tpgt uint16) string {
	b.t.Helper()
	a, err := b.server.Listen(Portal{Listen: "127.0.0.1:0", TPGT: tpgt})
	if err != nil {
		b.t.Fatal(err)
	}
	return a.String()
}
