package peer

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestAgeIsNeverTooLow: two clocks that go apart as fast as allowed, messages and
// pings that take any time; and in quiet times the estimate is close.
func TestAgeIsNeverTooLow(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		// The peer's clock runs by rate against ours and shows off at our 0.
		rate := 1 + (rnd.Float64()-0.5)*2*0.0199
		off := time.Duration(rnd.Int64N(int64(100 * time.Hour)))
		theirs := func(ours time.Duration) time.Duration {
			return (off + time.Duration(float64(ours)*rate)).Truncate(time.Microsecond)
		}
		delay := func() time.Duration { return time.Duration(rnd.ExpFloat64() * float64(3*time.Millisecond)) }
		var o offsets
		now := time.Hour
		if got := o.age(theirs(now), now); got < time.Hour {
			t.Fatalf("age %v, but nothing is known", got)
		}
		worst := time.Duration(0)
		for range 500 {
			now += 250 * time.Millisecond
			there := now + delay()
			back := there + delay()
			o.sample(now.Truncate(time.Microsecond), theirs(there), back)
			sent := back + time.Duration(rnd.Int64N(int64(200*time.Millisecond)))
			took := delay()
			got := o.age(theirs(sent), sent+took)
			if got < took {
				t.Fatalf("seed %d: took %v, age %v", seed, took, got)
			}
			worst = max(worst, got-took)
		}
		if worst > 60*time.Millisecond {
			t.Errorf("seed %d: %v too old at worst", seed, worst)
		}
	}
}

// TestAgeOfAQueue: when every message is late, each is known to be late, for as
// long as it lasts. (The smallest delay seen would forget.)
func TestAgeOfAQueue(t *testing.T) {
	var o offsets
	now := time.Duration(0)
	o.sample(now, now, now+time.Millisecond)
	for range 1000 { // 250 s in which everything takes 3 s from there to here
		now += 250 * time.Millisecond
		o.sample(now, now, now+3*time.Second)
		if got := o.age(now, now+3*time.Second); got < 3*time.Second || got > 3100*time.Millisecond {
			t.Fatalf("after %v: age %v", now, got)
		}
	}
}

func TestAgeAroundTheWrap(t *testing.T) {
	for _, theirs := range []time.Duration{micros48 - time.Second, 0, 5 * time.Second, micros48 / 2} {
		var o offsets
		o.sample(10*time.Second, (theirs)%micros48, 10*time.Second)
		sent := (theirs + 2*time.Second) % micros48
		if got := o.age(sent, 13*time.Second); got < time.Second || got > 1100*time.Millisecond {
			t.Errorf("peer's clock at %v: age %v, want a second", theirs, got)
		}
	}
}
