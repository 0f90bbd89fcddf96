package meta

import (
	"testing"

	"petal/placement"
)

// Who does not reach all is told so only if another server with data does, which
// is to have the initiators: a node that nobody can stand in for goes on.
func TestBetter(t *testing.T) {
	servers := map[placement.Server]*Server{1: {ID: 1, Kind: Data}, 2: {ID: 2, Kind: Data}, 3: {ID: 3, Kind: Data}, 4: {ID: 4, Kind: Data}, 5: {ID: 5, Kind: Witness}}
	const here, there = "127.0.0.1:3260", "192.0.2.9:3260"
	for _, c := range []struct {
		name      string
		portals   map[placement.Server]string
		live      []uint32
		unreached map[placement.Server][]uint32
		better    []placement.Server
	}{
		{"all reach all", nil, []uint32{1, 2, 3, 4, 5}, nil, nil},
		{"two miss each other", nil, []uint32{1, 2, 3, 4, 5}, map[placement.Server][]uint32{2: {4}, 4: {2}}, []placement.Server{2, 4}},
		{"everybody misses one", nil, []uint32{1, 2, 3, 4, 5}, map[placement.Server][]uint32{1: {3}, 2: {4}, 3: {1}, 4: {2}}, nil},
		{"only a witness reaches all", nil, []uint32{2, 4, 5}, map[placement.Server][]uint32{2: {4}, 4: {2}}, nil},
		{"who could has no portal for others", map[placement.Server]string{1: here, 2: there, 3: here, 4: there}, []uint32{1, 2, 3, 4}, map[placement.Server][]uint32{2: {4}, 4: {2}}, nil},
		{"nor has one of them", map[placement.Server]string{1: here, 2: here, 3: here, 4: there}, []uint32{1, 2, 3, 4}, map[placement.Server][]uint32{2: {4}, 4: {2}}, []placement.Server{2}},
		{"who is missed has died since", nil, []uint32{1, 2, 3, 5}, map[placement.Server][]uint32{2: {4}}, nil},
	} {
		for id, v := range servers {
			if v.Portals = nil; c.portals[id] != "" {
				v.Portals = []string{c.portals[id]}
			}
		}
		g := &Group{view: &State{servers: servers}, leader: leadership{unreached: c.unreached}}
		for id := placement.Server(1); id <= 5; id++ {
			want := false
			for _, b := range c.better {
				want = want || b == id
			}
			if got := g.better(id, c.live); got != want {
				t.Errorf("%s: server %d: %t", c.name, id, got)
			}
		}
	}
}
