package serial

import (
	"math/rand/v2"
	"testing"
)

func TestBefore(t *testing.T) {
	for _, tt := range []struct {
		a, b          CmdSN
		before, after bool
	}{
		{0, 0, false, false},
		{0, 1, true, false},
		{1, 0, false, true},
		{0xffffffff, 0, true, false},
		{0, 0xffffffff, false, true},
		{0xfffffff0, 0x10, true, false},
		{0, 0x7fffffff, true, false},
		{0, 0x80000000, false, false}, // undefined in RFC 1982: neither
		{0x80000000, 0, false, false},
		{0, 0x80000001, false, true},
		{0x7fffffff, 0x80000000, true, false},
	} {
		if got := tt.a.Before(tt.b); got != tt.before {
			t.Errorf("%#x.Before(%#x) = %v", uint32(tt.a), uint32(tt.b), got)
		}
		if got := tt.a.After(tt.b); got != tt.after {
			t.Errorf("%#x.After(%#x) = %v", uint32(tt.a), uint32(tt.b), got)
		}
	}
}

// Within half a circle a serial number orders as its unwrapped 64-bit twin.
func TestBeforeAgreesWithUnwrapped(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		a := r.Uint64N(1 << 40)
		b := a + r.Uint64N(1<<32-1) - (1<<31 - 1) // a - (2^31-1) .. a + (2^31-1)
		x, y := StatSN(a), StatSN(b)
		if x.Before(y) != (int64(a) < int64(b)) || x.After(y) != (int64(a) > int64(b)) {
			t.Fatalf("%#x, %#x: Before %v, After %v", a, b, x.Before(y), x.After(y))
		}
	}
}

func TestSince(t *testing.T) {
	for _, tt := range []struct {
		a, b DataSN
		want uint32
	}{{5, 3, 2}, {3, 3, 0}, {1, 0xffffffff, 2}, {0, 1, 0xffffffff}} {
		if got := tt.a.Since(tt.b); got != tt.want {
			t.Errorf("%#x.Since(%#x) = %#x, want %#x", uint32(tt.a), uint32(tt.b), got, tt.want)
		}
	}
}

func TestWindow(t *testing.T) {
	for _, tt := range []struct {
		name        string
		first, last CmdSN
		n           CmdSN
		in          bool
		length      uint32
	}{
		{"first", 10, 19, 10, true, 10},
		{"last", 10, 19, 19, true, 10},
		{"one before", 10, 19, 9, false, 10},
		{"one beyond", 10, 19, 20, false, 10},
		{"closed", 10, 9, 10, false, 0},
		{"closed at zero", 0, 0xffffffff, 0, false, 0},
		{"wrapping, before the wrap", 0xfffffffe, 2, 0xffffffff, true, 5},
		{"wrapping, after the wrap", 0xfffffffe, 2, 1, true, 5},
		{"wrapping, beyond", 0xfffffffe, 2, 3, false, 5},
		{"the far side", 10, 19, 10 + 1<<31, false, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := CmdWindow{First: tt.first, Last: tt.last}
			if got := w.Contains(tt.n); got != tt.in {
				t.Errorf("Contains(%#x) = %v", uint32(tt.n), got)
			}
			if got := w.Len(); got != tt.length {
				t.Errorf("Len = %d, want %d", got, tt.length)
			}
		})
	}
}
