package cluster

import (
	"bytes"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"petal/cluster/cache"
	"petal/cluster/meta"
	"petal/cluster/replica"
	"petal/cluster/slab"
	"petal/cluster/times"
	"petal/cluster/wire"
	"petal/placement"
)

// handClock is a clock that goes when it is told to.
type handClock struct {
	now    time.Duration
	timers []*handTimer
}

type handTimer struct {
	at      time.Duration
	f       func()
	stopped bool
}

func (t *handTimer) Stop() bool { was := !t.stopped; t.stopped = true; return was }

func (c *handClock) Now() time.Duration { return c.now }

func (c *handClock) AfterFunc(d time.Duration, f func()) times.Timer {
	t := &handTimer{at: c.now + d, f: f}
	c.timers = append(c.timers, t)
	return t
}

// step goes to the next timer, if that is not beyond limit.
func (c *handClock) step(limit time.Duration) bool {
	c.timers = slices.DeleteFunc(c.timers, func(t *handTimer) bool { return t.stopped })
	if len(c.timers) == 0 {
		return false
	}
	next := slices.MinFunc(c.timers, func(a, b *handTimer) int { return int(a.at - b.at) })
	if next.at > limit {
		return false
	}
	next.stopped = true
	c.now = max(c.now, next.at)
	next.f()
	return true
}

// bench is a coordinator, number 1, with a network that is a queue, a clock that
// goes by hand, and members that answer as the test says.
type bench struct {
	t      *testing.T
	clock  handClock
	c      *coordinator
	v      *Volume
	here   *fakeMember
	server map[placement.Server]func(m *wire.Message) *wire.Message // nil: no answer
	down   map[placement.Server]bool
	queue  []func()
	sent   []string
	ops    []placement.OpID
}

func newBench(t *testing.T, scheme placement.Scheme, servers ...placement.Server) *bench {
	b := &bench{t: t, server: map[placement.Server]func(*wire.Message) *wire.Message{}, down: map[placement.Server]bool{}, here: newFake(t)}
	b.clock.now = time.Hour
	b.here.deliver = func(f func()) { b.queue = append(b.queue, f) }
	b.c = newCoordinator(1, b.here.pool, &b.clock, times.Default(), b)
	b.c.copies.grow([]placement.Server{1, 2, 3, 4})
	for _, s := range servers {
		b.c.peerUp(s)
	}
	b.c.start(9, &here{b.here, b.here})
	b.v = newVolume(b.c, &meta.Disk{Size: 1 << 30, BlockSize: 512, Family: 3, Node: 1, VVer: 5}, testRoutes(scheme, servers...))
	return b
}

