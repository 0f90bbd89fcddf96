package appliance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"petal/appliance/api"
)

// TestVotes: one more failure may cost the majority, and with it everything,
// also where it costs no copy.
func TestVotes(t *testing.T) {
	voters := func(down string, names ...string) (out []voteView) {
		for _, n := range names {
			out = append(out, voteView{n, strings.Contains(down, n)})
		}
		return out
	}
	for _, c := range []struct {
		name    string
		votes   []voteView
		others  bool
		risks   string
		problem string
	}{
		{"well", voters("", "n1", "n2", "n3"), true, "n2 25 lost", ""},
		{"alone", nil, false, "n2 25 lost", ""},
		{"one voter down", voters("n3", "n1", "n2", "n3"), true, "n1 100 majority; n2 100 majority lost",
			"of the voters n1, n2, n3 only n1, n2 are up: the loss of one more would stop the whole cluster; start n3, or wait: another node votes in its place when it has been down for 5m0s"},
		{"and nobody to replace it", voters("n3", "n1", "n2", "n3"), false, "n1 100 majority; n2 100 majority lost", "start n3"},
		{"one of five down", voters("n3", "n1", "n2", "n3", "n4", "n5"), true, "n2 25 lost", ""},
		{"one voter", voters("", "n1"), true, "n1 100 majority; n2 25 lost", "only n1 votes"},
		{"no majority", voters("n2 n3", "n1", "n2", "n3"), true, "n2 25 lost", ""},
	} {
		var got []string
		for _, r := range withVotes([]api.Risk{{Node: "n2", Percent: 25, Lost: true}}, c.votes) {
			s := fmt.Sprintf("%s %d", r.Node, r.Percent)
			if r.Majority {
				s += " majority"
			}
			if r.Lost {
				s += " lost"
			}
			got = append(got, s)
		}
		if s := strings.Join(got, "; "); s != c.risks {
			t.Errorf("%s: risks %q, want %q", c.name, s, c.risks)
		}
		switch s := voteProblem(c.votes, 5*time.Minute, c.others); {
		case (s == "") != (c.problem == ""), !strings.Contains(s, c.problem):
			t.Errorf("%s: problem %q, want %q", c.name, s, c.problem)
		case !c.others && strings.Contains(s, "or wait"):
			t.Errorf("%s: nobody is there to vote: %q", c.name, s)
		}
	}
}
