package brick

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"sort"
	"testing"

	"petal/placement"
)

func valueCases() []entry {
	full := entry{Kind: kindExtent, Extent: 0x1234567890, Valid: placement.Full}
	for i := range full.Sum {
		full.Sum[i] = uint32(i+1) * 0x01010101
	}
	part := entry{Kind: kindExtent, Extent: 5, Valid: 0x0011, Zero: 0x0100, Missing: 0x8000}
	part.Sum[0], part.Sum[4] = 0xa1a2a3a4, 0xb1b2b3b4
	frags := entry{Kind: kindFrags, Valid: 0x4002, Zero: 1}
	frags.Sum[1], frags.Sum[14] = 7, 8
	frags.Slot[1], frags.Slot[14] = maxExtent<<4|15, 0x123
	return []entry{full, part, frags, {Kind: kindZero, Zero: placement.Full}, {Kind: kindZero, Missing: 3, Zero: 4}}
}

func TestValueRoundTrip(t *testing.T) {
	for _, e := range valueCases() {
		b := e.append(nil)
		var got entry
		if err := parseEntry(b, &got); err != nil || got != e {
			t.Errorf("got %+v, %v; want %+v", got, err, e)
		}
		for n := range b {
			if err := parseEntry(b[:n], &got); !errors.Is(err, ErrRotten) {
				t.Errorf("%s cut to %d bytes: %v", e.Kind, n, err)
			}
		}
		if len(b) > valueMax {
			t.Errorf("%s has %d bytes, more than %d", e.Kind, len(b), valueMax)
		}
	}
}

// TestValueBytes holds the format to the bytes that are on people's disks.
func TestValueBytes(t *testing.T) {
	for i, want := range map[int]string{
		1: "11" + "0500000000" + "1100" + "0001" + "0080" + "a4a3a2a1" + "b4b3b2b1",
		2: "12" + "0000000000" + "0240" + "0100" + "0000" + "07000000" + "08000000" + "ffffffffff0f" + "230100000000",
		3: "13" + "0000000000" + "0000" + "ffff" + "0000",
	} {
		e := valueCases()[i]
		if got := hex.EncodeToString(e.append(nil)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestValueRefuses(t *testing.T) {
	five := entry{Kind: kindFrags, Valid: 0x1f}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"newer format":    {mustHex("23" + "0000000000" + "0000" + "ffff" + "0000"), ErrNewer},
		"parity shard":    {mustHex("14" + "0000000000" + "0000" + "ffff" + "0000"), ErrNewer},
		"unknown kind":    {mustHex("15" + "0000000000" + "0000" + "ffff" + "0000"), ErrRotten},
		"says nothing":    {mustHex("13" + "0000000000" + "0000" + "0000" + "0000"), ErrRotten},
		"masks overlap":   {mustHex("13" + "0000000000" + "0000" + "ffff" + "0100"), ErrRotten},
		"zeros in extent": {mustHex("13" + "0100000000" + "0000" + "ffff" + "0000"), ErrRotten},
		"empty extent":    {mustHex("11" + "0100000000" + "0000" + "ffff" + "0000"), ErrRotten},
		"frags, extent":   {mustHex("12" + "0100000000" + "0100" + "0000" + "0000" + "00000000" + "000000000000"), ErrRotten},
		"slot of 49 bits": {mustHex("12" + "0000000000" + "0100" + "0000" + "0000" + "00000000" + "000000000010"), ErrRotten},
		"five frags":      {five.append(nil), ErrRotten},
	} {
		var e entry
		if err := parseEntry(c.b, &e); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzValue(f *testing.F) {
	for _, e := range valueCases() {
		f.Add(e.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e entry
		if parseEntry(b, &e) == nil && !bytes.Equal(e.append(nil), b) {
			t.Errorf("%x parses to %+v, which encodes to %x", b, e, e.append(nil))
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add(appendKey(nil, placement.Key{Family: 1, Node: 2, Chunk: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := parseKey(b); err == nil && !bytes.Equal(appendKey(nil, k), b) {
			t.Errorf("%x parses to %+v, which encodes to %x", b, k, appendKey(nil, k))
		}
	})
}

// TestKeyOrder: family, chunk, then newest node first; and a family's bounds
// hold its keys and no others.
func TestKeyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var keys []placement.Key
	for range 500 {
		keys = append(keys, placement.Key{Family: placement.Family(1 + rng.Uint32()>>rng.UintN(32)),
			Node: placement.Node(1 + rng.Uint32N(1<<31)), Chunk: placement.Chunk(rng.Uint64() >> (16 + rng.UintN(48)))})
	}
	keys = append(keys, placement.Key{Family: 1<<32 - 1, Node: 1, Chunk: maxChunk})
	sort.Slice(keys, func(i, j int) bool { return bytes.Compare(appendKey(nil, keys[i]), appendKey(nil, keys[j])) < 0 })
	for i := 1; i < len(keys); i++ {
		a, b := keys[i-1], keys[i]
		if a.Family > b.Family || a.Family == b.Family && (a.Chunk > b.Chunk || a.Chunk == b.Chunk && a.Node < b.Node) {
			t.Fatalf("%+v sorts before %+v", a, b)
		}
	}
	for _, f := range keys {
		lo, hi := familyBounds(f.Family)
		for _, k := range keys {
			b := appendKey(nil, k)
			if in := bytes.Compare(lo, b) <= 0 && bytes.Compare(b, hi) < 0; in != (k.Family == f.Family) {
				t.Fatalf("key %+v in the bounds of family %d: %v", k, f.Family, in)
			}
		}
	}
}
