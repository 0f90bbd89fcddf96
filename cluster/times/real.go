package times

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Real is the machine's clock.
//
// A lease must not outlive a suspended machine, so it is CLOCK_BOOTTIME that
// counts. Reading that costs a system call; time.Now reads CLOCK_MONOTONIC and
// CLOCK_REALTIME without one. Between suspensions BOOTTIME and MONOTONIC are a
// constant apart, and a suspension shows as REALTIME leaping ahead of
// MONOTONIC: only then, or when somebody sets the clock, is the constant read
// anew.
type Real struct{}

var _ Clock = Real{}

// leapMax is how far REALTIME and MONOTONIC may part unnoticed.
const leapMax = time.Millisecond

// ahead is how far BOOTTIME is ahead of the time since base, when REALTIME had
// parted from MONOTONIC so far. Invariant: boot never becomes less.
type ahead struct{ boot, parted time.Duration }

var (
	base   = time.Now()
	offset atomic.Pointer[ahead]
)

func init() {
	mono := time.Since(base) // read first: see renew
	offset.Store(&ahead{boot: bootTime() - mono})
}

// Now reads CLOCK_BOOTTIME, or what amounts to it.
func (Real) Now() time.Duration {
	now := time.Now()
	mono := now.Sub(base)
	parted := time.Duration(now.UnixNano()-base.UnixNano()) - mono
	o := offset.Load()
	if d := parted - o.parted; d < -leapMax || d > leapMax {
		o = o.renew(mono, parted)
	}
	return mono + o.boot
}

// renew reads anew how far BOOTTIME is ahead. mono was read before it, so the
// time between the two is taken for suspension: the clock may be early by that
// much from then on, never late.
func (o *ahead) renew(mono, parted time.Duration) *ahead {
	for {
		n := &ahead{boot: max(o.boot, bootTime()-mono), parted: parted}
		if offset.CompareAndSwap(o, n) {
			return n
		}
		o = offset.Load()
	}
}

func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("times: no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// AfterFunc calls f in its own goroutine.
func (Real) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }
