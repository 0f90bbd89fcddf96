package target

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"petal/target/iscsi"
	"petal/target/lun"
)

const (
	testTarget    = "iqn.2026-11.petal:test"
	testInitiator = "iqn.2026-11.petal:initiator"
)

// patience is how long a test waits for what is sure to come. It shows what
// hangs; how fast a machine is is not for a test to say.
const patience = time.Minute

// testHost is a loopback address of this process alone. A port that is closed
// and opened again must not have become somebody else's meanwhile: other test
// processes take free ports of 127.0.0.1 all the time.
var testHost = fmt.Sprintf("127.%d.%d.%d", 128|os.Getpid()>>16&127, os.Getpid()>>8&255, os.Getpid()&255)

// bench is a server on a loopback port that serves a disk in memory, of 64
// MiB, as LUN 0 of testTarget.
type bench struct {
	t       testing.TB
	server  *Server
	device  *lun.Device
	disk    *lun.MemoryDisk
	address string // of the first portal
}

// newBench makes a bench. Its initiators are in the raw and do not answer pings:
// it sends none, unless cfg says when.
func newBench(t testing.TB, cfg Config) *bench {
	t.Helper()
	b := newServer(t, cfg)
	b.address = b.listen(1)
	return b
}

// newServer makes a bench without a portal.
func newServer(t testing.TB, cfg Config) *bench {
	t.Helper()
	if cfg.NopInterval == 0 {
		cfg.NopInterval = -1
	}
	b := &bench{t: t, server: New(cfg), device: lun.NewDevice(testTarget)}
	b.useDisk(lun.NewMemoryDisk(64<<20, 512))
	t.Cleanup(b.server.Close)
	b.set(Target{})
	return b
}

// useDisk makes LUN 0 of d.
func (b *bench) useDisk(d *lun.MemoryDisk) {
	b.t.Helper()
	b.disk = d
	b.useUnit(d)
}

// useUnit makes LUN 0 of any disk.
func (b *bench) useUnit(d lun.Disk) {
	b.t.Helper()
	u, err := lun.NewUnit(lun.UnitConfig{
		Disk: d, Reservations: lun.NewMemoryReservations(), UUID: [16]byte{1}, Name: "disk0",
	})
	if err != nil {
		b.t.Fatal(err)
	}
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
	a, err := b.server.Listen(Portal{Listen: testHost + ":0", TPGT: tpgt})
	if err != nil {
		b.t.Fatal(err)
	}
	return a.String()
}

// initiator is the other side in the raw: it logs in and then writes and reads
// whatever PDUs a test wants.
type initiator struct {
	t     testing.TB
	conn  net.Conn
	in    *iscsi.Reader
	out   iscsi.Writer
	cmdSN uint32
	itt   uint32
}

// dial connects to a portal.
func dial(t testing.TB, address string) *initiator {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	i := &initiator{t: t, conn: c, in: iscsi.NewReader(c, 1<<20)}
	i.in.MaxData = iscsi.MaxDataSegmentField
	return i
}

// login logs in to testTarget straight into operational negotiation, with more
// keys beside the names, and returns the last response.
func (i *initiator) login(isid byte, keys ...string) iscsi.LoginResponse {
	i.t.Helper()
	text := []iscsi.Pair{{Key: "InitiatorName", Value: testInitiator}, {Key: "SessionType", Value: "Normal"}, {Key: "TargetName", Value: testTarget}}
	for k := 0; k < len(keys); k += 2 {
		text = append(text, iscsi.Pair{Key: keys[k], Value: keys[k+1]})
	}
	var h iscsi.BHS
	h.Reset(iscsi.OpLoginRequest)
	h.SetImmediate(true)
	l := h.LoginRequest()
	l.SetTransit(true)
	l.SetCSG(iscsi.StageOperational)
	l.SetNSG(iscsi.StageFullFeature)
	l.SetISID(iscsi.ISID{0x80, 0, 0, 0, 0, isid})
	l.SetCmdSN(1)
	i.cmdSN = 1
	i.send(&h, iscsi.AppendText(nil, text))
	for {
		answer := *i.next()
		r := answer.LoginResponse()
		if r.Status() != iscsi.LoginSuccess || r.Transit() {
			return r
		}
		l.SetCmdSN(1)
		i.send(&h, nil)
	}
}

func (i *initiator) send(h *iscsi.BHS, data []byte) {
	i.t.Helper()
	i.out.AppendBytes(h, data)
	if err := i.out.Flush(i.conn); err != nil {
		i.t.Fatal(err)
	}
}

func (i *initiator) next() *iscsi.BHS {
	i.t.Helper()
	h, err := i.in.Next()
	if err != nil {
		i.t.Fatal(err)
	}
	return h
}

// finish reads PDUs up to the status.
func (i *initiator) finish() (status uint8) {
	for {
		h := i.next()
		if h.Opcode() == iscsi.OpSCSIResponse {
			return h.SCSIResponse().Status()
		}
		if h.Opcode() == iscsi.OpDataIn && h.DataIn().HasStatus() {
			return h.DataIn().Status()
		}
	}
}
