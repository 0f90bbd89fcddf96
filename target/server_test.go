package target

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"petal/target/iscsi"
	"petal/target/login"
)

// TestMain looks for goroutines that are left behind, and gives those that are
// on their way out the time for it. What runs in parallel here is tools that
// mostly sleep.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "8")
	code := m.Run()
	if code == 0 {
		err := goleak.Find()
		for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// wantLogin logs in and wants the status.
func (i *initiator) wantLogin(isid byte, want iscsi.LoginStatus, keys ...string) iscsi.LoginResponse {
	i.t.Helper()
	r := i.login(isid, keys...)
	if r.Status() != want {
		i.t.Fatalf("login: %v, want %v", r.Status(), want)
	}
	return r
}

// ready takes the unit attention of a new nexus and wants the next command to
// work.
func (i *initiator) ready() {
	i.t.Helper()
	for _, want := range []uint8{2, 0} {
		i.send(i.command(0, 512, false), nil)
		if got := i.finish(); got != want {
			i.t.Fatalf("status %#x, want %#x", got, want)
		}
	}
}

// wantGone wants the connection closed by the server, and nothing before but
// asynchronous messages.
func (i *initiator) wantGone() {
	i.t.Helper()
	i.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		h, err := i.in.Next()
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			i.t.Fatal("the connection is still there")
		}
		if err != nil {
			return
		}
		if h.Opcode() != iscsi.OpAsyncMessage {
			i.t.Fatalf("got %v", h.Opcode())
		}
	}
}

func (i *initiator) logout() {
	i.t.Helper()
	var h iscsi.BHS
	h.Reset(iscsi.OpLogoutReq)
	h.SetImmediate(true)
	h.SetFinal(true)
	i.send(&h, nil)
	if l := i.next(); l.Opcode() != iscsi.OpLogoutResp || l.LogoutResponse().Code() != iscsi.LogoutDone {
		i.t.Fatalf("logout: % x", l[:])
	}
	i.wantGone()
}

func TestSession(t *testing.T) {
	b := newBench(t, Config{})
	i := dial(t, b.address)
	r := i.wantLogin(1, iscsi.LoginSuccess)
	i.ready()
	infos := b.server.Sessions()
	if len(infos) != 1 {
		t.Fatalf("%d sessions", len(infos))
	}
	s := infos[0]
	if s.Initiator != testInitiator || s.Target != testTarget || s.TSIH != r.TSIH() || s.TSIH == 0 || s.ISID != r.ISID() ||
		s.TPGT != 1 || s.Commands != 2 || s.BytesRead != 512 || s.Portal != b.address || s.Remote != i.conn.LocalAddr().String() {
		t.Errorf("%+v", s)
	}
	i.logout()
	b.wantSessions(0)
}

// wantSessions waits until there are n sessions: they leave the registry a
// moment after their connection.
func (b *bench) wantSessions(n int) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); len(b.server.Sessions()) != n; runtime.Gosched() {
		if time.Now().After(deadline) {
			b.t.Fatalf("%d sessions, want %d", len(b.server.Sessions()), n)
		}
	}
}

// TestReinstatement: a second login of the same initiator port ends the first
// session; one with another ISID, or at another portal group, does not.
func TestReinstatement(t *testing.T) {
	b := newBench(t, Config{})
	second := b.listen(2)
	first, other, elsewhere := dial(t, b.address), dial(t, b.address), dial(t, second)
	for i, isid := range map[*initiator]byte{first: 1, other: 2, elsewhere: 1} {
		i.wantLogin(isid, iscsi.LoginSuccess)
		i.ready()
	}
	again := dial(t, b.address)
	again.wantLogin(1, iscsi.LoginSuccess)
	first.wantGone()
	again.ready()
	b.wantSessions(3)
	for _, i := range []*initiator{other, elsewhere} {
		i.send(i.command(0, 512, false), nil)
		if i.finish() != 0 {
			t.Error("another session was touched")
		}
	}
}

