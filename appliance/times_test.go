package appliance

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"petal/appliance/config"
	"petal/cluster/times"
)

// TestTimes: the keys of [time] are the fields of times.Times, all of them, and
// the example shows the default ones.
func TestTimes(t *testing.T) {
	typ := reflect.TypeFor[times.Times]()
	if typ.NumField() != len(config.TimeNames) {
		t.Errorf("%d intervals, %d keys", typ.NumField(), len(config.TimeNames))
	}
	for i, name := range config.TimeNames {
		if f, ok := typ.FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, name) }); !ok {
			t.Errorf("times.Times has no %s", name)
		} else {
			c := config.Time{}
			c.Intervals[i] = 77 * time.Second
			x := Times(c)
			if got := reflect.ValueOf(x).FieldByIndex(f.Index).Interface(); got != 77*time.Second {
				t.Errorf("%s sets another interval: %v", name, got)
			}
		}
	}
	c, err := config.Parse("example", config.Uncommented())
	if err != nil {
		t.Fatal(err)
	}
	if got := Times(c.Time); got != times.Default() {
		t.Errorf("the example's times are %+v, the default ones %+v", got, times.Default())
	}
	if got := Times(config.Time{Scale: 3}); got != times.Default().Scale(3) {
		t.Errorf("scale: %+v", got)
	}
}

func TestCheckConfig(t *testing.T) {
	bad, err := config.Parse("x", "[time]\nlease = \"4s\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckConfig(bad, "petal.toml"); err == nil || !strings.Contains(err.Error(), "petal.toml: time: times: guard >= lease") {
		t.Errorf("a lease longer than the guard: %v", err)
	}
	two, err := config.Parse("x", "[[brick]]\npath = \"/a\"\n[[brick]]\npath = \"/b\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckConfig(two, "petal.toml"); err == nil || !strings.Contains(err.Error(), "petal.toml: brick[1]: 2 bricks") {
		t.Errorf("two bricks: %v", err)
	}
	good, _ := config.Parse("x", "[time]\nscale = 4\n")
	if n := PatienceNote(config.Time{}); n != "" {
		t.Errorf("of the default times: %q", n)
	}
	if n := PatienceNote(good.Time); !strings.Contains(n, "keep commands for 20s") {
		t.Errorf("of times four times as long: %q", n)
	}
	if err := CheckConfig(good, "x"); err != nil || good.Time.Intervals[0] != 2*time.Second {
		t.Errorf("%v, %+v", err, good.Time)
	}
}
