package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
)

var testUUID = [16]byte{0xde, 0xad, 1, 2, 3}

// item is a record of a test group.
type item struct {
	head  []byte
	crc   []uint32
	flags uint16
}

var items = []item{
	{nil, nil, 0},
	{[]byte("a"), []uint32{1}, 0},
	{bytes.Repeat([]byte{7}, 5000), []uint32{1, 2, 3}, WithNext},
	{[]byte("12345678"), nil, WithNext},
	{[]byte("x"), make([]uint32, MaxBlocks), 0},
}

func build(items []item) ([]byte, Group) {
	g := Group{UUID: testUUID, Generation: 3, Block: 17, First: 100, Durable: 99, Opening: 2, Base: 50, Trim: 60}
	var b Builder
	memory := bytes.Repeat([]byte{0xff}, 2<<20) // what is left over must not show
	b.Reset(memory)
	for _, i := range items {
		b.Add(i.head, i.crc, i.flags)
	}
	return b.Finish(&g), g
}

func TestGroupRoundTrip(t *testing.T) {
	b, g := build(items)
	if len(b)%BlockSize != 0 || len(b) != Need(b) {
		t.Fatalf("%d bytes, need %d", len(b), Need(b))
	}
	v, err := Parse(append(b, 1, 2, 3), testUUID)
	if err != nil {
		t.Fatal(err)
	}
	got := Group{UUID: testUUID, Generation: v.Generation(), Block: v.Block(), First: v.First(), Durable: v.Durable(),
		Opening: v.Opening(), Base: v.Base(), Trim: v.Trim()}
	if got != g {
		t.Errorf("%+v, want %+v", got, g)
	}
	if v.Records() != len(items) || v.Size() != int64(len(b))+int64(v.DataBlocks())*BlockSize {
		t.Errorf("%d records, %d bytes", v.Records(), v.Size())
	}
	i, block := 0, len(b)/BlockSize
	v.Frames(func(lsn uint64, at int, f Frame) bool {
		want := items[i]
		if lsn != g.First+uint64(i) || at != block || !bytes.Equal(f.Head(), want.head) || f.Blocks() != len(want.crc) ||
			f.WithNext() != (want.flags == WithNext) {
			t.Errorf("record %d: LSN %d at block %d, %d blocks", i, lsn, at, f.Blocks())
		}
		for k, c := range want.crc {
			if f.CRC(k) != c {
				t.Errorf("record %d: CRC %d", i, k)
			}
		}
		i++
		block += f.Blocks()
		return true
	})
	if i != len(items) {
		t.Errorf("%d frames", i)
	}
}

// The format is frozen: these bytes were written by version 1.
func TestGroupBytes(t *testing.T) {
	b, _ := build([]item{{[]byte("head"), []uint32{0x01020304}, WithNext}, {[]byte("next"), nil, 0}})
	want := "706574616c677270" + "0100" + "0000" + "%08x" +
		"dead0102030000000000000000000000" + "0300000000000000" +
		"11000000" + "80000000" + "02000000" + "01000000" +
		"6400000000000000" + "6300000000000000" + "0200000000000000" + "3200000000000000" + "3c00000000000000" +
		"04000000" + "0100" + "0100" + "04030201" + "68656164" +
		"04000000" + "0000" + "0000" + "6e657874" + "00000000"
	crc := binary.BigEndian.Uint32(b[12:]) // its bytes, as they lie
	if got := fmt.Sprintf("%x", b[:128]); got != fmt.Sprintf(want, crc) {
		t.Errorf("\n%s, want\n%s", got, fmt.Sprintf(want, crc))
	}
	if crc != goldenCRC {
		t.Errorf("CRC %#08x, want %#08x", crc, goldenCRC)
	}
}

func TestSegmentRoundTrip(t *testing.T) {
	s := Segment{UUID: testUUID, Generation: 9, Size: 64 << 20, Opening: 4, Base: 77, Trim: 70}
	b := bytes.Repeat([]byte{0xff}, BlockSize)
	s.Encode(b)
	got, err := ParseSegment(b, testUUID)
	if err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ParseSegment(make([]byte, BlockSize), testUUID); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	if _, err := ParseSegment(b[:100], testUUID); !errors.Is(err, ErrShort) {
		t.Error(err)
	}
}

// What is wrong with a header has a name, and each its own.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b []byte)
		want   error
	}{
		"magic":         {func(b []byte) { b[0]++ }, ErrNone},
		"version":       {func(b []byte) { b[8]++ }, ErrCorrupt},
		"newer version": {func(b []byte) { b[8]++; Reseal(b) }, ErrVersion},
		"version zero":  {func(b []byte) { b[8] = 0; Reseal(b) }, ErrCorrupt},
		"uuid":          {func(b []byte) { b[16]++ }, ErrCorrupt},
		"other uuid":    {func(b []byte) { b[16]++; Reseal(b) }, ErrForeign},
		"generation":    {func(b []byte) { b[32]++ }, ErrCorrupt},
		"CRC":           {func(b []byte) { b[12]++ }, ErrCorrupt},
		"last byte":     {func(b []byte) { b[BlockSize-1]++ }, ErrCorrupt},
	} {
		b, _ := build(items[:2])
		c.change(b)
		if _, err := Parse(b, testUUID); !errors.Is(err, c.want) {
			t.Errorf("group, %s: %v, want %v", name, err, c.want)
		}
		s := Segment{UUID: testUUID, Generation: 1}
		s.Encode(b)
		c.change(b)
		if _, err := ParseSegment(b[:BlockSize], testUUID); !errors.Is(err, c.want) {
			t.Errorf("segment, %s: %v, want %v", name, err, c.want)
		}
	}
}

