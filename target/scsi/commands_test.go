package scsi

import (
	"testing"
)

func TestCommandTable(t *testing.T) {
	seen := map[[2]int]bool{}
	last := Opcode(0)
	for i := range Commands {
		c := &Commands[i]
		key := [2]int{int(c.Op), int(c.SA)}
		if seen[key] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[key] = true
		if c.Op < last {
			t.Errorf("%s is out of order: byOpcode wants rows of an opcode together", c.Name)
		}
		last = c.Op
		wantLen := map[byte]uint8{0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[byte(c.Op)>>5]
		if c.Len != wantLen {
			t.Errorf("%s: CDB length %d, its group has %d", c.Name, c.Len, wantLen)
		}
		if len(c.Usage) != int(c.Len) || c.Usage[0] != byte(c.Op) {
			t.Errorf("%s: usage data % x for %d bytes", c.Name, c.Usage, c.Len)
		}
		if c.SA != NoServiceAction && c.Usage[1]&0x1F != byte(c.SA) {
			t.Errorf("%s: usage data without the service action", c.Name)
		}
		if c.Usage[c.Len-1] != NACA {
			t.Errorf("%s: CONTROL is evaluated for NACA", c.Name)
		}
		if c.Kind >= KindCount || c.Conflict >= ConflictCount || c.Timeout == 0 {
			t.Errorf("%s: %+v", c.Name, c)
		}
	}
}

func TestLookup(t *testing.T) {
	for i := range Commands {
		c := &Commands[i]
		cdb := make(CDB, c.Len)
		cdb[0] = byte(c.Op)
		if c.SA != NoServiceAction {
			cdb[1] = byte(c.SA) | 0xE0
		}
		if got, code := Lookup(cdb); got != c || code != CodeNone {
			t.Errorf("%s: found %v, %v", c.Name, got, code)
		}
		if got, code := Lookup(cdb[:c.Len-1]); got != nil || code != CodeInvalidFieldInCDB {
			t.Errorf("%s in a short CDB: found %v, %v", c.Name, got, code)
		}
	}
	for name, cdb := range map[string]CDB{"empty": nil, "ATA PASS-THROUGH (16)": make(CDB, 16), "SANITIZE": {0x48, 9: 0}} {
		if len(cdb) == 16 {
			cdb[0] = byte(OpATAPassThrough16)
		}
		if got, code := Lookup(cdb); got != nil || code != CodeInvalidOpcode {
			t.Errorf("%s: found %v, %v", name, got, code)
		}
	}
	if got, code := Lookup(CDB{byte(OpServiceActionIn16), 0x1F, 15: 0}); got != nil || code != CodeInvalidFieldInCDB {
		t.Errorf("unknown service action: found %v, %v", got, code)
	}
}

func TestCDBFields(t *testing.T) {
	cases := []struct {
		name   string
		cdb    CDB
		lba    uint64
		blocks uint32
	}{
		{"READ (6)", CDB{0x08, 0xff, 0x02, 0x03, 0x04, 0}, 0x1f0203, 4},
		{"READ (6) of zero", CDB{0x08, 0, 0, 0, 0, 0}, 0, 256},
		{"READ (10)", CDB{0x28, 0, 1, 2, 3, 4, 0xff, 5, 6, 0}, 0x01020304, 0x0506},
		{"WRITE (12)", CDB{0xaa, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0}, 0x01020304, 0x05060708},
		{"WRITE (16)", CDB{0x8a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xff, 0}, 0x0102030405060708, 0x090a0b0c},
		{"COMPARE AND WRITE", CDB{0x89, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0}, 0x0102030405060708, 12},
		{"WRITE ATOMIC (16)", CDB{0x9c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0}, 0x0102030405060708, 0x0b0c},
	}
	for _, c := range cases {
		if c.cdb.LBA() != c.lba || c.cdb.Blocks() != c.blocks {
			t.Errorf("%s: LBA %x, %x blocks", c.name, c.cdb.LBA(), c.cdb.Blocks())
		}
	}
}

func FuzzCDB(f *testing.F) {
	for i := range Commands {
		cdb := make([]byte, Commands[i].Len)
		copy(cdb, Commands[i].Usage)
		f.Add(cdb)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		cdb := CDB(b)
		c, code := Lookup(cdb)
		if (c == nil) != (code != CodeNone) {
			t.Fatalf("% x: %v, %v", b, c, code)
		}
		if c == nil {
			return
		}
		// The accessors want no more than Lookup has checked.
		cdb = cdb[:c.Len]
		cdb.LBA()
		cdb.Length()
		cdb.Blocks()
		cdb.Control(int(c.Len))
		cdb.ServiceAction()
	})
}

func TestReportOfOneCommand(t *testing.T) {
	for i := range Commands {
		c := &Commands[i]
		options, wrong, sa := ReportOpcode, ReportServiceAction, uint16(0)
		if c.SA != NoServiceAction {
			options, wrong, sa = ReportServiceAction, ReportOpcode, uint16(c.SA)
		}
		for _, o := range []uint8{options, ReportEither} {
			b, ok := AppendOneCommand(nil, o, c.Op, sa, true)
			if !ok || b[1] != 0x83 || int(b[3]) != int(c.Len) || len(b) != 4+int(c.Len)+timeoutsLen {
				t.Errorf("%s, options %d: %v % x", c.Name, o, ok, b)
			}
		}
		if _, ok := AppendOneCommand(nil, wrong, c.Op, sa, false); ok {
			t.Errorf("%s, options %d: accepted", c.Name, wrong)
		}
	}
	if b, ok := AppendOneCommand(nil, ReportServiceAction, OpServiceActionIn16, 0x1F, false); !ok || b[1] != 1 {
		t.Errorf("unknown service action: %v % x", ok, b)
	}
}
