package times

import (
	"time"

	"golang.org/x/sys/unix"
)

// Real is the machine's clock.
type Real struct{}

var _ Clock = Real{}

// Now reads CLOCK_BOOTTIME: a lease must not outlive a suspended machine.
func (Real) Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("times: no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// AfterFunc calls f in its own goroutine.
func (Real) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }
