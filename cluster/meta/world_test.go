package meta

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"petal/cluster/meta/metapb"
	"petal/cluster/times"
	"petal/journal/vfs"
	"petal/placement"
)

// world is some groups with virtual clocks, disks and a network between them, all
// from one seed and on one goroutine.
type world struct {
	t     testing.TB
	rnd   *rand.Rand
	now   time.Duration
	queue events
	seq   int
	hosts map[placement.Server]*host
	times times.Times
	loss  float64                        // of messages
	delay func() time.Duration           // of messages
	disk  func() time.Duration           // of a write
	cut   map[[2]placement.Server]bool   // from, to
	drift func(placement.Server) float64 // clock rate
	log   bytes.Buffer
	check func() // after every event
	seen  func(from, to placement.Server, body []byte)
}

type event struct {
	at  time.Duration
	seq int
	f   func()
}

type events []*event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// host is one server: its disk outlives its processes.
type host struct {
	w           *world
	id          placement.Server
	fs          *vfs.Memory
	group       *Group
	process     int // counts processes; messages and timers of earlier ones are void
	writing     bool
	rate        float64
	until       time.Duration // of the lease, by its own clock
	index       uint64        // it counts from
	lapses      int
	incarnation uint64
	starting    bool
	applied     *State // as its watchers know it
	healthy     bool
	slow        time.Duration // of its disk's writes; 0: as the world's
	jump        time.Duration // of its calendar
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), hosts: map[placement.Server]*host{}, times: times.Default(),
		cut: map[[2]placement.Server]bool{}, drift: func(placement.Server) float64 { return 1 }}
	w.delay = func() time.Duration {
		return 50*time.Microsecond + time.Duration(w.rnd.Int64N(int64(400*time.Microsecond)))
	}
	w.disk = func() time.Duration {
		return 100*time.Microsecond + time.Duration(w.rnd.Int64N(int64(time.Millisecond)))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, at %v", seed, w.now)
			if b := w.log.Bytes(); len(b) > 0 {
				t.Logf("log:\n%s", b[max(0, len(b)-8000):])
			}
		}
	})
	return w
}

func (w *world) after(d time.Duration, f func()) *event {
	w.seq++
	e := &event{at: w.now + max(d, 0), seq: w.seq, f: f}
	heap.Push(&w.queue, e)
	return e
}

// step runs one event.
func (w *world) step() bool {
	if len(w.queue) == 0 {
		return false
	}
	e := heap.Pop(&w.queue).(*event)
	w.now = e.at
	if e.f != nil {
		e.f()
	}
	w.writeDisks()
	if w.check != nil {
		w.check()
	}
	return true
}

func (w *world) run(d time.Duration) {
	end := w.now + d
	for len(w.queue) > 0 && w.queue[0].at <= end {
		w.step()
	}
	w.now = end
}

// until runs until ok, at most for d.
func (w *world) until(d time.Duration, what string, ok func() bool) {
	w.t.Helper()
	end := w.now + d
	for !ok() {
		if len(w.queue) == 0 || w.queue[0].at > end {
			w.t.Fatalf("%v passed and still not: %s\n%s", d, what, w.describe())
		}
		w.step()
	}
}

func (w *world) describe() string {
	var b bytes.Buffer
	for id := placement.Server(1); int(id) <= 16; id++ {
		h := w.hosts[id]
		if h == nil || h.group == nil {
			continue
		}
		st := h.group.Status()
		fmt.Fprintf(&b, "server %d: leader %d term %d applied %d voters %v learners %v lease until %v now %v err %v\n", id, st.Leader, st.Term, st.Applied, st.Conf.Voters, st.Conf.Learners, h.until, h.Now(), st.Err)
	}
	return b.String()
}

// writeDisks schedules what journals have to write.
func (w *world) writeDisks() {
	for id := placement.Server(1); int(id) <= 16; id++ {
		h := w.hosts[id]
		if h == nil || h.group == nil || h.writing {
			continue
		}
		h.writing = true
		p, took := h.process, w.disk()
		if h.slow > 0 {
			took = h.slow
		}
		w.after(took, func() {
			if h.process != p {
				return
			}
			h.writing = false
			h.group.Step()
		})
	}
}

func (h *host) Now() time.Duration {
	return time.Duration(float64(h.w.now)*h.rate) + time.Duration(h.id)*time.Hour
}

type hostTimer struct{ e *event }

func (t hostTimer) Stop() bool {
	was := t.e.f != nil
	t.e.f = nil
	return was
}

func (h *host) AfterFunc(d time.Duration, f func()) times.Timer {
	p := h.process
	var e *event
	e = h.w.after(time.Duration(float64(d)/h.rate), func() {
		e.f = nil
		if h.process == p && h.group != nil {
			f()
		}
	})
	return hostTimer{e}
}

