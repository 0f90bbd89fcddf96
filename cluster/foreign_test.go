package cluster

import (
	"errors"
	"testing"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/journal/vfs"
)

// R14: a brick of another server of the same cluster, and one of this server that
// is not the one it had, are refused, and as they were when the right one is back.
func TestOpenRefusesOthersBricks(t *testing.T) { virtual(t, openRefusesOthersBricks) }

func openRefusesOthersBricks(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	l := newLoad(c)
	a, b := c.nodes[1], c.nodes[2]
	c.kill(1)
	c.kill(2)
	refused := func(what string, i int, kind error) {
		t.Helper()
		c.open(i)
		<-c.nodes[i].Ready()
		if err := c.nodes[i].Failed(); !errors.Is(err, kind) {
			t.Errorf("%s: %v", what, err)
		}
		c.kill(i)
	}
	swap := func() {
		a.disk, b.disk = b.disk, a.disk
		a.maps, b.maps = b.maps, a.maps
	}
	c.start(2)
	own, maps := a.disk, a.maps
	a.disk, a.maps = vfs.NewMemory(1<<30), pebblefs.NewCrashableMem()
	o := brick.Options{FS: a.disk, MapFS: a.maps, Path: "/brick", Pool: c.nodes[0].pool, JournalBytes: 16 << 20, SegmentBytes: 1 << 20}
	s := c.nodes[0].State()
	if err := brick.Create(o, brick.Identity{Cluster: s.ClusterID(), Server: uint32(a.id), Brick: [16]byte{7}}); err != nil {
		t.Fatal(err)
	}
	refused("another brick of its own", 1, meta.ErrInvalid)
	a.disk, a.maps = own, maps
	c.kill(2)
	swap()
	refused("another server's brick", 1, meta.ErrInUse)
	swap()
	c.start(1)
	c.start(2)
	l.check("with the right ones")
}
