package appliance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"petal/appliance/api"
	"petal/appliance/config"
	"petal/cluster/meta"
	"petal/placement"
)

// Bounds of a join token.
const (
	defaultTokenLife = time.Hour
	longestTokenLife = 30 * 24 * time.Hour
	maxTokenUses     = 1000
)

// Quorum reports whether this node has heard from a majority lately; without, what
// it tells of the cluster may be old.
func (a *appliance) Quorum() bool { return a.node.Agreement().Quorum }

func (a *appliance) Nodes(context.Context) ([]api.Node, error) {
	s, agreed := a.node.State(), a.node.Agreement()
	conf := s.Conf()
	out := []api.Node{}
	for _, srv := range s.Servers() {
		n := api.Node{ID: uint32(srv.ID), Name: srv.Name, Kind: srv.Kind.String(), Site: srv.Site, State: "up", Vote: "none", Leader: srv.ID == agreed.Leader,
			Self: srv.ID == a.node.Self(), Incarnation: srv.Incarnation, Release: srv.Release, Addresses: append([]string{}, srv.Addresses...), Portals: []string{}, Joined: srv.Joined}
		for _, p := range srv.Portals {
			if address, _, ok := parseAnnounced(p); ok {
				n.Portals = append(n.Portals, address)
			}
		}
		switch {
		case srv.Leaving:
			n.State = "leaving"
		case srv.Incarnation == 0:
			n.State = "new"
		case !srv.Down.IsZero():
			n.State, n.Since = "down", &srv.Down
		}
		switch {
		case conf.Voter(srv.ID):
			n.Vote = "voter"
		case conf.Learner(srv.ID):
			n.Vote = "learner"
		}
		out = append(out, n)
	}
	return out, nil
}

func (a *appliance) RemoveNode(ctx context.Context, name string) error {
	if a.node.State().ServerByName(name) == nil {
		return notFound("node", name, "petal node list")
	}
	if err := a.changed(a.node.RemoveServer(ctx, name)); err != nil {
		return err
	}
	a.log.Info("node removed", "name", name)
	return nil
}

func (a *appliance) ReportEnd(_ context.Context, name string, incarnation uint64) error {
	srv := a.node.State().ServerByName(name)
	if srv == nil {
		return notFound("node", name, "petal node list")
	}
	a.node.ReportDeath(srv.ID, incarnation)
	a.log.Info("a supervisor reports that a node's process has ended", "name", name, "incarnation", incarnation)
	return nil
}

func (a *appliance) CreateToken(ctx context.Context, t api.NewToken) (api.Token, error) {
	life, uses := time.Duration(t.Seconds)*time.Second, t.Uses
	if t.Seconds == 0 {
		life = defaultTokenLife
	}
	if uses == 0 {
		uses = 1
	}
	if t.Seconds < 0 || t.Seconds > int64(longestTokenLife/time.Second) || uses < 1 || uses > maxTokenUses {
		return api.Token{}, &api.Error{Kind: api.Invalid, Message: fmt.Sprintf("a token for %v and %d uses", life, uses), Advice: fmt.Sprintf("at most %v and %d uses", longestTokenLife, maxTokenUses)}
	}
	if a.conf.Cluster.Listen == "" {
		return api.Token{}, &api.Error{Kind: api.Invalid, Message: "this node has no address for other nodes", Advice: "set cluster.listen in petal.toml, run `petal cluster init`, and start it again"}
	}
	token, expires, err := a.node.CreateToken(ctx, life, uses)
	if err != nil {
		return api.Token{}, refusal(err)
	}
	a.log.Info("join token made", "expires", expires, "uses", uses)
	return api.Token{Token: token, Expires: expires, Uses: uses}, nil
}

func (a *appliance) Links(context.Context) ([]api.Link, error) {
	s := a.node.State()
	out := []api.Link{}
	for _, g := range s.GMaps() {
		disks := []string{}
		for _, d := range s.Disks() {
			if f := s.Family(d.Family); f != nil && f.GMap == g.ID {
				disks = append(disks, d.Name)
			}
		}
		for _, v := range viewLinks(s, g.ID) {
			out = append(out, describeLink(s, v, disks))
		}
	}
	return out, nil
}

