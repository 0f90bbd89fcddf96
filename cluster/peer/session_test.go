package peer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// connOf is a connection that is up, or nil.
func connOf(p *Peers, to placement.Server, class wire.Class) *conn {
	return (*p.table.Load())[to].bundle[bundleOf[class]].ready[class].Load()
}

// kill closes the socket under a class, once it is up, and waits until that has
// been noticed.
func kill(t testing.TB, p *Peers, to placement.Server, class wire.Class) {
	var c *conn
	eventually(t, func() bool { c = connOf(p, to, class); return c != nil })
	c.raw.Close()
	eventually(t, func() bool { return connOf(p, to, class) != c })
}

// TestLossOfAnyDataConnection takes all data classes down, on both sides, and
// they come back; raft stays.
func TestLossOfAnyDataConnection(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		one, two, r1, r2 := newFleet(t, plain).pair()
		eventually(t, func() bool { return one.Connected(2, wire.ClassRaft) && two.Connected(1, wire.ClassRaft) })
		raft := connOf(one, 2, wire.ClassRaft)
		for _, class := range bundleClasses[bundleData] {
			for _, p := range []*Peers{one, two} {
				kill(t, p, 3-p.opt.Self, class)
				for _, r := range []*recorder{r1, r2} {
					r.want("down")
					r.want("up")
				}
			}
		}
		if connOf(one, 2, wire.ClassRaft) != raft {
			t.Error("raft was taken down with the data")
		}
		if s := one.Status(); len(s) != 1 || s[0].Server != 2 || !s[0].Data || !s[0].Raft || s[0].Resets < 6 || s[0].Incarnation != 20 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestLossOfRaft leaves the data alone.
func TestLossOfRaft(t *testing.T) {
	one, two, r1, r2 := newFleet(t, false).pair()
	data := connOf(one, 2, wire.ClassRequest)
	for range 3 {
		eventually(t, func() bool { return two.Connected(1, wire.ClassRaft) })
		old := connOf(two, 1, wire.ClassRaft)
		kill(t, one, 2, wire.ClassRaft)
		eventually(t, func() bool { c := connOf(two, 1, wire.ClassRaft); return c != nil && c != old })
	}
	if connOf(one, 2, wire.ClassRequest) != data || r1.more()+r2.more() > 0 {
		t.Errorf("data were taken down with raft: %v %v", r1.events, r2.events)
	}
}

// ledger checks what arrives: in each session and class the numbers follow each
// other without a gap, and never go back.
type ledger struct {
	t      testing.TB
	mu     sync.Mutex
	up     bool
	next   [wire.Classes]uint64 // 0: whatever comes
	last   [wire.Classes]uint64
	count  int
	downs  int
	signal chan struct{}
}

func (l *ledger) Up(placement.Server, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up {
		l.t.Error("up twice")
	}
	l.up, l.next = true, [wire.Classes]uint64{}
}

func (l *ledger) Down(placement.Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up {
		l.t.Error("down twice")
	}
	l.up = false
	l.downs++
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

func (l *ledger) Receive(_ placement.Server, _ uint64, m *wire.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, n := m.Kind.Class(), m.Op.Number
	switch {
	case !l.up:
		l.t.Errorf("%v %d while down", c, n)
	case l.next[c] != 0 && n != l.next[c]:
		l.t.Errorf("%v %d instead of %d", c, n, l.next[c])
	case n <= l.last[c]:
		l.t.Errorf("%v %d again", c, n)
	}
	if len(m.Data) > 0 && !m.Verify() {
		l.t.Errorf("%v %d: data damaged", c, n)
	}
	l.next[c], l.last[c] = n+1, n
	l.count++
}

// TestNothingIsLostSilently: two servers send to each other in all data classes
// while connections are cut. Each message that Send took arrives, in order and
// once, unless Down came.
func TestNothingIsLostSilently(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		f := newFleet(t, plain)
		var ledgers [2]*ledger
		var peers [2]*Peers
		for i := range ledgers {
			ledgers[i] = &ledger{t: t, signal: make(chan struct{}, 1)}
			peers[i] = f.start(f.options(placement.Server(i+1), 1, ledgers[i]))
		}
		for _, p := range peers {
			p.SetPeers(f.members)
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i, p := range peers {
			for _, kind := range []wire.Kind{wire.Replicate, wire.Write, wire.Fetched} {
				wg.Go(func() { f.sendAll(p, placement.Server(2-i), kind, stop) })
			}
		}
		seed := uint64(time.Now().UnixNano())
		t.Log("seed", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		for round := range 20 {
			eventually(t, func() bool { // some messages have passed, however slow the machine is
				l := ledgers[round%2]
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.up && l.next[wire.ClassRequest] > 0 && l.next[wire.ClassReplicate] > 0 && l.count > 60*(round+1)
			})
			i := rnd.IntN(2)
			kill(t, peers[i], placement.Server(2-i), bundleClasses[bundleData][rnd.IntN(3)])
		}
		close(stop)
		wg.Wait()
		for _, p := range peers {
			p.Close()
		}
		for _, l := range ledgers {
			if l.count < 1000 || l.downs < 8 || l.up {
				t.Errorf("%d messages, %d times down: that tests little; up %v", l.count, l.downs, l.up)
			}
		}
	})
}

// sendAll sends messages with growing numbers: one whose Send returned false is
// not sent, so its number is used again.
func (f *fleet) sendAll(p *Peers, to placement.Server, kind wire.Kind, stop chan struct{}) {
	m := f.writeOf(0, 3, 4096)
	defer m.Data.Release()
	if m.Kind = kind; kind != wire.Write {
		m.From, m.To, m.Mask = 0, 0, 1
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := uint64(1); ; {
		if c := connOf(p, to, kind.Class()); c == nil || depth(c) > 100 {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			continue
		}
		m.Op.Number = n
		if p.Send(to, m) {
			n++
		}
	}
}

func depth(c *conn) int {
	_, messages := c.queue.depth()
	return messages
}

// TestNewIncarnationWaits: nothing of a server's new life is handled, and it is
// not even called up, before all that its old life sent has been handled (R13).
func TestNewIncarnationWaits(t *testing.T) {
	f := newFleet(t, false)
	one, two, r1, _ := f.pair()
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r1.handle(func(placement.Server, *wire.Message) {
		once.Do(func() { close(entered); <-leave })
	})
	two.Send(1, &wire.Message{Kind: wire.Cancel, Op: placement.OpID{Number: 1}})
	<-entered
	two.Close()

	r2 := newRecorder(t)
	two = f.start(f.options(2, 21, r2))
	two.SetPeers(f.members)
	eventually(t, func() bool { // its Hellos wait to be answered
		one.strangers.mu.Lock()
		defer one.strangers.mu.Unlock()
		return len(one.strangers.open) >= 2
	})
	r1.mu.Lock()
	if len(r1.events) > 0 {
		t.Errorf("%v, before the old life's message has been handled", r1.events)
	}
	r1.mu.Unlock()
	close(leave)
	r2.want("up")
	two.Send(1, &wire.Message{Kind: wire.Cancel, Op: placement.OpID{Number: 2}})
	eventually(t, func() bool { return r1.more() >= 4 })
	r1.mu.Lock()
	defer r1.mu.Unlock()
	var got []string
	for _, e := range r1.events {
		got = append(got, e.what)
	}
	if want := []string{"cancel", "down", "up", "cancel"}; !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if e := r1.events; e[0].incarnation != 20 || e[2].incarnation != 21 || e[3].incarnation != 21 || e[3].op != 2 {
		t.Errorf("%+v", e)
	}
}

// TestOldIncarnationIsRefused: a server process that is still running after its
// successor has been here.
func TestOldIncarnationIsRefused(t *testing.T) {
	f := newFleet(t, false)
	one, two, r1, _ := f.pair()
	two.Close()
	r1.want("down")
	old := f.start(f.options(2, 19, newRecorder(t)))
	old.SetPeers(f.members)
	eventually(t, func() bool {
		s := old.Status()
		return s[0].Why != nil && s[0].Why.Error() != "" && !s[0].Data && s[0].Raft
	})
	if one.Connected(2, wire.ClassRequest) || r1.more() > 0 {
		t.Errorf("connected to an old incarnation: %v", r1.events)
	}
}

// TestRaftComesBeforeTheIncarnation: which is what a server gets its incarnation
// by.
func TestRaftComesBeforeTheIncarnation(t *testing.T) {
	f := newFleet(t, false)
	r1, r2 := newRecorder(t), newRecorder(t)
	one, two := f.start(f.options(1, 10, r1)), f.start(f.options(2, 0, r2))
	one.SetPeers(f.members)
	two.SetPeers(f.members)
	eventually(t, func() bool { return two.Connected(1, wire.ClassRaft) })
	if !two.Send(1, &wire.Message{Kind: wire.Raft}) {
		t.Fatal("not sent")
	}
	if e := r1.want("raft"); e.incarnation != 0 {
		t.Errorf("incarnation %d", e.incarnation)
	}
	if two.Connected(1, wire.ClassRequest) {
		t.Error("data without an incarnation")
	}
	two.Start(7)
	if e := r1.want("up"); e.incarnation != 7 {
		t.Errorf("%+v", e)
	}
	r2.want("up")
}

// TestWhoIsNoPeer: a server that is dropped is cut off and stays out; one with a
// certificate that nobody here has heard of may talk raft, and no more.
func TestWhoIsNoPeer(t *testing.T) {
	f := newFleet(t, false)
	one, two, r1, r2 := f.pair()
	three := f.start(f.options(3, 30, newRecorder(t)))
	three.SetPeers(f.members)
	eventually(t, func() bool { return one.Connected(3, wire.ClassRaft) })
	if !one.Send(3, &wire.Message{Kind: wire.Raft}) || one.Connected(3, wire.ClassRequest) {
		t.Error("a server that is not known is to be talked raft to, and nothing else")
	}
	one.SetPeers(f.members) // with 3
	if e := r1.want("up"); e.from != 3 {
		t.Errorf("%+v", e)
	}
	one.SetPeers([]Peer{f.members[2]}) // without 2
	if one.Send(2, &wire.Message{Kind: wire.Cancel}) {
		t.Error("sent to who is no peer")
	}
	if e := r1.want("down"); e.from != 2 {
		t.Errorf("%+v", e)
	}
	r2.want("down")
	for _, b := range (*two.table.Load())[1].bundle {
		eventually(t, func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.reason != nil && strings.HasSuffix(b.reason.Error(), unknownServer.String())
		})
	}
	if one.Connected(2, wire.ClassRaft) {
		t.Error("still talking raft")
	}
	one.SetPeers(f.members)
	if e := r1.want("up"); e.from != 2 {
		t.Errorf("%+v", e)
	}
}

// TestDroppedWithinAMessage: the list of members may change by a message of the
// very server that it drops, and back; Up comes after Down all the same.
func TestDroppedWithinAMessage(t *testing.T) {
	f := newFleet(t, false)
	one, two, r1, _ := f.pair()
	r1.handle(func(_ placement.Server, m *wire.Message) {
		if m.Kind == wire.Cancel {
			one.SetPeers(nil)
			one.SetPeers(f.members)
		}
	})
	for range 10 {
		eventually(t, func() bool { return two.Send(1, &wire.Message{Kind: wire.Cancel}) })
		for _, want := range []string{"cancel", "down", "up"} {
			eventually(t, func() bool { return r1.more() > 0 })
			r1.mu.Lock()
			got := r1.events[0].what
			r1.mu.Unlock()
			if got != want {
				t.Fatalf("%s, want %s", got, want)
			}
			r1.want(want)
		}
	}
}

// TestRoomHoldsTheSenderBack: what the handler keeps counts against the window,
// and the sender waits for it to come back.
func TestRoomHoldsTheSenderBack(t *testing.T) {
	f := newFleet(t, true)
	one, _, _, r2 := f.pair()
	var mu sync.Mutex
	var kept []wire.Room
	held := 0
	r2.handle(func(_ placement.Server, m *wire.Message) {
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, m.Keep())
		held += kept[len(kept)-1].Bytes
	})
	const n = 200 // of 64 KiB, in background: 4 MiB at a time
	m := &wire.Message{Kind: wire.Fetched, Key: placement.Key{Family: 1, Node: 1}, Mask: placement.Full, Data: f.writeOf(0, 1, 64<<10).Data}
	for range n {
		if !one.Send(2, m) {
			t.Fatal("not sent")
		}
	}
	m.Data.Release()
	for got := 0; got < n; {
		c := connOf(one, 2, wire.ClassBackground)
		eventually(t, func() bool { // until the credit is used up, or all is there
			c.queue.mu.Lock()
			defer c.queue.mu.Unlock()
			return c.queue.waiting && (c.queue.allowed-c.queue.taken < 66<<10 || c.queue.messages == 0)
		})
		r2.want("fetched")
		mu.Lock()
		if held > windowBackground {
			t.Fatalf("%d bytes under way, the window is %d", held, windowBackground)
		}
		got += len(kept)
		for _, room := range kept {
			held -= room.Bytes
			room.Return()
		}
		kept = nil
		mu.Unlock()
	}
}

// TestRoomComesBackByItself: many windows pass through a handler that keeps
// nothing.
func TestRoomComesBackByItself(t *testing.T) {
	f := newFleet(t, true)
	one, _, _, r2 := f.pair()
	m := &wire.Message{Kind: wire.Fetched, Key: placement.Key{Family: 1, Node: 1}, Mask: placement.Full, Data: f.writeOf(0, 1, 64<<10).Data}
	defer m.Data.Release()
	const n = 3 * windowBackground / (64 << 10)
	for range n {
		if !one.Send(2, m) {
			t.Fatal("not sent")
		}
	}
	for range n {
		r2.want("fetched")
	}
}

// TestCreditNeverGoesBack, though two who return room may overtake each other.
func TestCreditNeverGoesBack(t *testing.T) {
	one, _, _, _ := newFleet(t, true).pair()
	w := writer{c: connOf(one, 2, wire.ClassRequest)}
	for _, c := range []struct{ handled, want int64 }{{100, 100}, {50, 0}, {100, 0}, {101, 101}} {
		w.encode(control{credit: true, handled: c.handled})
		var m wire.Message
		got := int64(0)
		if len(w.control) > 0 {
			if _, err := m.DecodeFrame(w.control, nil); err != nil {
				t.Fatal(err)
			}
			got = int64(m.Index) - w.c.window
		}
		if got != c.want {
			t.Errorf("%d handled: credit for %d, want %d", c.handled, got, c.want)
		}
	}
}

// TestOverfullQueueCutsThePeer: what can't be queued is not dropped in silence.
func TestOverfullQueueCutsThePeer(t *testing.T) {
	f := newFleet(t, true)
	one, _, r1, r2 := f.pair()
	leave := make(chan struct{})
	r2.handle(func(placement.Server, *wire.Message) { <-leave })
	m := f.writeOf(1, 1, 64<<10)
	for n := 0; one.Send(2, m); n++ {
		if n > 4*queueBytesMax/(64<<10) {
			t.Fatal("no end to what is queued")
		}
	}
	m.Data.Release()
	r1.want("down")
	close(leave)
	r2.want("down")
	r1.want("up")
}

// TestSendRefuses what can't be sent, and to whom.
func TestSendRefuses(t *testing.T) {
	one, _, _, _ := newFleet(t, true).pair()
	for name, c := range map[string]struct {
		to placement.Server
		m  wire.Message
	}{
		"to itself":         {1, wire.Message{Kind: wire.Cancel}},
		"to nobody":         {9, wire.Message{Kind: wire.Cancel}},
		"ping":              {2, wire.Message{Kind: wire.Ping}},
		"unknown kind":      {2, wire.Message{Kind: 255}},
		"body too long":     {2, wire.Message{Kind: wire.Raft, Body: make([]byte, wire.MaxBody+1)}},
		"data of a read":    {2, wire.Message{Kind: wire.Read, To: 512, Bucket: placement.Buckets}},
		"write without any": {2, wire.Message{Kind: wire.Write, To: 512}},
	} {
		if one.Send(c.to, &c.m) {
			t.Errorf("%s: sent", name)
		}
	}
}

// TestSendAllocatesNothing on the hot path.
func TestSendAllocatesNothing(t *testing.T) {
	f := newFleet(t, true)
	one, _, _, _ := f.pair()
	m := f.writeOf(1, 1, 4096)
	defer m.Data.Release()
	q := newQueue(0)
	var p parcel
	if n := testing.AllocsPerRun(2000, func() {
		m.Sent = one.opt.Clock.Now()
		if m.Check() != nil || q.push(m) != queued {
			t.Fatal("not queued")
		}
		if len(q.pending.items) == 100 {
			q.allow(1 << 40)
			q.taken, q.allowed = 0, 1<<30
			k, _, _ := q.take(&p, 0, 0)
			q.mu.Lock()
			q.bytes -= p.done(k)
			q.messages -= k
			q.mu.Unlock()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	q.close()
	p.done(len(p.rest()))
}
