package lun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"petal/target/scsi"
)

func TestAbsentUnit(t *testing.T) {
	r := newRig(t, 512)
	res := r.expect(r.nexus, 7, cdb("12 00 00 00 60 00"), nil, 0)
	if res.status != scsi.StatusGood || res.data[0] != scsi.PeripheralAbsent {
		t.Errorf("INQUIRY: %v % x", res.status, res.data)
	}
	res = r.expect(r.nexus, 7, cdb("a0 00 00 00 00 00 00000100 00 00"), nil, 0)
	if res.status != scsi.StatusGood || len(res.data) != 16 {
		t.Errorf("REPORT LUNS: %v % x", res.status, res.data)
	}
	for _, c := range [][]byte{testUnitReady, readOne, cdb("12 01 00 00 60 00")[:6], cdb("ff 00 00 00 00 00")} {
		res = r.expect(r.nexus, 7, c, nil, 0)
		if c[0] == 0x12 {
			continue
		}
		if res.sense.Key != scsi.KeyIllegalRequest || res.sense.Code != scsi.CodeLUNotSupported {
			t.Errorf("% x: %v %v", c, res.status, res.sense)
		}
	}
	res = r.expect(r.nexus, 7, cdb("03 00 00 00 12 00"), nil, 0)
	if s, _ := scsi.ParseSense(res.data); res.status != scsi.StatusGood || s.Code != scsi.CodeLUNotSupported {
		t.Errorf("REQUEST SENSE: %v % x", res.status, res.data)
	}
}

func TestUnsupportedOpcodes(t *testing.T) {
	r := newRig(t, 512)
	supported := map[scsi.Opcode]bool{}
	for i := range scsi.Commands {
		supported[scsi.Commands[i].Op] = true
	}
	for op := range 256 {
		c := make([]byte, 16)
		c[0] = byte(op)
		res := r.do(r.nexus, c, nil)
		if got := res.sense.Code != scsi.CodeInvalidOpcode; got != supported[scsi.Opcode(op)] {
			t.Errorf("opcode %02x: %v %v", op, res.status, res.sense)
		}
	}
}

// No CDB may crash the device server, and each command ends once.
func TestEveryCommandEndsOnce(t *testing.T) {
	r := newRig(t, 512)
	for i := range scsi.Commands {
		row := &scsi.Commands[i]
		for _, v := range []byte{0x00, 0xff, 0x01, 0x80} {
			c := make([]byte, 16)
			for j := range c {
				c[j] = v
			}
			c[0] = byte(row.Op)
			if row.SA != scsi.NoServiceAction {
				c[1] = byte(row.SA) | v&0xE0
			}
			c[row.Len-1] = 0
			r.do(r.nexus, c, fill(4096, v))
			r.do(r.nexus, c[:row.Len-1], nil)
		}
	}
	r.quiet(r.nexus)
}

