package appliance

import (
	"slices"
	"strings"
	"testing"

	"petal/appliance/config"
	"petal/placement"
)

func TestAnnounce(t *testing.T) {
	got := announce([]config.Portal{{Listen: "192.0.2.1:3260", Group: 1}, {Listen: "0.0.0.0:3261", Advertise: "198.51.100.1:3260", Group: 2}, {Listen: "[2001:db8::1]:3260", Group: 1}})
	if want := []string{"192.0.2.1:3260,1", "198.51.100.1:3260,2", "[2001:db8::1]:3260,1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, a := range got {
		if address, group, ok := parseAnnounced(a); !ok || !strings.HasPrefix(a, address) || group < 1 {
			t.Errorf("%s reads as %s %d %v", a, address, group, ok)
		}
	}
	any := announce([]config.Portal{{Listen: "0.0.0.0:3260", Group: 1}})
	if len(any) == 0 || slices.ContainsFunc(any, func(a string) bool { return strings.HasPrefix(a, "0.0.0.0") || !strings.HasSuffix(a, ":3260,1") }) {
		t.Errorf("all addresses are told as %v", any)
	}
	for _, bad := range []string{"", "192.0.2.1:3260", "192.0.2.1:3260,0", "192.0.2.1:3260,16", "192.0.2.1,1", "192.0.2.1:3260,x"} {
		if _, _, ok := parseAnnounced(bad); ok {
			t.Errorf("%q passes", bad)
		}
	}
}

// TestPortTag: no two portal groups of any two servers share a tag.
func TestPortTag(t *testing.T) {
	seen := map[uint16]bool{}
	for _, server := range []uint32{1, 2, 255, 256, maxServer} {
		for group := uint16(1); group <= config.MaxPortalGroup; group++ {
			tag := portTag(group, placement.Server(server))
			if seen[tag] || tag == 0 {
				t.Errorf("group %d of server %d has the tag %#x again", group, server, tag)
			}
			seen[tag] = true
		}
	}
}
