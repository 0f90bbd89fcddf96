package target

import (
	"cmp"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"petal/target/login"
)

// Peer is another node that serves the same targets.
type Peer struct {
	// Node names it in the cluster.
	Node uint32
	// Portals are where it listens; Advertise and TPGT are looked at.
	Portals []Portal
	// Down says that it can't serve now. Its portals are told all the same,
	// behind the others: an initiator that forgot them would never come back.
	Down bool
}

// SetPeers sets the other nodes, whose portals SendTargets tells beside this
// one's. The slice is the server's from now on.
func (s *Server) SetPeers(peers []Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = peers
}

// maxAddresses is how many portals an initiator is told of for one target: a
// path for each, and hosts have room for few.
const maxAddresses = 4

// addresses are the portals of a target that an initiator is told of, the one
// first that it came to. Every node gives one before any gives a second; which
// nodes those are differs from initiator to initiator, so that many of them
// spread over all nodes, but is always the same for one. The caller holds mu.
func (a *authority) addresses(initiator, target string) []login.Portal {
	network := networkOf(a.local.Addr().Unmap())
	nodes := [][]login.Portal{a.reachable(a.ownFirst(), netip.Prefix{})}
	peers := slices.Clone(a.server.peers)
	slices.SortFunc(peers, func(x, y Peer) int {
		if x.Down != y.Down {
			if x.Down {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(weight(initiator, target, x.Node), weight(initiator, target, y.Node)), cmp.Compare(x.Node, y.Node))
	})
	for _, p := range peers {
		var all []*portal
		for _, v := range p.Portals {
			all = append(all, &portal{Portal: v, address: v.Advertise})
		}
		nodes = append(nodes, a.reachable(all, network))
	}
	return deal(nodes, maxAddresses)
}

// deal takes the first of each list, then the second of each, up to most.
func deal(lists [][]login.Portal, most int) (out []login.Portal) {
	for i, more := 0, true; more && len(out) < most; i++ {
		more = false
		for _, l := range lists {
			if i < len(l) && len(out) < most {
				out, more = append(out, l[i]), true
			}
		}
	}
	return out
}

// weight orders the nodes for an initiator (rendezvous hashing).
func weight(initiator, target string, node uint32) uint64 {
	h := fnv.New64a()
	h.Write([]byte(initiator + "\x00" + target + "\x00" + strconv.Itoa(int(node))))
	return h.Sum64()
}

// ownFirst is this node's portals, beginning with the one the initiator came to.
func (a *authority) ownFirst() []*portal {
	own := slices.Clone(a.server.portals)
	slices.SortStableFunc(own, func(x, y *portal) int {
		if (x == a.portal) == (y == a.portal) {
			return 0
		} else if x == a.portal {
			return -1
		}
		return 1
	})
	return own
}

// reachable picks the portals that an initiator can use that reached us at
// a.local: those of the same address family, loopback ones only over loopback,
// and of a wildcard portal the address that it has just used. Portals
// advertised by a host name are left to the initiator's resolver. If some are
// on network, the others are left out: the initiator is on that network or has
// a route to it, and what networks a node has beside need not be its business.
func (a *authority) reachable(all []*portal, network netip.Prefix) []login.Portal {
	var near, far []login.Portal
	here := a.local.Addr().Unmap()
	for _, p := range all {
		at, err := netip.ParseAddrPort(p.address)
		ip := at.Addr().Unmap()
		switch {
		case err != nil:
			far = append(far, login.Portal{Address: p.address, Group: p.TPGT})
			continue
		case ip.IsUnspecified() && here.IsValid():
			if ip.Is4() && !here.Is4() { // [::] takes both families
				continue
			}
			ip = here
		case ip.Is4() != here.Is4() || ip.IsLoopback() != here.IsLoopback() || ip.IsLinkLocalUnicast() && ip != here:
			continue
		}
		found := login.Portal{Address: netip.AddrPortFrom(ip, at.Port()).String(), Group: p.TPGT}
		if far = append(far, found); network.Contains(ip) {
			near = append(near, found)
		}
	}
	if len(near) > 0 {
		far = near
	}
	return slices.CompactFunc(far, func(x, y login.Portal) bool { return x == y })
}

// networkOf is the network that an address of this machine is on, as its
// interface has it; the zero prefix, which contains nothing, if unknown.
func networkOf(ip netip.Addr) netip.Prefix {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}
	}
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		at, _ := netip.AddrFromSlice(n.IP)
		bits, _ := n.Mask.Size()
		if p := netip.PrefixFrom(at.Unmap(), bits); p.Contains(ip) {
			return p.Masked()
		}
	}
	return netip.Prefix{}
}
