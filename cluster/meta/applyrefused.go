package meta

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// refused writes into the diary that somebody was refused something that
// whoever runs the cluster should hear of, also where the one who asked is a
// machine: a server that may not join or start, one that may not be removed, a
// copy that may not be taken for the truth, a disk that can't be placed.
func (n *State) refused(cmd *metapb.Command, why error) {
	var e *Error
	if n.clusterID == (ID{}) || !errors.As(why, &e) {
		return
	}
	server, what := n.attempt(cmd, e)
	if what == "" {
		return
	}
	n.now = cmd.UnixMs
	defer func() { n.now = 0 }()
	n.eventOnce("refused", server, what+": "+e.Error())
}

// attempt says what was refused, and of whom; empty if nobody else needs to know.
func (n *State) attempt(cmd *metapb.Command, e *Error) (placement.Server, string) {
	switch k := cmd.Kind.(type) {
	case *metapb.Command_Join:
		return 0, fmt.Sprintf("server %q was not let in", k.Join.Name)
	case *metapb.Command_Start:
		id := placement.Server(k.Start.Server)
		return id, fmt.Sprintf("server %s may not start", n.NameOf(id))
	case *metapb.Command_Leave:
		return 0, fmt.Sprintf("server %q was not removed", k.Leave.Name)
	case *metapb.Command_ForceLink:
		return 0, linkThing(linkID(k.ForceLink.Gmap, k.ForceLink.Position)) + " was not forced to another copy"
	case *metapb.Command_CreateDisk:
		if e.Kind == ErrInvalid {
			return 0, fmt.Sprintf("disk %q was not made", k.CreateDisk.Name)
		}
	}
	return 0, ""
}

// onceIn is how long an event is not written down again. Whoever is refused
// tends to try again, a service manager several times a minute.
const onceIn = time.Hour

// eventOnce is event, but for what is there already and recent.
func (n *State) eventOnce(kind string, server placement.Server, text string) {
	text = short(text)
	since := unixMs(max(n.now-onceIn.Milliseconds(), 1))
	if slices.ContainsFunc(n.events, func(e *Event) bool { return e.Kind == kind && e.Text == text && e.Time.After(since) }) {
		return
	}
	n.event(kind, server, "%s", text)
}
