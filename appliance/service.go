package appliance

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"petal/appliance/api"
	"petal/cluster/meta"
)

var _ api.Service = (*appliance)(nil)

// refusal puts an error of the node into the administrator's terms.
func refusal(err error) error {
	var known *api.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	out := &api.Error{Kind: api.Internal, Message: err.Error(), Advice: meta.HintOf(err)}
	var kind meta.Kind
	switch {
	case errors.As(err, &kind):
		out.Kind = kindOf[kind]
	case errors.Is(err, syscall.ENOSPC):
		out.Kind, out.Advice = api.NoSpace, "delete or unmap something, or give the brick more capacity"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		out.Kind, out.Advice = api.Unavailable, "try again"
	}
	if out.Kind == "" {
		out.Kind = api.Internal
	}
	if out.Advice == "" {
		out.Advice = "the node's log says more"
	}
	return out
}

var kindOf = map[meta.Kind]api.Kind{
	meta.ErrExists: api.Exists, meta.ErrNotFound: api.NotFound, meta.ErrInvalid: api.Invalid, meta.ErrInUse: api.InUse, meta.ErrStale: api.Unavailable,
	meta.ErrNoQuorum: api.Unavailable, meta.ErrNotYet: api.Unavailable, meta.ErrOld: api.Invalid,
}

// changed ends a request that changed the state: what it did is served on return.
func (a *appliance) changed(err error) error {
	a.exports.apply(a.node.State())
	return refusal(err)
}

func notFound(what, name, list string) error {
	return &api.Error{Kind: api.NotFound, Message: fmt.Sprintf("%s %q: not found", what, name), Advice: fmt.Sprintf("`%s` shows those there are", list)}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// sessionsOf counts the sessions of each target at this node; those of none are
// for discovery.
func (a *appliance) sessionsOf() map[string]int {
	count := map[string]int{}
	for _, s := range a.server.Sessions() {
		count[s.Target]++
	}
	return count
}