// TestParallelLogins of one initiator port: they take each other's place, and
// one is left.
func TestParallelLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // none waits too long for those before it
		b, p := newServer(t, Config{}), newPipes()
		b.server.Serve(p, Portal{TPGT: 1})
		var all sync.WaitGroup
		for range 16 {
			i := p.dial(t)
			defer i.conn.Close()
			all.Go(func() {
				var h iscsi.BHS
				h.Reset(iscsi.OpLoginRequest)
				l := h.LoginRequest()
				h.SetImmediate(true)
				l.SetTransit(true)
				l.SetCSG(iscsi.StageOperational)
				l.SetNSG(iscsi.StageFullFeature)
				i.out.AppendBytes(&h, iscsi.AppendText(nil, []iscsi.Pair{{Key: "InitiatorName", Value: testInitiator}, {Key: "SessionType", Value: "Normal"}, {Key: "TargetName", Value: testTarget}}))
				i.out.Flush(i.conn) // those who lose find their connection closed
				i.in.Next()
			})
		}
		all.Wait()
		synctest.Wait()
		if n := len(b.server.Sessions()); n != 1 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func TestACL(t *testing.T) {
	b := newBench(t, Config{})
	b.set(Target{ACL: []string{strings.ToUpper(testInitiator[:3]) + testInitiator[3:]}})
	i := dial(t, b.address)
	i.wantLogin(1, iscsi.LoginSuccess)
	i.ready()
	b.set(Target{ACL: []string{"iqn.2026-11.petal:other"}})
	i.wantGone()
	dial(t, b.address).wantLogin(1, iscsi.LoginForbidden)
	if got := b.discover(testInitiator); len(got) != 0 {
		t.Errorf("discovery tells %v", got)
	}
	if got := b.discover("iqn.2026-11.petal:other"); len(got) != 1 {
		t.Errorf("discovery tells %v", got)
	}
	b.server.RemoveTarget(testTarget)
	dial(t, b.address).wantLogin(1, iscsi.LoginNotFound)
}

// discover returns the targets with their addresses.
func (b *bench) discover(initiator string) map[string][]string {
	b.t.Helper()
	i := dial(b.t, b.address)
	var h iscsi.BHS
	h.Reset(iscsi.OpLoginRequest)
	h.SetImmediate(true)
	l := h.LoginRequest()
	l.SetTransit(true)
	l.SetCSG(iscsi.StageOperational)
	l.SetNSG(iscsi.StageFullFeature)
	i.send(&h, iscsi.AppendText(nil, []iscsi.Pair{{Key: "InitiatorName", Value: initiator}, {Key: "SessionType", Value: "Discovery"}}))
	if r := i.next().LoginResponse(); r.Status() != iscsi.LoginSuccess {
		b.t.Fatal(r.Status())
	}
	h.Reset(iscsi.OpTextRequest)
	h.SetFinal(true)
	h.TextRequest().SetTTT(iscsi.ReservedTag)
	i.send(&h, iscsi.AppendPair(nil, "SendTargets", "All"))
	i.next()
	text, err := i.in.Data()
	if err != nil {
		b.t.Fatal(err)
	}
	found, last := map[string][]string{}, ""
	for item := range strings.SplitSeq(strings.TrimRight(string(text), "\x00"), "\x00") {
		switch key, value, _ := strings.Cut(item, "="); key {
		case "TargetName":
			last = value
			found[last] = nil
		case "TargetAddress":
			found[last] = append(found[last], value)
		}
	}
	return found
}

// TestPortals: of the portals those are told that the initiator can use.
func TestPortals(t *testing.T) {
	b := newBench(t, Config{})
	for _, p := range []Portal{
		{Advertise: "192.0.2.1:3260", TPGT: 2}, {Advertise: "[2001:db8::1]:3260", TPGT: 3},
		{Advertise: "san.example.com:3260", TPGT: 4}, {Advertise: "0.0.0.0:3261", TPGT: 5}, {Advertise: "127.0.0.2:3260", TPGT: 6},
		{Advertise: "127.0.0.3:3260", TPGT: 7}, // one too many for an initiator
	} {
		p.Listen = testHost + ":0"
		if _, err := b.server.Listen(p); err != nil {
			t.Fatal(err)
		}
	}
	got := strings.Join(b.discover(testInitiator)[testTarget], " ")
	if want := b.address + ",1 san.example.com:3260,4 " + testHost + ":3261,5 127.0.0.2:3260,6"; got != want {
		t.Errorf("told   %s\nwant   %s", got, want)
	}
}

func TestRedirect(t *testing.T) {
	b := newBench(t, Config{})
	b.set(Target{Redirect: "192.0.2.7:3260"})
	i := dial(t, b.address)
	i.wantLogin(1, iscsi.LoginMovedTemporarily)
	if text, _ := i.in.Data(); !strings.Contains(string(text), "TargetAddress=192.0.2.7:3260") {
		t.Errorf("text %q", text)
	}
}

