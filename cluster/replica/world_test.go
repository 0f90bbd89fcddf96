package replica

import (
	"container/heap"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/slab"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// world is a few servers in one thread: a virtual clock, a network that encodes
// and decodes, disks in memory, and an oracle in raft's place. All chance comes
// from one seed.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Duration
	queue events
	seq   uint64
	nodes []*node // by server id - 1
	gmap  *placement.GMap
	index uint64
	links []linkView // as agreed; self is of no meaning
	disks map[diskKey]*diskView
	auto  bool // proposals are agreed to
	asked []Proposal
	cutOf map[[2]placement.Server]bool
	drop  func(from, to placement.Server, m *wire.Message) bool // tests lose messages
	sent  map[wire.Kind]int
	opNo  uint64
	lends bool // memory may be left with a record that nobody decides
	idle  bool // the present event was a disk that had nothing to do
	lanes map[[3]uint32]time.Duration
	epoch map[[2]placement.Server]int // of the connection of a pair
	up    map[[2]placement.Server]bool
	pools []*slab.Pool // of all lives
}

type event struct {
	at  time.Duration
	seq uint64
	f   func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	n := len(*q) - 1
	x := (*q)[n]
	*q = (*q)[:n]
	return x
}

// node is a server of the world, perhaps down.
type node struct {
	w       *world
	id      placement.Server
	disk    *brick.Disk
	brick   *brick.Brick
	pool    *slab.Pool
	s       *Server
	life    uint64 // incarnation; a timer or message of an earlier life is void
	alive   bool
	stepper bool
	slow    time.Duration // each disk step takes so long
	noLease bool
	frozen  bool // takes no new states
	holds   bool // what is read now is handed over by release
	held    []func()
	waits   map[placement.OpID]func(*wire.Message) // of the coordinator here
}

func (w *world) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + d, w.seq, f})
}

// step runs the next event; false if there is none before end.
func (w *world) step(end time.Duration) bool {
	if len(w.queue) == 0 || w.queue[0].at > end {
		w.now = max(w.now, end)
		return false
	}
	e := heap.Pop(&w.queue).(event)
	w.now, w.idle = e.at, false
	e.f()
	if w.idle {
		return true
	}
	for _, n := range w.nodes {
		n.kick()
	}
	return true
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	for end := w.now + d; w.step(end); {
	}
}

// until runs the world until ok, at most for d.
func (w *world) until(what string, d time.Duration, ok func() bool) {
	w.t.Helper()
	for end := w.now + d; !ok(); {
		if !w.step(end) {
			w.t.Fatalf("%s: not after %v; %s", what, d, w.describe())
		}
	}
}

func (w *world) describe() string {
	out := ""
	for _, n := range w.nodes {
		if !n.alive {
			out += fmt.Sprintf("\n  server %d is down", n.id)
			continue
		}
		for _, st := range n.s.Status() {
			out += fmt.Sprintf("\n  server %d link %v: %+v", n.id, st.Link, st)
		}
	}
	return out
}

// clock is a node's, of one life.
type clock struct {
	n    *node
	life uint64
}

func (c clock) Now() time.Duration { return c.n.w.now }

type timer struct{ stopped, fired bool }

func (t *timer) Stop() bool {
	ok := !t.fired && !t.stopped
	t.stopped = true
	return ok
}

func (c clock) AfterFunc(d time.Duration, f func()) times.Timer {
	t := &timer{}
	c.n.w.after(d, func() {
		if !t.stopped && c.n.alive && c.n.life == c.life {
			t.fired = true
			f()
		}
	})
	return t
}

// kick has the node's disk do what is waiting, a piece at a time.
func (n *node) kick() {
	if !n.alive || n.stepper {
		return
	}
	n.stepper = true
	life := n.life
	n.w.after(n.slow+time.Duration(20+n.w.rng.IntN(100))*time.Microsecond, func() {
		n.stepper = false
		w := n.w
		w.idle = !n.alive || n.life != life || !n.brick.Step()
	})
}

