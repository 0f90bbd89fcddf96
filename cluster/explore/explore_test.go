package explore

import (
	"petal/cluster/link"
	"testing"
	"time"
)

func TestHealthy(t *testing.T) {
	k := &Case{Members: 2, Blocks: []uint8{0}, Writes: []uint8{0, 0}, MaxVer: 4, Max: Budget{Reads: 2, Crashes: 1}}
	t0 := time.Now()
	r := Search(k, 2_000_000)
	t.Log(time.Since(t0), r)
	if r.Trace != nil {
		t.Fail()
	}
}

func TestMut(t *testing.T) {
	base := Case{Members: 2, Blocks: []uint8{0}, Writes: []uint8{0, 0}, MaxVer: 4, Max: Budget{Reads: 2}}
	for _, c := range []struct {
		name string
		f    func(k *Case)
	}{
		{"R9 plain", func(k *Case) {
			k.Start = Degraded
			k.Max = Budget{Reads: 1}
			k.MaxVer = 6
			k.Blocks = []uint8{0, 0}
			k.Writes = []uint8{0, 1}
		}},
		{"R9 crash", func(k *Case) {
			k.Start = Degraded
			k.Max = Budget{Reads: 1}
			k.MaxVer = 6
			k.Blocks = []uint8{0, 0}
			k.Writes = []uint8{0, 1}
			k.Max.Crashes = 1
		}},
		{"R9 rot", func(k *Case) {
			k.Start = Degraded
			k.Max = Budget{Reads: 1}
			k.MaxVer = 6
			k.Blocks = []uint8{0, 0}
			k.Writes = []uint8{0, 1}
			k.Max.Crashes = 1
			k.Max.Rots = 1
			k.Destage = true
		}},
		{"AckCutEarly", func(k *Case) {
			k.Start = Degraded
			k.Max = Budget{Reads: 1}
			k.MaxVer = 6
			k.Blocks = []uint8{0, 0}
			k.Writes = []uint8{0, 1}
			k.Fault = link.FaultAckCutEarly
			k.Max.Crashes = 1
		}},
		{"MarksEarly", func(k *Case) {
			k.Start = Degraded
			k.Max = Budget{Reads: 1}
			k.MaxVer = 6
			k.Blocks = []uint8{0, 0}
			k.Writes = []uint8{0, 1}
			k.Fault = link.FaultDropMarksEarly
			k.Max.Crashes = 1
		}},
		{"NoHold", func(k *Case) {
			k.Start = Degraded
			k.Max = Budget{Reads: 1}
			k.MaxVer = 6
			k.Blocks = []uint8{0, 0}
			k.Writes = []uint8{0, 1}
			k.Fault = link.FaultNoHold
			k.Max.Crashes = 1
		}},
		{"ForgetProposed", func(k *Case) {
			k.Start = Degraded
			k.Max = Budget{Reads: 1}
			k.MaxVer = 6
			k.Blocks = []uint8{0, 0}
			k.Writes = []uint8{0, 1}
			k.Fault = link.FaultForgetProposed
			k.Max.Cuts = 1
			k.Max.Crashes = 1
		}},
	} {
		k := base
		c.f(&k)
		t0 := time.Now()
		r := Search(&k, 700_000)
		t.Log(c.name, time.Since(t0), r)
	}
}