// TestCHAP with a real initiator, both ways, for a session and for discovery.
func TestCHAP(t *testing.T) {
	tool, err := exec.LookPath("iscsi-ls")
	if err != nil {
		t.Skip("iscsi-ls is not installed (Debian: libiscsi-bin)")
	}
	b := newBench(t, Config{})
	chap := CHAP{User: "me", Secret: "secret of mine", MutualUser: "you", MutualSecret: "secret of yours"}
	b.set(Target{CHAP: chap})
	if err := b.server.SetDiscovery(chap); err != nil {
		t.Fatal(err)
	}
	if err := b.server.SetDiscovery(CHAP{User: "me", Secret: "short"}); err == nil {
		t.Error("a short secret was taken")
	}
	run := func(env ...string) error {
		c := exec.Command(tool, "-s", "iscsi://"+b.address)
		c.Env = append(os.Environ(), env...)
		out, err := c.CombinedOutput()
		if err == nil && !strings.Contains(string(out), "Lun:0") {
			err = errors.New(string(out))
		}
		return err
	}
	mine := []string{"LIBISCSI_CHAP_USERNAME=me", "LIBISCSI_CHAP_PASSWORD=secret of mine"}
	yours := []string{"LIBISCSI_CHAP_TARGET_USERNAME=you", "LIBISCSI_CHAP_TARGET_PASSWORD=secret of yours"}
	if err := run(append(mine, yours...)...); err != nil {
		t.Errorf("mutual: %v", err)
	}
	if err := run(mine...); err != nil {
		t.Errorf("one-way: %v", err)
	}
	if run("LIBISCSI_CHAP_USERNAME=me", "LIBISCSI_CHAP_PASSWORD=secret of mind") == nil || run() == nil {
		t.Error("a wrong secret, or none, opened the door")
	}
}

// TestEnd: every way to end a session from this side.
func TestEnd(t *testing.T) {
	for name, end := range map[string]func(*bench, uint16){
		"kill":   func(b *bench, tsih uint16) { b.server.KillSession(tsih) },
		"remove": func(b *bench, _ uint16) { b.server.RemoveTarget(testTarget) },
		"close":  func(b *bench, _ uint16) { b.server.Close() },
		"drain":  func(b *bench, _ uint16) { b.server.Drain(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Config{})
			i := dial(t, b.address)
			r := i.wantLogin(1, iscsi.LoginSuccess)
			i.ready()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				end(b, r.TSIH())
			}()
			i.wantGone()
			b.wantSessions(0)
			<-ended
		})
	}
	if New(Config{}).KillSession(1) {
		t.Error("killed a session that is not there")
	}
}

// TestTargetColdReset drops all sessions of the target.
func TestTargetColdReset(t *testing.T) {
	b := newBench(t, Config{})
	one, two := dial(t, b.address), dial(t, b.address)
	one.wantLogin(1, iscsi.LoginSuccess)
	two.wantLogin(2, iscsi.LoginSuccess)
	var h iscsi.BHS
	h.Reset(iscsi.OpTaskRequest)
	h.SetImmediate(true)
	h.SetFinal(true)
	h.TaskRequest().SetFunction(iscsi.TargetColdReset)
	h.Request().SetCmdSN(1)
	one.send(&h, nil)
	if a := one.next(); a.Opcode() != iscsi.OpTaskResponse || a.TaskResponse().Code() != iscsi.TaskFunctionComplete {
		t.Fatalf("answer % x", a[:])
	}
	one.wantGone()
	two.wantGone()
}

// TestGarbage at the door: the connection goes, the server stays.
func TestGarbage(t *testing.T) {
	b := newBench(t, Config{})
	var command iscsi.BHS
	command.Reset(iscsi.OpSCSICommand)
	long := iscsi.BHS{0x43, 0x87}
	long.SetDataLength(1 << 20)
	for name, in := range map[string][]byte{
		"HTTP": []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n" + strings.Repeat(" ", 100)), "zeros": make([]byte, 4096),
		"command before login": command[:], "data segment too long": long[:], "cut off": long[:20],
	} {
		t.Run(name, func(t *testing.T) {
			i := dial(t, b.address)
			i.conn.Write(in)
			i.conn.(*net.TCPConn).CloseWrite()
			i.conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, i.conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
		})
	}
	i := dial(t, b.address)
	i.wantLogin(1, iscsi.LoginSuccess)
	i.ready()
}

// pipes is a listener of in-memory connections, for virtual time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		if c == nil {
			return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
		}
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3260} }

func (p *pipes) dial(t *testing.T) *initiator {
	ours, theirs := net.Pipe()
	p.conns <- ours
	return &initiator{t: t, conn: theirs, in: iscsi.NewReader(theirs, 4096)}
}

