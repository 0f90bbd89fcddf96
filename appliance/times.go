package appliance

import (
	"fmt"
	"time"

	"petal/appliance/config"
	"petal/cluster/times"
)

// Times are the intervals that a configuration asks for: the default ones where
// it is silent, all of them multiplied by its scale.
func Times(c config.Time) times.Times {
	t := times.Default()
	for i, field := range fields(&t) {
		if d := c.Intervals[i]; d != 0 {
			*field = d
		}
	}
	if c.Scale != 0 {
		t = t.Scale(c.Scale)
	}
	return t
}

// HostPatience is how long initiators must keep a command whose path is lost
// before they send it over another one (R13): until then it may take effect. It
// grows with the times; initiators' own default is often 5 s.
func HostPatience(c config.Time) time.Duration {
	t := Times(c)
	return t.Command + t.Admission // its last sending, and the last moment at which that may be admitted
}

// usualPatience is HostPatience of the default times.
const usualPatience = 5 * time.Second

// PatienceNote says what initiators need to be told because of a configuration's
// times; empty if nothing.
func PatienceNote(c config.Time) string {
	d := HostPatience(c)
	if d <= usualPatience {
		return ""
	}
	return fmt.Sprintf("with these times initiators must keep commands for %v after a path is lost: open-iscsi's replacement_timeout and multipathd's fast_io_fail_tmo (5 s unless set) must be no less", d)
}

// fields are the intervals in the order of config.TimeNames.
func fields(t *times.Times) [len(config.TimeNames)]*time.Duration {
	return [...]*time.Duration{&t.Lease, &t.Renewal, &t.Guard, &t.Collect, &t.Tick, &t.Heartbeat, &t.Election, &t.Admission, &t.Command, &t.Complain, &t.Barrier, &t.Replace}
}

// CheckConfig checks what package config can't, which knows nothing of the
// cluster: that there is no more than the one brick that this release serves,
// and that the times relate as the protocol needs it. It completes conf with the
// times that hold. file is what the error calls it.
func CheckConfig(conf *config.Config, file string) error {
	if n := len(conf.Bricks); n > 1 {
		return config.Errors{{File: file, Key: "brick[1]", Problem: fmt.Sprintf("%d bricks; this release serves exactly one a node", n),
			Advice: "start a node for each disk, or make one file system of them (LVM, RAID)"}}
	}
	t := Times(conf.Time)
	if err := t.Check(); err != nil {
		return config.Errors{{File: file, Key: "time", Problem: err.Error(),
			Advice: "leave out the keys of [time] but for scale, which multiplies all of them and breaks no relation"}}
	}
	whole := Times(config.Time{Intervals: conf.Time.Intervals})
	for i, field := range fields(&whole) {
		conf.Time.Intervals[i] = *field
	}
	return nil
}
