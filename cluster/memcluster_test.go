package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/times"
	"petal/journal/vfs"
	"petal/placement"
)

// memCluster is several real nodes on disks of memory and a network of memory,
// so that they can be killed at any moment.
type memCluster struct {
	t     *testing.T
	net   *memNet
	began time.Time
	nodes []*memServer
}

// memServer is a server of a memCluster; it outlives its processes.
type memServer struct {
	*Node // nil: down
	id    placement.Server
	opt   Options
	dir   *vfs.Memory
	disk  *vfs.Memory
	maps  *pebblefs.MemFS
	rng   *rand.Rand
	mu    sync.Mutex
}

func newMemCluster(t *testing.T, n int, scale float64) *memCluster {
	t.Helper()
	c := &memCluster{t: t, net: newMemNet(), began: time.Now().Add(-time.Hour)}
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		c.nodes = append(c.nodes, &memServer{id: placement.Server(i + 1), dir: vfs.NewMemory(1 << 30), disk: vfs.NewMemory(1 << 30),
			maps: pebblefs.NewCrashableMem(), rng: rand.New(rand.NewPCG(uint64(i), 41)), opt: Options{
				Name: name, CacheBytes: 1 << 20, MemoryBytes: 64 << 20, Times: times.Default().Scale(scale),
				Bricks: []BrickOptions{{Path: "/brick", Journal: 16 << 20, Capacity: 256 << 20}},
				brick:  func(o *brick.Options) { o.SegmentBytes, o.DestageAge = 1<<20, 20*time.Millisecond },
			}})
	}
	c.start(0)
	for i := 1; i < n; i++ {
		type result struct {
			a   JoinAnswer
			err error
		}
		got := make(chan result, 1)
		r := c.nodes[i].opt.request()
		r.Addresses = []string{c.nodes[i].opt.Name + ":1"}
		c.nodes[0].Admit(r, func(a JoinAnswer, err error) { got <- result{a, err} })
		x := <-got
		if x.err != nil {
			t.Fatal(x.err)
		}
		if err := Adopt(Env{FS: c.nodes[i].dir}, x.a); err != nil {
			t.Fatal(err)
		}
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			if c.nodes[i].Node != nil {
				c.nodes[i].Close(context.Background())
			}
		}
	})
	c.settled()
	return c
}

func (c *memCluster) env(s *memServer) Env {
	return Env{FS: s.dir, Clock: virtualClock{c.began}, Wall: time.Now, Bricks: []BrickEnv{{FS: s.disk, MapFS: s.maps, Path: "/brick"}},
		Rand: func(b []byte) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for i := range b {
				b[i] = byte(s.rng.Uint32())
			}
		},
		Transport: func(self placement.Server, h Handler) (Transport, error) {
			return c.net.port(self, h.(*Node).pool, h), nil
		}}
}

// open starts a process without waiting for more than that.
func (c *memCluster) open(i int) {
	c.t.Helper()
	s := c.nodes[i]
	n, err := OpenWith(s.opt, c.env(s))
	if err != nil {
		c.t.Fatalf("node %d: %v", i+1, err)
	}
	s.Node = n
}

// start starts a process and waits until it has a lease.
func (c *memCluster) start(i int) {
	c.t.Helper()
	c.open(i)
	c.leased(i)
}

func (c *memCluster) leased(i int) {
	c.t.Helper()
	n := c.nodes[i].Node
	told := make(chan struct{}, 64)
	n.OnLease(func(bool) { told <- struct{}{} })
	limit := time.After(30 * time.Second)
	for !n.Leased() {
		select {
		case <-told:
		case <-limit:
			c.t.Fatalf("node %d gets no lease: started %t, failed %v, %+v", i+1, n.Started(), n.Failed(), n.Agreement())
		}
	}
}

// kill ends a process as kill -9 and a power cut would: nothing that it has not
// made durable is left, nothing more is said to anybody.
func (c *memCluster) kill(i int) {
	s := c.nodes[i]
	dead := errors.New("the process is dead")
	s.disk.Stop(dead)
	s.dir.Stop(dead)
	s.net.Close()
	n := s.Node
	s.Node = nil
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.Close(ctx) // gives back memory; the disks are out of its reach
	seed := s.rng.Uint64()
	s.disk, s.dir = s.disk.Crash(seed), s.dir.Crash(seed)
	s.maps = s.maps.CrashClone(pebblefs.CrashCloneCfg{UnsyncedDataPercent: s.rng.IntN(101), RNG: s.rng})
}

// settled waits until all servers know who votes, and that those alone do: before
// that the loss of one who used to vote alone may stop everything.
func (c *memCluster) settled() {
	c.t.Helper()
	want := []int{0, 1, 1, 3, 3, 5}[len(c.nodes)]
	for _, s := range c.nodes {
		eventually(c.t, s.Node, func(s *meta.State) bool {
			conf := s.Conf()
			return len(conf.Voters) == want && !conf.Joint()
		})
	}
}

