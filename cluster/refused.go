package cluster

import (
	"maps"
	"strings"
	"time"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
)

// Bounds of what is written down of those who were not let in: who knocks must not
// be able to fill the events.
const (
	refusedFor  = time.Hour // the same is not told again for so long
	refusedMost = 32        // different ones in that time
	refusedText = 300       // bytes
)

// tellRefused has it written into the events that somebody was refused who is not
// in a position to write there. It does not wait.
func (n *Node) tellRefused(text string) {
	text = strings.ToValidUTF8(text[:min(len(text), refusedText)], "") // it may be a stranger's, and is cut
	now := n.env.Clock.Now()
	n.mu.Lock()
	maps.DeleteFunc(n.refused, func(_ string, at time.Duration) bool { return now-at >= refusedFor })
	_, told := n.refused[text]
	if told = told || len(n.refused) >= refusedMost || n.closed; !told {
		n.refused[text] = now
	}
	n.mu.Unlock()
	if told {
		return
	}
	n.opt.Log.Warn("refused", "what", text)
	n.note("refused", text, nil)
}

// note has something written into the events; then, if that is not nil, is called
// when it is there, or can't be.
func (n *Node) note(kind, text string, then func()) {
	n.ProposeAsync(command(&metapb.Note{Kind: kind, Server: uint32(n.self), Text: text}), func(_ *meta.State, err error) {
		if err != nil {
			n.opt.Log.Info("an event was not written down", "event", text, "error", err)
		}
		if then != nil {
			then()
		}
	})
}