func TestNACAIsRefused(t *testing.T) {
	r := newRig(t, 512)
	s := r.check(r.nexus, cdb("00 00 00 00 00 04"), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	if want := (scsi.FieldPointer{InCDB: true, Byte: 5, Bit: 2}); s.Field != want {
		t.Errorf("field %+v", s.Field)
	}
}

func TestUnitAttentionsByPrecedence(t *testing.T) {
	r := newRig(t, 512)
	r.unit.CapacityChanged()
	r.unit.CapacityChanged()
	r.unit.ThresholdReached()
	r.unit.ThresholdReached()
	r.unit.ModeChanged()
	// INQUIRY goes on as if nothing were.
	r.good(r.nexus, cdb("12 00 00 00 60 00"), nil)
	for _, want := range []scsi.Code{scsi.CodeModeParametersChanged, scsi.CodeCapacityChanged, scsi.CodeSoftThreshold, scsi.CodeNone} {
		if got := r.attentionOf(r.nexus); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	r.unit.ThresholdReached()
	if got := r.attentionOf(r.nexus); got != scsi.CodeNone {
		t.Errorf("the soft threshold once more: %v", got)
	}
	r.unit.ThresholdCleared()
	r.unit.ThresholdReached()
	if got := r.attentionOf(r.nexus); got != scsi.CodeSoftThreshold {
		t.Errorf("the soft threshold crossed again: %v", got)
	}
}

func TestRequestSenseTakesTheUnitAttention(t *testing.T) {
	r := newRig(t, 512)
	r.unit.CapacityChanged()
	s, ok := scsi.ParseSense(r.good(r.nexus, cdb("03 01 00 00 ff 00"), nil))
	if !ok || s.Code != scsi.CodeCapacityChanged {
		t.Errorf("%v", s)
	}
	s, _ = scsi.ParseSense(r.good(r.nexus, cdb("03 00 00 00 ff 00"), nil))
	if s.Key != scsi.KeyNoSense || s.Code != scsi.CodeNone {
		t.Errorf("then %v", s)
	}
}

func TestUnitAttentionsOfSessions(t *testing.T) {
	r := newRig(t, 512)
	cfg := NexusConfig{Initiator: "iqn.host2", TargetPort: 1}
	n := r.device.Attach(cfg)
	if got := r.attentionOf(n); got != scsi.CodePowerOnOrReset {
		t.Errorf("new: %v", got)
	}
	n.Detach(true)
	n = r.device.Attach(cfg)
	if got := r.attentionOf(n); got != scsi.CodeNexusLoss {
		t.Errorf("after a loss: %v", got)
	}
	n.Detach(false)
	n = r.device.Attach(cfg)
	if got := r.attentionOf(n); got != scsi.CodePowerOnOrReset {
		t.Errorf("after a logout: %v", got)
	}
	if got := r.attentionOf(n); got != scsi.CodeNone {
		t.Errorf("then: %v", got)
	}
}

func TestLUNMapChanges(t *testing.T) {
	r := newRig(t, 512)
	u, err := NewUnit(UnitConfig{Disk: NewMemoryDisk(1<<20, 4096), Reservations: NewMemoryReservations(), UUID: [16]byte{9}})
	if err != nil {
		t.Fatal(err)
	}
	r.device.SetUnit(300, u)
	if got := r.attentionOf(r.nexus); got != scsi.CodeReportedLUNsChanged {
		t.Errorf("unit attention %v", got)
	}
	r.device.SetUnit(5, u)
	data := r.good(r.nexus, cdb("a0 00 02 00 00 00 00000100 00 00"), nil)
	if want := scsi.AppendReportLUNs(nil, []uint16{0, 5, 300}); !bytes.Equal(data, want) {
		t.Errorf("% x, want % x", data, want)
	}
	if got := r.attentionOf(r.nexus); got != scsi.CodeNone {
		t.Errorf("after REPORT LUNS: %v", got)
	}
	r.device.RemoveUnit(5)
	if res := r.expect(r.nexus, 5, testUnitReady, nil, 0); res.sense.Code != scsi.CodeLUNotSupported {
		t.Errorf("removed: %v", res.sense)
	}
}

func TestResets(t *testing.T) {
	for f, want := range map[Function]scsi.Code{LogicalUnitReset: scsi.CodeBusDeviceReset,
		TargetWarmReset: scsi.CodeBusReset, TargetColdReset: scsi.CodeBusReset} {
		r := newRig(t, 512)
		aborted := 0
		other := r.quiet(r.device.Attach(NexusConfig{Initiator: "iqn.host2", TargetPort: 1,
			AbortAll: func(lun uint64, _ bool, done func()) { aborted++; done() }}))
		r.unit.CapacityChanged()
		r.good(r.nexus, cdb("03 00 00 00 ff 00"), nil)
		answered := 0
		r.nexus.Manage(f, 0, func(resp Response) {
			answered++
			if resp != FunctionComplete {
				t.Errorf("%d: response %d", f, resp)
			}
		})
		if answered != 1 || aborted != 1 {
			t.Errorf("%d: answered %d times, aborted %d times", f, answered, aborted)
		}
		for _, n := range []*Nexus{r.nexus, other} {
			if got := r.attentionOf(n); got != want {
				t.Errorf("%d: unit attention %v, want %v", f, got, want)
			}
		}
	}
}

// TestTaskAbortedStatus: with TAS, tasks that another nexus ends are told so;
// those of the nexus that asks are not.
func TestTaskAbortedStatus(t *testing.T) {
	r := newRig(t, 512)
	told := map[string][]bool{}
	attach := func(name string) *Nexus {
		return r.quiet(r.device.Attach(NexusConfig{Initiator: name, TargetPort: 1,
			AbortAll: func(_ uint64, tell bool, done func()) { told[name] = append(told[name], tell); done() }}))
	}
	asks, other := attach("iqn.asks"), attach("iqn.other")
	for _, tas := range []bool{false, true} {
		page, _ := scsi.AppendModePages(nil, scsi.ModeControl, 0, scsi.PageCurrent, scsi.ModeValues{TaskAborted: tas})
		r.good(asks, cdb("15 10 00 00 10 00"), append(make([]byte, 4), page...))
		clear(told)
		asks.Manage(LogicalUnitReset, 0, func(Response) {})
		if want := map[string][]bool{"iqn.asks": {false}, "iqn.other": {tas}}; !reflect.DeepEqual(told, want) {
			t.Errorf("TAS %v, reset: told %v", tas, told)
		}
		if r.unit.modes.taskAborted() {
			t.Error("TAS outlives a reset")
		}
		r.quiet(asks)
		r.quiet(other)
		r.good(asks, cdb("15 10 00 00 10 00"), append(make([]byte, 4), page...))
		r.quiet(other)
		r.persistent(asks, register(1))
		r.persistent(other, register(2))
		clear(told)
		r.persistent(asks, scsi.PersistentOut{Action: scsi.SAPreemptAbort, Key: 1, ActionKey: 2, Type: scsi.WriteExclusive})
		if want := map[string][]bool{"iqn.other": {tas, tas}}; !reflect.DeepEqual(told, want) {
			t.Errorf("TAS %v, preemption: told %v", tas, told)
		}
		r.quiet(other)
		r.persistent(asks, scsi.PersistentOut{Action: scsi.SAClear, Key: 1})
	}
}

// A reset is answered when both this node and the others are done with the
// commands that came before, and rejected if the others may not be.
func TestResetReachesAllNodes(t *testing.T) {
	r := newRig(t, 512)
	var elsewhere, here func()
	fails := error(nil)
	r.unit.cfg.Reset = func(done func(error)) { elsewhere = func() { done(fails) } }
	asks := r.quiet(r.device.Attach(NexusConfig{Initiator: "iqn.asks", TargetPort: 1, AbortAll: func(_ uint64, _ bool, done func()) { here = done }}))
	for _, c := range []struct {
		f    Function
		err  error
		want Response
	}{{LogicalUnitReset, nil, FunctionComplete}, {TargetWarmReset, nil, FunctionComplete}, {LogicalUnitReset, errors.New("no quorum"), FunctionRejected}, {TargetColdReset, errors.New("no quorum"), FunctionRejected}} {
		answer := Response(99)
		fails = c.err
		asks.Manage(c.f, 0, func(got Response) { answer = got })
		here()
		if answer != 99 {
			t.Errorf("%d: answered before the other nodes were done", c.f)
		}
		elsewhere()
		if answer != c.want {
			t.Errorf("%d, %v: answered %d, want %d", c.f, c.err, answer, c.want)
		}
	}
	r.quiet(asks)
	r.quiet(r.nexus)
	r.unit.ResetElsewhere()
	here()
	for _, n := range []*Nexus{asks, r.nexus} {
		if got := r.attentionOf(n); got != scsi.CodeBusDeviceReset {
			t.Errorf("%s is told %v of a reset by another node", n.ID(), got)
		}
	}
}

func TestManageOfTheRest(t *testing.T) {
	r := newRig(t, 512)
	for f, want := range map[Function]Response{AbortTask: FunctionComplete, AbortTaskSet: FunctionComplete,
		ClearTaskSet: FunctionComplete, ClearACA: FunctionNotSupported, TaskReassign: FunctionNotSupported, 99: FunctionNotSupported} {
		r.nexus.Manage(f, 0, func(got Response) {
			if got != want {
				t.Errorf("%d: %d, want %d", f, got, want)
			}
		})
	}
	r.nexus.Manage(LogicalUnitReset, scsi.EncodeLUN(9), func(got Response) {
		if got != LUNDoesNotExist {
			t.Errorf("no unit: %d", got)
		}
	})
}

func TestErrorsOfTheDisk(t *testing.T) {
	cases := []struct {
		err  error
		key  scsi.SenseKey
		code scsi.Code
	}{
		{syscall.ENOSPC, scsi.KeyDataProtect, scsi.CodeSpaceAllocFailed},
		{syscall.EROFS, scsi.KeyDataProtect, scsi.CodeWriteProtected},
		{syscall.EINVAL, scsi.KeyIllegalRequest, scsi.CodeLBAOutOfRange},
		{badMedium{}, scsi.KeyMediumError, scsi.CodeUnrecoveredRead},
	}
	commands := map[string][]byte{"read": readOne, "write": writeOne, "zero": cdb("41 00 00000000 00 0001 00"),
		"compare": cdb16(scsi.OpCompareAndWrite, 0, 0, 1), "flush": cdb("35 00 00000000 00 0000 00")}
	for _, c := range cases {
		for op, cdb := range commands {
			r := newRig(t, 512)
			r.disk.SetFail(failing(op, c.err))
			out := make([]byte, 512)
			if op == "compare" {
				out = make([]byte, 1024)
			}
			s := r.check(r.nexus, cdb, out, c.key, c.code)
			if c.key == scsi.KeyMediumError && s.Info != 6 {
				t.Errorf("INFORMATION %d, want LBA 6", s.Info)
			}
		}
	}
	r := newRig(t, 512)
	r.disk.SetFail(failing("read", context.Canceled))
	if res := r.do(r.nexus, readOne, nil); res.status != scsi.StatusTaskAborted {
		t.Error("cancelled:", res.status)
	}
}

type badMedium struct{}

func (badMedium) Error() string             { return "checksum" }
func (badMedium) BadRange() (off, n uint64) { return 3072, 512 }

func failing(op string, err error) func(string, uint64, int) error {
	return func(o string, _ uint64, _ int) error {
		if o == op {
			return err
		}
		return nil
	}
}

// The disk has tried: the session is dropped, not at once, and without a status.
func TestUnreachableDataIsDropped(t *testing.T) {
	lost := errors.New("no link")
	for op, cdb := range map[string][]byte{"read": readOne, "write": writeOne, "zero": cdb("41 00 00000000 00 0001 00"), "flush": cdb("35 00 00000000 00 0000 00")} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 512)
				tries := 0
				r.disk.SetFail(func(o string, _ uint64, _ int) error {
					if o != op {
						return nil
					}
					tries++
					return lost
				})
				start := time.Now()
				if res := r.do(r.nexus, cdb, make([]byte, 512)); !res.drop || time.Since(start) != dropPause {
					t.Errorf("drop %v after %v", res.drop, time.Since(start))
				}
				if tries != 1 {
					t.Errorf("handed to the disk %d times", tries)
				}
			})
		})
	}
	r := newRig(t, 512)
	r.disk.SetFail(failing("reserve", lost))
	if res := r.do(r.nexus, writeOne, make([]byte, 512)); !res.drop {
		t.Error("no memory lent:", res.status)
	}
}

