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

func (c virtualClock) AfterFunc(d time.Duration, f func()) times.Timer { return time.AfterFunc(d, f) }
