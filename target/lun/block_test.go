package lun

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"petal/target/scsi"
)

func TestVerify(t *testing.T) {
	for _, op := range []scsi.Opcode{scsi.OpVerify16, scsi.OpWriteVerify16} {
		r := newRig(t, 512)
		// More than a piece, so that the parts are put together right.
		const blocks = 3 * pieceMax / 512
		data := fill(blocks*512, 1)
		if op == scsi.OpVerify16 {
			r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 5, blocks), data)
			r.good(r.nexus, cdb16(op, 0x00, 5, blocks), nil)
		}
		r.good(r.nexus, cdb16(op, 0x02, 5, blocks), data)
		if got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 5, blocks), nil); !bytes.Equal(got, data) {
			t.Errorf("%v: other data", op)
		}
		s := r.check(r.nexus, cdb16(op, 0x04, 5, 1), data[:512], scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
		if s.Field.Byte != 1 || s.Field.Bit != 2 {
			t.Errorf("%v with BYTCHK 10b: field %+v", op, s.Field)
		}
	}
}

func TestVerifyMiscompare(t *testing.T) {
	r := newRig(t, 512)
	const blocks = 3 * pieceMax / 512
	data := fill(blocks*512, 1)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 5, blocks), data)
	for _, at := range []int{0, 511, pieceMax, len(data) - 1} {
		data[at] ^= 0x10
		s := r.check(r.nexus, cdb16(scsi.OpVerify16, 0x02, 5, blocks), data, scsi.KeyMiscompare, scsi.CodeMiscompare)
		if s.Info != uint64(at) {
			t.Errorf("INFORMATION %d, want %d", s.Info, at)
		}
		data[at] ^= 0x10
	}
	// Less data than the range: there is nothing to compare the rest with.
	if res := r.expect(r.nexus, 0, cdb16(scsi.OpVerify16, 0x02, 5, 4), data, 1024); res.sense.Code != scsi.CodeInvalidFieldInIU {
		t.Errorf("%v %v", res.status, res.sense)
	}
}

func TestVerifyOneBlockAgainstAll(t *testing.T) {
	r := newRig(t, 512)
	block := fill(512, 7)
	r.good(r.nexus, cdb16(scsi.OpWriteSame16, 0, 3, 5000), block)
	r.good(r.nexus, cdb16(scsi.OpVerify16, 0x06, 3, 5000), block)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 4002, 1), make([]byte, 512))
	s := r.check(r.nexus, cdb16(scsi.OpVerify16, 0x06, 3, 5000), block, scsi.KeyMiscompare, scsi.CodeMiscompare)
	if at := uint64(3999 * 512); s.Info < at || s.Info >= at+512 {
		t.Errorf("INFORMATION %d, want one of block 3999", s.Info)
	}
}

func TestWriteAndVerifyFindsWhatTheMediumChanged(t *testing.T) {
	r := newRig(t, 512)
	r.disk.SetFail(func(op string, off uint64, n int) error {
		if op == "read" {
			r.disk.mu.Lock()
			r.disk.pages[0][700] ^= 1
			r.disk.mu.Unlock()
		}
		return nil
	})
	data := fill(2048, 1)
	s := r.check(r.nexus, cdb16(scsi.OpWriteVerify16, 0x02, 0, 4), data, scsi.KeyMiscompare, scsi.CodeMiscompare)
	if s.Info != 700 {
		t.Errorf("INFORMATION %d", s.Info)
	}
}

