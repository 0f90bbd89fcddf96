package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/replica"
	"petal/placement"
)

// startRetry is how long a start waits before it asks again, when nobody could
// answer.
const startRetry = 200 * time.Millisecond

// ask begins the start: it needs a state that is up to date, so that what the
// brick says is held against what the cluster knows, and not against what this
// server knew when it went down (R14).
func (n *Node) ask() {
	n.group.ReadIndexAsync(func(s *meta.State, err error) {
		if err == nil && s.Server(n.self) == nil {
			err = fmt.Errorf("server %d is not in the agreed state", n.self)
			if s.ClusterID() != (meta.ID{}) {
				n.fail(n.noMember(""))
				return
			}
		}
		if err != nil && n.removed() {
			return
		}
		if err != nil {
			n.later(err, n.ask)
			return
		}
		n.run(func() { n.start(s) })
	})
}

// removed ends a start of which others say that this server has been taken out:
// they won't talk to it, so that it can't learn it from the agreed state.
func (n *Node) removed() bool {
	t, ok := n.net.(*tcp)
	if !ok {
		return false
	}
	who := t.strange()
	if len(who) > 0 {
		n.fail(n.noMember(", says " + strings.Join(who, ", ")))
	}
	return len(who) > 0
}

func (n *Node) noMember(by string) error {
	return &meta.Error{Kind: meta.ErrNotFound, Thing: fmt.Sprintf("server %d", n.self), Why: "it is no member of the cluster any more" + by, Advice: "let it join anew, with an empty directory and brick"}
}

// later tries a step of the start again.
func (n *Node) later(why error, step func()) {
	n.opt.Log.Info("the node cannot start yet", "reason", why)
	n.env.Clock.AfterFunc(startRetry, func() {
		if n.ctx.Err() == nil {
			step()
		}
	})
}

// run runs what waits for the disk where nobody waits for it.
func (n *Node) run(f func()) {
	if n.env.Manual {
		f()
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.busy.Go(f)
	}
}

// start looks at the brick and asks for an incarnation.
func (n *Node) start(s *meta.State) {
	n.setPhase(starting)
	cmd := &metapb.Start{Server: uint32(n.self), Release: meta.Release, Addresses: n.opt.addresses(), Portals: n.opt.Portals,
		TimesPermille: n.opt.timesPermille(), AcceptLoss: n.opt.AcceptLoss}
	var id brick.Identity
	if !n.opt.Witness {
		var err error
		if id, err = n.identify(s, cmd); err != nil {
			n.giveUp(fmt.Errorf("brick %s: %w", n.opt.Bricks[0].Path, err))
			return
		}
	}
	n.agree(cmd, id)
}

// giveUp ends a start. Before that it has the reason written into the events, where
// those see it who wonder what has become of this server.
func (n *Node) giveUp(err error) {
	name := n.opt.Name
	if srv := n.State().Server(n.self); srv != nil {
		name = srv.Name
	}
	n.note("refused", fmt.Sprintf("server %s could not start: %v", name, err), func() { n.fail(err) })
}

// agree gives this process its incarnation. The agreed state has it before the
// brick does, so that a crash in between never makes the brick look newer.
func (n *Node) agree(cmd *metapb.Start, id brick.Identity) {
	n.ProposeAsync(command(cmd), func(s *meta.State, err error) {
		switch {
		case errors.Is(err, meta.ErrNoQuorum):
			n.later(err, func() { n.agree(cmd, id) })
		case err != nil:
			n.fail(err)
		default:
			incarnation := s.Server(n.self).Incarnation
			n.run(func() { n.serve(incarnation, id) })
		}
	})
}

