package scsi

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestSenseRoundTrip(t *testing.T) {
	cases := []Sense{
		{},
		{Key: KeyUnitAttention, Code: CodeCapacityChanged},
		{Key: KeyMiscompare, Code: CodeMiscompare, HasInfo: true, Info: 511},
		{Key: KeyIllegalRequest, Code: CodeInvalidFieldInCDB, HasField: true, Field: FieldPointer{InCDB: true, Byte: 14, Bit: 7}},
		{Key: KeyIllegalRequest, Code: CodeInvalidFieldInParams, HasField: true, Field: FieldPointer{Byte: 0x1234, Bit: -1}},
		{Key: KeyIllegalRequest, Code: CodeLBAOutOfRange, HasInfo: true, Info: 1<<32 - 1, HasField: true, Field: FieldPointer{Bit: 0}},
	}
	for _, s := range cases {
		for _, descriptor := range []bool{false, true} {
			b := s.Append(nil, descriptor)
			if got, ok := ParseSense(b); !ok || got != s {
				t.Errorf("descriptor %v: %+v, then %+v", descriptor, s, got)
			}
			if len(b) > SenseMax || int(b[7]) != len(b)-8 {
				t.Errorf("descriptor %v: % x", descriptor, b)
			}
		}
	}
	// Fixed format can't tell a large INFORMATION, and must not tell another.
	large := Sense{Key: KeyMediumError, Code: CodeUnrecoveredRead, HasInfo: true, Info: 1 << 32}
	if got, _ := ParseSense(large.Append(nil, false)); got.HasInfo {
		t.Errorf("INFORMATION %d", got.Info)
	}
	if got, _ := ParseSense(large.Append(nil, true)); got != large {
		t.Errorf("%+v", got)
	}
}

func FuzzParseSense(f *testing.F) {
	f.Add(Sense{Key: KeyMiscompare, HasInfo: true}.Append(nil, true))
	f.Add(Sense{Key: KeyIllegalRequest, HasField: true}.Append(nil, false))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := ParseSense(b); ok {
			_ = s.String()
		}
	})
}

func TestLUNs(t *testing.T) {
	for _, lun := range []uint16{0, 1, 255, 256, 300, LUNMax} {
		if got, ok := DecodeLUN(EncodeLUN(lun)); !ok || got != lun {
			t.Errorf("%d: %016x, then %d %v", lun, EncodeLUN(lun), got, ok)
		}
	}
	if EncodeLUN(5) != 0x0005_0000_0000_0000 || EncodeLUN(256) != 0x4100_0000_0000_0000 {
		t.Errorf("%016x %016x", EncodeLUN(5), EncodeLUN(256))
	}
	if lun, ok := DecodeLUN(0x4005_0000_0000_0000); !ok || lun != 5 {
		t.Error("flat addressing of a small LUN")
	}
	for _, bad := range []uint64{0x0100_0000_0000_0000, 0xC101_0000_0000_0000, 0x8000_0000_0000_0000, 0x0001_0000_0000_0001} {
		if lun, ok := DecodeLUN(bad); ok {
			t.Errorf("%016x is LUN %d", bad, lun)
		}
	}
}

func TestTransportIDRoundTrip(t *testing.T) {
	for _, id := range []TransportID{
		{Name: "iqn.2026-11.example:host", ISID: [6]byte{1, 2, 3, 4, 5, 0xff}, HasISID: true},
		{Name: "iqn.2026-11.example:host"},
		{Name: "a"},
		{Name: strings.Repeat("x", nameMax), ISID: [6]byte{}, HasISID: true},
	} {
		b := id.Append(nil)
		got, n, e := ParseTransportID(append(b, 1, 2, 3))
		if e != nil || n != len(b) || got != id {
			t.Errorf("%+v: %+v, %d of %d, %v", id, got, n, len(b), e)
		}
		if len(b)%4 != 0 || len(b) < 24 {
			t.Errorf("%+v: %d bytes", id, len(b))
		}
		for cut := range b {
			if _, _, e := ParseTransportID(b[:cut]); e == nil {
				t.Fatalf("%+v: accepted the first %d of %d bytes", id, cut, len(b))
			}
		}
	}
}

