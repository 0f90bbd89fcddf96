package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/replica"
	"petal/cluster/slab"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// bare is a node without package cluster: agreement, links and a brick, and
// the simplest coordinator there can be. It has less to go wrong than a whole
// node, so what it finds is in the layers below, and it runs faster.
type bare struct {
	s     *Sim
	m     *machine
	life  *life
	clock times.Clock
	ends  *endpoint
	pool  *slab.Pool

	cache    *cache.Cache
	brick    *brick.Brick
	recovery *brick.Recovery
	group    *meta.Group
	replica  *replica.Server // nil until started

	incarnation uint64
	starting    bool
	lease       struct {
		until time.Duration
		index uint64
	}
	number uint64
	ops    []*bareOp // under way, oldest first
	rng    *rand.Rand
	failed error
}

// poolBytes is a process's memory for data.
const poolBytes = 32 << 20

func (s *Sim) bootBare(m *machine) (process, error) {
	b := &bare{s: s, m: m, life: m.life, pool: slab.New(poolBytes), clock: &clock{&m.clock, m.life}, rng: rand.New(rand.NewPCG(m.rng.Uint64(), 1))}
	b.ends = s.net.attach(m, m.life, m.id, b.pool, b)
	m.ends = b.ends
	b.cache = cache.New(b.pool, 256<<10)
	if err := b.openBrick(); err != nil {
		return nil, fmt.Errorf("brick: %w", err)
	}
	group, err := meta.OpenGroup(meta.Config{
		FS: m.node.attach(m.life), Dir: "meta", Self: m.id, Clock: b.clock, Times: s.times, Transport: groupTransport{b},
		Rand: rand.New(rand.NewPCG(m.rng.Uint64(), 2)), Wall: m.clock.realtime, Manual: true, OnLease: b.onLease,
		OnFail: func(err error) { b.fail(fmt.Errorf("meta: %w", err)) }, Log: s.logger(m),
	})
	if err != nil {
		return nil, fmt.Errorf("meta: %w", err)
	}
	b.group = group
	group.Watch(b.watch)
	if m.id == 1 && m.boots == 1 {
		id := s.clusterID
		if err := group.Bootstrap(&metapb.Init{ClusterId: id[:], ServerName: "m1", Release: meta.Release, Addresses: []string{"m1"}}); err != nil {
			return nil, err
		}
	}
	var all []placement.Server
	for _, o := range s.machines {
		if o != m {
			all = append(all, o.id)
		}
	}
	b.ends.setPeers(all)
	b.watch(group.State())
	b.tend()
	return b, nil
}

func (b *bare) openBrick() error {
	o := b.s.brickOptions(b.m, b.life, b.pool)
	o.Cache, o.HoldPrepared, o.Now = b.cache, true, b.now
	o.OnFail = func(err error) { b.s.tracef("machine %d: brick failed: %v", b.m.id, err) }
	_, err := brick.Peek(o.FS)
	if errors.Is(err, brick.ErrMissing) || errors.Is(err, fs.ErrNotExist) {
		id := brick.Identity{Cluster: b.s.clusterID, Server: uint32(b.m.id)}
		for i := range id.Brick {
			id.Brick[i] = byte(b.m.rng.Uint32())
		}
		err = brick.Create(o, id)
	}
	if err != nil {
		return err
	}
	b.brick, b.recovery, err = brick.Open(o)
	return err
}

// now is the brick's clock: boot time, as a time.
func (b *bare) now() time.Time { return epoch.Add(b.clock.Now()) }

func (b *bare) fail(err error) {
	if !b.life.over {
		b.failed = err
		b.s.failf("machine %d: %v", b.m.id, err)
	}
}

// tend destages and flushes from time to time.
func (b *bare) tend() {
	b.clock.AfterFunc(500*time.Millisecond, func() {
		for b.brick.Failed() == nil && b.brick.StepDestage(time.Second) {
		}
		used, capacity := b.brick.JournalFill()
		if (b.rng.IntN(8) == 0 || used >= capacity/2) && b.brick.Failed() == nil {
			if err := b.brick.StepFlushMap(); err != nil {
				b.s.tracef("machine %d: map: %v", b.m.id, err)
			}
		}
		b.tend()
	})
}

func (b *bare) step() bool { return b.group.Step() || b.brick.Step() }

func (b *bare) abandon() {
	if b.replica != nil {
		b.replica.Close()
	}
	b.brick.Kill()
	b.pool.Discard()
}

func (b *bare) started() bool      { return b.replica != nil }
func (b *bare) state() *meta.State { return b.group.State() }

func (b *bare) volume() volume {
	if b.replica == nil || b.disk() == nil {
		return nil
	}
	return b
}

func (b *bare) links() []replica.LinkStatus {
	if b.replica == nil {
		return nil
	}
	return b.replica.Status()
}

func (b *bare) propose(cmd *metapb.Command, done func(*meta.State, error)) {
	b.group.ProposeAsync(cmd, done)
}

// watch gets each agreed state.
func (b *bare) watch(st *meta.State) {
	if b.life.over {
		return
	}
	if b.replica != nil {
		b.replica.Apply(st)
	} else if st.Server(b.m.id) != nil && !b.starting {
		b.begin()
	}
}