func (h *host) Send(to placement.Server, body []byte) bool {
	w, p := h.w, h.process
	if w.seen != nil {
		w.seen(h.id, to, body)
	}
	if w.rnd.Float64() < w.loss {
		return true
	}
	if len(body) > MaxMessage {
		w.t.Errorf("a message of %d bytes", len(body))
	}
	w.after(w.delay(), func() {
		dst := w.hosts[to]
		if dst == nil || dst.group == nil || h.process != p || w.cut[[2]placement.Server{h.id, to}] {
			return
		}
		dst.group.Receive(h.id, body)
	})
	return true
}

func (w *world) host(id placement.Server) *host {
	h := w.hosts[id]
	if h == nil {
		h = &host{w: w, id: id, fs: vfs.NewMemory(256 << 20), rate: w.drift(id), healthy: true}
		w.hosts[id] = h
	}
	return h
}

// open starts a process on a host.
func (w *world) open(id placement.Server) *host {
	w.t.Helper()
	h := w.host(id)
	h.process++
	h.writing, h.starting, h.until, h.index, h.incarnation, h.applied = false, false, 0, 0, 0, nil
	g, err := OpenGroup(w.config(h))
	if err != nil {
		w.t.Fatalf("server %d: %v", id, err)
	}
	h.group = g
	g.Watch(func(s *State) { h.applied = s })
	return h
}

func (w *world) config(h *host) Config {
	return Config{FS: h.fs, Dir: "meta", Self: h.id, Clock: h, Times: w.times, Transport: h, Rand: rand.New(rand.NewPCG(w.rnd.Uint64(), uint64(h.id))), Manual: true,
		Wall:    func() time.Time { return time.Unix(1_800_000_000, 0).Add(h.Now() + h.jump) },
		Healthy: func() bool { return h.healthy },
		OnLease: func(until time.Duration, index uint64) {
			h.until, h.index = until, index
			if until == 0 {
				h.lapses++
				return
			}
			if h.applied == nil && h.group != nil {
				h.applied = h.group.State()
			}
			if h.applied != nil && h.applied.Index() < index {
				w.t.Errorf("server %d counts a lease from %d and its watchers know %d (M15)", h.id, index, h.applied.Index())
			}
		},
		Log:     slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
		segment: 1 << 20, capacity: 8 << 20}
}

// crash ends a host's process; what was not synced is lost or torn.
func (w *world) crash(id placement.Server) {
	h := w.hosts[id]
	h.group = nil
	h.process++
	h.until = 0
	h.fs.Stop(errors.New("power cut"))
	h.fs = h.fs.Crash(w.rnd.Uint64())
}

func (w *world) propose(id placement.Server, cmd *metapb.Command) (*State, error) {
	w.t.Helper()
	type result struct {
		s   *State
		err error
	}
	var r *result
	w.hosts[id].group.ProposeAsync(cmd, func(s *State, err error) { r = &result{s, err} })
	w.until(10*time.Second, "an answer to "+cmd.String(), func() bool { return r != nil })
	return r.s, r.err
}

func (w *world) must(id placement.Server, cmd *metapb.Command) *State {
	w.t.Helper()
	s, err := w.propose(id, cmd)
	if err != nil {
		w.t.Fatalf("%v: %v", cmd, err)
	}
	return s
}

func (w *world) leader() placement.Server {
	best, term := placement.Server(0), uint64(0)
	for id, h := range w.hosts {
		if h.group == nil {
			continue
		}
		if st := h.group.Status(); st.Leader == id && st.Term > term {
			best, term = id, st.Term
		}
	}
	return best
}

// bootstrap makes a cluster of server 1.
func (w *world) bootstrap() {
	w.t.Helper()
	h := w.open(1)
	id := ID{0xc1}
	if err := h.group.Bootstrap(&metapb.Init{ClusterId: id[:], ServerName: "n1", Addresses: []string{"h1:1"}, Release: Release, Site: "s1"}); err != nil {
		w.t.Fatal(err)
	}
	h.applied = h.group.State()
	w.begin(1)
}

// begin gives a host's process its incarnation and has it ask for leases.
func (w *world) begin(id placement.Server) {
	w.t.Helper()
	s := w.must(id, &metapb.Command{Kind: &metapb.Command_Start{Start: &metapb.Start{Server: uint32(id), Release: Release}}})
	h := w.hosts[id]
	h.incarnation = s.Server(id).Incarnation
	h.group.Serve(h.incarnation)
}

