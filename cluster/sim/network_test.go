package sim

import (
	"testing"
	"time"

	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// talker is a process that only has connections.
type talker struct{ up map[placement.Server]bool }

func (t *talker) Receive(placement.Server, uint64, *wire.Message) {}
func (t *talker) Up(p placement.Server, _ uint64)                 { t.up[p] = true }
func (t *talker) Down(p placement.Server)                         { delete(t.up, p) }

// TestRestartWhileDialling: whoever starts again while another one still dials
// the process before it gets a connection in the end.
func TestRestartWhileDialling(t *testing.T) {
	s := newSim(Config{Seed: 1})
	pool := slab.New(1 << 20)
	defer pool.Discard()
	start := func(id placement.Server) *talker {
		m, o := s.machine(id), &talker{map[placement.Server]bool{}}
		m.life = &life{}
		m.ends = s.net.attach(m, m.life, id, pool, o)
		m.ends.setPeers([]placement.Server{1, 2})
		m.ends.SetIncarnation(1)
		return o
	}
	start(1)
	two := start(2)
	s.machine(1).end("while it is dialled", time.Second, 2*time.Second)
	one := start(1)
	s.e.run(s.e.now + 10*time.Second)
	if !one.up[2] || !two.up[1] {
		t.Fatalf("1 has a connection with %v, 2 with %v", one.up, two.up)
	}
}