func TestBadTransportIDs(t *testing.T) {
	good := TransportID{Name: "iqn.2026-11.example:host", HasISID: true}.Append(nil)
	for name, change := range map[string]func(b []byte){
		"Fibre Channel":  func(b []byte) { b[0] = 0x40 },
		"format 10b":     func(b []byte) { b[0] = 0x85 },
		"odd length":     func(b []byte) { b[3]-- },
		"huge length":    func(b []byte) { b[2] = 0xff },
		"no ISID":        func(b []byte) { copy(b[4:], "iqn.host\x00") },
		"a space in it":  func(b []byte) { b[6] = ' ' },
		"ISID not hex":   func(b []byte) { b[4+24+6] = 'g' },
		"not terminated": func(b []byte) { copy(b[4:], bytes.Repeat([]byte("x"), len(b))) },
	} {
		b := bytes.Clone(good)
		change(b)
		if id, _, e := ParseTransportID(b); e == nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
}

func FuzzTransportID(f *testing.F) {
	f.Add(TransportID{Name: "iqn.2026-11.example:host", HasISID: true}.Append(nil))
	f.Add(TransportID{Name: "iqn.2026-11.example:host"}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, n, e := ParseTransportID(b)
		if e != nil {
			return
		}
		if n > len(b) || n < 24 {
			t.Fatalf("% x: length %d", b, n)
		}
		again, _, e := ParseTransportID(id.Append(nil))
		if e != nil || again != id {
			t.Fatalf("%+v, then %+v, %v", id, again, e)
		}
	})
}

func persistentOuts() []PersistentOut {
	ids := []TransportID{{Name: "iqn.a", ISID: [6]byte{1}, HasISID: true}, {Name: "iqn.b"}}
	return []PersistentOut{
		{Action: SARegister, Key: 1, ActionKey: 2, APTPL: true, AllPorts: true},
		{Action: SARegister, ActionKey: 2, SpecifyPorts: ids},
		{Action: SARegister, ActionKey: 2, SpecifyPorts: []TransportID{}},
		{Action: SAPreempt, Type: WriteExclusiveAllRegistrants, Key: 1, ActionKey: 2},
		{Action: SARegisterMove, Key: 1, ActionKey: 2, Unregister: true, APTPL: true, MovePort: 3, MoveTo: ids[0]},
	}
}

func cdbOf(o PersistentOut) CDB {
	return CDB{byte(OpPersistentOut), o.Action, byte(o.Type), 9: 0}
}

func TestPersistentOutRoundTrip(t *testing.T) {
	for _, o := range persistentOuts() {
		list := o.Append(nil)
		got, _, e := ParsePersistentOut(cdbOf(o), list)
		if e != nil || !reflect.DeepEqual(got, o) {
			t.Errorf("%+v, then %+v, %v", o, got, e)
		}
		for cut := range list {
			if _, _, e := ParsePersistentOut(cdbOf(o), list[:cut]); e == nil {
				t.Errorf("%+v: accepted the first %d of %d bytes", o, cut, len(list))
			}
		}
		if _, _, e := ParsePersistentOut(cdbOf(o), append(list, 0)); e == nil {
			t.Errorf("%+v: accepted a byte too many", o)
		}
	}
	o := persistentOuts()[1]
	list := o.Append(nil)
	o.Action = SARegisterIgnore
	if _, _, e := ParsePersistentOut(cdbOf(o), list); e == nil || e.Byte != 20 || e.Bit != 3 {
		t.Errorf("SPEC_I_PT of REGISTER AND IGNORE EXISTING KEY: %+v", e)
	}
}

func FuzzPersistentOut(f *testing.F) {
	for _, o := range persistentOuts() {
		f.Add([]byte(cdbOf(o)), o.Append(nil))
	}
	f.Fuzz(func(t *testing.T, cdb, list []byte) {
		if len(cdb) < 10 {
			return
		}
		o, _, e := ParsePersistentOut(cdb, list)
		if e == nil && len(o.SpecifyPorts)*24 > len(list) {
			t.Fatalf("%d ports in %d bytes", len(o.SpecifyPorts), len(list))
		}
	})
}

func TestUnmapRoundTrip(t *testing.T) {
	blocks := []UnmapBlock{{LBA: 1 << 40, Blocks: 7}, {LBA: 0, Blocks: 1<<32 - 1}}
	list := AppendUnmap(nil, blocks)
	if len(list) != UnmapListLen(2) {
		t.Errorf("%d bytes", len(list))
	}
	if got, e := ParseUnmap(nil, list); e != nil || !reflect.DeepEqual(got, blocks) {
		t.Errorf("%v %v", got, e)
	}
	if got, e := ParseUnmap(nil, list[:len(list)-1]); e != nil || !reflect.DeepEqual(got, blocks[:1]) {
		t.Errorf("with the second descriptor cut off: %v %v", got, e)
	}
	list[3] = 16 // UNMAP BLOCK DESCRIPTOR DATA LENGTH
	if got, e := ParseUnmap(nil, list); e != nil || !reflect.DeepEqual(got, blocks[:1]) {
		t.Errorf("with one descriptor announced: %v %v", got, e)
	}
	if _, e := ParseUnmap(nil, list[:7]); e == nil || !e.Length {
		t.Errorf("without a whole header: %v", e)
	}
}