// Send implements sender.
func (b *bench) Send(to placement.Server, m *wire.Message) bool {
	b.sent = append(b.sent, m.Kind.String())
	b.ops = append(b.ops, m.Op)
	if b.down[to] {
		return false
	}
	frame, err := m.AppendFrame(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.queue = append(b.queue, func() {
		got := new(wire.Message)
		if _, err := got.DecodeFrame(frame, b.here.pool); err != nil {
			b.t.Fatal(err)
		}
		if f := b.server[to]; f != nil {
			if reply := f(got); reply != nil {
				reply.Op = got.Op
				b.queue = append(b.queue, func() { b.receive(to, reply) })
			}
		}
		got.Data.Release()
	})
	return true
}

func (b *bench) receive(from placement.Server, m *wire.Message) {
	if m.Kind == wire.CancelReply {
		b.c.cancelEnd(from, m.Op, m.Status, m.Head)
	} else {
		b.c.receiveReply(from, m)
	}
	m.Data.Release()
}

// run lets things happen for so long.
func (b *bench) run(d time.Duration) {
	end := b.clock.now + d
	for {
		for len(b.queue) > 0 {
			f := b.queue[0]
			b.queue = b.queue[1:]
			f()
		}
		if !b.clock.step(end) {
			break
		}
	}
	b.clock.now = end
}

func status(s wire.Status) func(*wire.Message) *wire.Message {
	return func(m *wire.Message) *wire.Message {
		if m.Kind == wire.Cancel {
			return &wire.Message{Kind: wire.CancelReply, Status: s}
		}
		return &wire.Message{Kind: wire.Reply, Status: s, From: m.From, To: m.To}
	}
}

// headOf finds a chunk whose head is a server.
func (b *bench) chunkAt(head placement.Server) uint64 {
	r := b.v.state.Load().routes
	for c := placement.Chunk(0); ; c++ {
		if r.of(b.v.family, c).head() == head {
			return uint64(c) * placement.ChunkSize
		}
	}
}

func result[T any](b *bench, ch <-chan T) T {
	b.t.Helper()
	select {
	case x := <-ch:
		return x
	default:
		b.t.Fatalf("no end by %v; sent %v", b.clock.now-time.Hour, b.sent)
		panic("unreachable")
	}
}

func pending[T any](b *bench, ch <-chan T) {
	b.t.Helper()
	if len(ch) > 0 {
		b.t.Fatalf("it has ended: %v; sent %v", <-ch, b.sent)
	}
}

// A write goes to the head, once, and ends when that says so.
func TestWriteAtHead(t *testing.T) {
	b := newBench(t, placement.Mirror, 1, 2, 3)
	data := pattern(1, 5*512)
	b.server[2] = func(m *wire.Message) *wire.Message {
		if m.Kind != wire.Write || m.From != 512 || m.To != 6*512 || !m.Verify() || m.VVer != 5 || m.Ver != 1 || m.Key != (placement.Key{Family: 3, Node: 1, Chunk: m.Key.Chunk}) || m.Code != 0 {
			t.Errorf("%v: %+v", m, m)
		}
		if got := slices.Concat(bytesOf(m.Data)...); !bytes.Equal(got, data) {
			t.Error("other data")
		}
		return status(wire.OK)(m)
	}
	ch := write(b.v, b.chunkAt(2)+512, data, false)
	pending(b, ch)
	b.run(time.Millisecond)
	if err := result(b, ch); err != nil || len(b.sent) != 1 {
		t.Errorf("%v, sent %v", err, b.sent)
	}
}

func bytesOf(refs cache.Refs) (out [][]byte) {
	for _, r := range refs {
		out = append(out, r.Bytes())
	}
	return out
}

// What ends for a passing reason is sent again under the same identity, and says
// so; where it is told to go, it goes.
func TestResendKeepsTheIdentity(t *testing.T) {
	b := newBench(t, placement.Mirror, 1, 2, 3)
	n := 0
	b.server[2] = func(m *wire.Message) *wire.Message {
		n++
		if (m.Code == replica.CodeAgain) != (n > 1) {
			t.Errorf("attempt %d: code %d", n, m.Code)
		}
		switch n {
		case 1:
			return status(wire.NotReady)(m)
		case 2:
			return status(wire.Damaged)(m)
		case 3:
			return nil // then the connection breaks
		}
		r := status(wire.Redirect)(m)
		r.Head = 3
		return r
	}
	b.server[3] = status(wire.OK)
	ch := write(b.v, b.chunkAt(2), pattern(1, 4096), false)
	b.run(200 * time.Millisecond)
	pending(b, ch)
	b.c.peerDown(2)
	b.run(200 * time.Millisecond)
	if err := result(b, ch); err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(b.ops, func(id placement.OpID) bool { return id != b.ops[0] }) || len(b.ops) != 5 {
		t.Errorf("identities %v", b.ops)
	}
}

// A piece that never finds anybody ends in time, and as certain as it is (R13).
func TestCommandsAgeEndsIt(t *testing.T) {
	for _, c := range []struct {
		name    string
		server  func(*wire.Message) *wire.Message
		down    bool
		want    error // nil: neither that nor success
		success bool
		cancels bool
	}{
		{"never sent", nil, true, ErrBusy, false, false},
		{"never taken", status(wire.TooOld), false, ErrBusy, false, false},
		{"no answer, not even to the cancellation", func(*wire.Message) *wire.Message { return nil }, false, nil, false, true},
		{"cancelled", func(m *wire.Message) *wire.Message {
			if m.Kind == wire.Cancel {
				return status(wire.Canceled)(m)
			}
			return nil
		}, false, ErrBusy, false, true},
		{"had been done", func(m *wire.Message) *wire.Message {
			if m.Kind == wire.Cancel {
				return status(wire.OK)(m)
			}
			return status(wire.NotReady)(m)
		}, false, nil, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, placement.Mirror, 2, 3, 4)
			b.server[2], b.down[2] = c.server, c.down
			var last time.Duration // of a message that asks for a write
			if c.server != nil {
				b.server[2] = func(m *wire.Message) *wire.Message {
					if m.Kind == wire.Write {
						last = b.clock.now
					}
					return c.server(m)
				}
			}
			began := b.clock.now
			ch := write(b.v, b.chunkAt(2), pattern(1, 4096), false)
			b.run(3 * time.Second)
			pending(b, ch)
			b.run(3 * time.Second)
			err := result(b, ch)
			switch {
			case c.success && err != nil, c.want != nil && !errors.Is(err, c.want):
				t.Errorf("%v", err)
			case !c.success && c.want == nil && (err == nil || errors.Is(err, ErrBusy)):
				t.Errorf("%v, though nothing is certain", err)
			}
			if last-began > b.c.times.Command {
				t.Errorf("sent again after %v", last-began)
			}
			if got := slices.Contains(b.sent, wire.Cancel.String()); got != c.cancels {
				t.Errorf("cancelled: %t", got)
			}
			if b.c.flying.Load() != 0 {
				t.Errorf("%d pieces are left", b.c.flying.Load())
			}
		})
	}
}