// join adds a server and waits until it has the state.
func (w *world) join(id placement.Server, kind metapb.ServerKind) {
	w.t.Helper()
	s := w.must(1, &metapb.Command{Kind: &metapb.Command_Join{Join: &metapb.Join{Name: fmt.Sprintf("n%d", id), Kind: kind, Release: Release, Addresses: []string{fmt.Sprintf("h%d:1", id)}, Site: fmt.Sprintf("s%d", id%3)}}})
	if got := s.ServerByName(fmt.Sprintf("n%d", id)).ID; got != id {
		w.t.Fatalf("the newcomer is server %d, want %d", got, id)
	}
	h := w.open(id)
	w.until(20*time.Second, fmt.Sprintf("server %d has the state", id), func() bool { return h.group.State().ClusterID() != ID{} })
	w.begin(id)
}

func (w *world) voters(n int) {
	w.t.Helper()
	w.until(30*time.Second, fmt.Sprintf("%d voters", n), func() bool {
		l := w.leader()
		if l == 0 {
			return false
		}
		c := w.hosts[l].group.State().Conf()
		return len(c.Voters) == n && !c.Joint()
	})
}

func disk(name string, id byte) *metapb.Command { return createCmd(name, id, "") }

func TestThreeGroups(t *testing.T) {
	w := newWorld(t, 1)
	w.bootstrap()
	w.join(2, metapb.ServerKind_DATA)
	w.join(3, metapb.ServerKind_DATA)
	w.voters(3)
	for id := placement.Server(1); id <= 3; id++ {
		w.must(id, disk(fmt.Sprintf("d%d", id), byte(id)))
	}
	w.until(time.Second, "all have all disks", func() bool {
		for _, h := range w.hosts {
			if len(h.group.State().Disks()) != 3 {
				return false
			}
		}
		return true
	})
	// A refusal comes back with its words, also from a follower.
	_, err := w.propose(3, disk("d1", 9))
	if !errors.Is(err, ErrExists) || HintOf(err) == "" {
		t.Fatalf("a name taken, from a follower: %v", err)
	}
	w.until(5*time.Second, "all have leases", func() bool {
		for _, h := range w.hosts {
			if _, ok := h.group.Lease(); !ok {
				return false
			}
		}
		return true
	})
	for round := range 6 {
		lead := w.leader()
		victim := placement.Server(round%3 + 1)
		if round == 5 {
			victim = lead
		}
		w.crash(victim)
		other := victim%3 + 1
		w.until(5*time.Second, "another leader", func() bool { l := w.leader(); return l != 0 && l != victim })
		w.must(other, disk(fmt.Sprintf("r%d", round), byte(20+round)))
		w.open(victim)
		w.begin(victim)
		w.until(5*time.Second, "the victim has caught up", func() bool {
			return w.hosts[victim].group.State().Disk(fmt.Sprintf("r%d", round)) != nil
		})
	}
	w.run(5 * time.Second)
	w.sameState()
}

// sameState checks that all groups have the same state.
func (w *world) sameState() {
	w.t.Helper()
	w.until(5*time.Second, "all are at the same index", func() bool {
		var at []uint64
		for _, h := range w.hosts {
			if h.group != nil {
				at = append(at, h.group.State().Index())
			}
		}
		for _, i := range at {
			if i != at[0] {
				return false
			}
		}
		return true
	})
	want := ""
	for id, h := range w.hosts {
		if h.group == nil {
			continue
		}
		got := encoded(h.group.State())
		if want == "" {
			want = got
		}
		if got != want {
			w.t.Errorf("server %d has another state", id)
		}
	}
}

// TestGroupForReal runs a group with a journal and goroutines of its own.
func TestGroupForReal(t *testing.T) { synctest.Test(t, groupForReal) }

func groupForReal(t *testing.T) {
	fs := vfs.NewMemory(64 << 20)
	cfg := Config{FS: fs, Dir: "meta", Self: 1, Clock: bubbleClock{time.Now().Add(-time.Hour)}, Times: times.Default(), Transport: nobody{}, Rand: rand.New(rand.NewPCG(1, 1)), Wall: time.Now}
	g, err := OpenGroup(cfg)
	if err != nil {
		t.Fatal(err)
	}
	id := ID{1}
	if _, err := g.Propose(context.Background(), disk("a", 1)); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a command before there is a cluster: %v", err)
	}
	if err := g.Bootstrap(&metapb.Init{ClusterId: id[:], ServerName: "n1", Release: Release}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Propose(context.Background(), disk("a", 1)); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if g, err = OpenGroup(cfg); err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s, err := g.ReadIndex(context.Background())
	if err != nil || s.Disk("a") == nil {
		t.Fatalf("after a restart: %v, %v", s.Disks(), err)
	}
}

type nobody struct{}

func (nobody) Send(placement.Server, []byte) bool { return false }
