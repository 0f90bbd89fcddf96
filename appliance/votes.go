package appliance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"petal/appliance/api"
	"petal/cluster/meta"
)

// voteView is a voter as the cluster's health is judged by.
type voteView struct {
	name string
	down bool
}

// viewVotes are the voters. A node that is alone has nobody to agree with.
func viewVotes(s *meta.State) []voteView {
	if len(s.Servers()) < 2 {
		return nil
	}
	var out []voteView
	for _, id := range s.Conf().Voters {
		srv := s.Server(id)
		out = append(out, voteView{s.NameOf(id), srv == nil || !srv.Down.IsZero()})
	}
	return out
}

// pivotal are the voters none of which may fail: those that are up are a
// majority, and one fewer would be none. Without a majority no node gets a
// lease, and nothing is served, whatever the copies of the disks are like.
func pivotal(votes []voteView) []string {
	var up []string
	for _, v := range votes {
		if !v.down {
			up = append(up, v.name)
		}
	}
	if len(up) != len(votes)/2+1 {
		return nil
	}
	return up
}

// withVotes adds to what the failure of one more node would do to a disk that
// there would be no majority.
func withVotes(risks []api.Risk, votes []voteView) []api.Risk {
	for _, name := range pivotal(votes) {
		i := slices.IndexFunc(risks, func(r api.Risk) bool { return r.Node == name })
		if i < 0 {
			i, risks = len(risks), append(risks, api.Risk{Node: name})
		}
		risks[i].Percent, risks[i].Majority = 100, true
	}
	slices.SortFunc(risks, func(a, b api.Risk) int { return cmp.Compare(a.Node, b.Node) })
	return risks
}

// voteProblem says that one more failure would cost the majority, and what mends
// it; empty if it would not. replace is when a voter that is down loses its vote;
// others, whether somebody is there to get it.
func voteProblem(votes []voteView, replace time.Duration, others bool) string {
	up := pivotal(votes)
	if len(up) == 0 {
		return ""
	}
	if len(votes) == 1 {
		return fmt.Sprintf("only %s votes: its loss would stop the whole cluster; nodes that have joined get votes when they are up and have all that was agreed on", up[0])
	}
	var all, down []string
	for _, v := range votes {
		if all = append(all, v.name); v.down {
			down = append(down, v.name)
		}
	}
	s := fmt.Sprintf("of the voters %s only %s are up: the loss of one more would stop the whole cluster; start %s", strings.Join(all, ", "), strings.Join(up, ", "), strings.Join(down, ", "))
	if others {
		s += fmt.Sprintf(", or wait: another node votes in its place when it has been down for %v", replace)
	}
	return s
}

// spareVoters reports whether there are nodes that are up and do not vote.
func spareVoters(s *meta.State) bool {
	conf := s.Conf()
	return slices.ContainsFunc(s.Servers(), func(v *meta.Server) bool {
		return !conf.Voter(v.ID) && v.Down.IsZero() && v.Incarnation > 0 && !v.Leaving
	})
}

// voterAddresses are the voters with where the others look for them.
func voterAddresses(s *meta.State) string {
	var out []string
	for _, id := range s.Conf().Voters {
		text := s.NameOf(id)
		if srv := s.Server(id); srv != nil && len(srv.Addresses) > 0 {
			text += " (" + strings.Join(srv.Addresses, ", ") + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
