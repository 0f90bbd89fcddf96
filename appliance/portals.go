package appliance

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"petal/appliance/config"
	"petal/cluster/meta"
	"petal/placement"
	"petal/target"
	"petal/target/scsi"
)

// In a cluster every node is a target port group, and every portal group of a
// node a target port. Their numbers follow from the server's, so that no two in
// the cluster are the same and none is ever given to another:
//
//	target port group            server
//	target portal group tag,     (portal group - 1) x 4096 + server
//	relative target port
//
// A node tells the others its portals as "HOST:PORT,GROUP" in the agreed state.

// maxServer is the greatest number of a server that leaves room for the group.
const maxServer = 1<<12 - 1

// portTag is the tag of a portal group of a server.
func portTag(group uint16, server placement.Server) uint16 {
	return (group-1)<<12 | uint16(server)&maxServer
}

// announce is what the other nodes are told of this one's portals. One that
// listens on all addresses is told with each that the machine has now.
func announce(portals []config.Portal) (out []string) {
	for _, p := range portals {
		address := cmp.Or(p.Advertise, p.Listen)
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			continue
		}
		hosts := []string{host}
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			hosts = ownAddresses(host == "0.0.0.0")
		}
		for _, h := range hosts {
			if a := fmt.Sprintf("%s,%d", net.JoinHostPort(h, port), p.Group); !slices.Contains(out, a) && len(out) < config.MaxPortals {
				out = append(out, a)
			}
		}
	}
	return out
}

// ownAddresses are the addresses of this machine that others can reach; of a
// machine without a network, the loopback ones.
func ownAddresses(only4 bool) (out []string) {
	var loopback []string
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP)
		switch ip = ip.Unmap(); {
		case only4 && !ip.Is4(), ip.IsLinkLocalUnicast(), ip.IsMulticast():
		case ip.IsLoopback():
			loopback = append(loopback, ip.String())
		default:
			out = append(out, ip.String())
		}
	}
	if len(out) == 0 {
		return loopback
	}
	return out
}

// parseAnnounced reads what announce has written; false for what it did not.
func parseAnnounced(s string) (address string, group uint16, ok bool) {
	address, tail, found := strings.Cut(s, ",")
	n, err := strconv.ParseUint(tail, 10, 16)
	if !found || err != nil || n < 1 || n > config.MaxPortalGroup {
		return "", 0, false
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "", 0, false
	}
	return address, uint16(n), true
}

// nodePorts are the target ports of all nodes as initiators are told of them:
// the groups of all, and the portals of the others.
func nodePorts(s *meta.State, self placement.Server, own []config.Portal, leased bool) (groups []scsi.PortGroup, peers []target.Peer) {
	for _, srv := range s.Servers() {
		if srv.Kind != meta.Data || srv.ID > maxServer {
			continue
		}
		g := scsi.PortGroup{State: scsi.ALUAActiveOptimized, Group: uint16(srv.ID)}
		add := func(group uint16) {
			if tag := portTag(group, srv.ID); !slices.Contains(g.Ports, tag) {
				g.Ports = append(g.Ports, tag)
			}
		}
		if srv.ID == self {
			if !leased {
				g.State = scsi.ALUAUnavailable
			}
			for _, p := range own {
				add(p.Group)
			}
			groups = append(groups, g)
			continue
		}
		peer := target.Peer{Node: uint32(srv.ID), Down: !srv.Down.IsZero()}
		if peer.Down {
			g.State = scsi.ALUAUnavailable
		}
		for _, a := range srv.Portals {
			if address, group, ok := parseAnnounced(a); ok {
				add(group)
				peer.Portals = append(peer.Portals, target.Portal{Advertise: address, TPGT: portTag(group, srv.ID)})
			}
		}
		if len(g.Ports) > 0 {
			slices.Sort(g.Ports)
			groups, peers = append(groups, g), append(peers, peer)
		}
	}
	return groups, peers
}
