package brick

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"petal/placement"
)

// headCases are one head of each type that is written.
func headCases() []head {
	k := placement.Key{Family: 0x01020304, Node: 0x05060708, Chunk: 0x090a0b0c0d0e}
	op := OpID{Coordinator: 0x11121314, Incarnation: 0x15161718, Number: 0x191a1b1c1d1e1f20}
	h := head{Type: typeWrite, Mask: 0x8001, Key: k, Bucket: 0x0fff, Ver: 21, Seq: 22, Op: op, Excluded: 23, Committed: 24, Settled: 25,
		Link: LinkID{GMap: 0x21222324, Position: 0x25262728}}
	zero, extent := h, h
	zero.Type = typeZero
	extent.Type, extent.Mask, extent.Target = typeExtent, placement.Full, maxExtent
	for i := range extent.Sum {
		extent.Sum[i] = 0xf0f0f000 + uint32(i)
	}
	var local []head
	for _, c := range []head{h, zero, extent} {
		c.Origin = 0x3132333435
		local = append(local, c)
	}
	for _, t := range []headType{typeMarks, typeMissing, typeFill, typeFillZero, typeFillAbsent, typeRepair} {
		l := h
		l.Type, l.Ver, l.Seq = t, 0, 0
		local = append(local, l)
	}
	return append([]head{h, zero, extent,
		{Type: typeAbort, Target: 77, Committed: 1, Settled: 2},
		{Type: typeDrop, Key: placement.Key{Family: 9}, Committed: 3},
		{Type: typeStamp, Committed: 4, Settled: 5},
		{Type: typeUnmark, Ver: 8, Excluded: 2, Link: h.Link},
		{Type: typeCut, Bucket: 4095, Ver: 8, Seq: 9, Link: h.Link},
		{Type: typeHistory, Bucket: 4095, Ver: 8, Seq: 9, Target: 3, Link: h.Link},
		{Type: typeDiscard, Key: placement.Key{Family: 9}, Link: h.Link, Buckets: &bucketSet{7: 1, 511: 0x80}}}, local...)
}

func TestHeadRoundTrip(t *testing.T) {
	for _, h := range headCases() {
		b := h.append(nil)
		var got head
		if err := parseHead(b, &got); err != nil {
			t.Errorf("%s: %v", h.Type, err)
		}
		if !reflect.DeepEqual(got, h) {
			t.Errorf("%s: got %+v, want %+v", h.Type, got, h)
		}
		for n := range b {
			if err := parseHead(b[:n], &got); !errors.Is(err, ErrRotten) {
				t.Errorf("%s cut to %d bytes: %v", h.Type, n, err)
			}
		}
	}
}

// TestHeadBytes holds the format to the bytes that are on people's disks.
func TestHeadBytes(t *testing.T) {
	h := headCases()[0]
	const want = "02010180" + "04030201" + "08070605" + "ff0f" + "0000" + "0e0d0c0b0a090000" +
		"1500000000000000" + "1600000000000000" + "14131211" + "18171615" + "201f1e1d1c1b1a19" +
		"1700000000000000" + "1800000000000000" + "1900000000000000" + "0000000000000000" +
		"24232221" + "28272625"
	if got := hex.EncodeToString(h.append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestHeadOfVersion1: what nodes wrote that stood alone is read as of the first link.
func TestHeadOfVersion1(t *testing.T) {
	for _, h := range headCases()[:6] {
		b := h.append(nil)
		b = append(b[:headSize1:headSize1], b[headSize:]...)
		b[0] = 1
		var got head
		if err := parseHead(b, &got); err != nil {
			t.Errorf("%s: %v", h.Type, err)
		}
		h.Link, h.alone = LinkID{GMap: 1}, true
		if !reflect.DeepEqual(got, h) {
			t.Errorf("%s: got %+v, want %+v", h.Type, got, h)
		}
		if err := parseHead(b[:len(b)-1], &got); !errors.Is(err, ErrRotten) {
			t.Errorf("%s cut: %v", h.Type, err)
		}
		if b[1] = byte(typeFill); parseHead(b[:headSize1], &got) == nil {
			t.Errorf("%s: a fill of version 1 was taken", h.Type)
		}
	}
}

func TestHeadRefuses(t *testing.T) {
	good := headCases()[0].append(nil)
	extent := headCases()[2].append(nil)
	for _, c := range []struct {
		name string
		base []byte
		at   int
		b    byte
		want error
	}{
		{"newer version", good, 0, 3, ErrNewer},
		{"unknown type", good, 1, 99, ErrNewer},
		{"reserved type", good, 1, byte(typeConfig), ErrNewer},
		{"member beyond the end", good, 57, 1, ErrRotten},
		{"unknown flag", good, 14, 2, ErrRotten},
		{"carried from nowhere", good, 14, 1, ErrRotten},
		{"no such bucket", good, 13, 0xff, ErrRotten},
		{"chunk beyond the end", good, 23, 1, ErrRotten},
		{"target of a write", good, 80, 1, ErrRotten},
		{"extent of 41 bits", extent, 85, 1, ErrRotten},
		{"extent of part of a chunk", extent, 2, 0, ErrRotten},
	} {
		b := bytes.Clone(c.base)
		b[c.at] = c.b
		var h head
		if err := parseHead(b, &h); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, zero := range [][2]int{{2, 4}, {4, 8}, {8, 12}} { // mask, family, node
		b := bytes.Clone(good)
		clear(b[zero[0]:zero[1]])
		var h head
		if err := parseHead(b, &h); !errors.Is(err, ErrRotten) {
			t.Errorf("zeros at %d: %v", zero[0], err)
		}
	}
}

// FuzzHead: what parses encodes to the same bytes.
func FuzzHead(f *testing.F) {
	for _, h := range headCases() {
		f.Add(h.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h head
		if parseHead(b, &h) == nil && !h.alone && !bytes.Equal(h.append(nil), b) {
			t.Errorf("%x parses to %+v, which encodes to %x", b, h, h.append(nil))
		}
	})
}
