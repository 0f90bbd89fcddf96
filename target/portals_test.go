package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"petal/target/iscsi"
)

// loopback is n nodes with a portal each, and one more on a network of its own.
func loopback(n int) (peers []Peer) {
	for i := range n {
		peers = append(peers, Peer{Node: uint32(i + 2), Portals: []Portal{
			{Advertise: fmt.Sprintf("192.0.2.%d:3260", i+2), TPGT: uint16(i + 2)},
			{Advertise: fmt.Sprintf("127.0.0.%d:3260", i+2), TPGT: uint16(i + 2)},
		}})
	}
	return peers
}

// TestPeers: an initiator is told of this node first and of others behind, of
// four portals at most, always of the same ones, and of dead nodes last.
func TestPeers(t *testing.T) {
	b := newBench(t, Config{})
	b.server.SetPeers(loopback(2))
	got := b.discover(testInitiator)[testTarget]
	if len(got) != 3 || got[0] != b.address+",1" || !strings.Contains(strings.Join(got, " "), "127.0.0.2:3260,2") || !strings.Contains(strings.Join(got, " "), "127.0.0.3:3260,3") {
		t.Errorf("of three nodes told %v", got)
	}
	peers := loopback(8)
	b.server.SetPeers(peers)
	first := b.discover(testInitiator)[testTarget]
	if again := b.discover(testInitiator)[testTarget]; len(first) != maxAddresses || first[0] != b.address+",1" || fmt.Sprint(first) != fmt.Sprint(again) {
		t.Errorf("of nine nodes told %v, then %v", first, again)
	}
	told := map[string]int{}
	for i := range 100 {
		for _, address := range b.discover(fmt.Sprintf("%s%d", testInitiator, i))[testTarget][1:] {
			told[address]++
		}
	}
	for _, p := range peers {
		if n := told[fmt.Sprintf("127.0.0.%d:3260,%d", p.Node, p.Node)]; n < 15 || n > 60 {
			t.Errorf("of 100 initiators %d were told of node %d", n, p.Node)
		}
	}
	peers = slices.Clone(peers) // the server has the others
	for i := range peers {
		peers[i].Down = peers[i].Node != 9
	}
	b.server.SetPeers(peers)
	if got := b.discover(testInitiator)[testTarget]; len(got) != maxAddresses || got[1] != "127.0.0.9:3260,9" {
		t.Errorf("with one other node alive told %v", got)
	}
}

// TestNetworks: of a peer's portals those on the initiator's network, if there
// are any; else all that might be routed to.
func TestNetworks(t *testing.T) {
	a := &authority{server: New(Config{}), local: netip.MustParseAddrPort("10.1.0.1:3260")}
	network := netip.MustParsePrefix("10.1.0.0/16")
	for _, c := range []struct{ advertise, want string }{
		{"10.1.0.2:3260 10.2.0.2:3260", "10.1.0.2:3260"},
		{"10.2.0.2:3260 10.3.0.2:3260", "10.2.0.2:3260 10.3.0.2:3260"},
		{"127.0.0.2:3260 10.2.0.2:3260", "10.2.0.2:3260"},
		{"[2001:db8::1]:3260", ""},
		{"169.254.0.9:3260", ""},
		{"san.example:3260 10.2.0.2:3260", "san.example:3260 10.2.0.2:3260"},
		{"san.example:3260 10.1.7.2:3260", "10.1.7.2:3260"},
	} {
		var ps []*portal
		for _, p := range strings.Fields(c.advertise) {
			ps = append(ps, &portal{address: p})
		}
		var got []string
		for _, p := range a.reachable(ps, network) {
			got = append(got, p.Address)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.advertise, got, c.want)
		}
	}
	if n := networkOf(netip.MustParseAddr("127.0.0.77")); n.String() != "127.0.0.0/8" {
		t.Errorf("127.0.0.77 is on %v", n)
	}
	if n := networkOf(netip.MustParseAddr("203.0.113.1")); n.Contains(netip.MustParseAddr("203.0.113.1")) {
		t.Errorf("203.0.113.1 is on %v", n)
	}
}

// TestSuspend: sessions end without a word, logins under way too, the port
// refuses, and after Resume the same port serves again.
func TestSuspend(t *testing.T) {
	b := newBench(t, Config{})
	i := dial(t, b.address)
	i.wantLogin(1, iscsi.LoginSuccess)
	i.ready()
	half := dial(t, b.address)
	b.server.Suspend()
	b.server.Suspend()
	i.wantGone()
	half.wantGone()
	b.wantSessions(0)
	if _, err := net.Dial("tcp", b.address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connected to a suspended node: %v", err)
	}
	b.listen(7) // opened with the others
	if p := b.server.Portals(); len(p) != 2 || p[0].Listening || p[1].Listening || p[0].Err != nil {
		t.Errorf("%+v", p)
	}
	if err := b.server.Resume(); err != nil {
		t.Fatal(err)
	}
	i = dial(t, b.address)
	i.wantLogin(1, iscsi.LoginSuccess)
	if p := b.server.Portals(); !p[0].Listening || !p[1].Listening {
		t.Errorf("%+v", p)
	}
	if err := b.server.Resume(); err != nil {
		t.Error("again:", err)
	}
}

// TestResumeTaken: a port that somebody else has taken meanwhile is an error
// that goes away with him.
func TestResumeTaken(t *testing.T) {
	b := newBench(t, Config{})
	b.server.Suspend()
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.server.Resume(); !errors.Is(err, syscall.EADDRINUSE) || b.server.Portals()[0].Err == nil {
		t.Errorf("resumed on a port that is taken: %v", err)
	}
	l.Close()
	if err := b.server.Resume(); err != nil || b.server.Portals()[0].Err != nil {
		t.Error(err)
	}
	dial(t, b.address).wantLogin(1, iscsi.LoginSuccess)
}

// TestSuspendedLogin: who connects at the last moment hears nothing.
func TestSuspendedLogin(t *testing.T) {
	b := newBench(t, Config{})
	b.server.mu.Lock()
	b.server.suspended = true
	b.server.mu.Unlock()
	dial(t, b.address).wantGone()
}