func describeLink(s *meta.State, v linkView, disks []string) api.Link {
	l := s.LinkInfo(v.id)
	out := api.Link{ID: v.id.String(), Nodes: []string{}, InSync: []string{}, Version: l.Ver, State: judge([]linkView{v}).State, Disks: disks, Percent: percent(v.buckets)}
	for i, m := range v.members {
		out.Nodes = append(out.Nodes, m.name)
		if m.inSync {
			out.InSync = append(out.InSync, m.name)
		}
		if m.filling {
			out.Filling = append(out.Filling, m.name)
		}
		if placement.Member(i) == l.Head {
			out.Head = m.name
		}
	}
	if out.State != "healthy" && !l.Degraded.IsZero() {
		out.Since = &l.Degraded
	}
	return out
}

// parseLink reads a LinkID as String writes it.
func parseLink(s string) (placement.LinkID, bool) {
	gmap, position, ok := strings.Cut(s, ".")
	g, err1 := strconv.ParseUint(gmap, 10, 32)
	p, err2 := strconv.ParseUint(position, 10, 32)
	return placement.LinkID{GMap: uint32(g), Position: uint32(p)}, ok && err1 == nil && err2 == nil
}

func (a *appliance) ForceLink(ctx context.Context, name string, f api.ForceLink) error {
	s := a.node.State()
	id, ok := parseLink(name)
	members := s.LinkServers(id)
	if !ok || members == nil {
		return notFound("link", name, "petal link list")
	}
	srv := s.ServerByName(f.Node)
	if srv == nil || !slices.Contains(members, srv.ID) {
		return &api.Error{Kind: api.Invalid, Message: fmt.Sprintf("node %q holds nothing of link %s", f.Node, name), Advice: "`petal link list` shows which nodes do"}
	}
	if !f.AcceptLoss {
		return &api.Error{Kind: api.Invalid, Message: fmt.Sprintf("taking the copy of %s for the truth loses the writes that it has not seen", f.Node), Advice: "start the nodes that are in sync, or accept the loss"}
	}
	if err := a.changed(a.node.ForceLink(ctx, id, srv.ID, true, "admin socket of "+a.conf.Node.Name)); err != nil {
		return err
	}
	a.log.Warn("link forced", "link", name, "node", f.Node)
	return nil
}

func (a *appliance) Events(_ context.Context, after uint64) ([]api.Event, error) {
	s := a.node.State()
	out := []api.Event{}
	for _, e := range s.Events() {
		if e.Number <= after {
			continue
		}
		x := api.Event{Number: e.Number, Time: e.Time, Kind: e.Kind, Text: e.Text}
		if e.Server != 0 {
			x.Node = s.NameOf(e.Server)
		}
		out = append(out, x)
	}
	return out, nil
}

func (a *appliance) Throttle(_ context.Context, rate int64) error {
	a.node.SetResyncRate(rate)
	a.log.Info("resync rate", "bytes_per_second", rate)
	return nil
}

func (a *appliance) Cut(_ context.Context, on bool) error {
	if a.cut == nil {
		return &api.Error{Kind: api.Invalid, Message: "this node has no connections to others that could be cut", Advice: "only nodes of a cluster that talk TLS have (not cluster.plain)"}
	}
	a.cut.set(on)
	a.log.Warn("connections to other nodes", "cut", on)
	return nil
}

