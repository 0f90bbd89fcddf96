package times

import (
	"sync"
	"testing"
	"time"
)

func TestRealNeverGoesBack(t *testing.T) {
	var c Real
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := c.Now()
			for range 10000 {
				now := c.Now()
				if now < last {
					t.Errorf("%v after %v", now, last)
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
}

// TestRealIsBootTime: it lies between two readings of CLOCK_BOOTTIME, and does
// so again after the clocks have parted, as they do when the machine sleeps.
func TestRealIsBootTime(t *testing.T) {
	early := time.Minute // whatever this process stood still for when it read the clocks first
	check := func(when string) {
		t.Helper()
		before := bootTime()
		now := Real{}.Now()
		after := bootTime()
		early += after - before // what it stood still for just now may count as suspension
		if now < before-leapMax || now > after+early+leapMax {
			t.Errorf("%s: %v is not between %v and %v, or %v early", when, now, before, after, early)
		}
	}
	check("at first")
	o := offset.Load()
	// As if it had slept an hour since the offset was read.
	offset.Store(&ahead{boot: o.boot - time.Hour, parted: o.parted - time.Hour})
	early = 0
	check("after a suspension")
	// As if the clock had been set back: nothing changes.
	o = offset.Load()
	offset.Store(&ahead{boot: o.boot, parted: o.parted + time.Hour})
	check("after the clock was set")
}

func BenchmarkRealNow(b *testing.B) {
	for range b.N {
		Real{}.Now()
	}
}
