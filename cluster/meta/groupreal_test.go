package meta

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"petal/cluster/meta/metapb"
	"petal/cluster/times"
	"petal/journal/vfs"
	"petal/placement"
)

// TestSameSeedSameStory: all that groups send, in order and byte for byte,
// follows from the seed.
func TestSameSeedSameStory(t *testing.T) {
	story := func(seed uint64) (sum [32]byte, messages int) {
		w := newWorld(t, seed)
		h := sha256.New()
		w.seen = func(from, to placement.Server, body []byte) {
			messages++
			fmt.Fprintf(h, "%v %d %d %x\n", w.now, from, to, body)
		}
		w.bootstrap()
		for id := placement.Server(2); id <= 4; id++ {
			w.join(id, 0)
		}
		w.voters(3)
		w.must(1, diskOf("a", 1, "mirror"))
		w.rejoin()
		w.trouble(4, 15*time.Second)
		w.leased()
		return [32]byte(h.Sum(nil)), messages
	}
	a, n := story(77)
	b, m := story(77)
	if a != b || n != m {
		t.Errorf("two stories of one seed: %x of %d messages, %x of %d", a[:4], n, b[:4], m)
	}
	if c, _ := story(78); c == a {
		t.Error("another seed gives the same story: the test sees nothing")
	}
	if n < 1000 {
		t.Errorf("only %d messages", n)
	}
}

// wires connects groups that run for real: each message is delivered by a
// goroutine per receiver, in order.
type wires struct {
	mu    sync.Mutex
	boxes map[placement.Server]chan func()
}

type port struct {
	w    *wires
	self placement.Server
	of   func(placement.Server) *Group
}

func (p port) Send(to placement.Server, body []byte) bool {
	p.w.mu.Lock()
	box := p.w.boxes[to]
	p.w.mu.Unlock()
	if box == nil {
		return false
	}
	select {
	case box <- func() {
		if g := p.of(to); g != nil {
			g.Receive(p.self, body)
		}
	}:
		return true
	default:
		return false
	}
}

// realGroups are three groups with goroutines and committers.
type realGroups struct {
	t      *testing.T
	ctx    context.Context
	wires  *wires
	ports  sync.WaitGroup
	mu     sync.Mutex
	groups map[placement.Server]*Group
	leased chan placement.Server
	clock  bubbleClock
}

func (r *realGroups) of(id placement.Server) *Group {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.groups[id]
}

func (r *realGroups) open(id placement.Server) *Group {
	box := make(chan func(), 1000)
	r.wires.mu.Lock()
	r.wires.boxes[id] = box
	r.wires.mu.Unlock()
	r.ports.Go(func() {
		for f := range box {
			f()
		}
	})
	g, err := OpenGroup(Config{FS: vfs.NewMemory(64 << 20), Dir: "meta", Self: id, Clock: r.clock, Times: times.Default(), Transport: port{r.wires, id, r.of},
		Rand: rand.New(rand.NewPCG(uint64(id), 1)), Wall: time.Now, Background: func(f func()) { go f() },
		OnLease: func(until time.Duration, _ uint64) {
			select {
			case r.leased <- id:
			default:
			}
		}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.groups[id] = g
	r.mu.Unlock()
	return g
}

// ready waits until a group has the disk that all of this is about, and has it
// serve.
func (r *realGroups) ready(id placement.Server) *Group {
	g := r.of(id)
	ready := make(chan struct{})
	var once sync.Once
	look := func(s *State) {
		if s.Disk("a") != nil {
			once.Do(func() { close(ready) })
		}
	}
	g.Watch(look)
	look(g.State())
	select {
	case <-ready:
	case <-r.ctx.Done():
		r.t.Fatalf("server %d has no state", id)
	}
	s, err := g.Propose(r.ctx, start(int(id)))
	if err != nil {
		r.t.Fatal(err)
	}
	g.Serve(s.Server(id).Incarnation)
	return g
}

// hammer proposes and reads, n times each.
func (r *realGroups) hammer(g *Group, n int) {
	d := g.State().Disk("a").ID
	for range n {
		if _, err := g.Propose(r.ctx, &metapb.Command{Kind: &metapb.Command_BumpVver{BumpVver: &metapb.BumpVVer{Disk: d[:]}}}); err != nil {
			r.t.Error(err)
			return
		}
		if _, err := g.ReadIndex(r.ctx); err != nil {
			r.t.Error(err)
			return
		}
	}
}

func (r *realGroups) close() {
	for id := placement.Server(1); id <= 3; id++ {
		if err := r.of(id).Close(); err != nil {
			r.t.Error(err)
		}
	}
	r.wires.mu.Lock()
	for id, box := range r.wires.boxes {
		close(box)
		delete(r.wires.boxes, id)
	}
	r.wires.mu.Unlock()
	r.ports.Wait()
}

// bubbleClock is the time of the test's bubble (see testing/synctest).
type bubbleClock struct{ began time.Time }

func (c bubbleClock) Now() time.Duration { return time.Since(c.began) }

func (bubbleClock) AfterFunc(d time.Duration, f func()) times.Timer {
	return time.AfterFunc(max(d, 1), f)
}

// TestGroupsForReal runs three groups with real goroutines and committers, and many
// callers at a time; under the race detector it sees what a single thread can't. Only
// time is virtual: on a machine that stands still nobody would have a majority.
func TestGroupsForReal(t *testing.T) { synctest.Test(t, groupsForReal) }

func groupsForReal(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := &realGroups{t: t, ctx: ctx, wires: &wires{boxes: map[placement.Server]chan func(){}}, groups: map[placement.Server]*Group{}, leased: make(chan placement.Server, 100), clock: bubbleClock{time.Now().Add(-time.Hour)}}
	g := r.open(1)
	id := ID{1}
	if err := g.Bootstrap(&metapb.Init{ClusterId: id[:], ServerName: "n1", Release: Release}); err != nil {
		t.Fatal(err)
	}
	for n := placement.Server(2); n <= 3; n++ {
		if _, err := g.Propose(ctx, join(fmt.Sprintf("n%d", n), nil)); err != nil {
			t.Fatal(err)
		}
		r.open(n)
	}
	if _, err := g.Propose(ctx, disk("a", 1)); err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	for n := placement.Server(1); n <= 3; n++ {
		member := r.ready(n)
		for range 4 {
			callers.Go(func() { r.hammer(member, 25) })
		}
	}
	callers.Wait()
	for seen := map[placement.Server]bool{}; len(seen) < 3; {
		select {
		case n := <-r.leased:
			seen[n] = true
		case <-ctx.Done():
			t.Fatalf("leases of %v only", seen)
		}
	}
	s, err := r.of(2).ReadIndex(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Disk("a").Resets; got != 3*4*25 {
		t.Errorf("%d commands took effect", got)
	}
	r.of(g.Status().Leader).GiveUp()
	if _, err := r.of(2).ReadIndex(ctx); err != nil {
		t.Errorf("after the lead was handed over: %v", err)
	}
	r.close()
}