// TestLoginTimeout: a stage may take so long, then the connection is closed.
func TestLoginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := New(Config{LoginTimeout: 7 * time.Second}), newPipes()
		s.Serve(p, Portal{TPGT: 1})
		begin := time.Now()
		i := p.dial(t)
		i.wantGone()
		if d := time.Since(begin); d != 7*time.Second {
			t.Errorf("closed after %v", d)
		}
		s.Close()
	})
}

// TestRefusals: the first is answered at once, the next a second later each,
// and beyond that the connection is just closed.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := New(Config{}), newPipes()
		s.Serve(p, Portal{TPGT: 1})
		begin := time.Now()
		after := make(chan time.Duration, 6)
		for range 6 {
			i := p.dial(t)
			go func() {
				if i.login(1).Status() == iscsi.LoginNotFound {
					after <- time.Since(begin)
				}
			}()
			synctest.Wait()
			if len(after) == 0 {
				t.Fatal("the first one was not answered at once")
			}
			if len(after) > 1 {
				t.Fatal("the second one was")
			}
			if s.refusals.next[testInitiator].Sub(begin) >= 4*time.Second {
				break
			}
		}
		for n := range time.Duration(4) {
			if d := <-after; d != n*time.Second {
				t.Errorf("answer %d after %v", n, d)
			}
		}
		s.Close()
	})
	var r refusals
	now := time.Now()
	for range 4 {
		r.wait("a", now)
	}
	if _, ok := r.wait("a", now); ok {
		t.Error("the fifth within a moment is answered")
	}
	if pause, ok := r.wait("b", now); pause != 0 || !ok {
		t.Error("another initiator has to wait")
	}
	for i := range 2 * maxRefusals {
		r.wait(string(rune(i)), now)
	}
	if len(r.next) > maxRefusals {
		t.Errorf("%d remembered", len(r.next))
	}
}

// TestAcceptError: running out of descriptors passes, at the cost of the oldest
// connection that has not logged in.
func TestAcceptError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := New(Config{}), newPipes()
		s.Serve(p, Portal{TPGT: 1})
		oldest := p.dial(t)
		synctest.Wait()
		p.conns <- nil
		begin := time.Now()
		oldest.wantGone()
		if time.Since(begin) != 0 {
			t.Error("the oldest one was not closed at once")
		}
		i := p.dial(t)
		if r := i.login(1); r.Status() != iscsi.LoginNotFound {
			t.Errorf("login afterwards: %v", r.Status())
		}
		i.conn.Close()
		s.Close()
	})
}

// TestTSIH: none is given out twice, and there is a limit.
func TestTSIH(t *testing.T) {
	var r registry
	r.init()
	seen := map[uint16]bool{}
	for range maxSessions {
		n, ok := r.newTSIH()
		if !ok || n == 0 || seen[n] {
			t.Fatalf("TSIH %d, %v", n, ok)
		}
		seen[n] = true
	}
	if _, ok := r.newTSIH(); ok {
		t.Error("more than the limit")
	}
	r.last = 0xffff - 1
	r.freeTSIH(3)
	if n, ok := r.newTSIH(); !ok || n != 0xffff {
		t.Errorf("TSIH %d, %v", n, ok)
	}
	r.freeTSIH(5)
	if n, ok := r.newTSIH(); !ok || n != 3 {
		t.Errorf("TSIH %d, %v", n, ok)
	}
	if _, ok := r.connection(nexus{login.Nexus{Initiator: "a"}, 1}, 0); ok {
		t.Error("found a session that is not there")
	}
}

// observed counts what an observer is told.
type observed struct {
	mu                sync.Mutex
	commands, in, out int
	closed            chan struct{}
}

func (o *observed) Command(_ uint64, opcode byte, in, out int, status byte, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if status == 0 && took > 0 && (opcode == 0x28 || opcode == 0x2a) {
		o.commands++
	}
	o.in += in
	o.out += out
}
func (o *observed) Closed() { close(o.closed) }

func TestObserver(t *testing.T) {
	o := &observed{closed: make(chan struct{})}
	b := newBench(t, Config{Observe: func(target, initiator string) SessionObserver {
		if target != testTarget || initiator != testInitiator {
			t.Errorf("session of %s to %s", initiator, target)
		}
		return o
	}})
	i := dial(t, b.address)
	i.wantLogin(1, iscsi.LoginSuccess)
	i.ready()
	i.send(i.command(8, 1024, true), make([]byte, 1024))
	i.finish()
	i.logout()
	<-o.closed
	if o.commands != 2 || o.in != 512 || o.out != 1024 {
		t.Errorf("%d commands, %d bytes in, %d out", o.commands, o.in, o.out)
	}
}
