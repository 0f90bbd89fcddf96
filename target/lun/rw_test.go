package lun

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"petal/target/scsi"
)

func TestReadGivesWhatWriteWrote(t *testing.T) {
	for _, block := range []int{512, 4096} {
		t.Run(fmt.Sprint(block), func(t *testing.T) {
			r := newRig(t, block)
			data := fill(3*block, 1)
			writes := map[string][]byte{
				"6":  cdb("0a 00 00 05 03 00"),
				"10": cdb("2a 00 00000005 00 0003 00"),
				"12": cdb("aa 00 00000005 00000003 00 00"),
				"16": cdb("8a 00 0000000000000005 00000003 00 00"),
			}
			reads := [][]byte{
				cdb("08 00 00 05 03 00"),
				cdb("28 18 00000005 00 0003 00"),
				cdb("a8 18 00000005 00000003 00 00"),
				cdb("88 18 0000000000000005 00000003 00 00"),
			}
			for name, w := range writes {
				data[0]++
				r.good(r.nexus, w, data)
				for _, rd := range reads {
					if got := r.good(r.nexus, rd, nil); !bytes.Equal(got, data) {
						t.Errorf("WRITE (%s), then % x: other data", name, rd)
					}
				}
			}
		})
	}
}

func TestRead6OfZeroBlocksIs256(t *testing.T) {
	r := newRig(t, 512)
	if got := r.good(r.nexus, cdb("08 00 00 00 00 00"), nil); len(got) != 256*512 {
		t.Errorf("%d bytes, want %d", len(got), 256*512)
	}
}

func TestZeroBlocksTransferNothing(t *testing.T) {
	r := newRig(t, 512)
	end := uint64(rigSize / 512)
	for _, op := range []scsi.Opcode{scsi.OpRead16, scsi.OpWrite16, scsi.OpWriteVerify16, scsi.OpVerify16,
		scsi.OpOrWrite16, scsi.OpCompareAndWrite, scsi.OpWriteAtomic16, scsi.OpPrefetch16} {
		for _, lba := range []uint64{0, 5, end} {
			res := r.do(r.nexus, cdb16(op, 0, lba, 0), nil)
			if res.status != scsi.StatusGood || len(res.data) != 0 {
				t.Errorf("%v of no blocks at %d: %v %v", op, lba, res.status, res.sense)
			}
		}
		r.check(r.nexus, cdb16(op, 0, end+1, 0), nil, scsi.KeyIllegalRequest, scsi.CodeLBAOutOfRange)
	}
}

func TestLBAOutOfRange(t *testing.T) {
	r := newRig(t, 512)
	end := uint64(rigSize / 512)
	ranges := []struct {
		lba    uint64
		blocks uint32
	}{{end, 1}, {end - 1, 2}, {1<<64 - 1, 1}, {1<<64 - 1, 1<<32 - 1}, {1 << 63, 2}, {1<<55 + 1, 1}}
	for _, op := range []scsi.Opcode{scsi.OpRead16, scsi.OpWrite16, scsi.OpVerify16, scsi.OpWriteVerify16,
		scsi.OpOrWrite16, scsi.OpPrefetch16, scsi.OpSyncCache16, scsi.OpWriteSame16} {
		for _, x := range ranges {
			s := r.check(r.nexus, cdb16(op, 0, x.lba, x.blocks), nil, scsi.KeyIllegalRequest, scsi.CodeLBAOutOfRange)
			if x.lba <= 0xFFFFFFFF && (!s.HasInfo || s.Info != x.lba) {
				t.Errorf("%v: INFORMATION %d (%v), want %d", op, s.Info, s.HasInfo, x.lba)
			}
		}
	}
}

func TestProtectionInformationIsRefused(t *testing.T) {
	r := newRig(t, 512)
	for _, op := range []scsi.Opcode{scsi.OpRead16, scsi.OpWrite16, scsi.OpVerify16, scsi.OpWriteVerify16,
		scsi.OpOrWrite16, scsi.OpWriteSame16, scsi.OpCompareAndWrite, scsi.OpWriteAtomic16} {
		s := r.check(r.nexus, cdb16(op, 0x20, 0, 1), make([]byte, 512), scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
		if want := (scsi.FieldPointer{InCDB: true, Byte: 1, Bit: 7}); s.Field != want {
			t.Errorf("%v: field %+v, want %+v", op, s.Field, want)
		}
	}
}

func TestTransferBeyondMaximumIsRefused(t *testing.T) {
	r := newRig(t, 512)
	r.disk.SetSize(1 << 40)
	for _, op := range []scsi.Opcode{scsi.OpRead16, scsi.OpWrite16, scsi.OpVerify16} {
		s := r.check(r.nexus, cdb16(op, 0, 0, MaxTransfer/512+1), nil, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
		if s.Field.Byte != 10 {
			t.Errorf("%v: field %+v, want byte 10", op, s.Field)
		}
	}
}

func TestWriteOfFewerBytesThanTheCDBAsks(t *testing.T) {
	r := newRig(t, 512)
	before, after := fill(1024, 1), fill(1024, 2)
	w := cdb16(scsi.OpWrite16, 0, 0, 2)
	r.good(r.nexus, w, before)

	res := r.expect(r.nexus, 0, w, after, 512)
	if res.status != scsi.StatusGood || res.outLen != 1024 {
		t.Fatalf("%v, OutLen %d", res.status, res.outLen)
	}
	got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 0, 2), nil)
	if !bytes.Equal(got[:512], after[:512]) || !bytes.Equal(got[512:], before[512:]) {
		t.Error("not exactly the first block was written")
	}

	res = r.expect(r.nexus, 0, w, after, 0)
	if res.status != scsi.StatusGood || res.outLen != 1024 {
		t.Errorf("nothing sent: %v, OutLen %d", res.status, res.outLen)
	}
	res = r.expect(r.nexus, 0, w, after, 200)
	if res.sense.Code != scsi.CodeInvalidFieldInIU || res.outLen != 1024 {
		t.Errorf("part of a block: %v %v, OutLen %d", res.status, res.sense, res.outLen)
	}
}

