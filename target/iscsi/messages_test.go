package iscsi

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"petal/target/serial"
)

// message is one PDU of every kind, with what its header must be byte for byte
// where the standard's drawing says so.
type message struct {
	name string
	set  func(h *BHS)
	ahs  []byte
	data []byte
	want []byte // the header, without lengths; nil: see TestHeadersByteForByte
}

// messages is the one list of all messages. Round trip, truncation, garbage and
// the fuzz seeds come from it.
var messages = []message{
	{name: "NOP-Out", data: []byte("ping"), set: func(h *BHS) {
		h.Reset(OpNOPOut)
		h.SetImmediate(true)
		h.SetFinal(true)
		h.SetITT(ReservedTag)
		n := h.NOPOut()
		n.SetTTT(0x01020304)
		n.SetCmdSN(5)
		n.SetExpStatSN(6)
	}, want: hdr("40 80 0000 00 000000 0000000000000000 ffffffff 01020304 00000005 00000006 00000000 00000000 00000000 00000000")},
	{name: "SCSI Command", ahs: AppendReadLength(AppendExtendedCDB(nil, []byte{1, 2, 3, 4, 5}), 512), data: bytes.Repeat([]byte{9}, 513), set: func(h *BHS) {
		h.Reset(OpSCSICommand)
		h.SetFinal(true)
		h.SetLUN(0x0001_0000_0000_0000)
		h.SetITT(0xabcdef01)
		c := h.SCSICommand()
		c.SetRead(true)
		c.SetWrite(true)
		c.SetAttribute(Ordered)
		c.SetPriority(7)
		c.SetExpectedLength(4096)
		c.SetCmdSN(0x10)
		c.SetExpStatSN(0x20)
		copy(c.CDB(), []byte{0x8a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	}, want: hdr("01 e2 0700 00 000000 0001000000000000 abcdef01 00001000 00000010 00000020 8a010203 04050607 08090a0b 0c0d0e0f")},
	{name: "SCSI Response", data: append([]byte{0, 18}, make([]byte, 18)...), set: func(h *BHS) {
		h.Reset(OpSCSIResponse)
		h.SetFinal(true)
		h.SetITT(3)
		r := h.SCSIResponse()
		r.SetCode(TargetFailure)
		r.SetStatus(2)
		r.SetStatusQualifier(0x1234)
		r.SetStatSN(4)
		r.SetWindow(serial.CmdWindow{First: 5, Last: 6})
		r.SetExpDataSN(7)
		r.SetResidual(Residual{Underflow: true, Count: 8})
		r.SetReadResidual(Residual{Overflow: true, Count: 9})
	}, want: hdr("21 92 0102 00 000000 1234000000000000 00000003 00000000 00000004 00000005 00000006 00000007 00000009 00000008")},
	{name: "Data-Out", data: []byte("12345"), set: func(h *BHS) {
		h.Reset(OpDataOut)
		h.SetFinal(true)
		h.SetLUN(1)
		h.SetITT(2)
		d := h.DataOut()
		d.SetTTT(3)
		d.SetExpStatSN(4)
		d.SetDataSN(5)
		d.SetBufferOffset(6)
	}, want: hdr("05 80 0000 00 000000 0000000000000001 00000002 00000003 00000000 00000004 00000000 00000005 00000006 00000000")},
	{name: "Data-In", data: []byte("123456"), set: func(h *BHS) {
		h.Reset(OpDataIn)
		h.SetFinal(true)
		h.SetITT(2)
		d := h.DataIn()
		d.SetAcknowledge(true)
		d.SetHasStatus(true)
		d.SetStatus(0x28)
		d.SetTTT(ReservedTag)
		d.SetStatSN(3)
		d.SetWindow(serial.CmdWindow{First: 4, Last: 5})
		d.SetDataSN(6)
		d.SetBufferOffset(7)
		d.SetResidual(Residual{Overflow: true, Count: 8})
	}, want: hdr("25 c5 0028 00 000000 0000000000000000 00000002 ffffffff 00000003 00000004 00000005 00000006 00000007 00000008")},
	{name: "R2T", set: func(h *BHS) {
		h.Reset(OpR2T)
		h.SetFinal(true)
		h.SetLUN(1)
		h.SetITT(2)
		r := h.R2T()
		r.SetTTT(3)
		r.SetStatSN(4)
		r.SetWindow(serial.CmdWindow{First: 5, Last: 6})
		r.SetR2TSN(7)
		r.SetBufferOffset(8)
		r.SetDesiredLength(9)
	}, want: hdr("31 80 0000 00 000000 0000000000000001 00000002 00000003 00000004 00000005 00000006 00000007 00000008 00000009")},
	{name: "SNACK", set: func(h *BHS) {
		h.Reset(OpSNACK)
		h.SetFinal(true)
		h.SetITT(1)
		s := h.SNACK()
		s.SetType(SNACKRData)
		s.SetTTT(2)
		s.SetExpStatSN(3)
		s.SetBegRun(4)
		s.SetRunLength(5)
	}, want: hdr("10 83 0000 00 000000 0000000000000000 00000001 00000002 00000000 00000003 00000000 00000000 00000004 00000005")},
	{name: "Task Request", set: func(h *BHS) {
		h.Reset(OpTaskRequest)
		h.SetImmediate(true)
		h.SetFinal(true)
		h.SetLUN(1)
		h.SetITT(2)
		t := h.TaskRequest()
		t.SetFunction(AbortTask)
		t.SetRefITT(3)
		t.SetCmdSN(4)
		t.SetExpStatSN(5)
		t.SetRefCmdSN(6)
		t.SetExpDataSN(7)
	}, want: hdr("42 81 0000 00 000000 0000000000000001 00000002 00000003 00000004 00000005 00000006 00000007 00000000 00000000")},
	{name: "Task Response", set: func(h *BHS) {
		h.Reset(OpTaskResponse)
		h.SetFinal(true)
		h.SetITT(1)
		t := h.TaskResponse()
		t.SetCode(TaskFunctionRejected)
		t.SetStatSN(2)
		t.SetWindow(serial.CmdWindow{First: 3, Last: 4})
	}, want: hdr("22 80 ff00 00 000000 0000000000000000 00000001 00000000 00000002 00000003 00000004 00000000 00000000 00000000")},
	{name: "Login Request", data: AppendPair(nil, "InitiatorName", "iqn.1993-08.org.debian:01:1"), set: func(h *BHS) {
		h.Reset(OpLoginRequest)
		h.SetImmediate(true)
		h.SetITT(1)
		l := h.LoginRequest()
		l.SetTransit(true)
		l.SetContinue(true)
		l.SetCSG(StageOperational)
		l.SetNSG(StageFullFeature)
		l.SetVersionMax(1)
		l.SetVersionMin(2)
		l.SetISID(ISID{0, 2, 0x3d, 4, 5, 6})
		l.SetTSIH(7)
		l.SetCID(8)
		l.SetCmdSN(9)
		l.SetExpStatSN(10)
	}, want: hdr("43 c7 0102 00 000000 00023d0405060007 00000001 00080000 00000009 0000000a 00000000 00000000 00000000 00000000")},
	{name: "Login Response", set: func(h *BHS) {
		h.Reset(OpLoginResponse)
		h.SetITT(1)
		l := h.LoginResponse()
		l.SetTransit(true)
		l.SetContinue(true)
		l.SetCSG(StageSecurity)
		l.SetNSG(StageOperational)
		l.SetVersionMax(3)
		l.SetVersionActive(4)
		l.SetISID(ISID{0, 2, 0x3d, 4, 5, 6})
		l.SetTSIH(7)
		l.SetStatSN(8)
		l.SetWindow(serial.CmdWindow{First: 9, Last: 10})
		l.SetStatus(LoginAuthFailure)
	}, want: hdr("23 c1 0304 00 000000 00023d0405060007 00000001 00000000 00000008 00000009 0000000a 02010000 00000000 00000000")},
	{name: "Text Request", data: AppendPair(nil, "SendTargets", "All"), set: func(h *BHS) {
		h.Reset(OpTextRequest)
		h.SetFinal(true)
		h.SetITT(1)
		t := h.TextRequest()
		t.SetContinue(true)
		t.SetTTT(ReservedTag)
		t.SetCmdSN(2)
		t.SetExpStatSN(3)
	}, want: hdr("04 c0 0000 00 000000 0000000000000000 00000001 ffffffff 00000002 00000003 00000000 00000000 00000000 00000000")},
	{name: "Text Response", data: AppendPair(nil, "TargetName", "x"), set: func(h *BHS) {
		h.Reset(OpTextResponse)
		h.SetFinal(true)
		h.SetITT(1)
		t := h.TextResponse()
		t.SetContinue(true)
		t.SetTTT(2)
		t.SetStatSN(3)
		t.SetWindow(serial.CmdWindow{First: 4, Last: 5})
	}, want: hdr("24 c0 0000 00 000000 0000000000000000 00000001 00000002 00000003 00000004 00000005 00000000 00000000 00000000")},
	{name: "Logout Request", set: func(h *BHS) {
		h.Reset(OpLogoutReq)
		h.SetFinal(true)
		h.SetITT(1)
		l := h.LogoutRequest()
		l.SetReason(LogoutConnection)
		l.SetCID(2)
		l.SetCmdSN(3)
		l.SetExpStatSN(4)
	}, want: hdr("06 81 0000 00 000000 0000000000000000 00000001 00020000 00000003 00000004 00000000 00000000 00000000 00000000")},
	{name: "Logout Response", set: func(h *BHS) {
		h.Reset(OpLogoutResp)
		h.SetFinal(true)
		h.SetITT(1)
		l := h.LogoutResponse()
		l.SetCode(LogoutCleanupFailed)
		l.SetStatSN(2)
		l.SetWindow(serial.CmdWindow{First: 3, Last: 4})
		l.SetTime2Wait(5)
		l.SetTime2Retain(6)
	}, want: hdr("26 80 0300 00 000000 0000000000000000 00000001 00000000 00000002 00000003 00000004 00000000 00050006 00000000")},
	{name: "NOP-In", set: func(h *BHS) {
		h.Reset(OpNOPIn)
		h.SetFinal(true)
		h.SetITT(ReservedTag)
		n := h.NOPIn()
		n.SetTTT(2)
		n.SetStatSN(3)
		n.SetWindow(serial.CmdWindow{First: 4, Last: 5})
	}, want: hdr("20 80 0000 00 000000 0000000000000000 ffffffff 00000002 00000003 00000004 00000005 00000000 00000000 00000000")},
	{name: "Reject", data: make([]byte, HeaderSize), set: func(h *BHS) {
		h.Reset(OpReject)
		h.SetFinal(true)
		h.SetITT(ReservedTag)
		r := h.Reject()
		r.SetReason(RejectInvalidPDUField)
		r.SetStatSN(1)
		r.SetWindow(serial.CmdWindow{First: 2, Last: 3})
		r.SetDataSN(4)
	}, want: hdr("3f 80 0900 00 000000 0000000000000000 ffffffff 00000000 00000001 00000002 00000003 00000004 00000000 00000000")},
	{name: "Asynchronous Message", set: func(h *BHS) {
		h.Reset(OpAsyncMessage)
		h.SetFinal(true)
		h.SetITT(ReservedTag)
		a := h.AsyncMessage()
		a.SetStatSN(1)
		a.SetWindow(serial.CmdWindow{First: 2, Last: 3})
		a.SetEvent(AsyncDropConnection)
		a.SetParameters(4, 5, 6)
	}, want: hdr("32 80 0000 00 000000 0000000000000000 ffffffff 00000000 00000001 00000002 00000003 02000004 00050006 00000000")},
}

// hdr reads a header in hexadecimal with spaces.
func hdr(s string) []byte {
	var b []byte
	n := 0
	for _, c := range []byte(s) {
		if c == ' ' {
			continue
		}
		v := c - '0'
		if c >= 'a' {
			v = c - 'a' + 10
		}
		if n%2 == 0 {
			b = append(b, v<<4)
		} else {
			b[n/2] |= v
		}
		n++
	}
	if len(b) != HeaderSize {
		panic(len(b))
	}
	return b
}

func (m *message) header() BHS {
	var h BHS
	m.set(&h)
	return h
}

// Every field stands where the standard draws it.
func TestHeadersByteForByte(t *testing.T) {
	seen := make(map[Opcode]bool)
	for _, m := range messages {
		h := m.header()
		if !bytes.Equal(h[:], m.want) {
			t.Errorf("%s:\n got % x\nwant % x", m.name, h[:], m.want)
		}
		seen[h.Opcode()] = true
	}
	for op := range Opcode(64) {
		if op.Known() != seen[op] {
			t.Errorf("%v: known %v, in the list %v", op, op.Known(), seen[op])
		}
	}
}

// Whatever is set can be read back, and setting a field twice leaves the last.
func TestAccessorsReadBack(t *testing.T) {
	var h BHS
	for _, c := range fieldChecks {
		r := rand.New(rand.NewPCG(3, 4))
		for range 100 {
			want := r.Uint64() & c.mask
			c.set(&h, want)
			if got := c.get(&h); got != want {
				t.Errorf("%s: set %#x, got %#x", c.name, want, got)
			}
		}
	}
}

// fieldChecks are the fields, each with the bits it has.
var fieldChecks = []struct {
	name string
	mask uint64
	set  func(h *BHS, v uint64)
	get  func(h *BHS) uint64
}{
	{"DataLength", 1<<24 - 1, func(h *BHS, v uint64) { h.SetDataLength(int(v)) }, func(h *BHS) uint64 { return uint64(h.DataLength()) }},
	{"AHSLength", 0x3fc, func(h *BHS, v uint64) { h.SetAHSLength(int(v)) }, func(h *BHS) uint64 { return uint64(h.AHSLength()) }},
	{"LUN", 1<<64 - 1, func(h *BHS, v uint64) { h.SetLUN(v) }, func(h *BHS) uint64 { return h.LUN() }},
	{"ITT", 1<<32 - 1, func(h *BHS, v uint64) { h.SetITT(uint32(v)) }, func(h *BHS) uint64 { return uint64(h.ITT()) }},
	{"CmdSN", 1<<32 - 1, func(h *BHS, v uint64) { h.Request().SetCmdSN(serial.CmdSN(v)) }, func(h *BHS) uint64 { return uint64(h.Request().CmdSN()) }},
	{"ExpStatSN", 1<<32 - 1, func(h *BHS, v uint64) { h.Request().SetExpStatSN(serial.StatSN(v)) }, func(h *BHS) uint64 { return uint64(h.Request().ExpStatSN()) }},
	{"StatSN", 1<<32 - 1, func(h *BHS, v uint64) { h.Response().SetStatSN(serial.StatSN(v)) }, func(h *BHS) uint64 { return uint64(h.Response().StatSN()) }},
	{"Attribute", 7, func(h *BHS, v uint64) { h.SCSICommand().SetAttribute(TaskAttribute(v)) }, func(h *BHS) uint64 { return uint64(h.SCSICommand().Attribute()) }},
	{"Priority", 15, func(h *BHS, v uint64) { h.SCSICommand().SetPriority(uint8(v)) }, func(h *BHS) uint64 { return uint64(h.SCSICommand().Priority()) }},
	{"Function", 127, func(h *BHS, v uint64) { h.TaskRequest().SetFunction(TaskFunction(v)) }, func(h *BHS) uint64 { return uint64(h.TaskRequest().Function()) }},
	{"CSG", 3, func(h *BHS, v uint64) { h.LoginRequest().SetCSG(Stage(v)) }, func(h *BHS) uint64 { return uint64(h.LoginRequest().CSG()) }},
	{"NSG", 3, func(h *BHS, v uint64) { h.LoginRequest().SetNSG(Stage(v)) }, func(h *BHS) uint64 { return uint64(h.LoginRequest().NSG()) }},
	{"TSIH", 65535, func(h *BHS, v uint64) { h.LoginResponse().SetTSIH(uint16(v)) }, func(h *BHS) uint64 { return uint64(h.LoginResponse().TSIH()) }},
	{"Status", 65535, func(h *BHS, v uint64) { h.LoginResponse().SetStatus(LoginStatus(v)) }, func(h *BHS) uint64 { return uint64(h.LoginResponse().Status()) }},
	{"Final", 1, func(h *BHS, v uint64) { h.SetFinal(v == 1) }, func(h *BHS) uint64 { return b2u(h.Final()) }},
	{"Immediate", 1, func(h *BHS, v uint64) { h.SetImmediate(v == 1) }, func(h *BHS) uint64 { return b2u(h.Immediate()) }},
	{"HasStatus", 1, func(h *BHS, v uint64) { h.DataIn().SetHasStatus(v == 1) }, func(h *BHS) uint64 { return b2u(h.DataIn().HasStatus()) }},
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func TestResiduals(t *testing.T) {
	var h BHS
	r := h.SCSIResponse()
	for _, v := range []Residual{{Overflow: true, Count: 1}, {Underflow: true, Count: 1 << 31}, {}} {
		r.SetResidual(v)
		r.SetReadResidual(Residual{Underflow: v.Overflow, Overflow: v.Underflow, Count: v.Count + 1})
		h.DataIn() // the same bits as in a response
		if r.Residual() != v || h.DataIn().Residual() != v {
			t.Errorf("%+v: got %+v and %+v", v, r.Residual(), h.DataIn().Residual())
		}
		if got := r.ReadResidual(); got.Underflow != v.Overflow || got.Overflow != v.Underflow || got.Count != v.Count+1 {
			t.Errorf("bidirectional of %+v: got %+v", v, got)
		}
	}
}

// Unknown values print their number, known ones their name.
func TestNames(t *testing.T) {
	for _, tt := range []struct {
		v    interface{ String() string }
		want string
	}{
		{OpSCSICommand, "SCSI Command"}, {Opcode(0x11), "opcode 0x11"}, {Opcode(0xff), "opcode 0xff"},
		{RejectDataDigest, "data digest error"}, {RejectReason(0x70), "reject reason 0x70"},
		{TaskFunctionRejected, "function rejected"}, {TaskResponseCode(99), "task response 0x63"},
		{LogicalUnitReset, "LOGICAL UNIT RESET"}, {LoginAuthFailure, "authentication failure"},
		{LoginStatus(0x0999), "login status 0x0999"}, {StageFullFeature, "FullFeaturePhase"}, {Stage(2), "stage 0x02"},
		{LogoutRecovery, "remove the connection for recovery"}, {LogoutCIDNotFound, "CID not found"},
		{AsyncLogoutRequest, "logout request"}, {HeadOfQueue, "HEAD OF QUEUE"}, {TargetFailure, "target failure"},
		{SNACKACK, "DataACK"}, {ISID{0, 2, 0x3d, 0, 0, 1}, "00023d000001"},
	} {
		if got := tt.v.String(); got != tt.want {
			t.Errorf("%#v prints as %q, want %q", tt.v, got, tt.want)
		}
	}
}
