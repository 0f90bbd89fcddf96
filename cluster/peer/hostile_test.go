package peer

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"petal/cluster/peer/pki"
	"petal/cluster/wire"
	"petal/placement"
)

// hungUp waits until the other side closes the connection, and returns what it
// sent before.
func hungUp(t *testing.T, c net.Conn) (sent []byte) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	sent, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("still connected")
	}
	return sent
}

func dialRaw(t *testing.T, p *Peers) net.Conn {
	c, err := net.Dial("tcp", p.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// stillWell fails unless the two servers still talk, by the connections they had.
func stillWell(t *testing.T, one *Peers, r1, r2 *recorder) {
	t.Helper()
	if !one.Send(2, &wire.Message{Kind: wire.Cancel}) {
		t.Fatal("not connected any more")
	}
	r2.want("cancel")
	for _, r := range []*recorder{r1, r2} {
		if r.more() > 0 {
			t.Errorf("%v", r.events)
		}
	}
}

// TestStrangersGetNothing: whatever comes from one who has no certificate, he is
// cut off, learns nothing but TLS's alert, and disturbs nobody.
func TestStrangersGetNothing(t *testing.T) {
	f := newFleet(t, false)
	one, _, r1, r2 := f.pair()
	g := one.greeting(1, wire.ClassRaft)
	g.From, g.Session = 2, 1<<62
	hello, _ := (&wire.Message{Kind: wire.Hello, Body: g.append(nil)}).AppendFrame(nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	garbage := make([]byte, 64<<10)
	for i := range garbage {
		garbage[i] = byte(rnd.Uint32())
	}
	garbage[0] = 0x80
	record := func(length int, b ...byte) []byte { // of TLS, that says it is longer than it is
		return append([]byte{tlsRecord, 3, 1, byte(length >> 8), byte(length)}, b...)
	}
	for name, b := range map[string][]byte{
		"hello without encryption": hello,
		"garbage":                  garbage,
		"HTTP":                     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"huge TLS record":          append(record(0xffff), make([]byte, 0xffff)...),
		"huge TLS message":         append(record(0x4000, 1, 0xff, 0xff, 0xff), make([]byte, 0x4000-4)...),
		"endless TLS message":      bytes.Repeat(append(record(0x1000, 1, 0, 0xff, 0xff), make([]byte, 0x1000-4)...), 8),
		"garbage in TLS":           append(record(0x100), garbage[:0x100]...),
	} {
		c := dialRaw(t, one)
		c.Write(b)
		if sent := hungUp(t, c); len(sent) > 7 { // an alert: 5 bytes of record, 2 of alert (RFC 8446 section 6)
			t.Errorf("%s: answered with %d bytes", name, len(sent))
		}
	}
	stillWell(t, one, r1, r2)
}

// impostor dials server 1 with what it takes for a certificate, and says g.
func impostor(t *testing.T, one *Peers, config *tls.Config, g greeting) (greeting, error) {
	t.Helper()
	raw := dialRaw(t, one)
	raw.SetDeadline(time.Now().Add(patience))
	c := tls.Client(raw, config)
	if err := c.Handshake(); err != nil {
		return greeting{}, err
	}
	if err := say(c, &wire.Message{Kind: wire.Hello, Body: g.append(nil)}); err != nil {
		return greeting{}, err
	}
	var m wire.Message
	return hear(c, &m, wire.Welcome)
}

// TestImpostors: a certificate that is not this cluster's gets no answer at all;
// one that is gets a reason, and no more than it certifies.
func TestImpostors(t *testing.T) {
	f := newFleet(t, false)
	one, _, r1, r2 := f.pair()
	other, err := pki.NewAuthority(clusterID)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(a *pki.Authority, server placement.Server, age time.Duration) *tls.Config {
		id, err := a.Issue(pki.Name{Cluster: clusterID, Server: server}, time.Now().Add(-age))
		if err != nil {
			t.Fatal(err)
		}
		c := id.ClientConfig(protocolPeer, pki.Name{Cluster: clusterID, Server: 1})
		c.VerifyConnection = nil
		return c
	}
	hello := func(change func(g *greeting)) greeting {
		g := greeting{Cluster: clusterID, From: 2, To: 1, Incarnation: 20, Session: 1, Class: wire.ClassRequest, Least: 1, Most: 1, Window: 32 << 20}
		change(&g)
		return g
	}
	same := func(*greeting) {}
	for name, config := range map[string]*tls.Config{
		"other authority": issue(other, 2, 0), "certificate is over": issue(f.authority, 2, 2*365*24*time.Hour), "no certificate": {InsecureSkipVerify: true, NextProtos: []string{protocolPeer}},
	} {
		if g, err := impostor(t, one, config, hello(same)); err == nil {
			t.Errorf("%s: answered %+v", name, g)
		}
	}
	mine := issue(f.authority, 2, 0)
	for name, c := range map[string]struct {
		config *tls.Config
		change func(g *greeting)
		want   refusal
	}{
		"other cluster":         {mine, func(g *greeting) { g.Cluster[0]++ }, otherCluster},
		"says to be another":    {mine, func(g *greeting) { g.From = 3 }, otherServer},
		"means another":         {mine, func(g *greeting) { g.To = 3 }, otherServer},
		"old incarnation":       {mine, func(g *greeting) { g.Incarnation = 19 }, oldIncarnation},
		"no incarnation":        {mine, func(g *greeting) { g.Incarnation = 0 }, notStarted},
		"old session":           {mine, same, oldSession},
		"old session of raft":   {mine, func(g *greeting) { g.Class = wire.ClassRaft }, oldSession},
		"newer version only":    {mine, func(g *greeting) { g.Least, g.Most = 2, 3 }, otherVersion},
		"no room for a message": {mine, func(g *greeting) { g.Window = 1 << 20 }, otherVersion},
		"server 1 itself":       {issue(f.authority, 1, 0), func(g *greeting) { g.From = 1 }, wrongDirection},
		"who is not a member":   {issue(f.authority, 7, 0), func(g *greeting) { g.From = 7 }, unknownServer},
	} {
		if g, err := impostor(t, one, c.config, hello(c.change)); err != nil || g.Refusal != c.want {
			t.Errorf("%s: %v, %v; want %v", name, g.Refusal, err, c.want)
		}
	}
	stillWell(t, one, r1, r2)
}

// TestStrangersMaySayLittle: only so many bytes are read of one who has not shown
// who it is, whatever they are.
func TestStrangersMaySayLittle(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		for _, err := a.Write(make([]byte, 1000)); err == nil; _, err = a.Write(make([]byte, 1000)) {
		}
	}()
	x := stranger{Conn: b, left: strangerBytes}
	if _, err := x.peek(); err != nil {
		t.Fatal(err)
	}
	got, err := io.Copy(io.Discard, &x)
	if err != errTalkative || got > strangerBytes+1 {
		t.Errorf("%d bytes, %v", got, err)
	}
	x.trust()
	if _, err := io.ReadFull(&x, make([]byte, strangerBytes)); err != nil {
		t.Errorf("trusted: %v", err)
	}
}

// TestManyStrangers: so many connections that say nothing as one address may
// have, and more: those are closed at once, and the others when their time is
// over; who comes from elsewhere is let in meanwhile.
func TestManyStrangers(t *testing.T) {
	f := newFleet(t, false)
	one := f.start(f.options(1, 10, newRecorder(t)))
	for i := range strangersPerAddress {
		dialRaw(t, one)
		eventually(t, func() bool {
			one.strangers.mu.Lock()
			defer one.strangers.mu.Unlock()
			return len(one.strangers.open) == i+1
		})
	}
	if sent := hungUp(t, dialRaw(t, one)); len(sent) > 0 {
		t.Errorf("one too many got %x", sent)
	}
	one.strangers.mu.Lock()
	if n := len(one.strangers.open); n != strangersPerAddress {
		t.Errorf("%d are left: one too many was not closed at once", n)
	}
	one.strangers.mu.Unlock()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	opt := f.options(2, 20, newRecorder(t))
	c, err := d.Dial("tcp", one.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id := opt.TLS
	opt.Listeners[0].Close()
	if err := tls.Client(c, id.ClientConfig(protocolPeer, pki.Name{Cluster: clusterID, Server: 1})).Handshake(); err != nil {
		t.Errorf("kept out by the others: %v", err)
	}
}

// traitor is a connection of a real member that says what it likes, once all its
// classes are up.
func traitor(t *testing.T, f *fleet, one *Peers, number uint64) map[wire.Class]net.Conn {
	id, err := f.authority.Issue(pki.Name{Cluster: clusterID, Server: 2}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	conns := map[wire.Class]net.Conn{}
	for _, class := range bundleClasses[bundleData] {
		raw := dialRaw(t, one)
		c := tls.Client(raw, id.ClientConfig(protocolPeer, pki.Name{Cluster: clusterID, Server: 1}))
		g := greeting{Cluster: clusterID, From: 2, To: 1, Incarnation: 20, Session: number, Class: class, Least: 1, Most: 1, Window: 32 << 20}
		if err := say(c, &wire.Message{Kind: wire.Hello, Body: g.append(nil)}); err != nil {
			t.Fatal(err)
		}
		var m wire.Message
		if g, err := hear(c, &m, wire.Welcome); err != nil || g.Refusal != welcome {
			t.Fatal(g.Refusal, err)
		}
		if err := say(c, &wire.Message{Kind: wire.Ready, At: m.Sent}); err != nil {
			t.Fatal(err)
		}
		conns[class] = c
	}
	return conns
}

// TestTraitor: a member that sends what no member sends is cut off, and costs
// nobody memory or more than its own connections.
func TestTraitor(t *testing.T) {
	f := newFleet(t, false)
	r := newRecorder(t)
	one := f.start(f.options(1, 10, r))
	one.SetPeers([]Peer{{Server: 2}})
	frame := func(m *wire.Message) []byte {
		b, err := m.AppendFrame(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	forge := func(m *wire.Message, change func(b []byte)) []byte {
		b := frame(m)
		change(b)
		n := wire.HeaderSize + int(binary.LittleEndian.Uint16(b[52:]))
		binary.LittleEndian.PutUint32(b[60:], wire.Sum(append(bytes.Clone(b[:60]), b[64:n]...)))
		return b
	}
	cancel := &wire.Message{Kind: wire.Cancel}
	number := uint64(0)
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"garbage", bytes.Repeat([]byte("garbage "), 100)},
		{"header of zeros", make([]byte, 4096)},
		{"wrong checksum", append(frame(cancel)[:wire.HeaderSize], bytes.Repeat([]byte{7}, 100)...)},
		{"huge payload", forge(cancel, func(b []byte) { binary.LittleEndian.PutUint32(b[48:], 1<<31) })},
		{"payload of a kind without", forge(cancel, func(b []byte) { binary.LittleEndian.PutUint32(b[48:], 4096) })},
		{"newer version", forge(cancel, func(b []byte) { b[4]++ })},
		{"unknown kind", forge(cancel, func(b []byte) { b[5] = 250 })},
		{"other class", frame(&wire.Message{Kind: wire.Opened})},
		{"raft", frame(&wire.Message{Kind: wire.Raft})},
		{"hello again", frame(&wire.Message{Kind: wire.Hello})},
		{"credit that goes back", frame(&wire.Message{Kind: wire.Credit, Index: 1})},
		{"negative credit", frame(&wire.Message{Kind: wire.Credit, Index: 1 << 63})},
	} {
		number++
		conns := traitor(t, f, one, number)
		r.want("up")
		conns[wire.ClassRequest].Write(c.b)
		r.want("down")
		for _, conn := range conns {
			hungUp(t, conn)
		}
		if s := one.Status()[0]; s.Why == nil || strings.Contains(s.Why.Error(), "EOF") {
			t.Errorf("%s: cut off for %v", c.name, s.Why)
		}
	}
	if r.more() > 0 {
		t.Errorf("%v", r.events)
	}
}

// TestTraitorBeyondCredit: what is sent beyond the window ends the connection.
func TestTraitorBeyondCredit(t *testing.T) {
	f := newFleet(t, false)
	r := newRecorder(t)
	r.handle(func(_ placement.Server, m *wire.Message) { m.Keep() }) // never returned
	one := f.start(f.options(1, 10, r))
	one.SetPeers([]Peer{{Server: 2}})
	conns := traitor(t, f, one, 1)
	r.want("up")
	m := f.writeOf(1, 1, 64<<10)
	m.Kind, m.From, m.To, m.Mask = wire.Fetched, 0, 0, placement.Full
	b, err := m.AppendFrame(nil)
	m.Data.Release()
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for err == nil {
		if sent += len(b); sent > 4*windowBackground {
			t.Fatal("everything is taken")
		}
		_, err = conns[wire.ClassBackground].Write(b)
	}
	r.want("down")
	if s := one.Status()[0]; s.Why == nil || !strings.Contains(s.Why.Error(), "credit") {
		t.Errorf("cut off for %v", s.Why)
	}
	got := 0
	for _, e := range r.events {
		if e.what == "fetched" {
			got += len(e.data)
		}
	}
	if got > windowBackground {
		t.Errorf("%d bytes were handled, the window is %d", got, windowBackground)
	}
}