// transport is a node's, of one life.
type transport struct {
	n    *node
	life uint64
}

func (t transport) Send(to placement.Server, m *wire.Message) bool {
	w := t.n.w
	dst := w.node(to)
	if !t.n.alive || t.n.life != t.life || !w.connected(t.n, dst) {
		return false
	}
	m.Sent = w.now
	frame, err := m.AppendFrame(nil)
	if err != nil {
		w.t.Fatalf("server %d sends %v: %v", t.n.id, m, err)
	}
	w.sent[m.Kind]++
	if w.drop != nil && w.drop(t.n.id, to, m) {
		return true
	}
	a, b := t.n.life, dst.life
	class := m.Kind.Class()
	lane := [3]uint32{uint32(t.n.id), uint32(to), uint32(class)}
	at := max(w.now+time.Duration(50+w.rng.IntN(200))*time.Microsecond, w.lanes[lane])
	w.lanes[lane] = at
	epoch := w.epoch[pair(t.n.id, to)]
	w.after(at-w.now, func() {
		if t.n.life != a || !dst.alive || dst.life != b || w.epoch[pair(t.n.id, to)] != epoch {
			return // lost with the connection
		}
		var got wire.Message
		if _, err := got.DecodeFrame(frame, dst.pool); err != nil {
			w.t.Fatalf("server %d gets %v: %v", to, m, err)
		}
		got.Age = w.now - got.Sent
		dst.receive(t.n.id, a, &got)
		got.Data.Release()
	})
	return true
}

func (n *node) receive(from placement.Server, incarnation uint64, m *wire.Message) {
	switch m.Kind {
	case wire.Reply, wire.CancelReply, wire.MappedReply, wire.FlushReply:
		if f := n.waits[m.Op]; f != nil {
			delete(n.waits, m.Op)
			f(m)
		}
	default:
		n.s.Receive(from, incarnation, m)
	}
}

func pair(a, b placement.Server) [2]placement.Server {
	return [2]placement.Server{min(a, b), max(a, b)}
}

func (w *world) node(id placement.Server) *node { return w.nodes[id-1] }

func (w *world) connected(a, b *node) bool {
	return a.alive && b.alive && !w.cutOf[pair(a.id, b.id)] && w.up[pair(a.id, b.id)]
}

// wires brings connections up and down as nodes and cuts have it.
func (w *world) wires() {
	for _, a := range w.nodes {
		for _, b := range w.nodes[a.id:] {
			p := pair(a.id, b.id)
			want := a.alive && b.alive && !w.cutOf[p]
			if want == w.up[p] {
				continue
			}
			w.up[p] = want
			w.epoch[p]++
			for _, x := range [][2]*node{{a, b}, {b, a}} {
				if !x[0].alive {
					continue
				}
				if want {
					x[0].s.Up(x[1].id, x[1].life)
				} else {
					x[0].s.Down(x[1].id)
				}
			}
		}
	}
}

// cut and heal part two servers and connect them again.
func (w *world) cut(a, b placement.Server) { w.cutOf[pair(a, b)] = true; w.wires() }
func (w *world) heal(a, b placement.Server) {
	delete(w.cutOf, pair(a, b))
	w.wires()
}

const testFamily, testNode = placement.Family(7), placement.Node(1)

var diskKey1 = diskKey{testFamily, testNode}

// oneThread leaves out a test that takes long where only races are looked for
// (make race, -short): a world runs in one thread. make unit runs it.
func oneThread(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("one thread, in which nothing races: make unit runs it")
	}
}

