package appliance

import (
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

// fields are the intervals in the order of config.TimeNames.
func fields(t *times.Times) [len(config.TimeNames)]*time.Duration {
	return [...]*time.Duration{&t.Lease, &t.Renewal, &t.Guard, &t.Collect, &t.Tick, &t.Heartbeat, &t.Election, &t.Admission, &t.Command, &t.Complain, &t.Barrier, &t.Replace}
}

// CheckConfig checks what package config can't, which knows nothing of the
// cluster: that the times relate as the protocol needs it. It completes conf
// with the times that hold. file is what the error calls it.
func CheckConfig(conf *config.Config, file string) error {
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