// What waits for the blocks of another command ages meanwhile: it is not sent
// when that has ended late, for its initiator may have gone on over another path
// (R13).
func TestWaitingForALockAges(t *testing.T) {
	b := newBench(t, placement.Mirror, 2, 3, 4)
	b.server[2] = func(m *wire.Message) *wire.Message {
		if m.Kind == wire.Cancel {
			return status(wire.Canceled)(m)
		}
		return nil // the first one is never answered
	}
	at := b.chunkAt(2)
	first := write(b.v, at, pattern(1, 512), false)
	second := write(b.v, at+512, pattern(2, 512), false) // another sector of the same block
	b.run(6 * time.Second)
	if err := result(b, first); !errors.Is(err, ErrBusy) {
		t.Errorf("the first: %v", err)
	}
	if err := result(b, second); !errors.Is(err, ErrBusy) {
		t.Errorf("the second: %v", err)
	}
	if slices.ContainsFunc(b.ops, func(id placement.OpID) bool { return id != b.ops[0] }) {
		t.Errorf("the second was sent: %v", b.sent)
	}
	if b.c.flying.Load() != 0 {
		t.Errorf("%d pieces are left", b.c.flying.Load())
	}
}

// A late answer of an attempt that was given up means nothing to the next one.
func TestLateAnswers(t *testing.T) {
	b := newBench(t, placement.Mirror, 2, 3, 4)
	ch := write(b.v, b.chunkAt(2), pattern(1, 4096), false)
	b.run(time.Millisecond)
	late := &wire.Message{Kind: wire.Reply, Op: b.ops[0], Status: wire.NoSpace}
	b.receive(3, late) // never asked
	b.c.peerDown(2)
	b.receive(2, late)
	pending(b, ch)
	b.server[2] = status(wire.OK)
	b.c.peerUp(2)
	b.run(time.Millisecond)
	if err := result(b, ch); err != nil {
		t.Error(err)
	}
	b.receive(2, late)
	other := &wire.Message{Kind: wire.Reply, Op: b.ops[0], Status: wire.OK}
	other.Op.Incarnation++
	b.receive(2, other)
}