func (c *memCluster) volume(i int, name string) *Volume {
	c.t.Helper()
	n := c.nodes[i].Node
	eventually(c.t, n, func(s *meta.State) bool { return s.Disk(name) != nil })
	v, err := n.Volume(n.State().Disk(name).ID)
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// whole waits until every copy is in sync and complete, as node i sees it.
func (c *memCluster) whole(i int) {
	c.t.Helper()
	told := make(chan struct{}, 1)
	c.nodes[i].Watch(func(*meta.State) {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	limit := time.After(30 * time.Second)
	for !whole(c.nodes[i].State()) {
		select {
		case <-told:
		case <-limit:
			for _, s := range c.nodes {
				if s.Node != nil {
					for _, l := range s.Links() {
						c.t.Logf("server %d: %+v", s.id, l)
					}
				}
			}
			c.t.Error("the copies are never whole again")
			return
		}
	}
}

func whole(s *meta.State) bool {
	for _, id := range s.Links() {
		l := s.LinkInfo(id)
		if l.InSync.Len() != len(s.LinkServers(id)) || l.Filling != 0 {
			return false
		}
	}
	return true
}

// writePause is between two writes of a steadyWriter. Without it virtual time would
// stand still while one writes.
const writePause = 100 * time.Microsecond

// steadyWriter writes to blocks of its own and knows what they may hold.
type steadyWriter struct {
	first, n int
	allowed  [][]uint64
	tag      uint64
	longest  time.Duration
	busy     int
	refused  []error
}

func newSteadyWriter(first, n int) *steadyWriter {
	w := &steadyWriter{first: first, n: n, allowed: make([][]uint64, n)}
	for i := range w.allowed {
		w.allowed[i] = []uint64{0}
	}
	return w
}

// run writes until stop is closed.
func (w *steadyWriter) run(v *Volume, r *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(writePause):
		}
		at, n := r.IntN(w.n), 1
		if r.IntN(4) == 0 {
			n = min(1+r.IntN(20), w.n-at)
		}
		w.tag++
		value := w.tag<<8 | uint64(w.first/w.n)
		for i := at; i < at+n; i++ {
			w.allowed[i] = append(slices.Clip(w.allowed[i]), value)
		}
		began := time.Now()
		err := <-write(v, uint64(w.first+at)*placement.BlockSize, sector(value, n*placement.BlockSize), false)
		w.longest = max(w.longest, time.Since(began))
		switch {
		case err == nil:
			for i := at; i < at+n; i++ {
				w.allowed[i] = []uint64{value}
			}
		case errors.Is(err, ErrBusy):
			w.busy++
		default:
			w.refused = append(w.refused, err)
		}
	}
}

// check reads everything and compares.
func (w *steadyWriter) check(v *Volume) error {
	for i := range w.n {
		got := <-read(v, uint64(w.first+i)*placement.BlockSize, placement.BlockSize)
		if got.err != nil {
			return fmt.Errorf("block %d: %w", w.first+i, got.err)
		}
		value, ok := sectorValue(got.data)
		if !ok || !slices.Contains(w.allowed[i], value) {
			return fmt.Errorf("block %d holds %#x (torn: %t), want one of %#x", w.first+i, value, !ok, w.allowed[i])
		}
		w.allowed[i] = []uint64{value} // what has been seen stays
	}
	return nil
}

// load is writers on a disk of a memCluster, at its first two servers.
type load struct {
	c       *memCluster
	writers []*steadyWriter
}

func newLoad(c *memCluster) *load {
	c.t.Helper()
	const blocks = 512
	if _, err := c.nodes[0].CreateDisk(c.t.Context(), DiskSpec{Name: "data", Size: 16 << 20, BlockSize: 4096}); err != nil {
		c.t.Fatal(err)
	}
	l := &load{c: c}
	for i := range 4 {
		l.writers = append(l.writers, newSteadyWriter(i*blocks, blocks))
	}
	return l
}

// during writes while something happens.
func (l *load) during(what func()) {
	l.c.t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, w := range l.writers {
		v := l.c.volume(i%2, "data")
		wg.Go(func() { w.run(v, rand.New(rand.NewPCG(uint64(i), w.tag)), stop) })
	}
	what()
	close(stop)
	wg.Wait()
}

// check reads everything at every server that is up.
func (l *load) check(when string) {
	t := l.c.t
	t.Helper()
	for i := range l.c.nodes {
		if l.c.nodes[i].Node == nil {
			continue
		}
		for _, w := range l.writers {
			if err := w.check(l.c.volume(i, "data")); err != nil {
				t.Errorf("%s, at server %d: %v", when, i+1, err)
			}
		}
	}
	for i, w := range l.writers {
		t.Logf("%s: writer %d: %d writes, longest %v, %d busy, %d of open outcome", when, i+1, w.tag, w.longest, w.busy, len(w.refused))
		if len(w.refused)+w.busy > 0 {
			t.Errorf("%s: writer %d noticed: %v", when, i+1, w.refused)
			w.refused, w.busy = nil, 0
		}
		w.longest = 0
	}
}

// without waits until no link counts on a server.
func (c *memCluster) without(i int) {
	c.t.Helper()
	id := c.nodes[i].id
	eventually(c.t, c.nodes[0].Node, func(s *meta.State) bool {
		for _, l := range s.LinksOf(id) {
			if m, _ := s.MemberOf(l, id); s.Link(l).InSync.Has(m) {
				return false
			}
		}
		return true
	})
}

// A server is killed under writers at the others, is started again, and when all
// is whole its neighbour is killed, so that what it has caught up with counts.
// No acknowledged write is lost, and the writers notice nothing but a pause.
func TestKillAndRestart(t *testing.T) { virtual(t, killAndRestart) }

func killAndRestart(t *testing.T) {
	c := newMemCluster(t, 4, 1)
	l := newLoad(c)
	l.during(func() { l.some(); c.kill(3); c.without(3) })
	l.check("one is dead")
	l.during(func() { l.some(); c.start(3); c.whole(0) })
	l.check("it is back")
	l.during(func() { l.some(); c.kill(2); c.without(2) })
	l.check("its neighbour is dead")
	c.start(2)
	c.whole(0)
	l.check("whole again")
}

// A server that is killed and back at once is not excluded: what both journals
// have counts (R10), and nothing is copied.
func TestBackAtOnce(t *testing.T) { virtual(t, backAtOnce) }

func backAtOnce(t *testing.T) {
	c := newMemCluster(t, 4, 1)
	l := newLoad(c)
	for range 3 {
		l.during(func() { l.some(); c.kill(3); c.start(3); l.some() })
		for _, w := range l.writers {
			if w.longest > c.nodes[0].opt.Times.Lease {
				t.Errorf("a write took %v, as if the server had stayed away", w.longest)
			}
		}
		l.check("it is back")
	}
	for _, s := range c.nodes[3].Links() {
		if s.Missing+s.Copied > 0 {
			t.Errorf("%d blocks copied, %d missing: %+v", s.Copied, s.Missing, s)
		}
	}
}

// A node that is stopped in order holds up the others for no longer than it
// takes to agree on that.
func TestCleanStopIsShort(t *testing.T) { virtual(t, cleanStopIsShort) }

func cleanStopIsShort(t *testing.T) {
	c := newMemCluster(t, 4, 1)
	if _, err := c.nodes[0].CreateDisk(t.Context(), DiskSpec{Name: "data", Size: 64 << 20, BlockSize: 512}); err != nil {
		t.Fatal(err)
	}
	v := c.volume(0, "data")
	stop, longest := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		for k := uint64(0); ; k++ {
			select {
			case <-stop:
				longest <- most
				return
			case <-time.After(writePause):
			}
			began := time.Now()
			if err := <-write(v, k%512*placement.ChunkSize, pattern(k, 4096), false); err != nil {
				t.Error(err)
			}
			most = max(most, time.Since(began))
		}
	}()
	began := time.Now()
	if err := c.nodes[3].Close(t.Context()); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	for i := range uint64(64) { // every link is used
		if err := <-write(v, i*placement.ChunkSize+4096, pattern(i, 4096), false); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if most := <-longest; most > c.nodes[0].opt.Times.Lease/4 {
		t.Errorf("a write took %v, as if nobody had said a word", most)
	} else {
		t.Logf("the longest write took %v, the stop %v", most, took)
	}
}

// The power goes everywhere at once. Whatever was acknowledged is there when it
// is back.
func TestPowerLossEverywhere(t *testing.T) { virtual(t, powerLossEverywhere) }

func powerLossEverywhere(t *testing.T) {
	c := newMemCluster(t, 4, 1)
	l := newLoad(c)
	for range 2 {
		l.during(l.some)
		for i := range c.nodes {
			c.kill(i)
		}
		for i := range c.nodes {
			c.open(i)
		}
		for i := range c.nodes {
			c.leased(i)
		}
		l.check("the power is back")
	}
}

// some waits until some writes were acknowledged.
func (l *load) some() {
	v := l.c.volume(0, "data")
	for i := range uint64(100) {
		if err := <-write(v, (4*512+i)*placement.BlockSize, pattern(i, placement.BlockSize), false); err != nil {
			l.c.t.Error(err)
		}
	}
}
