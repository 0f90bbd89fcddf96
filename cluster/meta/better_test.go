package meta

import (
	"testing"

	"petal/placement"
)

// Who does not reach all is told so only if another server with data does, which
// is to have the initiators: a node that nobody can stand in for goes on.
func TestBetter(t *testing.T) {
	servers := map[placement.Server]*Server{1: {ID: 1, Kind: Data}, 2: {ID: 2, Kind: Data}, 3: {ID: 3, Kind: Data}, 4: {ID: 4, Kind: Data}, 5: {ID: 5, Kind: Witness}}
	for _, c := range []struct {
		name      string
		live      []uint32
		unreached map[placement.Server][]uint32
		better    []placement.Server
	}{
		{"all reach all", []uint32{1, 2, 3, 4, 5}, nil, nil},
		{"two miss each other", []uint32{1, 2, 3, 4, 5}, map[placement.Server][]uint32{2: {4}, 4: {2}}, []placement.Server{2, 4}},
		{"everybody misses one", []uint32{1, 2, 3, 4, 5}, map[placement.Server][]uint32{1: {3}, 2: {4}, 3: {1}, 4: {2}}, nil},
		{"only a witness reaches all", []uint32{2, 4, 5}, map[placement.Server][]uint32{2: {4}, 4: {2}}, nil},
		{"who is missed has died since", []uint32{1, 2, 3, 5}, map[placement.Server][]uint32{2: {4}}, nil},
	} {
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
