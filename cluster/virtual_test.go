package cluster

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"petal/cluster/times"
)

// virtual runs a test in virtual time, which passes only while all of the test's
// goroutines wait: however slow the machine is, or however long it stands still, no
// lease lapses for it. What such a test waits for must take time: a loop that never
// waits stops the clock for everybody.
func virtual(t *testing.T, f func(*testing.T)) {
	t.Helper()
	// Pebble pools things that have channels, and a channel of one bubble may not be
	// used in another. Two collections empty every sync.Pool.
	defer func() {
		runtime.GC()
		runtime.GC()
	}()
	synctest.Test(t, f)
}

// virtualClock is the clock of the bubble that it is made in. times.Real would ask
// the kernel.
type virtualClock struct{ began time.Time }

func (c virtualClock) Now() time.Duration { return time.Since(c.began) }

// AfterFunc makes no timer that is over as it is made: the runtime would run it on
// the goroutine that makes it, and the race detector of Go 1.26 has one context for all
// that a bubble's timers do. Two goroutines in it at once end the process.
func (c virtualClock) AfterFunc(d time.Duration, f func()) times.Timer {
	return time.AfterFunc(max(d, 1), f)
}
