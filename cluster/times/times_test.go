package times

import (
	"strings"
	"testing"
	"time"
)

func TestDefaultHoldsAtEveryScale(t *testing.T) {
	for _, f := range []float64{0.1, 0.37, 0.5, 1, 1.25, 2, 7.5, 100} {
		if err := Default().Scale(f).Check(); err != nil {
			t.Errorf("scale %v: %v", f, err)
		}
	}
}

// TestCheckNamesTheRule breaks one relation at a time.
func TestCheckNamesTheRule(t *testing.T) {
	for _, c := range []struct {
		change func(*Times)
		want   string
	}{
		{func(t *Times) { t.Guard = t.Lease }, "guard >="},
		{func(t *Times) { t.Renewal = t.Lease }, "renewal <="},
		{func(t *Times) { t.Collect = t.Renewal }, "collect <"},
		{func(t *Times) {
			t.Lease = 900 * time.Millisecond
			t.Admission = time.Millisecond
			t.Renewal = 100 * time.Millisecond
		}, "2 x election"},
		{func(t *Times) { t.Heartbeat = t.Tick + 1 }, "multiple of tick"},
		{func(t *Times) { t.Election = t.Heartbeat }, "election >="},
		{func(t *Times) { t.Admission = t.Lease }, "admission <"},
		{func(t *Times) { t.Command = t.Guard }, "command >"},
		{func(t *Times) { t.Command = 2*t.Lease + time.Millisecond }, "command <="},
		{func(t *Times) { t.Replace = t.Guard }, "replace >"},
		{func(t *Times) { t.Tick = 0 }, "not positive"},
	} {
		x := Default()
		c.change(&x)
		if err := x.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want an error with %q, got %v", c.want, err)
		}
	}
}
