package peer

import "time"

// drift is by how much two clocks may go apart, as a divisor of the time that
// goes by: 1 % each way (DESIGN A.2).
const drift = 50

// micros48 is where times on the wire wrap around.
const micros48 = time.Duration(1<<48) * time.Microsecond

// offsets bounds the difference between our clock and a peer's from below: see
// the package comment. It is of one connection's reader.
type offsets struct {
	known bool
	low   time.Duration // our clock - the peer's, at least
	at    time.Duration // on our clock: when that was so
}

// sample takes an exchange: we sent at t0, and the peer answered at r of its
// clock, which was between t0 and now on ours.
func (o *offsets) sample(t0, r, now time.Duration) {
	low := wrap(t0-r) - time.Microsecond // r was cut to whole microseconds
	low -= max(0, now-t0) / drift
	if o.known {
		low = max(low, o.low-(now-o.at)/drift)
	}
	*o = offsets{true, low, now}
}

// age is how long ago at most the peer's clock showed sent. Without any sample
// nothing is known, and the message is as old as can be.
func (o *offsets) age(sent, now time.Duration) time.Duration {
	if !o.known {
		return micros48
	}
	low := o.low - (now-o.at)/drift
	return max(0, wrap(now-sent-low))
}

// wrap brings a difference of two times into the half of the circle around zero.
func wrap(d time.Duration) time.Duration {
	d %= micros48
	switch {
	case d >= micros48/2:
		d -= micros48
	case d < -micros48/2:
		d += micros48
	}
	return d
}
