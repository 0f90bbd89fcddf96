package config

import (
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want uint64
	}{
		{"0", 0}, {"4096", 4096}, {"10GiB", 10 << 30}, {"10GB", 10e9}, {"10G", 10e9}, {"10 GiB", 10 << 30}, {"10gib", 10 << 30},
		{"1.5KiB", 1536}, {"18446744073709551615", math.MaxUint64}, {"18014398509481983KiB", math.MaxUint64 - 1023}, {"15EiB", 15 << 60},
		{" 1MiB ", 1 << 20}, {"3B", 3},
	} {
		if got, err := ParseSize(c.text); err != nil || got != c.want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"", "x", "-1", "-1GiB", "16EiB", "18446744073709551616", "1e3", "1 2", "10Gi B", "1,000", "0x10", "10XB", "1.2.3MiB", "99999999999999999999EiB"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, n)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0B", 512: "512B", 10 << 30: "10GiB", 1 << 30: "1GiB", 10e9: "9.3 GiB", 1536: "1536B", 1 << 62: "4EiB"} {
		if got := FormatSize(n); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("10GiB")
	f.Add("1.5 EB")
	f.Add("18446744073709551616")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseSize(text)
		if err != nil {
			return
		}
		if back, err := ParseSize(FormatSize(n)); err == nil && n%1024 == 0 && n < 1<<40 && back > n+n/10+1024 {
			t.Fatalf("%q is %d, written %s, read back %d", text, n, FormatSize(n), back)
		}
	})
}