func TestCompareAndWrite(t *testing.T) {
	r := newRig(t, 512)
	before, after := fill(512, 1), fill(512, 2)
	c := cdb16(scsi.OpCompareAndWrite, 0, 9, 1)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 9, 1), before)
	r.good(r.nexus, c, append(bytes.Clone(before), after...))
	if got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 9, 1), nil); !bytes.Equal(got, after) {
		t.Error("not written")
	}
	wrong := bytes.Clone(after)
	wrong[77] ^= 1
	s := r.check(r.nexus, c, append(wrong, before...), scsi.KeyMiscompare, scsi.CodeMiscompare)
	if !s.HasInfo || s.Info != 77 {
		t.Errorf("INFORMATION %d (%v), want 77", s.Info, s.HasInfo)
	}
	if got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 9, 1), nil); !bytes.Equal(got, after) {
		t.Error("written in spite of the miscompare")
	}
	for _, blocks := range []uint32{2, 255} {
		r.check(r.nexus, cdb16(scsi.OpCompareAndWrite, 0, 9, blocks), make([]byte, blocks*1024), scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	}
	for _, n := range []int{0, 512, 2048} {
		res := r.do(r.nexus, c, make([]byte, n))
		if res.status != scsi.StatusCheckCondition {
			t.Errorf("%d bytes of data-out: %v", n, res.status)
		}
	}
}

// Of many that want to change a block from the same value, one may.
func TestCompareAndWriteOfManyIsWonByOne(t *testing.T) {
	r := newRig(t, 512)
	var won sync.Map
	var all sync.WaitGroup
	for i := range 16 {
		n := r.attach(fmt.Sprint("iqn.host", i), 1)
		all.Go(func() {
			out := append(make([]byte, 512), fill(512, byte(i+1))...)
			if res := r.do(n, cdb16(scsi.OpCompareAndWrite, 0, 0, 1), out); res.status == scsi.StatusGood {
				won.Store(i, true)
			}
		})
	}
	all.Wait()
	winners := 0
	won.Range(func(any, any) bool { winners++; return true })
	if winners != 1 {
		t.Errorf("%d winners", winners)
	}
}

func TestOrWrite(t *testing.T) {
	r := newRig(t, 512)
	const blocks = 300 // touches three chunks
	a, b := fill(blocks*512, 1), fill(blocks*512, 0x5a)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 100, blocks), a)
	r.good(r.nexus, cdb16(scsi.OpOrWrite16, 0, 100, blocks), b)
	for i := range a {
		a[i] |= b[i]
	}
	if got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 100, blocks), nil); !bytes.Equal(got, a) {
		t.Error("not the or of both")
	}
}