// begin asks for an incarnation, and starts the replica with it.
func (b *bare) begin() {
	b.starting = true
	super := b.brick.Super()
	start := &metapb.Start{
		Server: uint32(b.m.id), Bricks: [][]byte{super.Brick[:]}, Release: meta.Release, Witnessed: uint64(super.Incarnation), HasWitness: true,
	}
	for _, l := range sortedLinks(super.Links) {
		start.Links = append(start.Links, &metapb.SeenLink{Gmap: l.GMap, Position: l.Position, Ver: super.Links[l].Ver})
	}
	b.group.ProposeAsync(&metapb.Command{Kind: &metapb.Command_Start{Start: start}}, func(st *meta.State, err error) {
		if b.life.over {
			return
		}
		if err != nil {
			if errors.Is(err, meta.ErrOld) {
				b.fail(err)
				return
			}
			b.clock.AfterFunc(100*time.Millisecond, b.begin)
			return
		}
		b.serve(st)
	})
}

func (b *bare) serve(st *meta.State) {
	b.incarnation = st.Server(b.m.id).Incarnation
	b.s.tracef("machine %d: incarnation %d", b.m.id, b.incarnation)
	if err := b.brick.UpdateSuper(func(s *brick.Super) error { s.Incarnation = uint32(b.incarnation); return nil }); err != nil {
		b.s.tracef("machine %d: superblock: %v", b.m.id, err)
		return
	}
	b.replica = replica.New(replica.Config{
		Self: b.m.id, Incarnation: b.incarnation, Store: b.brick, Recovery: b.recovery, Pool: b.pool, Cache: b.cache,
		Clock: b.clock, Times: b.s.times, Transport: b.ends, Propose: b.wish, Log: b.s.logger(b.m),
	})
	b.replica.Apply(b.group.State())
	b.replica.SetLease(b.lease.until, b.lease.index)
	b.ends.SetIncarnation(b.incarnation)
	b.confirm()
}

func (b *bare) confirm() {
	b.group.Serve(b.incarnation)
	b.command(&metapb.Command{Kind: &metapb.Command_Confirm{Confirm: &metapb.Confirm{Server: uint32(b.m.id), Incarnation: b.incarnation}}})
}

func (b *bare) command(cmd *metapb.Command) {
	b.group.ProposeAsync(cmd, func(_ *meta.State, err error) {
		if err != nil {
			b.s.tracef("machine %d: %T: %v", b.m.id, cmd.Kind, err)
		}
	})
}

// wish passes on what the replica wants to be agreed.
func (b *bare) wish(p replica.Proposal) {
	b.s.tracef("machine %d proposes: %v link %v member %d ver %d", b.m.id, p.Kind, p.Link, p.Member, p.Ver)
	switch p.Kind {
	case replica.Rejoined:
		b.command(&metapb.Command{Kind: &metapb.Command_Rejoined{Rejoined: &metapb.Rejoined{Gmap: p.Link.GMap, Position: p.Link.Position, Ver: p.Ver, Member: uint32(p.Member)}}})
	case replica.Filled:
		b.command(&metapb.Command{Kind: &metapb.Command_Filled{Filled: &metapb.Filled{Gmap: p.Link.GMap, Position: p.Link.Position, Member: uint32(p.Member), Incarnation: b.incarnation, Ver: p.Ver}}})
	case replica.Fenced:
		b.command(&metapb.Command{Kind: &metapb.Command_FenceConfirm{FenceConfirm: &metapb.FenceConfirm{Gmap: p.Link.GMap, Position: p.Link.Position, Ver: p.Ver, Member: uint32(p.Member)}}})
	case replica.Reopen:
		b.command(&metapb.Command{Kind: &metapb.Command_Reopen{Reopen: &metapb.Reopen{
			Server: uint32(b.m.id), Incarnation: b.incarnation, Gmap: p.Link.GMap, Position: p.Link.Position, Ver: p.Ver,
		}}})
	case replica.Complain:
		m, ok := b.group.State().MemberOf(p.Link, b.m.id)
		if ok {
			b.group.Complain(p.Link, p.Ver, m, p.Member)
		}
	case replica.Slow:
		if m, ok := b.group.State().MemberOf(p.Link, b.m.id); ok {
			b.group.ComplainSlow(p.Link, p.Ver, m, p.Member)
		}
	}
}

func (b *bare) onLease(until time.Duration, index uint64) {
	if b.life.over {
		return
	}
	b.lease.until, b.lease.index = until, index
	if b.replica != nil {
		b.replica.SetLease(until, index)
	}
}

// Receive, Up and Down are what the transport tells.
func (b *bare) Receive(from placement.Server, incarnation uint64, m *wire.Message) {
	switch {
	case m.Kind == wire.Raft:
		b.group.Receive(from, append([]byte(nil), m.Body...))
	case m.Kind == wire.Reply || m.Kind == wire.CancelReply:
		b.reply(from, m)
	case b.replica != nil:
		b.replica.Receive(from, incarnation, m)
	}
}

func (b *bare) Up(peer placement.Server, incarnation uint64) {
	if b.replica != nil {
		b.replica.Up(peer, incarnation)
	}
}

func (b *bare) Down(peer placement.Server) {
	if b.replica != nil {
		b.replica.Down(peer)
	}
	for _, op := range append([]*bareOp(nil), b.ops...) {
		if op.at == peer {
			op.retry()
		}
	}
}

// groupTransport carries what groups say to each other.
type groupTransport struct{ b *bare }

func (t groupTransport) Send(to placement.Server, body []byte) bool {
	return t.b.ends.Send(to, &wire.Message{Kind: wire.Raft, Body: body})
}

// logger puts a machine's log into the trace.
func (s *Sim) logger(m *machine) *slog.Logger {
	if !s.e.tracing() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(traceWriter{s.e, m.id}, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "took" || a.Key == "elapsed" {
			return slog.Attr{}
		}
		return a
	}}))
}

type traceWriter struct {
	e  *engine
	id placement.Server
}

func (t traceWriter) Write(p []byte) (int, error) {
	t.e.tracef("machine %d: %s", t.id, p[:max(0, len(p)-1)])
	return len(p), nil
}