// identify reads whose brick it is and what it bears witness of, and initializes
// what is new. What the agreed state and the brick's superblock say of each other
// has to fit (rule R14): a brick that is missing or foreign means that the disk
// was replaced or is not mounted; the rest is judged by the state machine.
func (n *Node) identify(s *meta.State, cmd *metapb.Start) (id brick.Identity, err error) {
	o := n.brickOptions()
	super, err := brick.Peek(o.FS)
	if err != nil && !errors.Is(err, brick.ErrMissing) {
		return id, err
	}
	srv := s.Server(n.self)
	id = brick.Identity{Cluster: s.ClusterID(), Server: uint32(n.self)}
	switch {
	case super != nil && super.Cluster != id.Cluster:
		return id, &meta.Error{Kind: meta.ErrInUse, Thing: fmt.Sprintf("brick %x", super.Brick), Why: fmt.Sprintf("it belongs to cluster %x, this node to %x", super.Cluster, id.Cluster),
			Advice: "correct the path in the configuration, or give the node an empty directory"}
	case super != nil && super.Server != id.Server:
		return id, &meta.Error{Kind: meta.ErrInUse, Thing: fmt.Sprintf("brick %x", super.Brick), Why: fmt.Sprintf("it belongs to server %d, this is server %d", super.Server, id.Server),
			Advice: "correct the path in the configuration, or give the node an empty directory"}
	case super != nil && len(srv.Bricks) > 0 && srv.Bricks[0] != meta.ID(super.Brick) && !n.opt.AcceptLoss:
		return id, &meta.Error{Kind: meta.ErrInvalid, Thing: fmt.Sprintf("brick %x", super.Brick), Why: fmt.Sprintf("this node's brick is %x", srv.Bricks[0][:]),
			Advice: "correct the path in the configuration; `petal serve --accept-loss` takes an empty brick in place of one that is lost"}
	case super != nil:
		id.Brick = super.Brick
		cmd.Witnessed = uint64(super.Incarnation)
		for link, mark := range sortedLinks(super.Links) {
			cmd.Links = append(cmd.Links, &metapb.SeenLink{Gmap: link.GMap, Position: link.Position, Ver: mark.Ver})
		}
	case len(srv.Bricks) > 0 && !n.opt.AcceptLoss:
		return id, &meta.Error{Kind: meta.ErrNotFound, Thing: fmt.Sprintf("brick %x", srv.Bricks[0][:]), Why: "the node has kept its data there before",
			Advice: "mount the disk that holds it, or correct the path in the configuration; if it is lost for good, `petal serve --accept-loss` begins with an empty one (the only whole copy that it held is of " + s.DisksOnlyOn(n.self) + ")"}
	default:
		id.Brick = n.newID()
		if err := brick.Create(o, id); err != nil {
			return id, err
		}
	}
	cmd.Bricks, cmd.HasWitness = [][]byte{id.Brick[:]}, true
	return id, nil
}

func (n *Node) brickOptions() brick.Options {
	b, e := n.opt.Bricks[0], n.env.Bricks[0]
	o := brick.Options{FS: e.FS, MapFS: e.MapFS, Path: e.Path, Pool: n.pool, Cache: n.cache, JournalBytes: b.Journal, SegmentBytes: b.Segment, CapacityBytes: b.Capacity,
		DoneFor: 4 * n.opt.Times.Lease, AcceptLoss: n.opt.AcceptLoss, HoldPrepared: true, OnLost: n.bearable, OnFail: n.brickFailed, Manual: n.env.Manual, Now: n.brickClock(), Log: n.opt.Log.With("brick", b.Path)}
	if n.opt.brick != nil {
		n.opt.brick(&o)
	}
	return o
}

// brickClock is the calendar in a simulator, which has its own.
func (n *Node) brickClock() func() time.Time {
	if n.env.Manual {
		return func() time.Time { return time.Unix(0, int64(n.env.Clock.Now())) }
	}
	return nil
}

// serve opens the brick under the process's incarnation and begins to serve.
func (n *Node) serve(incarnation uint64, id brick.Identity) {
	n.setPhase(opening)
	var h *here
	if !n.opt.Witness {
		s, err := n.openStorage(incarnation, id)
		if err != nil {
			n.giveUp(fmt.Errorf("brick %s: %w", n.opt.Bricks[0].Path, err))
			return
		}
		h = &here{s.replica, s.brick}
	}
	if n.net != nil { // not before: who is told that we are up sends what must not get lost
		n.net.SetIncarnation(incarnation)
	}
	n.mu.Lock()
	if n.closed || n.failure != nil {
		n.mu.Unlock()
		return
	}
	n.phase, n.incarnation, n.recovery = serving, incarnation, n.env.Clock.Now()-n.began
	close(n.ready)
	n.mu.Unlock()
	n.coord.start(incarnation, h)
	n.group.Serve(incarnation)
	n.destage()
	if st := n.store.Load(); st != nil && st.brick.Failed() != nil { // before it could be told of
		n.tellFailed(st.brick.Failed())
	}
	n.confirm(incarnation)
	n.resume()
}