// What is atomic lies within a chunk.
func TestWriteAtomic(t *testing.T) {
	r := newRig(t, 512)
	l := r.unit.limits()
	if l.MaxAtomic != 128 || l.AtomicAlignment != 8 || l.AtomicGranularity != 8 {
		t.Errorf("%+v", l)
	}
	for lba, blocks := range map[uint64]uint32{128: 128, 8: 8, 120: 8, 256 + 24: 64, rigSize/512 - 8: 8} {
		data := fill(int(blocks)*512, 1)
		r.good(r.nexus, cdb16(scsi.OpWriteAtomic16, 0, lba, blocks), data)
		if got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, lba, blocks), nil); !bytes.Equal(got, data) {
			t.Error("other data")
		}
	}
	for _, c := range []struct {
		name   string
		lba    uint64
		blocks uint32
	}{
		{"longer than a chunk", 0, 136}, {"not of the granularity", 0, 4},
		{"not aligned", 4, 8}, {"across a chunk boundary", 120, 16},
	} {
		r.check(r.nexus, cdb16(scsi.OpWriteAtomic16, 0, c.lba, c.blocks), make([]byte, c.blocks*512), scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	}
	boundary := cdb16(scsi.OpWriteAtomic16, 0, 0, 8)
	boundary[11] = 8
	r.check(r.nexus, boundary, make([]byte, 8*512), scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	if res := r.expect(r.nexus, 0, cdb16(scsi.OpWriteAtomic16, 0, 0, 16), make([]byte, 16*512), 4096); res.sense.Code != scsi.CodeInvalidFieldInIU {
		t.Errorf("a part of the data: %v %v", res.status, res.sense)
	}
}

func TestWriteSame(t *testing.T) {
	const unmap, anchor, ndob = 0x08, 0x10, 0x01
	r := newRig(t, 512)
	pattern := fill(512, 3)
	r.good(r.nexus, cdb16(scsi.OpWriteSame16, 0, 5, 4000), pattern)
	got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 4, 4002), nil)
	if !bytes.Equal(got[512:len(got)-512], bytes.Repeat(pattern, 4000)) || !allZero(got[:512]) || !allZero(got[len(got)-512:]) {
		t.Error("not exactly the range is filled")
	}
	mapped := r.disk.Mapped()
	for _, flags := range []byte{0, unmap} {
		r.good(r.nexus, cdb16(scsi.OpWriteSame16, flags, 8000, 1000), make([]byte, 512))
	}
	r.good(r.nexus, cdb16(scsi.OpWriteSame16, ndob, 8000, 1000), nil)
	if r.disk.Mapped() != mapped {
		t.Error("zeroing allocates")
	}
	r.good(r.nexus, cdb16(scsi.OpWriteSame16, unmap|ndob, 0, 4008), nil)
	if r.disk.Mapped() != 0 {
		t.Errorf("%d bytes are mapped after all were unmapped", r.disk.Mapped())
	}
	// UNMAP with a pattern that unmapped blocks would not read as.
	r.good(r.nexus, cdb16(scsi.OpWriteSame16, unmap, 0, 8), pattern)
	if got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 0, 8), nil); !bytes.Equal(got, bytes.Repeat(pattern, 8)) {
		t.Error("UNMAP lost the pattern")
	}
	for _, flags := range []byte{anchor, anchor | unmap} {
		s := r.check(r.nexus, cdb16(scsi.OpWriteSame16, flags, 0, 8), pattern, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
		if s.Field.Byte != 1 || s.Field.Bit != 4 {
			t.Errorf("ANCHOR: field %+v", s.Field)
		}
	}
	r.check(r.nexus, cdb16(scsi.OpWriteSame16, 0, 0, 0), pattern, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
	for _, n := range []int{0, 256, 1024} {
		if res := r.do(r.nexus, cdb16(scsi.OpWriteSame16, 0, 0, 1), make([]byte, n)); res.status != scsi.StatusCheckCondition {
			t.Errorf("%d bytes of data-out: %v", n, res.status)
		}
	}
	r.disk.SetSize(1 << 40)
	r.check(r.nexus, cdb16(scsi.OpWriteSame16, 0, 0, writeSameBlocksMax+1), pattern, scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
}

// unmap sends UNMAP.
func (r *rig) unmap(blocks ...scsi.UnmapBlock) result {
	r.t.Helper()
	list := scsi.AppendUnmap(nil, blocks)
	return r.do(r.nexus, []byte{0x42, 0, 0, 0, 0, 0, 0, byte(len(list) >> 8), byte(len(list)), 0}, list)
}

func TestUnmap(t *testing.T) {
	r := newRig(t, 512)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 0, 64), fill(64*512, 1))
	if res := r.unmap(scsi.UnmapBlock{LBA: 8, Blocks: 8}, scsi.UnmapBlock{LBA: 20, Blocks: 0}, scsi.UnmapBlock{LBA: 32, Blocks: 32}); res.status != scsi.StatusGood {
		t.Fatal(res.status, res.sense)
	}
	if r.disk.Mapped() != 24*512 {
		t.Errorf("%d bytes mapped", r.disk.Mapped())
	}
	if got := r.good(r.nexus, cdb16(scsi.OpRead16, 0, 8, 8), nil); !allZero(got) {
		t.Error("unmapped blocks do not read as zeros")
	}
	// One bad descriptor, and nothing is unmapped.
	mapped := r.disk.Mapped()
	if res := r.unmap(scsi.UnmapBlock{LBA: 0, Blocks: 8}, scsi.UnmapBlock{LBA: rigSize / 512, Blocks: 1}); res.sense.Code != scsi.CodeLBAOutOfRange {
		t.Errorf("beyond the end: %v", res.sense)
	}
	if res := r.unmap(scsi.UnmapBlock{LBA: 0, Blocks: 8}, scsi.UnmapBlock{LBA: 0, Blocks: 1 << 20}); res.sense.Code != scsi.CodeInvalidFieldInParams {
		t.Errorf("too many blocks: %v", res.sense)
	}
	if res := r.unmap(make([]scsi.UnmapBlock, unmapDescriptorsMax+1)...); res.sense.Code != scsi.CodeInvalidFieldInParams {
		t.Errorf("too many descriptors: %v", res.sense)
	}
	if r.disk.Mapped() != mapped {
		t.Error("something was unmapped")
	}
	if res := r.do(r.nexus, cdb("42 00 00000000 00 0000 00"), nil); res.status != scsi.StatusGood {
		t.Errorf("no list: %v", res.status)
	}
	r.check(r.nexus, cdb("42 00 00000000 00 0004 00"), make([]byte, 4), scsi.KeyIllegalRequest, scsi.CodeParameterListLength)
	r.check(r.nexus, cdb("42 01 00000000 00 0018 00"), make([]byte, 24), scsi.KeyIllegalRequest, scsi.CodeInvalidFieldInCDB)
}

