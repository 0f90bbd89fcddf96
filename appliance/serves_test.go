package appliance

import "testing"

type reach struct {
	leased bool
	cutOff []string
}

func (r reach) Leased() bool     { return r.leased }
func (r reach) CutOff() []string { return r.cutOff }

// TestServes: without a lease, or cut off from whom others reach, a node is no place
// for hosts.
func TestServes(t *testing.T) {
	for want, nodes := range map[bool][]reach{
		true:  {{leased: true}},
		false: {{}, {leased: true, cutOff: []string{"n2"}}, {cutOff: []string{"n2"}}},
	} {
		for _, n := range nodes {
			if got := serves(n); got != want {
				t.Errorf("%+v: %t", n, got)
			}
		}
	}
}
