package meta

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
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

// TestGroupsForReal runs three groups on real clocks and committers, with many
// callers at a time; under the race detector it sees what virtual time can't.
func TestGroupsForReal(t *testing.T) {
	w := &wires{boxes: map[placement.Server]chan func(){}}
	var mu sync.Mutex
	groups := map[placement.Server]*Group{}
	of := func(id placement.Server) *Group { mu.Lock(); defer mu.Unlock(); return groups[id] }
	var ports sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	open := func(id placement.Server) *Group {
		box := make(chan func(), 1000)
		w.mu.Lock()
		w.boxes[id] = box
		w.mu.Unlock()
		ports.Add(1)
		go func() {
			defer ports.Done()
			for f := range box {
				f()
			}
		}()
		g, err := OpenGroup(Config{FS: vfs.NewMemory(64 << 20), Dir: "meta", Self: id, Clock: times.Real{}, Times: times.Default(), Transport: port{w, id, of},
			Rand: rand.New(rand.NewPCG(uint64(id), 1)), Wall: time.Now, Background: func(f func()) { go f() }})
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		groups[id] = g
		mu.Unlock()
		return g
	}
	g := open(1)
	id := ID{1}
	if err := g.Bootstrap(&metapb.Init{ClusterId: id[:], ServerName: "n1", Release: Release}); err != nil {
		t.Fatal(err)
	}
	for n := placement.Server(2); n <= 3; n++ {
		if _, err := g.Propose(ctx, join(fmt.Sprintf("n%d", n), nil)); err != nil {
			t.Fatal(err)
		}
		open(n)
	}
	if _, err := g.Propose(ctx, disk("a", 1)); err != nil {
		t.Fatal(err)
	}
	leased := make(chan placement.Server, 100)
	var callers sync.WaitGroup
	for n := placement.Server(1); n <= 3; n++ {
		member := of(n)
		ready := make(chan struct{})
		var once sync.Once
		look := func(s *State) {
			if s.Disk("a") != nil {
				once.Do(func() { close(ready) })
			}
		}
		member.Watch(look)
		look(member.State())
		select {
		case <-ready:
		case <-ctx.Done():
			t.Fatalf("server %d has no state", n)
		}
		s, err := member.Propose(ctx, start(int(n)))
		if err != nil {
			t.Fatal(err)
		}
		member.mu.Lock()
		member.cfg.OnLease = func(until time.Duration, _ uint64) {
			select {
			case leased <- n:
			default:
			}
		}
		member.mu.Unlock()
		member.Serve(s.Server(n).Incarnation)
		for range 4 {
			callers.Go(func() {
				d := member.State().Disk("a").ID
				for range 25 {
					if _, err := member.Propose(ctx, &metapb.Command{Kind: &metapb.Command_BumpVver{BumpVver: &metapb.BumpVVer{Disk: d[:]}}}); err != nil {
						t.Error(err)
						return
					}
					if _, err := member.ReadIndex(ctx); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	callers.Wait()
	for seen := map[placement.Server]bool{}; len(seen) < 3; {
		select {
		case n := <-leased:
			seen[n] = true
		case <-ctx.Done():
			t.Fatalf("leases of %v only", seen)
		}
	}
	s, err := of(2).ReadIndex(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Disk("a").Resets; got != 3*4*25 {
		t.Errorf("%d commands took effect", got)
	}
	of(g.Status().Leader).GiveUp()
	if _, err := of(2).ReadIndex(ctx); err != nil {
		t.Errorf("after the lead was handed over: %v", err)
	}
	for n := placement.Server(1); n <= 3; n++ {
		if err := of(n).Close(); err != nil {
			t.Error(err)
		}
	}
	w.mu.Lock()
	for id, box := range w.boxes {
		close(box)
		delete(w.boxes, id)
	}
	w.mu.Unlock()
	ports.Wait()
}
