package lun

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"petal/target/scsi"
)

func TestIdentity(t *testing.T) {
	r := newRig(t, 512)
	inquiry := r.good(r.nexus, cdb("12 00 00 00 60 00"), nil)
	if vendor := strings.TrimSpace(string(inquiry[8:16])); vendor != Vendor {
		t.Errorf("vendor %q", vendor)
	}
	if tpgs, queue := inquiry[5]>>4&3, inquiry[7]&2; tpgs != 1 || queue == 0 {
		t.Errorf("TPGS %d, CMDQUE %d", tpgs, queue)
	}
	serial := string(r.good(r.nexus, cdb("12 01 80 00 ff 00"), nil)[4:])
	if serial != "0123456789abcdef1032547698badcfe" {
		t.Errorf("serial %q", serial)
	}
	want := [16]byte{0x60, 0x25, 0x04, 0x57, 0x89, 0xab, 0xcd, 0xef, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe}
	if r.unit.NAA() != want {
		t.Errorf("NAA % x", r.unit.NAA())
	}
}

// designators reads page 83h into a map from association and type.
func designators(t *testing.T, page []byte) map[[2]byte][]byte {
	t.Helper()
	all := map[[2]byte][]byte{}
	if int(binary.BigEndian.Uint16(page[2:])) != len(page)-4 {
		t.Fatalf("page length %d of %d bytes", binary.BigEndian.Uint16(page[2:]), len(page))
	}
	for d := page[4:]; len(d) > 0; {
		n := int(d[3])
		all[[2]byte{d[1] >> 4 & 3, d[1] & 0xF}] = d[4 : 4+n]
		d = d[4+n:]
	}
	return all
}

func TestDeviceIdentification(t *testing.T) {
	r := newRig(t, 512)
	n := r.quiet(r.device.Attach(NexusConfig{Initiator: "iqn.host2", TargetPort: 0x0102, TPGT: 7}))
	page := r.good(n, cdb("12 01 83 01 00 00"), nil)
	d := designators(t, page)
	naa := r.unit.NAA()
	for key, want := range map[[2]byte][]byte{
		{0, 3}: naa[:],
		{0, 1}: []byte("PETAL   0123456789abcdef1032547698badcfe"),
		{1, 4}: {0, 0, 1, 2},
		{1, 5}: {0, 0, 0, 1},
		{1, 8}: []byte("iqn.2026-11.example:disk,t,0x0007\x00\x00\x00"),
	} {
		if !bytes.Equal(d[key], want) {
			t.Errorf("association %d type %d: %q, want %q", key[0], key[1], d[key], want)
		}
	}
	if len(d) != 5 {
		t.Errorf("%d designators", len(d))
	}
	// But for the port, all paths tell the same.
	other := designators(t, r.good(r.nexus, cdb("12 01 83 01 00 00"), nil))
	for _, key := range [][2]byte{{0, 3}, {0, 1}} {
		if !bytes.Equal(d[key], other[key]) {
			t.Errorf("%v differs from path to path", key)
		}
	}
}

