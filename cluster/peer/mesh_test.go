package peer

import (
	"net"
	"testing"

	"go.uber.org/goleak"

	"petal/cluster/wire"
	"petal/placement"
)

// TestMain: whatever a test did, no goroutine is left when all is closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMesh: four servers, each connected with each; when one goes, the others
// hear of it, and only of it.
func TestMesh(t *testing.T) {
	f := newFleet(t, false)
	const n = 4
	var peers [n]*Peers
	var told [n]*recorder
	for i := range peers {
		told[i] = newRecorder(t)
		peers[i] = f.start(f.options(placement.Server(i+1), uint64(i+1), told[i]))
	}
	for _, p := range peers {
		p.SetPeers(f.members)
	}
	for i, r := range told {
		seen := map[placement.Server]bool{}
		for range n - 1 {
			e := r.want("up")
			if seen[e.from] || e.incarnation != uint64(e.from) || int(e.from) == i+1 {
				t.Errorf("server %d: %+v", i+1, e)
			}
			seen[e.from] = true
		}
	}
	peers[1].Close()
	for i, r := range told {
		if i == 1 {
			for range n - 1 { // it hears that all are gone
				r.want("down")
			}
		} else if e := r.want("down"); e.from != 2 {
			t.Errorf("server %d: %+v", i+1, e)
		}
	}
	for _, r := range told {
		if r.more() > 0 {
			t.Errorf("%v", r.events)
		}
	}
	if err := peers[1].Close(); err == nil {
		t.Error("closed twice")
	}
	if peers[1].Send(1, &wire.Message{Kind: wire.Cancel}) {
		t.Error("sent after Close")
	}
}

// TestSecondAddress: a server that is not at its first address is found at
// another.
func TestSecondAddress(t *testing.T) {
	f := newFleet(t, false)
	r := newRecorder(t)
	one := f.start(f.options(1, 10, newRecorder(t)))
	one.SetPeers([]Peer{{Server: 2}})
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deaf.Close()
	two := f.start(f.options(2, 20, r))
	two.SetPeers([]Peer{{Server: 1, Addrs: []string{deaf.Addr().String(), one.Addrs()[0].String()}}})
	r.want("up")
}

// TestPlainAndNot: a server that insists on encryption does not talk to one that
// does without; one that does without talks to both.
func TestPlainAndNot(t *testing.T) {
	for _, plain := range []bool{false, true} {
		f := newFleet(t, false)
		r1, r2 := newRecorder(t), newRecorder(t)
		opt1, opt2 := f.options(1, 10, r1), f.options(2, 20, r2)
		opt1.Plain, opt2.Plain = plain, !plain // 2 dials
		one, two := f.start(opt1), f.start(opt2)
		one.SetPeers(f.members)
		two.SetPeers(f.members)
		if plain {
			r1.want("up")
			r2.want("up")
			continue
		}
		eventually(t, func() bool { return two.Status()[0].Why != nil })
		if one.Connected(2, wire.ClassRequest) || r1.more()+r2.more() > 0 {
			t.Error("talked without encryption to one that insists on it")
		}
	}
}

// TestOptionsAreChecked: encryption is left out by saying so, not by leaving out
// the certificate.
func TestOptionsAreChecked(t *testing.T) {
	f := newFleet(t, false)
	for name, change := range map[string]func(o *Options){
		"no certificate": func(o *Options) { o.TLS = nil }, "no cluster": func(o *Options) { o.Cluster = [16]byte{} },
		"no self": func(o *Options) { o.Self = 0 }, "no pool": func(o *Options) { o.Pool = nil }, "no handler": func(o *Options) { o.Handler = nil },
		"address": func(o *Options) { o.Listen = []string{"nowhere"} },
	} {
		opt := f.options(1, 1, newRecorder(t))
		change(&opt)
		if p, err := New(opt); err == nil {
			t.Errorf("%s: taken", name)
			p.Close()
		}
		opt.Listeners[0].Close()
	}
}
