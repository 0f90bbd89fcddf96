package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/meta"
)

// testCluster is several nodes in this process, over TCP and TLS.
type testCluster struct {
	t     *testing.T
	opts  []Options
	nodes []*Node // nil: down
}

// listen returns a listener for node i.
func listen(t *testing.T, i int) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.1.%d:0", i+1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // the node has closed it, unless it never began
	return l
}

func newTestCluster(t *testing.T, n int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, nodes: make([]*Node, n)}
	dir := t.TempDir()
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		c.opts = append(c.opts, Options{Dir: filepath.Join(dir, name), Name: name, CacheBytes: 4 << 20, MemoryBytes: 64 << 20, Listener: listen(t, i), Times: patient(),
			Bricks: []BrickOptions{{Path: filepath.Join(dir, name+"-brick"), Journal: 64 << 20, Capacity: 256 << 20}},
			brick:  func(o *brick.Options) { o.SegmentBytes = 4 << 20 }})
	}
	if err := Init(t.Context(), c.opts[0], "test"); err != nil {
		t.Fatal(err)
	}
	c.start(0)
	token, _, err := c.nodes[0].CreateToken(t.Context(), time.Hour, n)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < n; i++ {
		if err := Join(t.Context(), c.opts[i], token); err != nil {
			t.Fatalf("node %d: %v", i+1, err)
		}
		c.start(i)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nobody is left to hand over to
		for i := range c.nodes {
			if c.nodes[i] != nil {
				c.nodes[i].Close(ctx)
			}
		}
	})
	return c
}

// start opens a node and waits until it serves under a lease.
func (c *testCluster) start(i int) {
	c.t.Helper()
	n, err := Open(c.opts[i])
	if err != nil {
		c.t.Fatalf("node %d: %v", i+1, err)
	}
	c.nodes[i] = n
	leased := make(chan struct{}, 8)
	n.OnLease(func(bool) { leased <- struct{}{} })
	limit := time.After(time.Minute)
	for !n.Leased() {
		select {
		case <-leased:
		case <-limit:
			c.t.Fatalf("node %d gets no lease: started %t, failed %v, %+v", i+1, n.Started(), n.Failed(), n.Agreement())
		}
	}
}

// volume is the disk of that name at node i, once that node knows of it.
func (c *testCluster) volume(i int, name string) *Volume {
	c.t.Helper()
	n := c.nodes[i]
	eventually(c.t, n, func(s *meta.State) bool { return s.Disk(name) != nil })
	v, err := n.Volume(n.State().Disk(name).ID)
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// Four nodes: what one writes the others read, and a disk is on all of them.
func TestFourNodes(t *testing.T) {
	c := newTestCluster(t, 4)
	if _, err := c.nodes[2].CreateDisk(t.Context(), DiskSpec{Name: "data", Size: 64 << 20, BlockSize: 512}); err != nil {
		t.Fatal(err)
	}
	s := c.nodes[2].State()
	if g := s.GMap(s.Family(s.Disk("data").Family).GMap); len(g.Ring) != 4 || g.Copies != 2 {
		t.Fatalf("gmap %+v", g.Ring)
	}
	const part = 2 << 20
	for i := range c.nodes {
		writeAt(t, c.volume(i, "data"), uint64(i)*part, pattern(uint64(i), part))
	}
	for i := range c.nodes {
		for j := range c.nodes {
			if got := readAt(t, c.volume(i, "data"), uint64(j)*part, part); !bytes.Equal(got, pattern(uint64(j), part)) {
				t.Errorf("node %d reads what node %d wrote wrongly", i+1, j+1)
			}
		}
	}
	for i, n := range c.nodes {
		if used, _, _ := n.store.Load().brick.Space(); used < part {
			t.Errorf("node %d keeps %d bytes", i+1, used)
		}
		t.Logf("node %d: %+v", i+1, n.Status().Path)
	}
}