// The disk has changed under a command (R1): it goes on under the new state if
// that lets it, and not at all if somebody has lost rights.
func TestOldVVer(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(d *meta.Disk)
		want   error
	}{
		{"grown", func(d *meta.Disk) { d.Size *= 2 }, nil},
		{"cut off", func(d *meta.Disk) { d.Size = 4096 }, syscall.EINVAL},
		{"read-only", func(d *meta.Disk) { d.ReadOnly = true }, syscall.EROFS},
		{"revoked", func(d *meta.Disk) { d.Revoked = 6 }, ErrBusy},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, placement.Mirror, 2, 3, 4)
			vver := uint64(6)
			b.server[2] = func(m *wire.Message) *wire.Message {
				switch {
				case m.Kind == wire.Cancel:
					return status(wire.Canceled)(m)
				case m.VVer == vver:
					return status(wire.OK)(m)
				}
				r := status(wire.OldVVer)(m)
				r.VVer = vver
				return r
			}
			ch := write(b.v, b.chunkAt(2)+1<<28, pattern(1, 4096), false)
			b.run(100 * time.Millisecond)
			pending(b, ch) // until the state comes here, too
			change(b.v, func(d *meta.Disk) { d.VVer = vver; c.change(d) })
			b.c.wake()
			b.run(100 * time.Millisecond)
			if err := result(b, ch); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// A read goes to a copy that can serve it, and believes no damaged data.
func TestReadTriesTheOtherCopy(t *testing.T) {
	b := newBench(t, placement.Mirror, 2, 3, 4)
	data := pattern(7, 4096)
	serve := func(m *wire.Message) *wire.Message {
		r := status(wire.OK)(m)
		buf := b.here.pool.Get(4096)
		copy(buf.Bytes(), data)
		r.Data.Add(buf, 0, 4096)
		buf.Release()
		r.Mask, r.Zeros = 1<<3, wire.SpanMask(m.From, m.To)&^(1<<3)
		r.SetSums()
		return r
	}
	damaged := func(m *wire.Message) *wire.Message {
		r := serve(m)
		r.Sum[0] ^= 1
		return r
	}
	for name, first := range map[string]func(*wire.Message) *wire.Message{
		"not ready": status(wire.NotReady), "no lease": status(wire.NoLease), "missing": status(wire.MissingHere), "damaged": damaged,
		"short": func(m *wire.Message) *wire.Message { r := serve(m); r.Zeros &^= 1 << 5; return r },
	} {
		tried := 0
		b.server[2], b.server[3] = first, serve
		other := b.server[2]
		b.server[2] = func(m *wire.Message) *wire.Message { tried++; return other(m) }
		for range 20 {
			ch := read(b.v, b.chunkAt(2)+512, 16*4096-1024)
			b.run(20 * time.Millisecond)
			got := result(b, ch)
			want := make([]byte, 16*4096-1024)
			copy(want[3*4096-512:], data)
			if got.err != nil || !bytes.Equal(got.data, want) {
				t.Fatalf("%s: %v", name, got.err)
			}
		}
		if tried == 0 {
			t.Errorf("%s: the first copy was never asked", name)
		}
	}
}

