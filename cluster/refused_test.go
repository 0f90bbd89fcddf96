package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/cluster/meta"
	"petal/journal/vfs"
)

func hasEvent(s *meta.State, words ...string) bool {
	return slices.ContainsFunc(s.Events(), func(e *meta.Event) bool {
		return e.Kind == "refused" && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.Text, w) })
	})
}

// TestRefusedStartIsTold: a server that can't start, because its brick is not there,
// ends; the others find the reason in the events. What strangers bring about is
// bounded.
func TestRefusedStartIsTold(t *testing.T) { virtual(t, refusedStartIsTold) }

func refusedStartIsTold(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	s := c.nodes[2]
	c.kill(2)
	disk, maps := s.disk, s.maps
	s.disk, s.maps = vfs.NewMemory(1<<30), pebblefs.NewCrashableMem()
	c.open(2)
	<-s.Ready()
	if err := s.Failed(); !errors.Is(err, meta.ErrNotFound) || meta.HintOf(err) == "" {
		t.Errorf("without its brick it starts, or fails with %v", err)
	}
	eventually(t, c.nodes[0].Node, func(s *meta.State) bool {
		return hasEvent(s, "could not start", "the node has kept its data there before")
	})
	s.Close(t.Context())
	s.disk, s.maps = disk, maps
	c.start(2)
	for i := range 3 * refusedMost {
		c.nodes[1].tellRefused(fmt.Sprintf("stranger %d was not let in", i%(2*refusedMost)))
	}
	eventually(t, c.nodes[0].Node, func(s *meta.State) bool { return hasEvent(s, fmt.Sprintf("stranger %d ", refusedMost-1)) })
	if c.nodes[1].tellRefused("stranger 0 was not let in"); hasEvent(c.nodes[0].State(), fmt.Sprintf("stranger %d ", refusedMost)) {
		t.Error("strangers can fill the events")
	}
}

// TestRefusedWords: a stranger's words harm nobody, whatever they are and wherever
// they are cut.
func TestRefusedWords(t *testing.T) { virtual(t, refusedWords) }

func refusedWords(t *testing.T) {
	c := newMemCluster(t, 1, 1)
	n := c.nodes[0].Node
	for _, text := range []string{"a" + strings.Repeat("é", refusedText), "b\xff\xfe"} {
		n.tellRefused(text)
		eventually(t, n, func(s *meta.State) bool { return hasEvent(s, text[:1]) })
	}
	got := make(chan error, 1)
	n.note("refused", "c\xff", func() { got <- nil })
	<-got
	if hasEvent(n.State(), "c") {
		t.Error("what is no text was agreed on")
	}
	if n.Failed() != nil {
		t.Error(n.Failed())
	}
}