// Lies that are sealed with the right checksum must not lead the parser astray.
func TestSealedLies(t *testing.T) {
	put32 := func(off int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[off:], v) }
	}
	for name, lie := range map[string]func([]byte){
		"records too many":  put32(offRecords, 3),
		"records too few":   put32(offRecords, 1),
		"records huge":      put32(offRecords, 1<<31),
		"blocks too many":   put32(offBlocks, 2),
		"bytes less":        put32(offBytes, HeaderSize+8),
		"bytes odd":         put32(offBytes, HeaderSize+9),
		"head too long":     put32(HeaderSize, MaxHead+1),
		"head over the end": put32(HeaderSize, 4000),
		"head wraps":        put32(HeaderSize, 0xffffffff),
		"frame of blocks":   put32(HeaderSize+4, MaxBlocks+1),
		"one with nothing":  func(b []byte) { b[HeaderSize+FrameBytes(0, 0)+6] = WithNext },
		"LSN zero":          func(b []byte) { clear(b[offFirst : offFirst+8]) },
		"LSN wraps":         func(b []byte) { copy(b[offFirst:], bytes.Repeat([]byte{0xff}, 8)) },
	} {
		b, _ := build(items[:2])
		lie(b)
		Reseal(b)
		if _, err := Parse(b, testUUID); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, _ := build(items)
	for n := range len(b) {
		if _, err := Parse(b[:n], testUUID); !errors.Is(err, ErrShort) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	for _, n := range []uint32{0, HeaderSize - 1, MaxHeaderBytes + 1, 1 << 31} {
		put32(offBytes, n)(b)
		if _, err := Parse(b, testUUID); !errors.Is(err, ErrCorrupt) || Need(b) != 0 {
			t.Errorf("header of %d bytes: %v, need %d", n, err, Need(b))
		}
	}
}

func TestBuilderKeepsLimits(t *testing.T) {
	for name, add := range map[string]func(*Builder){
		"head":   func(b *Builder) { b.Add(make([]byte, MaxHead+1), nil, 0) },
		"blocks": func(b *Builder) { b.Add(nil, make([]uint32, MaxBlocks+1), 0) },
		"group": func(b *Builder) {
			for range 4 {
				b.Add(nil, make([]uint32, MaxBlocks), 0)
			}
		},
		"records": func(b *Builder) {
			for range MaxRecords + 1 {
				b.Add(nil, nil, 0)
			}
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: taken", name)
				}
			}()
			var b Builder
			b.Reset(make([]byte, 4<<20))
			add(&b)
		}()
	}
}

// A flag that is not known may mean that the record must not be read as it stands.
func TestUnknownFlag(t *testing.T) {
	for _, i := range []int{0, 1} {
		b, _ := build(items[:2])
		b[HeaderSize+i*FrameBytes(0, 0)+7] = 0x80
		if _, err := Parse(b, testUUID); !errors.Is(err, ErrCorrupt) {
			t.Errorf("not sealed: %v", err)
		}
		Reseal(b)
		if _, err := Parse(b, testUUID); !errors.Is(err, ErrVersion) {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

// FuzzParse: no bytes make the parser panic or hand out more than there is; what
// it takes, it takes again after a rebuild.
func FuzzParse(f *testing.F) {
	for n := range items {
		b, _ := build(items[:n+1])
		f.Add(b)
		b, _ = build(append([]item{{[]byte("one"), []uint32{5}, WithNext}}, items[:n+1]...))
		f.Add(b)
	}
	f.Add(make([]byte, BlockSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := Need(b); n > 0 && n <= len(b) {
			Reseal(b[:n]) // so that the fuzzer gets past the checksum
		}
		if len(b) >= offSeedEnd {
			copy(b[offUUID:], testUUID[:])
			if n := Need(b); n > 0 && n <= len(b) {
				Reseal(b[:n])
			}
		}
		ParseSegment(b, testUUID)
		v, err := Parse(b, testUUID)
		if err != nil {
			return
		}
		var again Builder
		again.Reset(make([]byte, len(b)))
		records, blocks := 0, 0
		v.Frames(func(_ uint64, at int, fr Frame) bool {
			if at != v.HeaderBlocks()+blocks {
				t.Fatalf("frame %d at block %d", records, at)
			}
			crc := make([]uint32, fr.Blocks())
			for i := range crc {
				crc[i] = fr.CRC(i)
			}
			again.Add(fr.Head(), crc, fr.flags())
			records++
			blocks += fr.Blocks()
			return true
		})
		if records != v.Records() || blocks != v.DataBlocks() {
			t.Fatalf("%d records, %d blocks", records, blocks)
		}
		g := Group{UUID: testUUID, Generation: v.Generation(), Block: v.Block(), First: v.First(), Durable: v.Durable(),
			Opening: v.Opening(), Base: v.Base(), Trim: v.Trim()}
		w, err := Parse(again.Finish(&g), testUUID)
		if err != nil || w.Records() != v.Records() || w.Bytes() != v.Bytes() {
			t.Fatalf("rebuilt: %v", err)
		}
	})
}

// goldenCRC was computed by another program, from the text of the package comment.
const goldenCRC = 0xfef6f4de
