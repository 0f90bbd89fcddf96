// Package times holds the clock that a node's parts run by and the intervals
// that the cluster's safety and patience rest on. All of a cluster's nodes use
// the same Times; Scale stretches them together on slow machines.
package times

import (
	"fmt"
	"time"
)

// Clock is monotonic time, and calls for later. Real is the machine's; the
// simulator has its own. A node's parts take time from nowhere else.
type Clock interface {
	// Now is the time since some fixed moment of the machine's past, suspended
	// time included (CLOCK_BOOTTIME). It never goes back.
	Now() time.Duration
	// AfterFunc calls f once, d from now, from any goroutine.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a call to come.
type Timer interface {
	// Stop prevents the call; it reports false if it has begun or was stopped.
	Stop() bool
}

// Times are the intervals of a cluster.
type Times struct {
	Lease     time.Duration // a grant counts so long from when its request was sent
	Renewal   time.Duration // between requests
	Guard     time.Duration // the leader takes a lease for ended so long after its grant
	Collect   time.Duration // how long the leader gathers requests for one quorum round
	Tick      time.Duration // of raft
	Heartbeat time.Duration // of raft
	Election  time.Duration // of raft: least time without a leader; the most is twice that
	Admission time.Duration // a head takes no message that was longer under way (R13); a lease with less left admits nothing
	Command   time.Duration // a coordinator resends no older command (R13)
	Complain  time.Duration // a member that can't replicate to another for so long says so
	Barrier   time.Duration // a barrier gives up after that
	Replace   time.Duration // a voter down for so long is replaced
}

// Default returns the times of DESIGN section 0.
func Default() Times {
	return Times{
		Lease: 2 * time.Second, Renewal: 250 * time.Millisecond, Guard: 2250 * time.Millisecond, Collect: 50 * time.Millisecond,
		Tick: 50 * time.Millisecond, Heartbeat: 100 * time.Millisecond, Election: 500 * time.Millisecond,
		Admission: time.Second, Command: 4 * time.Second, Complain: 2 * time.Second, Barrier: 10 * time.Second, Replace: 5 * time.Minute,
	}
}

// Scale multiplies every interval by f > 0.
func (t Times) Scale(f float64) Times {
	for _, d := range t.all() {
		*d = time.Duration(float64(*d) * f)
	}
	return t
}

func (t *Times) all() []*time.Duration {
	return []*time.Duration{&t.Lease, &t.Renewal, &t.Guard, &t.Collect, &t.Tick, &t.Heartbeat, &t.Election, &t.Admission, &t.Command, &t.Complain, &t.Barrier, &t.Replace}
}

// Check returns an error unless the relations hold that the protocol needs; it
// names the first that does not.
func (t Times) Check() error {
	for _, d := range t.all() {
		if *d <= 0 {
			return fmt.Errorf("times: an interval of %v is not positive", *d)
		}
	}
	for _, r := range []struct {
		holds     bool
		rule, why string
	}{
		{t.Guard >= t.Lease+t.Lease/50+t.Lease/10, "guard >= lease + 12 %", "clocks may drift by 1 % each and a lease must have ended where it is held before it has ended for the leader"},
		{t.Renewal <= t.Lease/4, "renewal <= lease / 4", "some renewals may be lost without losing the lease"},
		{t.Collect < t.Renewal, "collect < renewal", "a renewal must be answered before the next"},
		{2*t.Election < t.Lease, "2 x election < lease", "losing the raft leader alone must not cost anyone a lease"},
		{t.Heartbeat >= t.Tick && t.Heartbeat%t.Tick == 0, "heartbeat is a multiple of tick", "raft counts ticks"},
		{t.Election >= 4*t.Heartbeat, "election >= 4 x heartbeat", "one lost heartbeat must not end a term"},
		{t.Admission < t.Lease, "admission < lease", "a lease with less than the admission window left admits nothing"},
		{t.Command > t.Guard+t.Admission/2, "command > guard + admission / 2", "a command must live through a failover"},
		{t.Command/2 <= t.Lease, "command <= 2 x lease", "all servers agree on the lease alone, and must remember what they have done for as long as any of the others may send it again"},
		{t.Replace > 4*t.Guard, "replace > 4 x guard", "a server that restarts must not lose its vote"},
	} {
		if !r.holds {
			return fmt.Errorf("times: %s does not hold: %s", r.rule, r.why)
		}
	}
	return nil
}
