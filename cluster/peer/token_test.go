package peer

import (
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func someToken() Token {
	return Token{
		Cluster: [16]byte{1, 2, 3}, Fingerprint: [32]byte{4, 5, 6}, Secret: [16]byte{7, 8, 9},
		Addrs: []string{"10.0.0.1:7630", "[fe80::1]:7630", "storage-3.example.org:7630"},
	}
}

func TestToken(t *testing.T) {
	want := someToken()
	text := want.String()
	for _, s := range []string{text, "  " + text + "\n", text[:30] + "\n  " + text[30:]} {
		got, err := ParseToken(s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	if len(text) > 250 || strings.ContainsAny(text, " \n$\"'\\&;") {
		t.Errorf("%q is not to be pasted", text)
	}
	if a, b := NewSecret(), NewSecret(); a == b {
		t.Error("the same secret twice")
	}
	if strings.Contains(want.Redacted(), "070809") {
		t.Error("the log shows the secret")
	}
}

// TestMistypedToken: any one wrong, lacking or exchanged character is noticed,
// and is not taken for a newer token.
func TestMistypedToken(t *testing.T) {
	text := someToken().String()
	mistyped := func(s string) {
		t.Helper()
		if _, err := ParseToken(s); !errors.Is(err, ErrTokenMistyped) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for i := range text {
		for _, c := range []byte("A0_z-") {
			if text[i] != c {
				mistyped(text[:i] + string(c) + text[i+1:])
			}
		}
		mistyped(text[:i] + text[i+1:])
		mistyped(text[:i])
		if i > 0 && text[i] != text[i-1] {
			mistyped(text[:i-1] + text[i:i+1] + text[i-1:i] + text[i+1:])
		}
	}
	mistyped("")
	mistyped("petal-")
	mistyped("hello")
	mistyped(strings.Repeat(text, 100))
}

// sealed is the text of bytes that the checksum is right of.
func sealed(b []byte) string { return tokenPrefix + base64.RawURLEncoding.EncodeToString(appendSum(b)) }

func TestTokenOfOtherVersions(t *testing.T) {
	if _, err := ParseToken(sealed([]byte{2, 0})); !errors.Is(err, ErrTokenVersion) {
		t.Errorf("newer: %v", err)
	}
	b := make([]byte, tokenFixed)
	for name, b := range map[string][]byte{
		"version 0": b, "too short": {1, 2, 3}, "too many addresses": set(b, tokenFixed-1, addrsMax+1),
		"addresses lacking": set(b, tokenFixed-1, 1), "empty address": append(set(b, tokenFixed-1, 1), 0),
		"address cut": append(set(b, tokenFixed-1, 1), 3, 'a'), "more behind": append(set(b, tokenFixed-1, 0), 0),
	} {
		if _, err := ParseToken(sealed(b)); !errors.Is(err, ErrTokenMistyped) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// set is a copy of b, of version 1, with one byte changed.
func set(b []byte, at int, x byte) []byte {
	b = append([]byte(nil), b...)
	b[0], b[at] = tokenVersion, x
	return b
}

// TestTokenLeavesOutWhatDoesNotFit, instead of making one that nobody can read.
func TestTokenLeavesOutWhatDoesNotFit(t *testing.T) {
	x := someToken()
	x.Addrs = []string{"", strings.Repeat("a", 256), "1", "2", "3", "4", "5", "6", "7", strings.Repeat("b", 255), "9"}
	got, err := ParseToken(x.String())
	if err != nil || len(got.Addrs) != addrsMax || got.Addrs[0] != "1" || got.Addrs[7] != x.Addrs[9] {
		t.Errorf("%v, %v", got.Addrs, err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(someToken().String(), []byte{})
	f.Add("petal-", append(set(make([]byte, tokenFixed), tokenFixed-1, 1), 1, 'a'))
	f.Fuzz(func(t *testing.T, text string, b []byte) {
		for _, s := range []string{text, sealed(b)} {
			x, err := ParseToken(s)
			if err != nil {
				continue
			}
			if y, err := ParseToken(x.String()); err != nil || !reflect.DeepEqual(x, y) {
				t.Fatalf("%q: %+v, %+v, %v", s, x, y, err)
			}
		}
	})
}