func TestSupportedPagesAreThere(t *testing.T) {
	for _, block := range []int{512, 4096} {
		r := newRig(t, block)
		for _, page := range r.good(r.nexus, cdb("12 01 00 00 ff 00"), nil)[4:] {
			data := r.good(r.nexus, []byte{0x12, 1, page, 1, 0, 0}, nil)
			if data[1] != page || int(binary.BigEndian.Uint16(data[2:])) != len(data)-4 {
				t.Errorf("page %02x: % x", page, data)
			}
		}
		s := r.check(r.nexus, cdb("12 01 8f 00 ff 00"), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
		if s.Field.Byte != 2 {
			t.Errorf("field %+v", s.Field)
		}
		r.check(r.nexus, cdb("12 00 83 00 ff 00"), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	}
}

func TestBlockLimits(t *testing.T) {
	r := newRig(t, 512)
	page := r.good(r.nexus, cdb("12 01 b0 00 ff 00"), nil)
	be := binary.BigEndian
	for _, f := range []struct {
		name string
		got  uint64
		want uint64
	}{
		{"maximum compare and write length", uint64(page[5]), 1},
		{"optimal transfer length granularity", uint64(be.Uint16(page[6:])), 8},
		{"maximum transfer length", uint64(be.Uint32(page[8:])), 32768},
		{"optimal transfer length", uint64(be.Uint32(page[12:])), 128},
		{"maximum unmap LBA count", uint64(be.Uint32(page[20:])), 1 << 20},
		{"maximum unmap descriptors", uint64(be.Uint32(page[24:])), 255},
		{"optimal unmap granularity", uint64(be.Uint32(page[28:])), 8},
		{"unmap granularity alignment, valid", uint64(be.Uint32(page[32:])), 0x80000000},
		{"maximum atomic transfer length", uint64(be.Uint32(page[44:])), 128},
		{"atomic alignment", uint64(be.Uint32(page[48:])), 8},
		{"atomic transfer length granularity", uint64(be.Uint32(page[52:])), 8},
		{"maximum atomic transfer length with atomic boundary", uint64(be.Uint32(page[56:])), 0},
		{"maximum atomic boundary size", uint64(be.Uint32(page[60:])), 0},
	} {
		if f.got != f.want {
			t.Errorf("%s: %d, want %d", f.name, f.got, f.want)
		}
	}
	if be.Uint64(page[36:]) == 0 {
		t.Error("maximum WRITE SAME length is zero")
	}
}

func TestReadCapacity(t *testing.T) {
	for block, exp := range map[int]uint8{512: 3, 4096: 0} {
		r := newRig(t, block)
		c, ok := scsi.ParseCapacity16(r.good(r.nexus, cdb16(scsi.OpServiceActionIn16, scsi.SAReadCapacity16, 0, 32), nil))
		if want := (scsi.Capacity{Blocks: uint64(rigSize / block), BlockLength: uint32(block), PhysicalExp: exp, Provisioning: true, ReadsZeros: true}); !ok || c != want {
			t.Errorf("%+v, want %+v", c, want)
		}
		r.disk.SetSize(1 << 50)
		if got := r.good(r.nexus, cdb("25 00 00000000 0000 00 00"), nil); binary.BigEndian.Uint32(got) != 0xFFFFFFFF {
			t.Errorf("READ CAPACITY (10) of a large disk: % x", got)
		}
		r.check(r.nexus, cdb("25 00 00000001 0000 00 00"), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	}
}

func TestModeSense(t *testing.T) {
	r := newRig(t, 512)
	r.disk.SetWriteCache(true)
	all := r.good(r.nexus, cdb("1a 08 3f 00 ff 00"), nil)
	if int(all[0]) != len(all)-1 || all[2] != scsi.ModeDPOFUA || all[3] != 0 {
		t.Errorf("header % x", all[:4])
	}
	var pages []byte
	for p := all[4:]; len(p) > 0; p = p[2+int(p[1]):] {
		pages = append(pages, p[0])
		if p[0] == scsi.ModeCaching && p[2]&4 == 0 {
			t.Error("WCE is not the disk's")
		}
	}
	if want := []byte{0x01, 0x08, 0x0A, 0x1C}; !bytes.Equal(pages, want) {
		t.Errorf("pages % x", pages)
	}
	long := r.good(r.nexus, cdb("5a 10 3f 00 000000 00ff 00"), nil)
	if int(binary.BigEndian.Uint16(long)) != len(long)-2 || long[7] != 16 || binary.BigEndian.Uint64(long[8:]) != rigSize/512 || binary.BigEndian.Uint32(long[20:]) != 512 {
		t.Errorf("MODE SENSE (10) with a long block descriptor: % x", long[:24])
	}
	if changeable := r.good(r.nexus, cdb("1a 08 4a 00 ff 00"), nil)[4:]; changeable[2] != 0x04 || changeable[4] != 0x08 || changeable[5] != 0x40 {
		t.Errorf("changeable of the control page % x", changeable)
	}
	r.check(r.nexus, cdb("1a 00 ca 00 ff 00"), nil, scsi.KeyIllegalRequest, scsi.CodeSavingNotSupported)
	r.check(r.nexus, cdb("1a 00 0b 00 ff 00"), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	r.check(r.nexus, cdb("1a 00 0a 05 ff 00"), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
}

// control is a MODE SELECT (6) list with the control page.
func control(dSense, swp bool) []byte {
	page, _ := scsi.AppendModePages(nil, scsi.ModeControl, 0, scsi.PageCurrent, scsi.ModeValues{DescriptorSense: dSense, SoftwareProtect: swp})
	return append(make([]byte, 4), page...)
}

func TestModeSelect(t *testing.T) {
	r := newRig(t, 512)
	other := r.attach("iqn.host2", 1)
	sel := cdb("15 10 00 00 10 00")
	block := make([]byte, 512)

	r.good(r.nexus, sel, control(false, true))
	r.check(other, testUnitReady, nil, scsi.KeyUnitAttention, scsi.CodeModeParametersChanged)
	r.good(r.nexus, testUnitReady, nil)
	r.check(r.nexus, writeOne, block, scsi.KeyDataProtect, scsi.CodeWriteProtected)
	r.good(r.nexus, sel, control(false, false))
	r.good(r.nexus, writeOne, block)

	r.good(r.nexus, sel, control(true, false))
	c := &Command{CDB: cdb("ff 00 00 00 00 00")}
	if r.nexus.Begin(c) != Decided || c.Sense[0] != 0x72 {
		t.Errorf("D_SENSE: sense data % x", c.Sense)
	}
	r.nexus.Finish(c)
	r.nexus.Manage(LogicalUnitReset, 0, func(Response) {})
	if r.unit.modes.descriptorSense() {
		t.Error("D_SENSE outlives a reset")
	}
	r.quiet(r.nexus)

	r.check(r.nexus, cdb("15 11 00 00 10 00"), control(false, true), scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	bad := control(false, true)
	bad[4+8] = 1
	s := r.check(r.nexus, sel, bad, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInParams)
	if s.Field.Byte != 12 || r.unit.modes.softwareProtect() {
		t.Errorf("field %+v, SWP %v", s.Field, r.unit.modes.softwareProtect())
	}
	r.check(r.nexus, cdb("15 10 00 00 0a 00"), control(false, true)[:10], scsi.KeyIllegalRequest, scsi.CodeParameterListLength)
}

func TestLogSense(t *testing.T) {
	r := newRig(t, 512)
	if got := r.good(r.nexus, cdb("4d 00 40 00 00 0000 00ff 00"), nil); !bytes.Equal(got, []byte{0, 0, 0, 2, 0x00, 0x0c}) {
		t.Errorf("% x", got)
	}
	r.disk.SetSpace(5 << 20)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 0, 4096), fill(2<<20, 1))
	got := r.good(r.nexus, cdb("4d 00 4c 00 00 0000 00ff 00"), nil)
	if available, used := binary.BigEndian.Uint32(got[8:]), binary.BigEndian.Uint32(got[20:]); available != 3 || used != 2 {
		t.Errorf("available %d, used %d, want 3 and 2 MiB", available, used)
	}
	if got := r.good(r.nexus, cdb("4d 00 4c 00 00 0002 00ff 00"), nil); len(got) != 16 {
		t.Errorf("from parameter 2: % x", got)
	}
	for _, bad := range []string{"4d 01 4c 00 00 0000 00ff 00", "4d 00 4c 01 00 0000 00ff 00", "4d 00 4c 00 00 0003 00ff 00", "4d 00 4d 00 00 0000 00ff 00"} {
		r.check(r.nexus, cdb(bad), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	}
}

func TestSmallCommands(t *testing.T) {
	r := newRig(t, 512)
	for _, c := range []string{
		"1b 00 00 00 01 00", "1b 01 00 00 10 00", "1b 00 00 00 70 00", // START STOP UNIT
		"1e 00 00 00 01 00", "1e 00 00 00 00 00", // PREVENT ALLOW
		"1d 04 00 00 00 00",                                 // SEND DIAGNOSTIC, self-test
		"1c 01 00 00 ff 00", "37 00 1d 00 00 00 00 00ff 00", // RECEIVE DIAGNOSTIC, READ DEFECT DATA
		"b7 1d 00000000 000000ff 00 00", "34 00 00000000 00 0100 00", // PRE-FETCH
	} {
		r.good(r.nexus, cdb(c), nil)
	}
	for _, c := range []string{
		"1b 00 00 00 00 00", "1b 00 00 00 02 00", "1b 00 00 00 30 00",
		"1e 00 00 00 02 00", "1d 20 00 00 00 00", "1d 10 00 00 08 00", "1c 01 05 00 ff 00",
		"a0 00 03 00 00 00 00000100 00 00", "a0 00 00 00 00 00 0000000f 00 00",
	} {
		r.check(r.nexus, cdb(c), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	}
}

func TestTargetPortGroups(t *testing.T) {
	r := newRig(t, 512)
	state := func(other uint8) []scsi.PortGroup {
		return []scsi.PortGroup{{State: scsi.ALUAActiveOptimized, Group: 9, Ports: []uint16{3, 4}}, {State: other, Group: 0x102, Ports: []uint16{0x102}}}
	}
	gone := r.attach("iqn.gone", 1)
	gone.Detach(true)
	r.device.SetPorts(9, state(scsi.ALUAUnavailable))
	r.check(r.nexus, testUnitReady, nil, scsi.KeyUnitAttention, scsi.CodeALUAStateChanged)
	got := r.good(r.nexus, cdb("a3 2a 00000000 00000100 00 00"), nil)
	want := []byte{0, 0, 0, 32, 0x10, transitionSeconds, 0, 0, 0, 0x8f, 0, 9, 0, 2, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 3, 0x8f, 1, 2, 0, 2, 0, 1, 0, 0, 1, 2}
	if !bytes.Equal(got, want) {
		t.Errorf("% x\nwant % x", got, want)
	}
	if short := r.good(r.nexus, cdb("a3 0a 00000000 00000100 00 00"), nil); !bytes.Equal(short[4:], want[8:]) {
		t.Errorf("without extended header % x", short)
	}
	if id := r.good(r.nexus, cdb("12 01 83 01 00 00"), nil); !bytes.Contains(id, []byte{0x51, 0x95, 0, 4, 0, 0, 0, 9}) {
		t.Errorf("page 83h does not name the group 9: % x", id)
	}
	r.good(r.nexus, cdb("a4 0a 00000000 0000000c 00 00"), []byte{0, 0, 0, 0, 0, 0, 0, 9, 3, 0, 1, 2})
	r.check(r.nexus, cdb("a4 0a 00000000 00000008 00 00"), []byte{0, 0, 0, 0, 2, 0, 0, 9}, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInParams)

	r.device.SetPorts(9, state(scsi.ALUAUnavailable)) // nothing new
	r.good(r.nexus, testUnitReady, nil)
	r.device.SetPorts(9, state(scsi.ALUAActiveOptimized))
	r.check(r.nexus, testUnitReady, nil, scsi.KeyUnitAttention, scsi.CodeALUAStateChanged)

	// Who was away meanwhile hears of it too.
	again := r.device.Attach(NexusConfig{Initiator: "iqn.gone", ISID: [6]byte{5: 1}, TargetPort: 1, TPGT: 1})
	r.check(again, testUnitReady, nil, scsi.KeyUnitAttention, scsi.CodeNexusLoss)
	r.check(again, testUnitReady, nil, scsi.KeyUnitAttention, scsi.CodeALUAStateChanged)
	r.good(again, testUnitReady, nil)
	again.Detach(true)
	again = r.device.Attach(NexusConfig{Initiator: "iqn.gone", ISID: [6]byte{5: 1}, TargetPort: 1, TPGT: 1})
	r.check(again, testUnitReady, nil, scsi.KeyUnitAttention, scsi.CodeNexusLoss)
	r.good(again, testUnitReady, nil)
}

func TestReportSupportedOpcodes(t *testing.T) {
	r := newRig(t, 512)
	all := r.good(r.nexus, cdb("a3 0c 80 00 0000 0000ffff 00 00"), nil)
	if n := (len(all) - 4) / 20; n != len(scsi.Commands) {
		t.Errorf("%d commands, want %d", n, len(scsi.Commands))
	}
	one := r.good(r.nexus, cdb("a3 0c 01 28 0000 0000ffff 00 00"), nil)
	if one[1] != 3 || one[3] != 10 || one[4] != 0x28 || one[5]&0x18 != 0x18 {
		t.Errorf("READ (10): % x", one)
	}
	if none := r.good(r.nexus, cdb("a3 0c 01 85 0000 0000ffff 00 00"), nil); none[1] != 1 {
		t.Errorf("ATA PASS-THROUGH: % x", none)
	}
	for _, bad := range []string{"a3 0c 01 9e 0010 0000ffff 00 00", "a3 0c 02 28 0000 0000ffff 00 00", "a3 0c 05 28 0000 0000ffff 00 00"} {
		r.check(r.nexus, cdb(bad), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	}
	if tmf := r.good(r.nexus, cdb("a3 0d 80 00 0000 000000ff 00 00"), nil); len(tmf) != 16 || tmf[0] != 0xda {
		t.Errorf("task management functions % x", tmf)
	}
}
