package cluster

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/placement"
)

// R14: a server comes back on a disk as it was before: a machine whose disk was
// set back, or restored from a backup. What it holds counts for nothing. It gets
// everything anew, and nobody ever reads what was there.
func TestBrickSetBack(t *testing.T) { virtual(t, brickSetBack) }

func brickSetBack(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	if _, err := c.nodes[0].CreateDisk(t.Context(), DiskSpec{Name: "data", Size: 4 << 20, BlockSize: 4096}); err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	fill := func(tag uint64) []byte {
		data := pattern(tag, size)
		for off := 0; off < size; off += placement.ChunkSize {
			if err := <-write(c.volume(0, "data"), uint64(off), data[off:off+placement.ChunkSize], false); err != nil {
				t.Fatal(err)
			}
		}
		return data
	}
	fill(1)
	s := c.nodes[2]
	c.kill(2)
	disk, maps := s.disk.Crash(1), s.maps.CrashClone(pebblefs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	c.start(2)
	c.whole(0)
	data := fill(2)
	c.kill(2)
	s.disk, s.maps = disk, maps
	c.start(2)
	c.whole(0)
	if !slices.ContainsFunc(c.nodes[0].State().Events(), func(e *meta.Event) bool {
		return e.Server == 3 && strings.Contains(e.Text, "older than they were")
	}) {
		t.Error("nobody has noticed")
	}
	c.kill(0) // what node 3 has is all there is of its link with node 1
	eventually(t, c.nodes[1].Node, func(st *meta.State) bool {
		return !slices.ContainsFunc(st.LinksOf(1), func(l placement.LinkID) bool {
			m, _ := st.MemberOf(l, 1)
			return st.Link(l).InSync.Has(m)
		})
	})
	if got := readAt(t, c.volume(1, "data"), 0, size); !bytes.Equal(got, data) {
		t.Error("not what was written last")
	}
}

// R14: the brick has taken part in a later version of a link than the agreed state
// knows of: the state is from a backup that was made since the last start.
func TestOpenRefusesStateOlderThanALink(t *testing.T) {
	dir := t.TempDir()
	n := testNode(t, dir)
	testDisk(t, n, "data", 1<<20)
	if err := n.store.Load().brick.UpdateSuper(func(s *brick.Super) error {
		for id, mark := range s.Links {
			mark.Ver += 9
			s.Links[id] = mark
		}
		if len(s.Links) == 0 {
			t.Error("it bears witness of no link")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	n.Close(t.Context())
	wantRefusal(t, "a state older than a link", testOptions(dir), meta.ErrOld)
}
