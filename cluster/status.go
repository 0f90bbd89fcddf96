package cluster

import (
	"context"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/replica"
	"petal/placement"
)

// Status reports how the node is. It does not block on a disk.
func (n *Node) Status() Status {
	n.mu.Lock()
	st := Status{Incarnation: n.incarnation, Recovery: n.recovery}
	n.mu.Unlock()
	if s := n.store.Load(); s != nil {
		used, avail, total := s.brick.Space()
		jused, jcap := s.brick.JournalFill()
		bs := s.brick.Stats()
		st.Bricks = []BrickStatus{{Path: n.opt.Bricks[0].Path, Failed: s.brick.Failed(), Direct: n.env.Bricks[0].FS.Direct(), Used: used, Available: avail, Total: total,
			JournalUsed: uint64(jused), JournalCapacity: uint64(jcap), ChecksumErrors: bs.BadBlocks}}
	}
	cs := n.cache.Stats()
	st.Cache = CacheStatus{Used: uint64(cs.Bytes), Budget: uint64(cs.Budget), Hits: cs.Hits, Misses: cs.Misses}
	c := &n.coord.counts
	st.Path = PathStatus{Remote: c.remote.Load(), Redirects: c.redirects.Load(), Retries: c.retries.Load(), Cancels: c.cancels.Load(), Expired: c.expired.Load(),
		Hedges: c.hedges.Load(), HedgeWins: c.hedgeWins.Load()}
	return st
}

// Links reports how each link is that this server is a member of.
func (n *Node) Links() []replica.LinkStatus {
	if s := n.store.Load(); s != nil {
		return s.replica.Status()
	}
	return nil
}

// ResyncRate is how many bytes a second this server copies of what it has missed.
func (n *Node) ResyncRate() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.opt.ResyncRate
}

// SetResyncRate changes that, until the next start.
func (n *Node) SetResyncRate(bytesPerSecond int64) {
	n.mu.Lock()
	n.opt.ResyncRate = bytesPerSecond
	n.mu.Unlock()
	if s := n.store.Load(); s != nil {
		s.replica.SetFillRate(bytesPerSecond)
	}
}

// Agreement reports how this server's part in the agreement is.
func (n *Node) Agreement() meta.Status { return n.group.Status() }

// ReportDeath says that a server's process has died: a supervisor's word, so
// that nobody waits for its lease to end.
func (n *Node) ReportDeath(server placement.Server, incarnation uint64) {
	n.group.ReportDead(server, incarnation)
}

// RemoveServer takes a server out of the cluster for good.
func (n *Node) RemoveServer(ctx context.Context, name string) error {
	_, err := n.Propose(ctx, command(&metapb.Leave{Name: name}))
	return err
}

// ForceLink makes a server the only one in sync of a link, though it may lack
// acknowledged writes: for when those who have them are gone for good.
func (n *Node) ForceLink(ctx context.Context, id placement.LinkID, server placement.Server, acceptLoss bool, who string) error {
	m, ok := n.State().MemberOf(id, server)
	if !ok {
		return &meta.Error{Kind: meta.ErrNotFound, Thing: "link " + id.String(), Why: "the server is no member of it", Advice: "see `petal cluster status`"}
	}
	_, err := n.Propose(ctx, command(&metapb.ForceLink{Gmap: id.GMap, Position: id.Position, Member: uint32(m), AcceptLoss: acceptLoss, Who: who}))
	return err
}

// PathStatus counts what this node's commands have met since the start.
type PathStatus struct {
	Remote    uint64 // parts of commands sent to other servers
	Redirects uint64 // sent on to another server by the one that was asked
	Retries   uint64 // sent again after a while
	Cancels   uint64
	Expired   uint64 // parts whose fate was not known when their time was up
	Hedges    uint64 // reads that another copy was asked for too, because the first was late
	HedgeWins uint64 // and answered first
}