// openStorage opens the brick and the replicas on it. Its superblock bears
// witness of this start before anything is served.
func (n *Node) openStorage(incarnation uint64, id brick.Identity) (*storage, error) {
	o := n.brickOptions()
	o.Cluster, o.Server = id.Cluster, id.Server
	b, rec, err := brick.Open(o)
	if err != nil {
		return nil, err
	}
	n.opt.Log.Info("brick open", "took", rec.Took, "replayed", rec.Replayed, "verified", rec.Verified, "torn", rec.Torn, "lost", len(rec.Lost),
		"prepared", len(rec.Prepared), "entries", rec.Entries)
	if err := b.UpdateSuper(func(s *brick.Super) error { s.Incarnation = uint32(incarnation); return nil }); err != nil {
		b.Close()
		return nil, err
	}
	s := &storage{brick: b}
	c := replica.Config{FillRate: n.opt.ResyncRate, Self: n.self, Incarnation: incarnation, Store: b, Recovery: rec, Pool: n.pool, Cache: n.cache, Clock: n.env.Clock, Times: n.opt.Times,
		Propose: n.proposeLink, Log: n.opt.Log}
	if n.net != nil {
		c.Transport = n.net
	}
	s.replica = replica.New(c)
	n.applying.Lock()
	defer n.applying.Unlock()
	n.store.Store(s)
	s.replica.Apply(n.State())
	for _, p := range n.up.list() {
		s.replica.Up(p.server, p.incarnation)
	}
	if l := n.leaseNow(); l.until != 0 {
		s.replica.SetLease(l.until, l.index)
	}
	return s, nil
}

// bearable says whether the node may serve a brick whose journal has lost
// acknowledged writes. It is asked before any of the rest is undone. Those of a bucket that others have in sync come back when
// its link opens (R10): the brick knows where its knowledge ends. Nobody can give
// back the others, and to serve what those blocks held before would be silent.
func (n *Node) bearable(rec *brick.Recovery) error {
	if n.opt.AcceptLoss {
		rec.GivenUp = n.lone()
		return nil
	}
	alone := 0
	for _, g := range rec.Gaps {
		if n.State().Link(g.Link).InSync.Len() < 2 {
			alone++
		}
	}
	if rec.LostUnknown == 0 && alone == 0 {
		n.opt.Log.Warn("the journal has lost writes, all of which other nodes have", "buckets", len(rec.Gaps))
		return nil
	}
	return &meta.Error{Kind: meta.ErrInvalid, Thing: "the brick's journal", Why: fmt.Sprintf("acknowledged writes have rotted before they came home (records %d to %d), and which blocks they were is not known", rec.Lost[0].From, rec.Lost[len(rec.Lost)-1].To),
		Advice: "where the disks are mirrored, put an empty directory in the brick's place: it is filled from the others (`petal serve --accept-loss` takes it); else restore them from a backup, or `petal serve --accept-loss` serves what those blocks held before"}
}

// lone returns the links of which this server alone is in sync: what its brick has
// lost of them nobody can give back.
func (n *Node) lone() (links []brick.GivenUp) {
	s := n.State()
	for _, id := range s.LinksOf(n.self) {
		m, _ := s.MemberOf(id, n.self)
		l, self := s.Link(id), placement.Members(0).With(m)
		if l.InSync == self {
			links = append(links, brick.GivenUp{Link: id, Ver: l.Ver, Lacking: placement.MembersOf(len(s.LinkServers(id))) &^ self})
		}
	}
	return links
}

// destageEvery is how often a Manual node's brick is brought home: what is at
// least so old, or as much as the journal needs to be half empty.
const destageEvery = 500 * time.Millisecond

// destage does for a Manual brick what its own goroutine does otherwise.
func (n *Node) destage() {
	st := n.store.Load()
	if !n.env.Manual || st == nil {
		return
	}
	n.env.Clock.AfterFunc(destageEvery, func() {
		if n.ctx.Err() != nil || st.brick.Failed() != nil {
			return
		}
		age := destageEvery
		if used, capacity := st.brick.JournalFill(); used >= capacity/2 {
			age = 0
		}
		for st.brick.StepDestage(age) {
		}
		_ = st.brick.StepFlushMap() // a failure has failed the brick
		n.destage()
	})
}

