package peer

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"petal/cluster/wire"
)

func someGreeting() greeting {
	return greeting{
		Cluster: clusterID, From: 2, To: 1, Incarnation: 3, Session: 4, Class: wire.ClassBackground,
		Least: 1, Most: 2, Refusal: oldSession, Window: 5, Release: "petal 1.2", Addr: "192.0.2.1:3259",
	}
}

func TestGreeting(t *testing.T) {
	want := someGreeting()
	b := want.append(nil)
	got, err := parseGreeting(b)
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := parseGreeting(b[:n]); !errors.Is(err, wire.ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for name, change := range map[string]func(g *greeting){
		"from nobody": func(g *greeting) { g.From = 0 }, "to nobody": func(g *greeting) { g.To = 0 },
		"class": func(g *greeting) { g.Class = wire.Classes }, "versions": func(g *greeting) { g.Least = 3 },
		"control characters": func(g *greeting) { g.Release = "\x1b[2J" }, "not UTF-8": func(g *greeting) { g.Release = "\xff" }, "address": func(g *greeting) { g.Addr = "\n" },
	} {
		g := someGreeting()
		change(&g)
		if _, err := parseGreeting(g.append(nil)); !errors.Is(err, wire.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	g := someGreeting()
	g.Release = strings.Repeat("x", 100)
	if got, err := parseGreeting(g.append(nil)); err != nil || len(got.Release) != releaseMax {
		t.Errorf("long release: %q, %v", got.Release, err)
	}
	g.Addr = strings.Repeat("x", 300)
	if got, err := parseGreeting(g.append(nil)); err != nil || got.Addr != "" {
		t.Errorf("long address: %q, %v", got.Addr, err)
	}
	if got := refusal(77).String(); got != "refuses for reason 77" {
		t.Error(got)
	}
	for r := range refusal(refusalsKnown) {
		if r.String() == "" {
			t.Errorf("refusal %d has no text", r)
		}
	}
}

// FuzzHello: whatever comes instead of a Hello, at most so many bytes of it are
// read, and what is taken is what append makes.
func FuzzHello(f *testing.F) {
	g := someGreeting()
	hello, _ := (&wire.Message{Kind: wire.Hello, Body: g.append(nil)}).AppendFrame(nil)
	ping, _ := (&wire.Message{Kind: wire.Ping}).AppendFrame(nil)
	raft, _ := (&wire.Message{Kind: wire.Raft, Body: make([]byte, 1000)}).AppendFrame(nil)
	f.Add(hello, g.append(nil))
	f.Add(ping, []byte{})
	f.Add(raft, make([]byte, greetingSize))
	f.Fuzz(func(t *testing.T, stream, body []byte) {
		if len(body) <= 1<<10 {
			frame, err := (&wire.Message{Kind: wire.Hello, Body: body}).AppendFrame(nil)
			if err != nil {
				t.Fatal(err)
			}
			hearAny(t, frame)
		}
		hearAny(t, stream)
	})
}

func hearAny(t *testing.T, stream []byte) {
	r := bytes.NewReader(stream)
	var m wire.Message
	g, err := hear(r, &m, wire.Hello)
	if read := len(stream) - r.Len(); read > wire.HeaderSize+wire.MaxDetail+greetingMax {
		t.Fatalf("%d bytes read", read)
	}
	if err != nil {
		return
	}
	if !bytes.Equal(g.append(nil), m.Body) {
		t.Fatalf("%+v is not what %x says", g, m.Body)
	}
}

func TestHearTakesNotAByteMore(t *testing.T) {
	g := someGreeting()
	frame, _ := (&wire.Message{Kind: wire.Hello, Body: g.append(nil)}).AppendFrame(nil)
	r := bytes.NewReader(append(frame, "what follows"...))
	var m wire.Message
	if got, err := hear(r, &m, wire.Hello); err != nil || got != g {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "what follows" {
		t.Errorf("%q is left", rest)
	}
}