// clusterStatus is the cluster as this node sees it.
func (a *appliance) clusterStatus(s *meta.State) api.Cluster {
	agreed := a.node.Agreement()
	out := api.Cluster{ID: uuid(s.ClusterID()), Name: s.Name(), Voters: []string{}, Quorum: agreed.Quorum, Lease: a.node.Leased(), CutOff: a.node.CutOff(),
		Alone: a.conf.Cluster.Listen == "", Plain: a.conf.Cluster.Listen != "" && a.conf.Cluster.Plain, Release: s.Release()}
	if agreed.Leader != 0 {
		out.Leader = s.NameOf(agreed.Leader)
	}
	for _, id := range s.Conf().Voters {
		out.Voters = append(out.Voters, s.NameOf(id))
	}
	for _, srv := range s.Servers() {
		if out.Nodes++; srv.Down.IsZero() && srv.Incarnation > 0 {
			out.Up++
		}
	}
	return out
}

// clusterProblems lists what an operator should look at beside the disks.
func clusterProblems(s *meta.State, c api.Cluster, replace time.Duration) (out []string) {
	if !c.Quorum {
		out = append(out, "no quorum: this node hears from no majority of the voters "+voterAddresses(s)+"; start those that are down, or mend the network between them; "+
			"if they have other addresses now, name these in cluster.peers")
	}
	if !c.Lease {
		out = append(out, "no lease: this node serves no disks until the cluster gives it one")
	}
	if len(c.CutOff) > 0 {
		who := strings.Join(c.CutOff, " and ")
		out = append(out, fmt.Sprintf("this node does not reach %s, which another node does: its portals are closed until then; mend the network between this node and %s", who, who))
	}
	if len(s.Servers()) == 2 {
		out = append(out, fmt.Sprintf("two nodes and no third vote: the loss of %s stops both; add a witness (`petal witness`) or a third node", strings.Join(c.Voters, " or of ")))
	} else if p := voteProblem(viewVotes(s), replace, spareVoters(s)); p != "" && c.Quorum {
		out = append(out, p)
	}
	return out
}

// unwell lists the disks that are not healthy.
func unwell(s *meta.State, quorum bool) []api.Unwell {
	out := []api.Unwell{}
	for _, d := range s.Disks() {
		if h := known(diskHealth(s, d), quorum); h.State != "healthy" {
			out = append(out, api.Unwell{Disk: d.Name, Health: h})
		}
	}
	return out
}

// diskHealth judges a disk by the agreed state.
func diskHealth(s *meta.State, d *meta.Disk) api.Health {
	f := s.Family(d.Family)
	if f == nil {
		return api.Health{State: "healthy", Served: 100}
	}
	h := judge(viewLinks(s, f.GMap))
	h.Risks = withVotes(h.Risks, viewVotes(s))
	return h
}

// diskScheme names how many copies a disk has.
func diskScheme(s *meta.State, d *meta.Disk) string {
	if f := s.Family(d.Family); f != nil {
		if g := s.GMap(f.GMap); g != nil {
			return g.Scheme.String()
		}
	}
	return placement.Stripe.String()
}

// resyncProblems lists what catching up by itself will not mend.
func resyncProblems(list []api.Resync) (out []string) {
	for _, r := range list {
		if r.Unrecoverable > 0 {
			out = append(out, fmt.Sprintf("link %s: %s of the disks there are lost, no node has them any more: reading them is an I/O error (MEDIUM ERROR); write them anew, or restore them from a backup", r.Link, config.FormatSize(r.Unrecoverable)))
		}
		if r.Full {
			out = append(out, fmt.Sprintf("link %s: this node can't catch up, its brick is full: make room there; it goes on by itself", r.Link))
		}
	}
	return out
}

// resync lists what this node is catching up on.
func (a *appliance) resync() []api.Resync {
	out := []api.Resync{}
	for _, l := range a.node.Links() {
		if l.Missing == 0 && !l.Full {
			continue
		}
		r := api.Resync{Link: l.Link.String(), Left: l.Missing * placement.BlockSize, Copied: l.Copied * placement.BlockSize, Rate: float64(l.Rate), Unrecoverable: l.Unrecoverable * placement.BlockSize, Full: l.Full}
		if r.Rate > 0 {
			r.Seconds = float64(r.Left) / r.Rate
		}
		out = append(out, r)
	}
	return out
}