// confirm says that the brick bears witness of this start (R14).
func (n *Node) confirm(incarnation uint64) {
	if n.opt.Witness {
		return
	}
	n.ProposeAsync(command(&metapb.Confirm{Server: uint32(n.self), Incarnation: incarnation}), func(_ *meta.State, err error) {
		if errors.Is(err, meta.ErrNoQuorum) {
			n.later(err, func() { n.confirm(incarnation) })
		} else if err != nil {
			n.opt.Log.Error("the start could not be confirmed", "error", err)
		}
	})
}

func (n *Node) setPhase(p phase) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.phase = p
}

// proposeLink has a change of a link agreed on. It is called again until the
// change shows.
func (n *Node) proposeLink(p replica.Proposal) {
	// Whoever calls may be in the middle of being told something by the group.
	n.env.Clock.AfterFunc(0, func() { n.proposeLinkNow(p) })
}

func (n *Node) proposeLinkNow(p replica.Proposal) {
	gmap, pos, member := p.Link.GMap, p.Link.Position, uint32(p.Member)
	var cmd *metapb.Command
	switch p.Kind {
	case replica.Rejoined:
		cmd = command(&metapb.Rejoined{Gmap: gmap, Position: pos, Ver: p.Ver, Member: member})
	case replica.Filled:
		cmd = command(&metapb.Filled{Gmap: gmap, Position: pos, Member: member, Incarnation: n.incarnationNow(), Ver: p.Ver})
	case replica.Fenced:
		cmd = command(&metapb.FenceConfirm{Gmap: gmap, Position: pos, Ver: p.Ver, Member: member})
	case replica.Complain:
		self, _ := n.State().MemberOf(p.Link, n.self)
		n.group.Complain(p.Link, p.Ver, self, p.Member)
		return
	case replica.Slow:
		self, _ := n.State().MemberOf(p.Link, n.self)
		n.group.ComplainSlow(p.Link, p.Ver, self, p.Member)
		return
	case replica.Reopen:
		cmd = command(&metapb.Reopen{Server: uint32(n.self), Incarnation: n.incarnationNow(), Gmap: gmap, Position: pos, Ver: p.Ver})
	}
	n.ProposeAsync(cmd, func(_ *meta.State, err error) {
		if err != nil {
			n.opt.Log.Info("a change of a link was not agreed on", "link", p.Link, "change", p.Kind, "error", err)
		}
	})
}

func (n *Node) incarnationNow() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.incarnation
}

// brickFailed notes that the brick is gone for good, here and in the agreed state.
// Its links go to other members.
func (n *Node) brickFailed(err error) {
	n.opt.Log.Error("brick failed; the node keeps serving what it can", "error", err)
	n.env.Clock.AfterFunc(0, func() { n.tellFailed(err) })
}

func (n *Node) tellFailed(why error) {
	if n.ctx.Err() != nil {
		return
	}
	incarnation := n.incarnationNow()
	if incarnation == 0 {
		return // it is just being opened: the start fails
	}
	n.ProposeAsync(command(&metapb.BrickFailed{Server: uint32(n.self), Incarnation: incarnation, Why: strings.ToValidUTF8(why.Error(), "?")}), func(_ *meta.State, err error) {
		if errors.Is(err, meta.ErrNoQuorum) {
			n.env.Clock.AfterFunc(startRetry, func() { n.tellFailed(why) })
		} else if err != nil {
			n.opt.Log.Error("the cluster could not be told that the brick has failed", "error", err)
		}
	})
}

// healthy says whether this server may ask for a lease: one must not outlive the
// data path (DESIGN A.2). Each time it asks the brick for a flush, unless the last
// one is still under way; if that takes twice a lease, the disk stands still.
func (n *Node) healthy() bool {
	st, now := n.store.Load(), n.env.Clock.Now()
	if st == nil {
		return true
	}
	if since := n.flushing.Load(); since != 0 {
		return now-time.Duration(since) < 2*n.opt.Times.Lease
	}
	n.flushing.Store(int64(now))
	st.brick.Flush(func(error) { n.flushing.Store(0) }) // one that has failed is excluded by its links
	return true
}

// sortedLinks yields the marks of a superblock in order.
func sortedLinks(m map[placement.LinkID]brick.LinkMark) func(func(placement.LinkID, brick.LinkMark) bool) {
	return func(yield func(placement.LinkID, brick.LinkMark) bool) {
		for _, id := range sortedKeys(m) {
			if !yield(id, m[id]) {
				return
			}
		}
	}
}