type busy struct{}

func (busy) Error() string { return "the link is being opened" }
func (busy) Busy() bool    { return true }

// An error that is sure to have done nothing is a status, on this path.
func TestBusy(t *testing.T) {
	for op, cdb := range map[string][]byte{"read": readOne, "write": writeOne, "reserve": writeOne, "zero": cdb("41 00 00000000 00 0001 00"),
		"flush": cdb("35 00 00000000 00 0000 00"), "compare": cdb16(scsi.OpCompareAndWrite, 0, 0, 1)} {
		t.Run(op, func(t *testing.T) {
			r := newRig(t, 512)
			r.disk.SetFail(failing(op, fmt.Errorf("disk: %w", busy{})))
			out := make([]byte, 512)
			if op == "compare" {
				out = make([]byte, 1024)
			}
			if res := r.do(r.nexus, cdb, out); res.drop || res.status != scsi.StatusBusy {
				t.Errorf("drop %v, %v", res.drop, res.status)
			}
		})
	}
}

// A command that a preemption has overtaken ends with what the preemption means.
func TestBusyAfterPreemption(t *testing.T) {
	r := newRig(t, 512)
	other := r.attach("iqn.host2", 1)
	r.persistent(other, register(2))
	r.disk.SetFail(func(op string, _ uint64, _ int) error {
		if op != "read" {
			return nil
		}
		r.disk.SetFail(nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.persistent(other, scsi.PersistentOut{Action: scsi.SAReserve, Key: 2, Type: scsi.ExclusiveAccess})
		}()
		for r.unit.reservations.state.Load().typ != scsi.ExclusiveAccess {
			runtime.Gosched()
		}
		return busy{}
	})
	r.conflict(r.nexus, readOne, nil)
}

