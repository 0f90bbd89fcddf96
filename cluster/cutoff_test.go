package cluster

import (
	"errors"
	"slices"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// What only servers can do that live and are out of this node's reach does not end
// as busy, which would have the initiator ask this node again and again: it ends
// its session, so that another node is asked. For as long as they may have died
// it is busy, for then no other node could do more.
func TestCutOff(t *testing.T) {
	const down, up = false, true
	for _, c := range []struct {
		name   string
		live   []placement.Server
		two    bool          // whether server 2, the head, can be reached
		three  bool          // server 3, which has the other copy
		since  time.Duration // began before the command did
		read   bool
		cutOff bool
	}{
		{"the head lives", []placement.Server{2, 3}, down, up, time.Minute, false, true},
		{"the head lives, and was lost with the command on its way", []placement.Server{2, 3}, down, up, 0, false, true},
		{"the head was lost a moment ago", []placement.Server{2, 3}, down, up, -2 * time.Second, false, false},
		{"nobody lives", nil, down, down, time.Minute, false, false},
		{"the other copy lives", []placement.Server{3}, down, up, time.Minute, false, false},
		{"the head is there and busy", []placement.Server{2, 3}, up, down, time.Minute, false, false},
		{"a read, both live", []placement.Server{2, 3}, down, down, time.Minute, true, true},
		{"a read, one lives", []placement.Server{3}, down, down, time.Minute, true, true},
		{"a read, none lives", nil, down, down, time.Minute, true, false},
		{"a read, one is there and busy", []placement.Server{2, 3}, down, up, time.Minute, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, placement.Mirror, 2, 3, 4)
			b.c.copies.setLive(c.live, b.clock.now-time.Minute)
			b.server[2], b.server[3] = status(wire.TooOld), status(wire.TooOld)
			set := func(id placement.Server, up bool) {
				if !up {
					b.down[id] = true
					b.c.peerDown(id)
				}
			}
			lose := func() { set(2, c.two); set(3, c.three) }
			if c.since >= 0 {
				lose()
				b.run(c.since)
			}
			var err error
			began := b.clock.now
			wait := func() { b.run(b.c.times.Command - (b.clock.now - began)) }
			at := b.chunkAt(2)
			if c.read {
				ch := read(b.v, at, 4096)
				wait()
				err = result(b, ch).err
			} else {
				ch := write(b.v, at, pattern(1, 4096), false)
				if c.since < 0 {
					b.run(-c.since)
					lose()
				}
				wait()
				err = result(b, ch)
			}
			if c.cutOff && !errors.Is(err, errCutOff) || !c.cutOff && !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
		})
	}
}

// The same with nodes: of two that share no link, the one can't reach the other.
// Both hear the leader, and any other node serves what the one then can't.
func TestCutOffNodes(t *testing.T) { virtual(t, cutOffNodes) }

func cutOffNodes(t *testing.T) {
	c := newMemCluster(t, 4, 0.5)
	newLoad(c)
	v := c.volume(1, "data")
	c.whole(1)
	st := v.state.Load()
	chunk := placement.Chunk(0)
	for slices.Contains(st.routes.of(v.family, chunk).servers, 2) || st.routes.of(v.family, chunk).head() != 4 {
		chunk++
	}
	at := uint64(chunk) * placement.ChunkSize
	writeAt(t, v, at, pattern(1, 4096))
	changed := make(chan struct{}, 64)
	for _, n := range c.nodes {
		n.OnReach(func() { changed <- struct{}{} })
	}
	lost := func(i int, want ...string) {
		t.Helper()
		limit := time.After(30 * time.Second)
		for !slices.Equal(c.nodes[i].CutOff(), want) {
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("n%d does not reach %v, want %v", i+1, c.nodes[i].CutOff(), want)
			}
		}
	}
	c.net.cut(2, 4, true)
	if err := <-write(v, at, pattern(2, 4096), false); !errors.Is(err, errCutOff) {
		t.Errorf("n2 can't reach n4, which lives: %v", err)
	}
	for _, i := range []int{0, 2, 3} {
		writeAt(t, c.volume(i, "data"), at, pattern(3, 4096))
	}
	lost(1, "n4")
	lost(3, "n2")
	lost(0)
	lost(2)
	c.net.cut(2, 4, false)
	lost(1)
	lost(3)
	writeAt(t, v, at, pattern(4, 4096))
}