func TestReadOnly(t *testing.T) {
	r := newRig(t, 512)
	r.disk.SetReadOnly(true)
	block := make([]byte, 512)
	writes := map[string][]byte{
		"WRITE":           cdb16(scsi.OpWrite16, 0, 0, 1),
		"WRITE ATOMIC":    cdb16(scsi.OpWriteAtomic16, 0, 0, 8),
		"ORWRITE":         cdb16(scsi.OpOrWrite16, 0, 0, 1),
		"WRITE SAME":      cdb16(scsi.OpWriteSame16, 0, 0, 1),
		"WRITE VERIFY":    cdb16(scsi.OpWriteVerify16, 0, 0, 1),
		"COMPARE WRITE":   cdb16(scsi.OpCompareAndWrite, 0, 0, 1),
		"UNMAP":           cdb("42 00 00000000 00 0018 00"),
		"WRITE SAME NDOB": cdb16(scsi.OpWriteSame16, 1, 0, 1),
	}
	for name, w := range writes {
		res := r.do(r.nexus, w, block)
		if res.sense.Key != scsi.KeyDataProtect || res.sense.Code != scsi.CodeWriteProtected {
			t.Errorf("%s: %v %v %v", name, res.status, res.sense.Key, res.sense.Code)
		}
	}
	r.good(r.nexus, cdb16(scsi.OpRead16, 0, 0, 1), nil)
	r.good(r.nexus, cdb16(scsi.OpVerify16, 2, 0, 1), block)
	if sense := r.good(r.nexus, cdb("1a 00 3f 00 ff 00"), nil); sense[2]&scsi.ModeWP == 0 {
		t.Error("WP is not set")
	}
}

func TestFullTransferLengthIsRead(t *testing.T) {
	r := newRig(t, 4096)
	r.disk.SetSize(64 << 20)
	data := fill(MaxTransfer, 3)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 16, MaxTransfer/4096), data)
	if got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 16, MaxTransfer/4096), nil); !bytes.Equal(got, data) {
		t.Error("other data")
	}
}

// A session runs the same Command over and over. None of that may allocate.
func TestReadAndWriteAllocateNothing(t *testing.T) {
	r := newRig(t, 512)
	ended := 0
	done := func(*Command) { ended++ }
	read := &Command{LUN: 0, CDB: cdb("28 00 00000008 00 0008 00"), ExpectedIn: 4096, Done: done}
	write := &Command{LUN: 0, CDB: cdb("2a 00 00000008 00 0008 00"), Expected: 4096, Done: done}
	runs := 0
	n := testing.AllocsPerRun(200, func() {
		runs++
		for _, c := range []*Command{write, read} {
			if r.nexus.Begin(c) != Wait {
				t.Fatal("decided")
			}
			c.OutGot = c.Expected
			r.nexus.Run(c)
			if scsi.Status(c.Status) != scsi.StatusGood {
				t.Fatal("not good")
			}
			r.nexus.Finish(c)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a write and a read", n)
	}
	if ended != 2*runs {
		t.Errorf("Done %d times in %d runs", ended, 2*runs)
	}
}

func BenchmarkRead4K(b *testing.B) {
	r := newRig(b, 512)
	c := &Command{CDB: cdb("28 00 00000008 00 0008 00"), ExpectedIn: 4096, Done: func(*Command) {}}
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		r.nexus.Begin(c)
		r.nexus.Run(c)
		r.nexus.Finish(c)
	}
}

// TestReadBorrowsWhatIsExpected: a READ of more than the initiator has room for
// borrows no more than that, and tells the whole length for the residual.
func TestReadBorrowsWhatIsExpected(t *testing.T) {
	r := newRig(t, 512)
	n := r.nexus
	for _, c := range []struct{ expected, in int }{{0, 0}, {1, 512}, {512, 512}, {600, 1024}, {4096, 4096}, {9000, 4096}} {
		var ended sync.WaitGroup
		ended.Add(1)
		x := &Command{CDB: cdb("28 00 00000008 00 0008 00"), ExpectedIn: c.expected, Done: func(*Command) { ended.Done() }}
		if n.Begin(x) != Wait {
			t.Fatalf("refused: %v", x.Status)
		}
		n.Run(x)
		ended.Wait()
		got := 0
		for _, v := range x.In {
			got += len(v)
		}
		if x.Status != 0 || got != c.in || x.InLen != 4096 {
			t.Errorf("%d expected: status %#x, %d bytes of %d; want %d of 4096", c.expected, x.Status, got, x.InLen, c.in)
		}
		n.Finish(x)
	}
}