func TestNewUnitRefusesOddDisks(t *testing.T) {
	for _, d := range []*MemoryDisk{NewMemoryDisk(1<<20, 1024), NewMemoryDisk(0, 512), NewMemoryDisk(4095, 512)} {
		if _, err := NewUnit(UnitConfig{Disk: d, Reservations: NewMemoryReservations(), Name: "odd"}); err == nil || !strings.Contains(err.Error(), "odd") {
			t.Errorf("block %d, size %d: %v", d.block, d.size, err)
		}
	}
}

func TestResetIsReportedOnce(t *testing.T) {
	r := newRig(t, 512)
	n := r.device.Attach(NexusConfig{Initiator: "iqn.host2", TargetPort: 1})
	r.nexus.Manage(LogicalUnitReset, 0, func(Response) {})
	r.nexus.Manage(TargetWarmReset, 0, func(Response) {})
	for _, want := range []scsi.Code{scsi.CodePowerOnOrReset, scsi.CodeNone} {
		if got := r.attentionOf(n); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestAllocationLengthCutsParameterData(t *testing.T) {
	r := newRig(t, 512)
	whole := r.good(r.nexus, cdb("12 00 00 00 60 00"), nil)
	for _, n := range []byte{0, 1, 5, 36, 95} {
		if got := r.good(r.nexus, []byte{0x12, 0, 0, 0, n, 0}, nil); !bytes.Equal(got, whole[:n]) {
			t.Errorf("allocation length %d: % x", n, got)
		}
	}
}

func TestDataOutThatNeverCame(t *testing.T) {
	r := newRig(t, 512)
	for _, c := range [][]byte{writeOne, cdb16(scsi.OpVerify16, 2, 0, 1), cdb16(scsi.OpWriteSame16, 0, 0, 1),
		cdb16(scsi.OpOrWrite16, 0, 0, 1), cdb16(scsi.OpWriteVerify16, 0, 0, 1)} {
		res := r.expect(r.nexus, 0, c, make([]byte, 511), 512)
		if res.status != scsi.StatusCheckCondition || res.sense.Key != scsi.KeyAbortedCommand {
			t.Errorf("% x: %v %v", c, res.status, res.sense)
		}
	}
	if r.disk.Mapped() != 0 {
		t.Error("something was written")
	}
}

func FuzzCommand(f *testing.F) {
	for i := range scsi.Commands {
		c := make([]byte, scsi.Commands[i].Len)
		copy(c, scsi.Commands[i].Usage)
		f.Add(c, make([]byte, 64), uint16(64))
		c = bytes.Clone(c)
		c[len(c)-1] = 0
		f.Add(c, fill(600, 1), uint16(512))
	}
	f.Fuzz(func(t *testing.T, c, out []byte, expected uint16) {
		r := newRig(t, 512)
		res := r.expect(r.nexus, 0, c, out, int(expected))
		if res.status == scsi.StatusCheckCondition && res.sense.Key == scsi.KeyNoSense {
			t.Errorf("% x: CHECK CONDITION without sense", c)
		}
		if res.status == undecided {
			t.Errorf("% x: no status", c)
		}
	})
}
