package target

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"petal/target/iscsi"
)

// TestHalfOpen: 10,000 connections that say nothing do not keep an initiator
// out, and take a bounded amount of memory.
func TestHalfOpen(t *testing.T) {
	b := newBench(t, Config{})
	before := heap()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for n := range affordable(t, 10000) {
		c, err := net.Dial("tcp", b.address)
		if err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
		conns = append(conns, c)
		if n%1000 == 999 {
			i := dial(t, b.address)
			i.wantLogin(byte(n/1000), iscsi.LoginSuccess)
			i.ready()
		}
	}
	b.server.halfOpen.mu.Lock()
	count := b.server.halfOpen.count
	b.server.halfOpen.mu.Unlock()
	if count > maxHalfOpen {
		t.Errorf("%d half-open connections, the limit is %d", count, maxHalfOpen)
	}
	// Those that were pushed out may still be on their way.
	settles(t, "goroutines", maxHalfOpen+200, goroutines)
	// Ten sessions, and what the client's side of 10,000 sockets takes.
	settles(t, "bytes of heap more", 10<<20+10000*1024, func() int64 { return heap() - before })
}

// affordable is n, or how many connections the limit on descriptors leaves to a
// test that has both ends of some.
func affordable(t *testing.T, n int) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if most := int(min(limit.Cur, 1<<20)) - 2*maxHalfOpen - 200; most < n {
		n = most
	}
	if n < 2*maxHalfOpen {
		t.Fatalf("%d descriptors are too few to flood anything", limit.Cur)
	}
	return n
}

// settles wants a number to come down to most: what has been closed takes a
// moment to be gone.
func settles(t *testing.T, what string, most int64, now func() int64) {
	t.Helper()
	n := now()
	for deadline := time.Now().Add(patience); n > most && time.Now().Before(deadline); n = now() {
		runtime.Gosched()
	}
	if n > most {
		t.Errorf("%d %s, at most %d are right", n, what, most)
	}
}

func goroutines() int64 { return int64(runtime.NumGoroutine()) }

// TestHalfOpenFairness: who has the most connections gives one.
func TestHalfOpenFairness(t *testing.T) {
	h := halfOpen{limit: 4}
	var tickets []ticket
	var conns []*fakeConn
	for _, ip := range []byte{1, 2, 2, 2, 3, 2} {
		c := &fakeConn{ip: ip}
		conns = append(conns, c)
		tickets = append(tickets, h.enter(c))
	}
	for n, want := range []bool{false, true, true, false, false, false} {
		if conns[n].closed != want {
			t.Errorf("connection %d of address %d: closed %v", n, conns[n].ip, conns[n].closed)
		}
	}
	for _, k := range tickets {
		h.leave(k)
	}
	if h.count != 0 || len(h.sources) != 0 {
		t.Errorf("left: %d of %d addresses", h.count, len(h.sources))
	}
}

type fakeConn struct {
	net.Conn
	ip     byte
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, c.ip)} }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLeaks: 1,000 logins and logouts leave nothing behind: no goroutine, no
// descriptor, no memory.
func TestLeaks(t *testing.T) {
	b := newBench(t, Config{})
	once := func() {
		c, err := net.Dial("tcp", b.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		i := &initiator{t: t, conn: c, in: iscsi.NewReader(c, 4096)}
		i.wantLogin(1, iscsi.LoginSuccess)
		i.ready()
		i.logout()
	}
	for range 20 {
		once()
	}
	b.wantSessions(0)
	running, files, memory := goroutines(), descriptors(t), heap()
	for range 1000 {
		once()
	}
	b.wantSessions(0)
	settles(t, "goroutines", running, goroutines)
	settles(t, "descriptors", files, func() int64 { return descriptors(t) })
	settles(t, "bytes of heap", memory+1<<20, heap)
}

func descriptors(t *testing.T) int64 {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(fds))
}

// TestDiscoveryFlood: discovery sessions, which need no secret, cannot use up
// what other sessions need; whoever has the most loses his oldest.
func TestDiscoveryFlood(t *testing.T) {
	b := newBench(t, Config{})
	discover := func(from byte, n int) *initiator {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
		c, err := d.Dial("tcp", b.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		i := &initiator{t: t, conn: c, in: iscsi.NewReader(c, 4096)}
		var h iscsi.BHS
		h.Reset(iscsi.OpLoginRequest)
		h.SetImmediate(true)
		l := h.LoginRequest()
		l.SetTransit(true)
		l.SetCSG(iscsi.StageOperational)
		l.SetNSG(iscsi.StageFullFeature)
		i.send(&h, iscsi.AppendText(nil, []iscsi.Pair{{Key: "InitiatorName", Value: fmt.Sprintf("iqn.2026-11.flood:%d", n)}, {Key: "SessionType", Value: "Discovery"}}))
		if s := i.next().LoginResponse().Status(); s != iscsi.LoginSuccess {
			t.Fatalf("discovery session %d: %v", n, s)
		}
		return i
	}
	quiet := discover(1, 0)
	var flood []*initiator
	for n := 1; n < maxDiscovery+10; n++ {
		flood = append(flood, discover(2, n))
	}
	for n, i := range flood[:10] {
		i.conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := i.in.Next(); err != io.EOF {
			t.Errorf("session %d of the flood: %v", n, err)
		}
	}
	b.server.sessions.mu.Lock()
	if n := len(b.server.sessions.discovery); n != maxDiscovery {
		t.Errorf("%d discovery sessions", n)
	}
	b.server.sessions.mu.Unlock()
	var h iscsi.BHS
	h.Reset(iscsi.OpTextRequest)
	h.SetFinal(true)
	h.TextRequest().SetTTT(iscsi.ReservedTag)
	quiet.send(&h, iscsi.AppendText(nil, []iscsi.Pair{{Key: "SendTargets", Value: "All"}}))
	if a := quiet.next(); a.Opcode() != iscsi.OpTextResponse {
		t.Errorf("the quiet one hears %v", a.Opcode())
	}
	i := dial(t, b.address)
	i.wantLogin(1, iscsi.LoginSuccess)
}

// TestMutualOnly: an account for the target alone is refused, since it would
// ask nothing of initiators.
func TestMutualOnly(t *testing.T) {
	b := newBench(t, Config{})
	half := CHAP{MutualUser: "you", MutualSecret: "secret of yours"}
	if b.server.SetDiscovery(half) == nil || b.server.SetTarget(testTarget, Target{Device: b.device, CHAP: half}) == nil {
		t.Error("taken")
	}
}
