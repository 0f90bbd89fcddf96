package lun

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"petal/target/scsi"
)

// A rig is a device with one disk at LUN 0 and an initiator, and plays the
// session's part.
type rig struct {
	t      testing.TB
	disk   *MemoryDisk
	store  *MemoryReservations
	unit   *Unit
	device *Device
	nexus  *Nexus
}

const rigSize = 8 << 20

func newRig(t testing.TB, block int) *rig {
	t.Helper()
	r := &rig{t: t, disk: NewMemoryDisk(rigSize, block), store: NewMemoryReservations(), device: NewDevice("iqn.2026-11.example:disk")}
	u, err := NewUnit(UnitConfig{Disk: r.disk, Reservations: r.store, Name: "test",
		UUID: [16]byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe}})
	if err != nil {
		t.Fatal(err)
	}
	r.unit = u
	t.Cleanup(func() {
		if n := r.disk.Outstanding(); n != 0 {
			t.Errorf("%d loans were not given back", n)
		}
	})
	r.device.SetUnit(0, u)
	r.nexus = r.attach("iqn.2026-11.example:host1", 1)
	return r
}

// attach makes a nexus that has heard of the power on.
func (r *rig) attach(initiator string, isid byte) *Nexus {
	return r.quiet(r.device.Attach(NexusConfig{Initiator: initiator, ISID: [6]byte{5: isid}, TargetPort: 1, TPGT: 1}))
}

func (r *rig) quiet(n *Nexus) *Nexus {
	for range attentionCount {
		r.do(n, cdb("00 00 00 00 00 00"), nil)
	}
	return n
}

// result is how a command ended. data is what came in, copied.
type result struct {
	status scsi.Status
	sense  scsi.Sense
	data   []byte
	drop   bool
	outLen int
}

// cdb makes a CDB from hexadecimal digits.
func cdb(hex string) []byte {
	var b []byte
	for _, f := range bytes.Fields([]byte(hex)) {
		for i := 0; i+1 < len(f); i += 2 {
			b = append(b, digit(f[i])<<4|digit(f[i+1]))
		}
	}
	return b
}

func digit(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// do sends a command with its data-out and returns how it ended.
func (r *rig) do(n *Nexus, cdb []byte, out []byte) result {
	r.t.Helper()
	return r.expect(n, 0, cdb, out, len(out))
}

// expect is do with a LUN and an ExpectedDataTransferLength.
func (r *rig) expect(n *Nexus, lun uint16, cdb []byte, out []byte, expected int) result {
	r.t.Helper()
	var ended sync.WaitGroup
	ended.Add(1)
	c := &Command{LUN: scsi.EncodeLUN(lun), CDB: cdb, Expected: expected, ExpectedIn: MaxTransfer, Done: func(*Command) { ended.Done() }}
	if n.Begin(c) == Wait {
		rest := out
		for _, v := range c.Out {
			k := copy(v, rest)
			rest = rest[k:]
			c.OutGot += k
		}
		n.Run(c)
		ended.Wait()
	}
	res := result{status: scsi.Status(c.Status), data: bytes.Join(c.In, nil), drop: c.Drop, outLen: c.OutLen}
	if len(res.data) < min(c.InLen, c.ExpectedIn) {
		r.t.Errorf("InLen %d but %d bytes in In", c.InLen, len(res.data))
	}
	if c.Sense != nil {
		s, ok := scsi.ParseSense(c.Sense)
		if !ok {
			r.t.Errorf("bad sense data % x", c.Sense)
		}
		res.sense = s
	}
	n.Finish(c)
	return res
}

func (r *rig) good(n *Nexus, cdb []byte, out []byte) []byte {
	r.t.Helper()
	res := r.do(n, cdb, out)
	if res.status != scsi.StatusGood {
		r.t.Fatalf("% x: %v, %v; want GOOD", cdb, res.status, res.sense)
	}
	return res.data
}

func (r *rig) check(n *Nexus, cdb []byte, out []byte, key scsi.SenseKey, code scsi.Code) scsi.Sense {
	r.t.Helper()
	res := r.do(n, cdb, out)
	if res.status != scsi.StatusCheckCondition || res.sense.Key != key || res.sense.Code != code {
		r.t.Fatalf("% x: %v, %v %v; want CHECK CONDITION %v %v", cdb, res.status, res.sense.Key, res.sense.Code, key, code)
	}
	return res.sense
}

func (r *rig) conflict(n *Nexus, cdb []byte, out []byte) {
	r.t.Helper()
	if res := r.do(n, cdb, out); res.status != scsi.StatusReservationConflict {
		r.t.Fatalf("% x: %v, %v; want RESERVATION CONFLICT", cdb, res.status, res.sense)
	}
}

// cdb16 makes a 16-byte CDB of a medium access command.
func cdb16(op scsi.Opcode, flags byte, lba uint64, blocks uint32) []byte {
	b := make([]byte, 16)
	b[0], b[1] = byte(op), flags
	binary.BigEndian.PutUint64(b[2:], lba)
	switch op {
	case scsi.OpCompareAndWrite:
		b[13] = byte(blocks)
	case scsi.OpWriteAtomic16:
		binary.BigEndian.PutUint16(b[12:], uint16(blocks))
	default:
		binary.BigEndian.PutUint32(b[10:], blocks)
	}
	return b
}

// fill is n bytes of a pattern that tells blocks apart.
func fill(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*7 ^ seed
	}
	return b
}
