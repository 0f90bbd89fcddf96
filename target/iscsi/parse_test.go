package iscsi

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseAHS(t *testing.T) {
	cdb := bytes.Repeat([]byte{7}, MaxCDB-16)
	for _, tt := range []struct {
		name string
		b    []byte
		want AHS
		ok   bool
	}{
		{"none", nil, AHS{}, true},
		{"extended CDB of one byte", AppendExtendedCDB(nil, cdb[:1]), AHS{ExtraCDB: cdb[:1]}, true},
		{"extended CDB of all lengths' longest", AppendExtendedCDB(nil, cdb), AHS{ExtraCDB: cdb}, true},
		{"read length", AppendReadLength(nil, 513), AHS{ReadLength: 513, HasReadLength: true}, true},
		{"both", AppendReadLength(AppendExtendedCDB(nil, cdb[:5]), 1), AHS{ExtraCDB: cdb[:5], ReadLength: 1, HasReadLength: true}, true},
		{"drawn by hand", []byte{0, 5, 2, 0, 0, 0, 2, 0}, AHS{ReadLength: 512, HasReadLength: true}, true},

		{"extended CDB too long", AppendExtendedCDB(nil, append(cdb, 1)), AHS{}, false},
		{"extended CDB empty", []byte{0, 1, 1, 0}, AHS{}, false},
		{"extended CDB twice", AppendExtendedCDB(AppendExtendedCDB(nil, cdb[:1]), cdb[:1]), AHS{}, false},
		{"read length twice", AppendReadLength(AppendReadLength(nil, 1), 1), AHS{}, false},
		{"read length too short", []byte{0, 4, 2, 0, 0, 0, 2, 0}, AHS{}, false},
		{"unknown type", []byte{0, 5, 3, 0, 0, 0, 2, 0}, AHS{}, false},
		{"length zero", []byte{0, 0, 1, 0}, AHS{}, false},
		{"length beyond the end", []byte{0, 6, 1, 0, 1, 2, 3, 4}, AHS{}, false},
		{"length far beyond the end", []byte{0xff, 0xff, 1, 0, 1, 2, 3, 4}, AHS{}, false},
		{"cut in its header", []byte{0, 5, 2}, AHS{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseAHS(tt.b)
			if tt.ok != (err == nil) || err != nil && !isA[*RejectError](err) {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseText(t *testing.T) {
	long := strings.Repeat("k", MaxKeyName)
	var many string
	for i := range MaxPairs + 1 {
		many += "k" + strings.Repeat("x", i%60) + string(rune('a'+i/60)) + "=\x00"
	}
	for _, tt := range []struct {
		name, text string
		want       []Pair
		why        string // of the error
	}{
		{"nothing", "", nil, ""},
		{"one", "A=b\x00", []Pair{{"A", "b"}}, ""},
		{"two", "A=b\x00C=d\x00", []Pair{{"A", "b"}, {"C", "d"}}, ""},
		{"value empty or with =", "A=\x00B=c=d\x00", []Pair{{"A", ""}, {"B", "c=d"}}, ""},
		{"more nulls than need be", "\x00A=b\x00\x00\x00", []Pair{{"A", "b"}}, ""},
		{"longest key", long + "=v\x00", []Pair{{long, "v"}}, ""},
		{"longest value", "A=" + strings.Repeat("v", MaxLargeValue) + "\x00", []Pair{{"A", strings.Repeat("v", MaxLargeValue)}}, ""},
		{"all that a key may have", "X#aZ09.-+@_=1\x00", []Pair{{"X#aZ09.-+@_", "1"}}, ""},

		{"no delimiter", "A=b", nil, "null delimiter"},
		{"no delimiter at the last", "A=b\x00C=d", nil, "null delimiter"},
		{"no =", "A\x00", nil, "without ="},
		{"no key", "=b\x00", nil, "empty"},
		{"key too long", long + "k=v\x00", nil, "longer than 63"},
		{"value too long", "A=" + strings.Repeat("v", MaxLargeValue+1) + "\x00", nil, "too long"},
		{"key with a space", "A b=c\x00", nil, "not allowed"},
		{"key twice", "A=b\x00A=b\x00", nil, "twice"},
		{"too many keys", many, nil, "too many"},
		{"too much", strings.Repeat("\x00", MaxText+1), nil, "MaxText"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseText([]byte(tt.text))
			if tt.why == "" != (err == nil) || err != nil && (!isA[*RejectError](err) || !strings.Contains(err.Error(), tt.why)) {
				t.Fatalf("error %v, want %q", err, tt.why)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTextBuffer(t *testing.T) {
	var b TextBuffer
	for _, s := range []string{"A=", "b\x00", ""} {
		if err := b.Add([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() != 4 || string(b.Take()) != "A=b\x00" || b.Len() != 0 || b.Take() != nil {
		t.Error("text is not joined, or is not taken")
	}
	if err := b.Add(make([]byte, MaxText)); err != nil {
		t.Error(err)
	}
	if err := b.Add([]byte{1}); !isA[*RejectError](err) || b.Len() != 0 {
		t.Error("beyond MaxText:", err)
	}
}

func TestNormalizeName(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"iqn.1993-08.org.debian:01:abc", "iqn.1993-08.org.debian:01:abc"},
		{"IQN.1993-08.Org.Debian:01:ABC", "iqn.1993-08.org.debian:01:abc"},
		{"iqn.2001-04.com.example", "iqn.2001-04.com.example"},
		{"iqn.2001-04.com.example:host_1", "iqn.2001-04.com.example:host_1"},
		{"iqn.2001-04.de.müller:x", "iqn.2001-04.de.müller:x"},
		{"eui.02004567A425678D", "eui.02004567a425678d"},
		{"naa.52004567BA64678D", "naa.52004567ba64678d"},
		{"naa.62004567BA64678D0123456789ABCDEF", "naa.62004567ba64678d0123456789abcdef"},
		{"iqn.2001-04.x:" + strings.Repeat("y", MaxName-14), "iqn.2001-04.x:" + strings.Repeat("y", MaxName-14)},

		{"", ""}, {"host", ""}, {"iqn.", ""}, {"iqn.2001-13.x", ""}, {"iqn.2001-00.x", ""}, {"iqn.2001-04", ""},
		{"iqn.2001-04.", ""}, {"iqn.200a-04.x", ""}, {"iqn.2001/04.x", ""}, {"iqn.2001-04.x y", ""}, {"iqn.2001-04.x,t,0x1", ""},
		{"iqn.2001-04.x\xff", ""}, {"iqn.2001-04.x\n", ""}, {"eui.0200", ""}, {"eui.02004567A425678G", ""}, {"naa.52004567BA64678", ""}, {"naa.52004567ba64678g", ""}, {"naa.52004567ba64678d01", ""},
		{"iqn.2001-04.x:" + strings.Repeat("y", MaxName-13), ""},
	} {
		got, err := NormalizeName(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: %q, %v", tt.in, got, err)
		}
	}
}
