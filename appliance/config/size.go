package config

import (
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// ParseSize reads a number of bytes: plain ("4096"), IEC ("10GiB" is 10 x 2^30)
// or SI ("10GB", "10G" are 10 x 10^9). Whole numbers are exact up to 2^64-1.
func ParseSize(s string) (uint64, error) {
	text := strings.TrimSpace(s)
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	if digits == 0 {
		if strings.HasPrefix(text, "-") {
			return 0, fmt.Errorf("%q: a size cannot be negative", s)
		}
		return 0, fmt.Errorf("%q is no size", s)
	}
	unit := strings.TrimSpace(text[digits:])
	if strings.HasPrefix(unit, ".") { // a fraction: humanize rounds down to whole bytes
		n, err := humanize.ParseBytes(text)
		if err != nil {
			return 0, fmt.Errorf("%q is no size", s)
		}
		return n, nil
	}
	factor := uint64(1)
	if unit != "" {
		var err error
		if factor, err = humanize.ParseBytes("1" + unit); err != nil || strings.ContainsAny(unit, "0123456789,") {
			return 0, fmt.Errorf("%q is no size: unknown unit %q", s, unit)
		}
	}
	n, err := strconv.ParseUint(text[:digits], 10, 64)
	over, bytes := bits.Mul64(n, factor)
	if err != nil || over != 0 {
		return 0, fmt.Errorf("%q is beyond 2^64 bytes", s)
	}
	return bytes, nil
}

// FormatSize writes n bytes in IEC units, exactly where that is short ("10GiB")
// and rounded where it is not ("9.3 GiB").
func FormatSize(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	if n < 10240 {
		return strconv.FormatUint(n, 10) + units[i]
	}
	for range i {
		n *= 1024
	}
	return humanize.IBytes(n)
}

// DefaultCache is an eighth of the memory that this process may use, at least
// MinCache.
func DefaultCache() int64 {
	var info unix.Sysinfo_t
	total := int64(0)
	if unix.Sysinfo(&info) == nil {
		total = int64(info.Totalram) * int64(info.Unit)
	}
	// In a container the group's limit counts, not the machine.
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit > 0 {
			total = min(total, limit)
		}
	}
	return max(total/fractionOfMemory, MinCache) &^ (1<<20 - 1)
}