// Reads leave a copy that is far slower than its twin, and look at it again after
// a while.
func TestSlowCopyIsLeft(t *testing.T) {
	b := newBench(t, placement.Mirror, 2, 3, 4)
	count := map[placement.Server]int{}
	late := map[placement.Server]time.Duration{2: 100 * time.Millisecond, 3: time.Millisecond}
	for _, s := range []placement.Server{2, 3} {
		b.server[s] = func(m *wire.Message) *wire.Message {
			count[s]++
			r := status(wire.OK)(m)
			r.Zeros, r.Op = wire.SpanMask(m.From, m.To), m.Op
			b.clock.AfterFunc(late[s], func() { b.receive(s, r) })
			return nil
		}
	}
	reads := func(n int) {
		clear(count)
		for range n {
			ch := read(b.v, b.chunkAt(2), 4096)
			b.run(150 * time.Millisecond)
			if got := result(b, ch); got.err != nil {
				t.Fatal(got.err)
			}
		}
	}
	reads(50)
	reads(100)
	if count[2] > 10 || count[3] < 90 {
		t.Errorf("the slow copy got %d of 100 reads", count[2])
	}
	late[2], late[3] = time.Millisecond, 20*time.Millisecond
	reads(300) // probes find it well
	reads(100)
	if count[2] < 90 {
		t.Errorf("the copy is well again and gets %d of 100 reads", count[2])
	}
}

// This node's own member never answers: the command ends all the same, and what
// the member has is given back when it does.
func TestLocalMemberHangs(t *testing.T) {
	b := newBench(t, placement.Mirror, 1, 2, 3)
	var held []func()
	b.here.deliver = func(f func()) { held = append(held, f) }
	b.here.deliverRead = b.here.deliver
	b.server[2] = func(*wire.Message) *wire.Message { return nil }
	w := write(b.v, b.chunkAt(1), pattern(1, 4096), false)
	r := read(b.v, b.chunkAt(1)+8192, 4096)
	b.run(6 * time.Second)
	if err := result(b, w); err == nil || errors.Is(err, ErrBusy) {
		t.Errorf("a write that the member has: %v", err)
	}
	if got := result(b, r); !errors.Is(got.err, ErrBusy) {
		t.Errorf("a read: %v", got.err)
	}
	if b.c.flying.Load() != 0 {
		t.Errorf("%d pieces are left", b.c.flying.Load())
	}
	for _, f := range held {
		f()
	}
	again := write(b.v, b.chunkAt(1), pattern(2, 4096), false) // its blocks are free
	held[len(held)-1]()
	if err := result(b, again); err != nil {
		t.Error(err)
	}
}

// A long Zero asks every head, and again when one has moved.
func TestLongZeroFollowsHeads(t *testing.T) {
	b := newBench(t, placement.Stripe, 2, 3, 4)
	zeroed := map[placement.Chunk]int{}
	asked := 0
	var moved bool
	for _, s := range []placement.Server{2, 3, 4} {
		b.server[s] = func(m *wire.Message) *wire.Message {
			if m.Kind != wire.Mapped {
				zeroed[m.Key.Chunk]++
				return status(wire.OK)(m)
			}
			asked++
			if asked == 2 && !moved {
				moved = true
				st := *b.v.state.Load()
				r := *st.routes
				r.links = slices.Clone(r.links)
				r.links[0].Ver++
				st.routes = &r
				b.v.state.Store(&st)
			}
			var list []replica.MappedChunk
			for c := m.Key.Chunk; c <= placement.Chunk(m.Index) && len(list) < 3; c++ {
				if b.v.state.Load().routes.of(3, c).link == m.Link && c%5 == 0 {
					list = append(list, replica.MappedChunk{Chunk: c, Mask: 1})
				}
			}
			r := &wire.Message{Kind: wire.MappedReply, Op: m.Op, Body: replica.AppendMapped(nil, list)}
			if len(list) == 3 {
				r.Flags = wire.FlagMore
			}
			b.queue = append(b.queue, func() { b.c.receiveMapped(s, r) })
			return nil
		}
	}
	ch := zero(b.v, 0, 200*placement.ChunkSize)
	b.run(time.Second)
	if err := result(b, ch); err != nil {
		t.Fatal(err)
	}
	for c := placement.Chunk(0); c < 200; c += 5 {
		if zeroed[c] == 0 {
			t.Errorf("chunk %d is left", c)
		}
	}
	if !moved || asked < 2*3 {
		t.Errorf("asked %d times", asked)
	}
}

var _ = slab.Large
