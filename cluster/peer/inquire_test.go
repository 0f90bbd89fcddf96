package peer

import (
	"net"
	"strings"
	"testing"
	"time"

	"petal/cluster/times"
	"petal/placement"
)

// quick is options with times at which a server that waits in vain soon asks.
func (f *fleet) quick(id placement.Server, incarnation uint64, h Handler, refused chan<- string) Options {
	opt := f.options(id, incarnation, h)
	opt.Times = times.Default().Scale(0.2)
	opt.Advertise = opt.Listeners[0].Addr().String()
	opt.Refused = func(text string) {
		select {
		case refused <- text:
		default:
		}
	}
	return opt
}

func heard(t *testing.T, refused <-chan string, words ...string) {
	t.Helper()
	select {
	case text := <-refused:
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("told %q, which does not say %q", text, w)
			}
		}
	case <-time.After(patience):
		t.Fatalf("nothing was told with %q", words)
	}
}

// nowhere is an address at which nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestNobodyDials: the server with the lowest number dials nobody, and is told all
// the same that it has been taken out of the cluster, or that it is not the process
// that runs as this server now.
func TestNobodyDials(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		f := newFleet(t, plain)
		refused := make(chan string, 1)
		two := f.start(f.quick(2, 20, newRecorder(t), refused))
		one := f.start(f.quick(1, 10, newRecorder(t), nil))
		addr := two.Addrs()[0].String()
		two.SetPeers([]Peer{{Server: 3, Addrs: []string{nowhere(t)}}})
		one.SetPeers([]Peer{{Server: 2, Addrs: []string{addr}}, {Server: 3, Addrs: []string{nowhere(t)}}})
		eventually(t, func() bool { return one.Status()[0].Stranger })
		heard(t, refused, "server 1 at 127.0.0.1", "no member of this cluster any more")
		if one.Status()[1].Stranger {
			t.Error("one that is not there has said something")
		}
		// A later process of the same server has been here.
		two.SetPeers([]Peer{{Server: 1, Addrs: []string{nowhere(t)}}})
		data := (*two.table.Load())[1].bundle[bundleData]
		data.mu.Lock()
		data.highest = 11
		data.mu.Unlock()
		eventually(t, func() bool { s := one.Status()[0]; return s.Superseded && !s.Stranger })
		heard(t, refused, "runs as server 1 at 127.0.0.1", "stop one of the two")
	})
}

// TestTwinOfTheLowest: a second process of a server that dials nobody, begun while
// the first one is connected, is told so, and disturbs it as little as a stranger.
func TestTwinOfTheLowest(t *testing.T) {
	f := newFleet(t, false)
	refused := make(chan string, 1)
	r1, r2 := newRecorder(t), newRecorder(t)
	one, two := f.start(f.quick(1, 10, r1, nil)), f.start(f.quick(2, 20, r2, refused))
	one.SetPeers(f.members)
	two.SetPeers(f.members)
	r1.want("up")
	r2.want("up")
	second := f.start(f.quick(1, 0, newRecorder(t), nil)) // has no incarnation yet
	second.SetPeers([]Peer{{Server: 2, Addrs: []string{two.Addrs()[0].String()}}})
	eventually(t, func() bool { return second.Status()[0].Superseded })
	heard(t, refused, "second process at 127.0.0.1", "server 1")
	if n := r1.more() + r2.more(); n > 0 || !two.Status()[0].Data {
		t.Errorf("the first one is disturbed: %v %v", r1.events, r2.events)
	}
}

// TestMoved: a server that has another address than the others know dials those
// that should dial it, and so tells them.
func TestMoved(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		f := newFleet(t, plain)
		r1, r2 := newRecorder(t), newRecorder(t)
		two := f.start(f.quick(2, 20, r2, nil))
		one := f.start(f.quick(1, 10, r1, nil))
		two.SetPeers([]Peer{{Server: 1, Addrs: []string{nowhere(t)}}})
		one.SetPeers([]Peer{{Server: 2, Addrs: []string{two.Addrs()[0].String()}}})
		if e := r1.want("up"); e.from != 2 || e.incarnation != 20 {
			t.Errorf("up: %+v", e)
		}
		r2.want("up")
	})
}

// TestGone: one with a higher number that was taken out is told so, also by those
// who have been started since; one that is merely unknown may talk raft.
func TestGone(t *testing.T) {
	f := newFleet(t, false)
	refused := make(chan string, 1)
	opt := f.quick(1, 10, newRecorder(t), refused)
	opt.Gone = func(id placement.Server) bool { return id == 2 }
	one := f.start(opt)
	one.SetPeers([]Peer{{Server: 4, Addrs: []string{nowhere(t)}}})
	to := []Peer{{Server: 1, Addrs: []string{one.Addrs()[0].String()}}}
	two, three := f.start(f.quick(2, 20, newRecorder(t), nil)), f.start(f.quick(3, 30, newRecorder(t), nil))
	two.SetPeers(to)
	three.SetPeers(to)
	eventually(t, func() bool { return two.Status()[0].Stranger && three.Status()[0].Raft })
	heard(t, refused, "server 2 at 127.0.0.1", "no member of this cluster any more")
}