func TestGetLBAStatus(t *testing.T) {
	r := newRig(t, 512)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 16, 16), fill(8192, 1))
	status := func(lba uint64, allocation uint32) []scsi.LBAStatus {
		t.Helper()
		c := cdb16(scsi.OpServiceActionIn16, scsi.SAGetLBAStatus, lba, allocation)
		list, ok := scsi.ParseLBAStatus(r.good(r.nexus, c, nil))
		if !ok {
			t.Fatal("no parameter data")
		}
		return list
	}
	want := []scsi.LBAStatus{{LBA: 0, Blocks: 16, Status: scsi.Deallocated}, {LBA: 16, Blocks: 16, Status: scsi.Mapped},
		{LBA: 32, Blocks: rigSize/512 - 32, Status: scsi.Deallocated}}
	if got := status(0, 1024); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := status(20, 24); fmt.Sprint(got) != fmt.Sprint([]scsi.LBAStatus{{LBA: 20, Blocks: 12, Status: scsi.Mapped}}) {
		t.Errorf("from the middle: %v", got)
	}
	r.check(r.nexus, cdb16(scsi.OpServiceActionIn16, scsi.SAGetLBAStatus, rigSize/512, 24), nil, scsi.KeyIllegalRequest, scsi.CodeLBAOutOfRange)
}

func TestSynchronizeCache(t *testing.T) {
	r := newRig(t, 512)
	r.good(r.nexus, cdb("35 00 00000000 00 0000 00"), nil)
	r.good(r.nexus, cdb("35 02 00000000 00 0000 00"), nil)
	r.good(r.nexus, cdb16(scsi.OpSyncCache16, 0, 8, 8), nil)
	if n := r.disk.Flushes(); n != 3 {
		t.Errorf("%d flushes, want 3", n)
	}
}

func TestNoSpace(t *testing.T) {
	r := newRig(t, 4096)
	r.disk.SetSpace(8192)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 0, 2), fill(8192, 1))
	r.check(r.nexus, cdb16(scsi.OpWrite16, 0, 2, 1), fill(4096, 1), scsi.KeyDataProtect, scsi.CodeSpaceAllocFailed)
	r.good(r.nexus, cdb16(scsi.OpWrite16, 0, 1, 1), fill(4096, 2))
	r.good(r.nexus, cdb16(scsi.OpRead16, 0, 0, 2), nil)
	r.good(r.nexus, cdb16(scsi.OpWriteSame16, 1, 5, 9), nil)
}

func TestPatternGoesOnFromVectorToVector(t *testing.T) {
	pattern, buf := []byte{1, 2, 3, 4}, make([]byte, 11)
	fillPattern([][]byte{buf[:3], buf[3:4], buf[4:]}, pattern)
	if want := []byte{1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3}; !bytes.Equal(buf, want) {
		t.Errorf("%v", buf)
	}
}
