package cluster

import (
	"fmt"
	"slices"
	"strings"

	"petal/placement"
)

// A node whose connection to another one is gone, while both are in service, can't
// do what only the other can. Its initiators must not wait for that: any node that
// reaches both serves them.
//
//	a command for that server   ends its session (errCutOff), and not as busy
//	with the next renewal       the node says whom it does not reach
//	with the lease              the leader says whether there is a better node;
//	                            if so the portals are closed like those of a node
//	                            without a lease, and the initiators' other paths
//	                            take over, until all can be reached again

// unreached are the servers with data that live and have not been reached for a
// while.
func (n *Node) unreached() (out []placement.Server) {
	now := n.env.Clock.Now()
	if n.opt.Witness { // it has no portals
		return nil
	}
	for _, v := range n.State().DataServers() {
		if s := n.coord.copies.of(v.ID); v.ID != n.self && s != nil && s.lost(now, n.coord.patience()) {
			out = append(out, v.ID)
		}
	}
	return out
}

// liveChanged is told with each lease who has one, and whether there is a better
// node for initiators than this one.
func (n *Node) liveChanged(ids []placement.Server, better bool) {
	n.coord.copies.setLive(ids, n.env.Clock.Now())
	lost := n.unreached()
	n.mu.Lock()
	was := n.lost
	if n.lost = nil; better {
		n.lost = lost
	}
	same := slices.Equal(was, n.lost)
	told := n.onReach
	is := n.lost
	n.mu.Unlock()
	if same {
		return
	}
	if len(is) > 0 {
		n.note("cut-off", fmt.Sprintf("%s does not reach %s, which another node does: its portals are closed", n.opt.Name, strings.Join(n.names(is), " and ")), nil)
	} else {
		n.note("cut-off", fmt.Sprintf("%s reaches %s again, or no other node does: its portals are open", n.opt.Name, strings.Join(n.names(was), " and ")), nil)
	}
	for _, f := range told {
		f()
	}
}

func (n *Node) names(ids []placement.Server) (out []string) {
	for _, id := range ids {
		out = append(out, n.State().NameOf(id))
	}
	return out
}

// CutOff are the names of the servers for whose sake this node should serve no
// initiators: they are in service, another node reaches them, and this one has
// not for longer than a lease lasts. None: there is nothing against it.
func (n *Node) CutOff() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names(n.lost)
}

// OnReach registers f to be called after CutOff has changed. It must return soon.
func (n *Node) OnReach(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onReach = append(n.onReach, f)
}
