package meta

import (
	"cmp"
	"slices"
	"time"

	"petal/placement"

	"go.etcd.io/raft/v3/raftpb"
)

// electorate is what the choice of voters depends on.
type electorate struct {
	state *State
	self  placement.Server // leads
	// live: it has a lease. ready: its log is nearly complete. silent: for how
	// long it has had none.
	live, ready func(placement.Server) bool
	silent      func(placement.Server) time.Duration
	replace     time.Duration // Times.Replace
}

// votersFor is how many voters a cluster of n members has: an odd number, since
// an even one survives no more failures than the odd one below it; at
// most five. Two members have one voter: the loss of the other then stops nothing.
func votersFor(n int) int {
	switch {
	case n < 3:
		return 1
	case n < 5:
		return 3
	}
	return 5
}

// change returns the next change of raft's members, nil if none is due. Voters
// change in one step (joint consensus), so that their number is odd before and
// after.
func (e *electorate) change() *raftpb.ConfChangeV2 {
	conf := &e.state.conf
	if conf.Joint() {
		return nil // raft completes it by itself
	}
	if cc := e.learners(); cc != nil {
		return cc
	}
	in, out := e.swap()
	var all []*raftpb.ConfChangeSingle
	for _, id := range out {
		kind := raftpb.ConfChangeAddLearnerNode
		if srv := e.state.servers[id]; srv == nil || srv.Leaving {
			kind = raftpb.ConfChangeRemoveNode
		}
		all = append(all, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(uint64(id))})
	}
	for _, id := range in {
		all = append(all, &raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(id))})
	}
	return jointly(all)
}

func jointly(changes []*raftpb.ConfChangeSingle) *raftpb.ConfChangeV2 {
	if len(changes) == 0 {
		return nil
	}
	how := raftpb.ConfChangeTransitionAuto
	if len(changes) > 1 {
		how = raftpb.ConfChangeTransitionJointImplicit
	}
	return &raftpb.ConfChangeV2{Transition: how.Enum(), Changes: changes}
}

// learners takes in members that raft has not heard of, and lets go of learners
// that leave.
func (e *electorate) learners() *raftpb.ConfChangeV2 {
	var all []*raftpb.ConfChangeSingle
	for _, srv := range e.state.Servers() {
		switch known := e.state.conf.Has(srv.ID); {
		case !known && !srv.Leaving:
			all = append(all, &raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(srv.ID))})
		case known && srv.Leaving && e.state.conf.Learner(srv.ID):
			all = append(all, &raftpb.ConfChangeSingle{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(srv.ID))})
		}
	}
	return jointly(all)
}

// swap returns who begins and who ceases to vote.
func (e *electorate) swap() (in, out []placement.Server) {
	keep, lost := e.incumbents()
	want := votersFor(e.staying())
	candidates := e.candidates(keep)
	// One after another, so that sites are counted as they will be.
	for len(keep)+len(in) < want && len(candidates) > 0 {
		best := e.best(candidates, append(slices.Clone(keep), in...))
		in = append(in, best)
		candidates = slices.DeleteFunc(candidates, func(id placement.Server) bool { return id == best })
	}
	// Those who are merely silent go only for a replacement: a voter that
	// may come back is better than none.
	leaving := slices.DeleteFunc(slices.Clone(lost), func(id placement.Server) bool { return !e.leaving(id) })
	silent := slices.DeleteFunc(slices.Clone(lost), e.leaving)
	for len(silent) > 0 && len(keep)+len(in) < want {
		keep, silent = append(keep, silent[0]), silent[1:]
	}
	out = append(leaving, silent...)
	for n := len(keep) + len(in); n > want || n%2 == 0; n = len(keep) + len(in) {
		switch {
		case len(in) > 0:
			in = in[:len(in)-1]
		case n > 1 && (n > want || len(out) > 0):
			worst := e.worst(keep)
			keep = slices.DeleteFunc(keep, func(id placement.Server) bool { return id == worst })
			out = append(out, worst)
		default:
			return nil, nil // an even number was there before; leave it until there is a candidate
		}
	}
	if len(keep)+len(in) == 0 {
		return nil, nil
	}
	slices.Sort(in)
	slices.Sort(out)
	return in, out
}

// incumbents splits the voters into those who stay, and those who leave or
// have been silent for too long.
func (e *electorate) incumbents() (keep, lost []placement.Server) {
	for _, id := range e.state.conf.Voters {
		if e.leaving(id) || id != e.self && e.silent(id) >= e.replace {
			lost = append(lost, id)
			continue
		}
		keep = append(keep, id)
	}
	return keep, lost
}

func (e *electorate) leaving(id placement.Server) bool {
	srv := e.state.servers[id]
	return srv == nil || srv.Leaving
}

func (e *electorate) staying() int {
	n := 0
	for _, srv := range e.state.servers {
		if !srv.Leaving {
			n++
		}
	}
	return n
}

// candidates are learners that are alive and have the log.
func (e *electorate) candidates(voters []placement.Server) []placement.Server {
	var out []placement.Server
	for _, id := range e.state.conf.Learners {
		if !e.leaving(id) && e.live(id) && e.ready(id) && !slices.Contains(voters, id) {
			out = append(out, id)
		}
	}
	return out
}

// best chooses the candidate whose site has the fewest voters: the loss of a
// site should cost few votes. A witness goes first among equals, then the
// lowest number.
func (e *electorate) best(candidates, voters []placement.Server) placement.Server {
	return slices.MinFunc(candidates, func(a, b placement.Server) int {
		return cmp.Or(cmp.Compare(e.inSite(a, voters), e.inSite(b, voters)), cmp.Compare(e.state.servers[b].Kind, e.state.servers[a].Kind), cmp.Compare(a, b))
	})
}

// worst chooses who ceases to vote: never the leader; who is silent, whose site
// has most, the highest number.
func (e *electorate) worst(voters []placement.Server) placement.Server {
	return slices.MaxFunc(voters, func(a, b placement.Server) int {
		if a == e.self || b == e.self {
			return cmp.Compare(boolInt(a != e.self), boolInt(b != e.self))
		}
		return cmp.Or(cmp.Compare(boolInt(!e.live(a)), boolInt(!e.live(b))), cmp.Compare(e.inSite(a, voters), e.inSite(b, voters)), cmp.Compare(a, b))
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (e *electorate) inSite(id placement.Server, voters []placement.Server) int {
	n := 0
	for _, v := range voters {
		if srv := e.state.servers[v]; v != id && srv != nil && srv.Site == e.state.servers[id].Site {
			n++
		}
	}
	return n
}
