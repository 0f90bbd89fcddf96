package sim

import (
	"time"

	"petal/cluster/times"
)

// machineClock is a machine's boot time clock: it runs at its own rate, up to
// drift off the true one, from when the machine was switched on.
type machineClock struct {
	e    *engine
	m    *machine
	rate float64       // seconds of this clock in a true second
	on   time.Duration // true time when the machine was switched on
	show time.Duration // what it showed then
	wall time.Time     // real time when it was switched on; jumps change it
}

func (c *machineClock) now() time.Duration {
	return c.show + time.Duration(float64(c.e.now-c.on)*c.rate)
}

// realtime is the machine's CLOCK_REALTIME.
func (c *machineClock) realtime() time.Time { return c.wall.Add(c.now() - c.show) }

// clock is what a process sees of its machine's clock. What a dead process had
// planned does not happen.
type clock struct {
	c    *machineClock
	life *life
}

var _ times.Clock = (*clock)(nil)

// Now implements times.Clock.
func (c *clock) Now() time.Duration { return c.c.now() }

// AfterFunc implements times.Clock. It never calls f early by this clock.
func (c *clock) AfterFunc(d time.Duration, f func()) times.Timer {
	t := &timer{}
	wait := time.Duration(float64(max(0, d))/c.c.rate) + 1
	c.c.e.after(wait, c.c.m, c.life, func() {
		if t.over {
			return
		}
		t.over = true
		f()
		c.c.m.kick()
	})
	return t
}

// timer is a planned call.
type timer struct{ over bool }

// Stop implements times.Timer.
func (t *timer) Stop() bool {
	was := t.over
	t.over = true
	return !was
}