// newWorld returns n servers that run, with one virtual disk spread over them by
// a scheme, all in sync.
func newWorld(t *testing.T, seed uint64, n int, scheme placement.Scheme) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), index: 1, auto: true, cutOf: map[[2]placement.Server]bool{}, sent: map[wire.Kind]int{},
		lanes: map[[3]uint32]time.Duration{}, epoch: map[[2]placement.Server]int{}, up: map[[2]placement.Server]bool{}, now: time.Hour,
	}
	var places []placement.Place
	for i := range n {
		places = append(places, placement.Place{Server: placement.Server(i + 1)})
		w.nodes = append(w.nodes, &node{w: w, id: placement.Server(i + 1), disk: brick.NewDisk(1 << 30)})
	}
	var err error
	if w.gmap, err = placement.New(1, scheme, places); err != nil {
		t.Fatal(err)
	}
	for p := range w.gmap.Ring {
		servers := w.gmap.Members(uint32(p))
		w.links = append(w.links, linkView{
			id: placement.LinkID{GMap: 1, Position: uint32(p)}, servers: servers,
			config: placement.Config{Ver: 1, InSync: placement.MembersOf(len(servers))},
		})
	}
	w.disks = map[diskKey]*diskView{diskKey1: {vver: 1, lineage: []placement.Node{testNode}, gmap: w.gmap}}
	for _, n := range w.nodes {
		o := n.options()
		if err := brick.Create(o, brick.Identity{Cluster: [16]byte{1}, Brick: [16]byte{byte(n.id)}, Server: uint32(n.id)}); err != nil {
			t.Fatal(err)
		}
		n.start()
	}
	t.Cleanup(func() {
		if !t.Failed() {
			w.drop = nil
			w.run(20 * time.Millisecond) // commit notices
		}
		for _, n := range w.nodes {
			if n.alive {
				n.s.Close()
				n.audit()
			}
		}
		for _, p := range w.pools {
			if err := p.Discard(); err != nil {
				t.Error(err)
			}
		}
	})
	w.grant()
	return w
}

func (n *node) options() brick.Options {
	n.pool = slab.New(64 << 20)
	n.w.pools = append(n.w.pools, n.pool)
	o := brick.Options{
		Pool: n.pool, JournalBytes: 16 << 20, SegmentBytes: 2 << 20, CapacityBytes: 1 << 30, HoldPrepared: true,
		Now: func() time.Time { return time.Unix(0, int64(n.w.now)) },
	}
	n.disk.Use(&o)
	return o
}

// start starts a server's process: a new incarnation, for which the oracle bumps
// the ver of each link where the server is in sync.
func (n *node) start() {
	w := n.w
	b, rec, err := brick.Open(n.options())
	if err != nil {
		w.t.Fatal(err)
	}
	n.brick, n.alive = b, true
	n.life++
	n.waits = map[placement.OpID]func(*wire.Message){}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("WORLD_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("server", n.id)
	}
	n.s = New(Config{
		Self: n.id, Incarnation: n.life, Store: spy{b, n}, Recovery: rec, Pool: n.pool, Clock: clock{n, n.life}, Times: times.Default(),
		Transport: transport{n, n.life}, Log: log, FillRate: -1,
		Propose: func(p Proposal) { w.propose(n, p) },
	})
	for i := range w.links {
		l := &w.links[i]
		if m := slices.Index(l.servers, n.id); m >= 0 && l.config.InSync.Has(placement.Member(m)) && n.life > 1 {
			l.config.Ver++
		}
	}
	n.home(n.life)
	w.apply()
	w.wires()
}

// home brings home now and then what is in the journal.
func (n *node) home(life uint64) {
	n.w.after(time.Duration(100+n.w.rng.IntN(400))*time.Millisecond, func() {
		if !n.alive || n.life != life {
			return
		}
		for n.brick.StepDestage(0) {
		}
		if err := n.brick.StepFlushMap(); err != nil {
			n.w.t.Fatal(err)
		}
		n.home(life)
	})
}

// stop ends a process; with power, the disk forgets what was not durable.
func (n *node) stop(power bool) {
	n.alive = false
	n.s.Close()
	n.disk = n.disk.Crash(n.w.rng.Uint64())
	n.brick.Kill()
	n.w.wires()
}

