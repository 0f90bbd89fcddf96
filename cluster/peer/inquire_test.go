package peer

import (
	"net"
	"strings"
	"testing"
	"time"

	"petal/placement"
)

// telling is options with which a server says who was refused.
func (f *fleet) telling(id placement.Server, incarnation uint64, h Handler, refused chan<- string) Options {
	opt := f.options(id, incarnation, h)
	opt.Advertise = opt.Listeners[0].Addr().String()
	opt.Refused = func(text string) {
		select {
		case refused <- text:
		default:
		}
	}
	return opt
}

func heard(t testing.TB, refused <-chan string, words ...string) {
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

// nowhere is an address in a bubble at which nobody listens.
const nowhere = "10.0.0.99:1"

// TestNobodyDials: the server with the lowest number dials nobody, and is told all
// the same that it has been taken out of the cluster, or that it is not the process
// that runs as this server now.
func TestNobodyDials(t *testing.T) {
	both(t, func(t *testing.T, plain bool) { bubble(t, plain, nobodyDials) })
}

func nobodyDials(f *fleet) {
	t := f.t
	refused := make(chan string, 1)
	two := f.start(f.telling(2, 20, newRecorder(t), refused))
	one := f.start(f.telling(1, 10, newRecorder(t), nil))
	addr := two.Addrs()[0].String()
	two.SetPeers([]Peer{{Server: 3, Addrs: []string{nowhere}}})
	one.SetPeers([]Peer{{Server: 2, Addrs: []string{addr}}, {Server: 3, Addrs: []string{nowhere}}})
	eventually(t, func() bool { return one.Status()[0].Stranger })
	heard(t, refused, "server 1 at 10.0.0.1", "no member of this cluster any more")
	if one.Status()[1].Stranger {
		t.Error("one that is not there has said something")
	}
	// A later process of the same server has been here.
	two.SetPeers([]Peer{{Server: 1, Addrs: []string{nowhere}}})
	data := (*two.table.Load())[1].bundle[bundleData]
	data.mu.Lock()
	data.highest = 11
	data.mu.Unlock()
	eventually(t, func() bool { s := one.Status()[0]; return s.Superseded && !s.Stranger })
	heard(t, refused, "runs as server 1 at 10.0.0.1", "stop one of the two")
}

// TestTwinOfTheLowest: a second process of a server that dials nobody, begun while
// the first one is connected, is told so, and disturbs it as little as a stranger.
func TestTwinOfTheLowest(t *testing.T) { bubble(t, false, twinOfTheLowest) }

func twinOfTheLowest(f *fleet) {
	t := f.t
	refused := make(chan string, 1)
	r1, r2 := newRecorder(t), newRecorder(t)
	one, two := f.start(f.telling(1, 10, r1, nil)), f.start(f.telling(2, 20, r2, refused))
	one.SetPeers(f.members)
	two.SetPeers(f.members)
	r1.want("up")
	r2.want("up")
	opt := f.telling(1, 0, newRecorder(t), nil) // has no incarnation yet
	opt.Listeners = []net.Listener{f.pipes.listen("10.0.0.1:2")}
	second := f.start(opt)
	second.SetPeers([]Peer{{Server: 2, Addrs: []string{two.Addrs()[0].String()}}})
	eventually(t, func() bool { return second.Status()[0].Superseded })
	heard(t, refused, "second process at 10.0.0.1", "server 1")
	if n := r1.more() + r2.more(); n > 0 || !two.Status()[0].Data {
		t.Errorf("the first one is disturbed: %v %v", r1.events, r2.events)
	}
}

// TestMoved: a server that has another address than the others know dials those
// that should dial it, and so tells them.
func TestMoved(t *testing.T) {
	both(t, func(t *testing.T, plain bool) { bubble(t, plain, moved) })
}

func moved(f *fleet) {
	t := f.t
	r1, r2 := newRecorder(t), newRecorder(t)
	two := f.start(f.telling(2, 20, r2, nil))
	one := f.start(f.telling(1, 10, r1, nil))
	two.SetPeers([]Peer{{Server: 1, Addrs: []string{nowhere}}})
	one.SetPeers([]Peer{{Server: 2, Addrs: []string{two.Addrs()[0].String()}}})
	if e := r1.want("up"); e.from != 2 || e.incarnation != 20 {
		t.Errorf("up: %+v", e)
	}
	r2.want("up")
}

// TestGone: one with a higher number that was taken out is told so, also by those
// who have been started since; one that is merely unknown may talk raft.
func TestGone(t *testing.T) { bubble(t, false, gone) }

func gone(f *fleet) {
	t := f.t
	refused := make(chan string, 1)
	opt := f.telling(1, 10, newRecorder(t), refused)
	opt.Gone = func(id placement.Server) bool { return id == 2 }
	one := f.start(opt)
	one.SetPeers([]Peer{{Server: 4, Addrs: []string{nowhere}}})
	to := []Peer{{Server: 1, Addrs: []string{one.Addrs()[0].String()}}}
	two, three := f.start(f.telling(2, 20, newRecorder(t), nil)), f.start(f.telling(3, 30, newRecorder(t), nil))
	two.SetPeers(to)
	three.SetPeers(to)
	eventually(t, func() bool { return two.Status()[0].Stranger && three.Status()[0].Raft })
	heard(t, refused, "server 2 at 10.0.0.2", "no member of this cluster any more")
}