func FuzzUnmap(f *testing.F) {
	f.Add(AppendUnmap(nil, []UnmapBlock{{1, 2}, {3, 4}}))
	f.Fuzz(func(t *testing.T, list []byte) {
		if blocks, e := ParseUnmap(nil, list); e == nil && len(list) > 0 && len(blocks) > (len(list)-8)/16 {
			t.Fatalf("%d descriptors in %d bytes", len(blocks), len(list))
		}
	})
}

var modeCapacity = Capacity{Blocks: 1000, BlockLength: 512}

func modeList(long bool, descriptor int, v ModeValues) []byte {
	b := AppendModeHeader(nil, long, 0, descriptor, modeCapacity)
	b, _ = AppendModePages(b, ModeAll, 0, PageCurrent, v)
	return b
}

func TestModeSelectTakesWhatModeSenseGave(t *testing.T) {
	cur := ModeValues{WriteCache: true}
	want := ModeValues{WriteCache: true, DescriptorSense: true, SoftwareProtect: true, TaskAborted: true}
	for _, long := range []bool{false, true} {
		for _, descriptor := range []int{0, 8, 16} {
			if descriptor == 16 && !long {
				continue
			}
			list := modeList(long, descriptor, want)
			got, e := ParseModeSelect(list, long, cur, modeCapacity)
			if e != nil || got != want {
				t.Errorf("long %v, descriptor %d: %+v, %+v", long, descriptor, got, e)
			}
			for cut := 1; cut < len(list); cut++ {
				if got, e := ParseModeSelect(list[:cut], long, cur, modeCapacity); e != nil && got != cur {
					t.Errorf("the first %d bytes are wrong, and change %+v", cut, got)
				}
			}
		}
	}
	wce := modeList(false, 0, ModeValues{})
	if _, e := ParseModeSelect(wce, false, cur, modeCapacity); e == nil || e.Byte != 4+12+2 {
		t.Errorf("WCE can be changed: %+v", e)
	}
	other := modeList(false, 8, cur)
	other[4+3]++
	if _, e := ParseModeSelect(other, false, cur, modeCapacity); e == nil {
		t.Error("the capacity can be changed")
	}
}

func FuzzModeSelect(f *testing.F) {
	f.Add(modeList(false, 8, ModeValues{}), false)
	f.Add(modeList(true, 16, ModeValues{DescriptorSense: true}), true)
	f.Fuzz(func(t *testing.T, list []byte, long bool) {
		got, e := ParseModeSelect(list, long, ModeValues{}, modeCapacity)
		if e != nil && got != (ModeValues{}) {
			t.Fatalf("%+v in spite of %v", got, e)
		}
		if got.WriteCache {
			t.Fatal("WCE changed")
		}
	})
}

func TestModePagesHaveTheirLength(t *testing.T) {
	for _, p := range modePages {
		if b := p.make(ModeValues{}); len(b) != len(p.changeable) || int(b[1]) != len(b)-2 || b[0] != p.code {
			t.Errorf("page %02x: % x, changeable % x", p.code, b, p.changeable)
		}
	}
}

func TestLBAStatusRoundTrip(t *testing.T) {
	list := []LBAStatus{{LBA: 0, Blocks: 8, Status: Mapped}, {LBA: 8, Blocks: 1 << 20, Status: Deallocated}}
	if got, ok := ParseLBAStatus(AppendLBAStatus(nil, list)); !ok || !reflect.DeepEqual(got, list) {
		t.Errorf("%v", got)
	}
}

func FuzzLBAStatus(f *testing.F) {
	f.Add(AppendLBAStatus(nil, []LBAStatus{{1, 2, Mapped}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, ok := ParseLBAStatus(b); ok && len(list) > len(b)/16 {
			t.Fatalf("%d descriptors in %d bytes", len(list), len(b))
		}
		ParseCapacity16(b)
	})
}

func TestInquiryFieldsAreGraphic(t *testing.T) {
	b := Inquiry{Vendor: "A\x01B", Product: strings.Repeat("p", 99), Revision: ""}.Append(nil)
	if got := string(b[8:36]); got != "A B     pppppppppppppppp    " {
		t.Errorf("%q", got)
	}
	if int(b[4]) != len(b)-5 {
		t.Errorf("additional length %d of %d bytes", b[4], len(b))
	}
}

func TestNamesOfUnknownValues(t *testing.T) {
	for got, want := range map[string]string{
		Status(0x99).String():              "status 99h",
		StatusReservationConflict.String(): "RESERVATION CONFLICT",
		SenseKey(0xF).String():             "sense key Fh",
		ReservationType(2).String():        "reservation type 2h",
		CodeSpaceAllocFailed.String():      "27/07",
		Opcode(0x85).String():              "opcode 85h",
		OpUnmap.String():                   "UNMAP",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