// state is what is agreed, for one server.
func (w *world) state(self placement.Server) *view {
	v := &view{index: w.index, disks: map[diskKey]*diskView{}, families: map[placement.Family]uint32{testFamily: w.gmap.ID}, gmaps: map[uint32]*placement.GMap{w.gmap.ID: w.gmap}}
	for k, d := range w.disks {
		x := *d
		v.disks[k] = &x
	}
	for _, l := range w.links {
		if m := slices.Index(l.servers, self); m >= 0 {
			l.self = placement.Member(m)
			v.links = append(v.links, l)
		}
	}
	return v
}

// apply tells everyone, a little later, what is agreed now.
func (w *world) apply() {
	w.index++
	for _, n := range w.nodes {
		if !n.alive {
			continue
		}
		v, life := w.state(n.id), n.life
		var tell func()
		tell = func() {
			switch {
			case !n.alive || n.life != life:
			case n.frozen:
				w.after(10*time.Millisecond, tell)
			default:
				n.s.apply(v)
			}
		}
		w.after(time.Duration(w.rng.IntN(2000))*time.Microsecond, tell)
	}
}

// grant renews the leases for ever.
func (w *world) grant() {
	for _, n := range w.nodes {
		if n.alive && !n.noLease && !n.frozen {
			n.s.SetLease(w.now+2*time.Second, w.index)
		}
	}
	w.after(250*time.Millisecond, w.grant)
}

func (w *world) link(id placement.LinkID) *linkView {
	return &w.links[slices.IndexFunc(w.links, func(l linkView) bool { return l.id == id })]
}

// propose is the oracle's answer to a proposal.
func (w *world) propose(n *node, p Proposal) {
	w.asked = append(w.asked, p)
	l := w.link(p.Link)
	if !w.auto || l.config.Ver != p.Ver {
		return
	}
	switch p.Kind {
	case Rejoined:
		if l.config.InSync.Has(p.Member) {
			l.filling = l.filling.With(p.Member)
			break
		}
		l.config.Ver++
		l.config.InSync = l.config.InSync.With(p.Member)
		l.filling = l.filling.With(p.Member)
		l.blank = l.blank.Without(p.Member)
	case Filled:
		if !l.filling.Has(p.Member) {
			return
		}
		l.filling = l.filling.Without(p.Member)
	case Reopen:
		l.config.Ver++
	default:
		return
	}
	w.apply()
}

// exclude takes a server out of all links where another is in sync, its lease
// being over.
func (w *world) exclude(s placement.Server) {
	for i := range w.links {
		l := &w.links[i]
		m := placement.Member(slices.Index(l.servers, s))
		if !slices.Contains(l.servers, s) || !l.config.InSync.Has(m) || l.config.InSync.Len() == 1 {
			continue
		}
		l.config.Ver++
		l.config.InSync = l.config.InSync.Without(m)
		l.filling = l.filling.Without(m)
		if l.config.Head == m {
			l.config.Head = l.config.InSync.First()
		}
	}
	w.apply()
}

// head is the server that orders a chunk's writes, as agreed.
func (w *world) head(c placement.Chunk) *node {
	l := w.link(w.gmap.LinkOf(placement.BucketOf(testFamily, c)))
	return w.node(l.servers[l.config.Head])
}

// chunkOf returns the i-th chunk whose link is at a position.
func (w *world) chunkOf(position uint32, i int) placement.Chunk {
	for c := placement.Chunk(0); ; c++ {
		if w.gmap.Position(placement.BucketOf(testFamily, c)) == position {
			if i == 0 {
				return c
			}
			i--
		}
	}
}

// audit fails if memory is lent to nobody: all that is closed has given it back.
func (n *node) audit() {
	if n.w.t.Failed() {
		return
	}
	for n.brick.Step() {
	}
	if err := n.brick.Close(); err != nil {
		n.w.t.Error(err)
	}
	if used := n.pool.Stats().InUse; used != 0 && !n.w.lends {
		n.w.t.Errorf("server %d: %d bytes of memory are lent", n.id, used)
	}
}
