package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"petal/cluster/meta"
	"petal/cluster/wire"
	"petal/placement"
)

// TestCountSessions: whoever is asked knows the sessions of all. A server that is
// alive and can't be heard is named, for it may have any; one that has been taken
// for dead has none.
func TestCountSessions(t *testing.T) { virtual(t, countSessions) }

func countSessions(t *testing.T) {
	c := newMemCluster(t, 3, 0.5)
	count := func(at int) SessionCount {
		t.Helper()
		got, err := c.nodes[at].CountSessions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	c.nodes[0].ServeSessions(func() map[string]int { return map[string]int{"iqn.a": 2, "iqn.b": 1} })
	c.nodes[1].ServeSessions(func() map[string]int { return map[string]int{"iqn.a": 1} })
	if got := count(0); !slices.Equal(got.Silent, []placement.Server{3}) {
		t.Errorf("n3 does not know yet, and does not count as silent: %+v", got)
	}
	c.nodes[2].ServeSessions(func() map[string]int { return nil })
	for at := range c.nodes {
		got := count(at)
		if len(got.Silent) > 0 || len(got.At) != 3 || got.At[1]["iqn.a"] != 2 || got.At[1]["iqn.b"] != 1 || got.At[2]["iqn.a"] != 1 || len(got.At[3]) != 0 {
			t.Errorf("asked at n%d: %+v", at+1, got)
		}
	}
	c.net.cut(2, 3, true) // n1, which leads, hears both
	if got := count(2); !slices.Equal(got.Silent, []placement.Server{2}) || got.At[2] != nil || got.At[1]["iqn.a"] != 2 {
		t.Errorf("n2 can't be heard by n3: %+v", got)
	}
	c.net.cut(2, 3, false)
	c.kill(1)
	eventually(t, c.nodes[0].Node, func(s *meta.State) bool { return !s.Server(2).Down.IsZero() })
	if got := count(0); len(got.Silent) > 0 || got.At[2] != nil || got.At[1]["iqn.a"] != 2 {
		t.Errorf("n2 is dead: %+v", got)
	}
	c.net.cut(1, 3, true)
	if got, err := c.nodes[0].CountSessions(t.Context()); !errors.Is(err, meta.ErrNoQuorum) {
		t.Errorf("without a majority: %+v, %v", got, err)
	}
}

// TestStaleSessionCount: an answer to an earlier question, or one that makes no
// sense, is none.
func TestStaleSessionCount(t *testing.T) {
	cs := &sessionCounts{}
	n := &Node{self: 1}
	n.state.Store(&meta.State{})
	cs.list = []*sessionCount{{n: n, number: 7, at: map[placement.Server]map[string]int{}}}
	body, _ := appendSessions(nil, map[string]int{"iqn.a": 1})
	cs.receive(2, &wire.Message{Kind: wire.SessionsHere, Index: 6, Body: body})
	cs.receive(2, &wire.Message{Kind: wire.SessionsHere, Index: 7, Body: body[:len(body)-1]})
	if len(cs.list[0].at) > 0 {
		t.Errorf("taken: %v", cs.list[0].at)
	}
}

// FuzzSessions: what another server says is bounded, and has one way to be said.
func FuzzSessions(f *testing.F) {
	most := map[string]int{}
	for i := range maxSessionTargets {
		most[fmt.Sprintf("%0*d", meta.MaxTargetName, i)] = 1 + i
	}
	for _, count := range []map[string]int{{}, {"iqn.a": 1}, {"iqn.a": 3, "iqn.b": 1 << 31}, {strings.Repeat("x", meta.MaxTargetName): 2}, most} {
		b, ok := appendSessions(nil, count)
		if got, sound := parseSessions(b); !ok || !sound || !maps.Equal(got, count) || len(b) > wire.MaxBody {
			f.Fatalf("%d targets: %d bytes, %t, %t", len(count), len(b), ok, sound)
		}
		f.Add(b)
	}
	most["one more"] = 1
	if _, ok := appendSessions(nil, most); ok {
		f.Error("more targets than fit a message")
	}
	f.Add([]byte{1, 'a', 0, 0, 0, 0})
	f.Add([]byte{1, 'b', 1, 0, 0, 0, 1, 'a', 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		count, ok := parseSessions(b)
		if !ok {
			return
		}
		if again, sound := appendSessions(nil, count); !sound || len(count) > maxSessionTargets || !bytes.Equal(again, b) {
			t.Errorf("%v of %x", count, b)
		}
	})
}
